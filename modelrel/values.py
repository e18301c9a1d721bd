"""What a release is made of: a chain of frozen values, each holding the one it was made from.

`SourceModel` -> `ConvertedModel` -> `ParityReport`, and from there `delivered.Package` -> `SmokeReport` -> `Promotion`.
A report in hand is a report that passed; a failed gate raises `errors.Refused` instead.
Every path is relative to the release folder (`SourceModel.folder`) and uses `/`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Final, Literal, Union

from modelrel.measured import Coverage, Loss, OutputParity, Quantize, Tolerance, Units

if sys.version_info < (3, 10):  # noqa: UP036 - the worker in an old model's environment
    from modelrel.older import dataclass
else:
    from dataclasses import dataclass

DATATYPES: Final = (
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "FP32", "FP64", "BYTES",
)  # fmt: skip
"""Element types, by their Open Inference Protocol V2 names; BYTES holds text."""

Scalar = Union[str, int, float, bool]  # noqa: UP007 - `|` is no operator of types in Python 3.9


def digest(value: object) -> str:
    """Return the sha256 (hex) of the canonical JSON of `value` (sorted keys, no spaces, UTF-8)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file of a release: where (relative to the release folder), what (sha256, hex), how big (bytes)."""

    path: str
    sha256: str
    size: int


def digest_files(files: tuple[File, ...]) -> str:
    """Return one sha256 over names and contents of several files, independent of their order."""
    return digest(sorted([file.path, file.sha256] for file in files))


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """A named tensor: Open Inference datatype, shape with -1 for "any"; a data-frame column is [-1, 1].

    `required` is False for a column that the signature calls optional.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    required: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What goes in and what comes out, as logged: data-frame columns or one (or more) tensors.

    For `kind="columns"` each input is one column with shape (-1, 1). `outputs` may be empty. `name` tells which of a
    model's several it is, "" the one that it was logged with.
    """

    kind: Literal["columns", "tensor"]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...] = ()
    name: str = ""


def specs(plain: Iterable[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    """Rebuild tensors' specs from their JSON form; raises KeyError or TypeError where they are none."""
    return tuple(TensorSpec(**{**one, "shape": tuple(one["shape"])}) for one in plain)


def signature(plain: Mapping[str, Any]) -> Signature:
    """Rebuild a `Signature` from its JSON form; raises as `specs`."""
    inputs, outputs = specs(plain["inputs"]), specs(plain["outputs"])
    return Signature(kind=plain["kind"], inputs=inputs, outputs=outputs, name=plain.get("name", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A data set that the run logged: `path` is a file of this machine with its rows, or `unread` says why not."""

    name: str
    digest: str
    context: str = ""
    path: str = ""
    unread: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceModel:
    """One model version, pulled: its files under `source/`, and where it comes from.

    `signatures` are those of a SavedModel, by name.
    """

    folder: Path
    name: str
    version: str
    uri: str
    registry: str
    flavor: str
    flavors: tuple[str, ...]
    signature: Signature | None
    run_id: str = ""
    experiment: str = ""
    model_id: str = ""
    mlflow_version: str = ""
    python_version: str = ""
    requirements: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    git_commit: str = ""
    datasets: tuple[Dataset, ...] = ()
    input_example: str = ""
    files: tuple[File, ...] = ()
    signatures: Mapping[str, Signature] = field(default_factory=dict)

    @property
    def model_dir(self) -> Path:
        """The folder that holds the `MLmodel` file."""
        return self.folder / "source"

    @property
    def digest(self) -> str:
        """One sha256 over the model's files: the identity of what was pulled."""
        return digest_files(self.files)

    @property
    def label(self) -> str:
        """How people call it: `churn/7`."""
        return f"{self.name}/{self.version}" if self.version else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What a loaded model answers: its outputs by name, and which of them its own `predict` returns.

    `outputs` is empty where only an answer tells (a module of PyTorch). `classes` is empty unless it classifies;
    `estimator` is the class that does the work, as people know it.
    """

    outputs: tuple[str, ...]
    predict: str
    estimator: str
    classes: tuple[Scalar, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """How a server shows a model other than it was logged; nothing of it changes what the copy computes.

    `outputs` maps served names to the model's (empty: all, as they are); `pass_through` are fields ("name" or
    "name:DATATYPE") that come back as they were sent; `image` is the input that is sent as an encoded image, made
    the tensor's size by `resize` and its numbers by pixel * `scale` + `offset` (pixels are 0 to 255).
    """

    outputs: Mapping[str, str] = field(default_factory=dict)
    pass_through: tuple[str, ...] = ()
    image: str = ""
    resize: str = "bilinear"
    scale: str = "1"
    offset: str = "0"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedModel:
    """The copy: one file in a portable format, its tensors, and what wrote it.

    `predict` names the output that the original's `predict` returns; `classes` is empty unless it classifies.
    `notes` are sentences a person should know (for instance "computes in float32"). `handed_in` is the sha256 of the
    file that was given instead of converting, "" where modelrel converted. `adapter` is the file that says how the
    served inputs become those of the model's graph, where they are others. `served` names the signature that was
    chosen, "" for the one that was logged. `tool` wrote it instead of modelrel, where the user asked for that.
    `quantize` is how it was made smaller, "" where it was not; `exact_size` the bytes of the copy that was not;
    `units` which tensors of the file hold whole numbers for real ones. `allowed_pickle` is what the user allowed the
    pickles of the original to run, and was needed.
    """

    source: SourceModel
    format: str
    file: File
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    predict: str
    classes: tuple[Scalar, ...] = ()
    opsets: Mapping[str, int] = field(default_factory=dict)
    estimator: str = ""
    tools: Mapping[str, str] = field(default_factory=dict)
    hints: File | None = None
    adapter: File | None = None
    interface: Interface = Interface()
    notes: tuple[str, ...] = ()
    handed_in: str = ""
    tool: str = ""
    quantize: Quantize = ""
    exact_size: int = 0
    units: tuple[Units, ...] = ()
    served: str = ""
    allowed_pickle: tuple[str, ...] = ()

    @property
    def signature(self) -> Signature:
        """What goes into the original, and so into the copy."""
        found = self.source.signatures[self.served] if self.served else self.source.signature
        assert found is not None  # what has no signature was not converted
        return found

    @property
    def folder(self) -> Path:
        """The release folder."""
        return self.source.folder

    @property
    def path(self) -> Path:
        """Where the converted file is."""
        return self.folder / self.file.path

    @property
    def adapter_path(self) -> Path | None:
        """Where its adapter is, if it has one."""
        return self.folder / self.adapter.path if self.adapter else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityReport:
    """The proof that the copy answers as the original: rows, by where they come from, and the worst errors.

    `environment` is the digest of the one made for the original, "" where it ran beside modelrel. `ties` counts
    rows whose two highest probabilities are equal in the original; `labels_alone` those where only the label differs.
    `budget_s` is the time that asking could take, `coverage` what it was enough for. `loss` is what a smaller copy is
    judged by: then `outputs` are compared over its rows, against its budget.
    """

    converted: ConvertedModel
    tolerance: Tolerance
    rows: int
    sources: Mapping[str, int]
    batch_sizes: tuple[int, ...]
    outputs: tuple[OutputParity, ...]
    batch_max_abs_error: float
    original_us_per_row: float
    copy_us_per_row: float
    golden: File
    manifest: File
    data_sha256: str = ""
    findings: tuple[str, ...] = ()
    tools: Mapping[str, str] = field(default_factory=dict)
    environment: str = ""
    budget_s: float = 0.0
    coverage: tuple[Coverage, ...] = ()
    ties: int = 0
    labels_alone: int = 0
    loss: Union[Loss, None] = None  # noqa: UP007 - as above

    @property
    def source(self) -> SourceModel:
        """The model it is about."""
        return self.converted.source

    @property
    def disagreements(self) -> int:
        """How many answers differ, over all outputs."""
        return sum(output.disagreements for output in self.outputs)

    @property
    def max_abs_error(self) -> float:
        """The largest error of any output."""
        return max((output.max_abs_error for output in self.outputs), default=0.0)

    @property
    def complete(self) -> bool:
        """Whether all that could be asked was asked: more time would change nothing."""
        return all(one.asked >= one.of for one in self.coverage)


Operators = Literal["v5", "v3", "core"]
"""What trees are written with: ai.onnx.ml 5 TreeEnsemble, ai.onnx.ml 3 for older runtimes, or ai.onnx alone."""

EnvChoice = Literal["auto", "current", "model"]
"""Where the original runs: in the environment of modelrel, in one made from what the model recorded, or as fits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertOptions:
    """What the user asks of a conversion; `opset` 0 is the newest that converter and runtime both take.

    `copy` is a file that was converted elsewhere, taken instead of converting. `signature` is the one of a SavedModel
    that is served, "" its default. `tool` is to write the copy: "sklearn2pmml", "none" modelrel, "" as before.
    `data` holds rows to calibrate `quantize="int8"` on; its column `label` holds right answers, and is not read here.
    `place` is the folder below that of the format where the copy goes, "" for that itself. `allow_pickle` are globals
    (or files) of the original's pickles that are let through though nobody here knows them.
    """

    opset: int = 0
    operators: Operators = "v5"
    seconds: float = 600.0
    memory_bytes: int = 0
    env: EnvChoice = "auto"
    copy: Path | None = None
    interface: Interface = Interface()
    signature: str = ""
    tool: str = ""
    quantize: Quantize = ""
    data: Path | None = None
    label: str = ""
    place: str = ""
    allow_pickle: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    """What the user asks of a verification.

    `rows` is the least number of generated rows, `budget` the seconds for asking the original, `label` the column of
    `data` with the right answers, `loss` what a smaller copy may lose where that is not its mode's `LossBudget`.
    """

    tolerance: Tolerance = field(default_factory=Tolerance)
    rows: int = 1000
    seed: int = 0
    budget: float = 10.0
    data: Path | None = None
    label: str = ""
    loss: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 600.0
    memory_bytes: int = 0
    env: EnvChoice = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageOptions:
    """What the user asks of a package; empty means the target's default. A target names those it takes.

    `format` is that of the copy inside; `python` is `3.12`; `platform` is `linux/amd64`, `linux/arm64`, or both with
    a comma. `builder` is `engine`, `oci` or `auto`; `manifest` is `oci` or `docker`; `push` is where the image is
    meant to go (REGISTRY/NAME:TAG); `image` is the one that deploy files name instead of ours. `max_size` (bytes)
    refuses what is larger. `wheelhouse` is a folder of wheels that stands for the index. `values` are the target's
    own settings, by name.
    """

    format: str = ""
    python: str = ""
    platform: str = ""
    base_image: str = ""
    tags: tuple[str, ...] = ()
    render_only: bool = False
    builder: str = ""
    manifest: str = ""
    push: str = ""
    image: str = ""
    micro: bool = False
    max_size: int = 0
    wheelhouse: Path | None = None
    values: Mapping[str, str] = field(default_factory=dict)
    templates: Path | None = None

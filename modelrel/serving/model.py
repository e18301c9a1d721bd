"""A model folder, loaded and warm: named arrays in, named arrays out."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from . import adapters
from .answers import Refused
from .manifest import BrokenModel, Golden, Interface, Manifest, TensorSpec, inside, read_manifest
from .tensors import DTYPES, ONNX_TYPES, Array

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnxruntime

__all__ = ["BrokenModel", "InferenceFailed", "Model", "load_model"]

WARM_UP_RUNS: Final = 3
_WARNINGS_OFF: Final = 3  # onnxruntime's severity: 3 is errors only


class InferenceFailed(Exception):
    """The runtime could not compute a request that looked right; the cause is chained."""


class Model:
    """One loaded model.

    ``name``, ``version``, ``kind``, ``inputs``, ``outputs``, ``metadata`` are the manifest's; ``row_ms`` is how
    long the warm-up inference took per row, in milliseconds, once the first-run costs were paid.
    """

    def __init__(
        self, manifest: Manifest, session: onnxruntime.InferenceSession, adapter: adapters.Adapter | None = None
    ) -> None:
        self.name = manifest.name
        self.version = manifest.version
        self.kind = manifest.kind
        self.inputs = manifest.inputs
        self.outputs = manifest.outputs
        self.predict_output = manifest.predict
        self.classes = manifest.classes
        self.metadata = manifest.metadata
        self.row_ms = 0.0
        self._run = _bare_run(session)
        self._adapter = adapter
        self._interface = manifest.interface
        self._output_names = [spec.name for spec in manifest.outputs]

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute every output.

        ``inputs`` holds one array per input of the model, of its dtype and rank (strings as object arrays of ``str``).
        Raises ``InferenceFailed`` when the runtime refuses them.
        """
        return dict(zip(self._output_names, self.run(self._output_names, inputs), strict=True))

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """Compute the named outputs only, in that order.

        Raises ``InferenceFailed``, and ``Refused`` (400) for values that the model's adapter makes nothing of.
        """
        if self._interface is not None:
            return self._dressed(self._interface, outputs, feeds)
        return self._bare(outputs, feeds)

    def _dressed(self, interface: Interface, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """Compute outputs by their served names; what is passed through is not shown to the graph."""
        own = {name: array for name, array in feeds.items() if name not in interface.passed}
        computed = [name for name in outputs if name in interface.outputs]
        found = dict(zip(computed, self._bare([interface.outputs[name] for name in computed], own), strict=True))
        return [found[name] if name in found else feeds[name] for name in outputs]

    def _bare(self, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        if self._adapter is not None:
            return self._adapted(self._adapter, outputs, feeds)
        return self._computed(outputs, feeds)

    def _adapted(self, adapter: adapters.Adapter, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """Compute some rows after others, as the adapter asks for: what it makes of them is large."""
        count = len(next(iter(feeds.values())))
        found = []
        for at in range(0, max(count, 1), adapter.rows):
            try:
                some = adapter({name: array[at : at + adapter.rows] for name, array in feeds.items()})
            except adapters.BadInput as error:
                raise Refused(400, str(error)) from error
            found.append(self._computed(outputs, some))
        return found[0] if len(found) == 1 else [np.concatenate(parts) for parts in zip(*found, strict=True)]

    def _computed(self, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        try:
            results: list[Array] = self._run(outputs, feeds, None)
        except Exception as error:  # onnxruntime raises a dozen unrelated classes, ValueError and RuntimeError too
            raise InferenceFailed(f"the runtime refused a request to {self.name}/{self.version}") from error
        return results


def load_model(folder: str | Path, threads: int | None = None) -> Model:
    """Load a model folder and run it once, so that the first request is as quick as the thousandth.

    ``threads`` is how many threads compute one request. The default is one: it is the fastest for single rows (a forest
    of 100 trees: 5.5 against 7.1 microseconds with two), and leaves the other cores to other requests. Two are faster
    from some hundred rows a request on. Raises ``BrokenModel``.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BrokenModel(f"{folder} is not a folder")
    manifest = read_manifest(folder)
    adapter = _adapter(inside(folder, manifest.adapter)) if manifest.adapter else None
    session = _session(inside(folder, manifest.file), threads)
    _check_signature(manifest, session, adapter)
    model = Model(manifest, session, adapter)
    if manifest.golden is not None or adapter is None:  # zeros and empty strings are nothing to an adapter
        _warm_up(model, _example(folder, manifest))
    return model


def _adapter(path: Path) -> adapters.Adapter:
    try:
        return adapters.load(path)
    except adapters.BrokenAdapter as error:
        raise BrokenModel(str(error)) from error


def _session(path: Path, threads: int | None) -> onnxruntime.InferenceSession:
    # From 1.31 on, onnxruntime on Linux reports to its maker and keeps an identifier in the home folder. A released
    # model tells nobody where it runs; who wants that can set the variable to 0. It is read when the library loads.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _WARNINGS_OFF
    options.intra_op_num_threads = threads or 1
    options.inter_op_num_threads = 1
    # Spinning threads burn a core between requests, which a container is billed for and a neighbour misses.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # same family-less exceptions as in run()
        raise BrokenModel(f"{path} cannot be loaded: {_first_line(error)}") from error


def _bare_run(session: onnxruntime.InferenceSession) -> Callable[..., list[Array]]:
    """Return the compiled ``run``, without the Python around it.

    That Python checks again, input by input, what ``_check_signature`` and the protocols have checked: 9 of the 28
    microseconds of a model with 30 columns. The attribute is not public, so the public one stands in should it go.
    """
    compiled = getattr(session, "_sess", None)
    run: Callable[..., list[Array]] = getattr(compiled, "run", session.run)
    return run


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _check_signature(
    manifest: Manifest, session: onnxruntime.InferenceSession, adapter: adapters.Adapter | None
) -> None:
    """Compare what the manifest, or the adapter, promises with what the model file has. Raises ``BrokenModel``."""
    interface = manifest.interface or Interface({spec.name: spec.name for spec in manifest.outputs})
    sent = {spec.name: spec.datatype for spec in manifest.inputs if spec.name not in interface.passed}
    fed: Mapping[str, str] = adapter.gives if adapter else sent
    datatypes = {spec.name: spec.datatype for spec in manifest.outputs}
    given = {own: datatypes[name] for name, own in interface.outputs.items()}
    found_inputs = {node.name: ONNX_TYPES.get(node.type, node.type) for node in session.get_inputs()}
    found_outputs = {node.name: ONNX_TYPES.get(node.type, node.type) for node in session.get_outputs()}
    who = "adapter" if adapter else "manifest"
    for direction, by, expected, found in (
        ("input", who, fed, found_inputs),
        ("output", "manifest", given, found_outputs),
    ):
        for name, datatype in expected.items():
            if name not in found:
                raise BrokenModel(f"{manifest.file} has no {direction} {name!r}, which the {by} names")
            if found[name] != datatype:
                raise BrokenModel(
                    f"{manifest.file} has the {direction} {name!r} as {found[name]}, the {by} says {datatype}"
                )
    unnamed = sorted(found_inputs.keys() - fed.keys())
    if unnamed:
        raise BrokenModel(f"{manifest.file} needs the input {unnamed[0]!r}, which the {who} does not name")


def _example(folder: Path, manifest: Manifest) -> dict[str, Array]:
    """Return inputs to warm up with: the golden ones, or one row of zeros and empty strings."""
    if manifest.golden is None:
        return {spec.name: _zeros(spec) for spec in manifest.inputs}
    path = inside(folder, manifest.golden)
    try:
        golden = msgspec.json.decode(path.read_bytes(), type=Golden)
        return {
            spec.name: np.array(golden.inputs[spec.name], DTYPES[spec.datatype]).reshape(spec.shape)
            for spec in manifest.inputs
        }
    except KeyError as error:
        raise BrokenModel(f"{path} has no value for the input {error}") from error
    except (OSError, msgspec.DecodeError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise BrokenModel(f"{path} does not fit the model: {_first_line(error)}") from error


def _zeros(spec: TensorSpec) -> Array:
    shape = [1 if size < 0 else size for size in spec.shape]
    dtype: np.dtype[Any] = DTYPES[spec.datatype]
    return np.full(shape, "", dtype) if spec.datatype == "BYTES" else np.zeros(shape, dtype)


def _warm_up(model: Model, example: Mapping[str, Array]) -> None:
    """Run once to pay for allocation and lazy code, then some more to learn what a row costs."""
    rows = max(len(array) if array.ndim else 1 for array in example.values())
    try:
        model.predict(example)
        times = []
        for _ in range(WARM_UP_RUNS):  # the quickest counts: a machine that is starting a server is often busy
            started = time.perf_counter()
            model.predict(example)
            times.append(time.perf_counter() - started)
        model.row_ms = min(times) * 1e3 / max(rows, 1)
    except Refused as error:
        raise BrokenModel(f"the adapter of {model.name}/{model.version} refuses the golden rows: {error}") from error
    except InferenceFailed as error:
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise BrokenModel(f"{model.name}/{model.version} fails its first inference: {_first_line(cause)}") from error

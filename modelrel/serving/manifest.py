"""The file ``modelrel.json`` of a model folder: what the model is called, takes and gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

FILE_NAME: Final = "modelrel.json"

DEFAULT_SIGNATURE: Final = "serving_default"
"""The signature that answers where a request names none (TensorFlow's DEFAULT_SERVING_SIGNATURE_DEF_KEY)."""

Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES"
]
Name = Annotated[str, msgspec.Meta(min_length=1)]


class BrokenModel(Exception):
    """The model folder cannot be served; the message is one sentence that says which part of it is wrong."""


class TensorSpec(msgspec.Struct, frozen=True):
    """One input or output. ``shape`` has -1 where any size will do; the first dimension is the batch."""

    name: Name
    datatype: Datatype
    shape: tuple[Annotated[int, msgspec.Meta(ge=-1)], ...]
    required: bool = True


class Interface(msgspec.Struct, frozen=True):
    """How served names become the file's: served output -> output of the graph; and what is sent back as it came."""

    outputs: dict[str, str]
    passed: tuple[str, ...] = ()


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """``modelrel.json``, schema 1. ``predict`` names the output that MLflow's route returns as predictions.

    ``signature`` is the name of what is served of a model that has several; folders that differ in it are one model.
    """

    schema: Literal[1]
    name: Name
    version: Name
    signature: Name = DEFAULT_SIGNATURE
    format: Name
    file: Name
    adapter: Name | None = None
    interface: Interface | None = None
    kind: Literal["columns", "tensor"]
    inputs: Annotated[tuple[TensorSpec, ...], msgspec.Meta(min_length=1)]
    outputs: Annotated[tuple[TensorSpec, ...], msgspec.Meta(min_length=1)]
    predict: Name
    classes: tuple[str | int | float | bool, ...] | None = None
    golden: Name | None = None
    metadata: dict[str, object] = {}


class Golden(msgspec.Struct, frozen=True):
    """The example of a model folder: nested lists by tensor name. Only its inputs are used, to warm the model up."""

    inputs: dict[str, object]
    outputs: dict[str, object] = {}


def read_manifest(folder: Path) -> Manifest:
    """Read and check ``modelrel.json``. Raises ``BrokenModel`` when it is missing, malformed or contradicts itself."""
    path = folder / FILE_NAME
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except OSError as error:
        raise BrokenModel(f"{path} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BrokenModel(f"{path} is not a model manifest: {error}") from error
    for kind, specs in (("inputs", manifest.inputs), ("outputs", manifest.outputs)):
        names = [spec.name for spec in specs]
        if len(set(names)) != len(names):
            raise BrokenModel(f"{path} names one of its {kind} twice")
    if manifest.predict not in [spec.name for spec in manifest.outputs]:
        raise BrokenModel(f"{path} predicts {manifest.predict!r}, which is none of its outputs")
    if manifest.interface is not None:
        given = {*manifest.interface.outputs, *manifest.interface.passed}
        sent = {spec.name for spec in manifest.inputs}
        if given != {spec.name for spec in manifest.outputs} or not sent.issuperset(manifest.interface.passed):
            raise BrokenModel(f"{path} has an interface of other names than its inputs and outputs")
    if manifest.kind == "columns" and any(spec.shape != (-1, 1) for spec in manifest.inputs):
        raise BrokenModel(f"{path} is of kind columns, so each input must have the shape [-1, 1]")
    return manifest


def inside(folder: Path, name: str) -> Path:
    """Return the path of a file that the manifest names.

    Raises ``BrokenModel`` when it lies outside the folder (also by way of a link) or is no file.
    """
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise BrokenModel(f"{folder / FILE_NAME} names {name!r}, which lies outside the model folder")
    if not path.is_file():
        raise BrokenModel(f"{folder / FILE_NAME} names {name!r}, but there is no such file")
    return path

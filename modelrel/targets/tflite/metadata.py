"""What a TFLite file says about itself: names, descriptions, labels, ranges, and how pixels become numbers.

Source: TFLite metadata schema 1.5.0, `metadata_schema.fbs` of MediaPipe; the numbers of fields are those of its tables.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np

from modelrel import archive
from modelrel.errors import Refused
from modelrel.tensors import NUMPY
from modelrel.values import ConvertedModel, ParityReport, TensorSpec

ENTRY: Final = "TFLITE_METADATA"
"""The name of the entry of the model's own metadata."""

LABELS: Final = "labels.txt"

_IDENTIFIER: Final = b"M001"
_PARSER: Final = "1.0.0"
"""Every field that is written here has been there since this version of the schema."""

_AXIS_LABELS: Final = 2
_FEATURES: Final = 1
_IMAGE: Final = 2
_NORMALIZATION: Final = 1
_COLORS: Final = {"RGB": 1, "L": 2}
_CLOSE: Final = 1e-6
_OBSERVED: Final = "; the range is that of the golden rows"
_PIXELS: Final = np.arange(256, dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """How an image becomes a tensor: its size, its colours, and (pixel - `mean`) / `std` by channel."""

    width: int
    height: int
    color: Literal["RGB", "L"]
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """What is said of an input or an output; `low` and `high` are its range, `labels` the file that names its parts."""

    name: str
    description: str
    low: float | None = None
    high: float | None = None
    labels: str = ""
    image: Image | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What is said of a model, and of its tensors by name."""

    name: str
    description: str
    version: str
    author: str = ""
    license: str = ""
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    outputs: Mapping[str, Tensor] = field(default_factory=dict)


def said(parity: ParityReport) -> Said:
    """Return what the records know of a model. Raises `Refused` where its images cannot be described."""
    converted, source = parity.converted, parity.source
    golden = json.loads(archive.within(source.folder, parity.golden.path).read_bytes())
    tags = source.tags
    title = f"{converted.estimator or source.flavor} {source.label}, released by modelrel"
    proof = f"verified on {parity.rows:,} rows" + (f", made smaller by {converted.quantize}" * bool(converted.quantize))
    image = _image(converted)
    return Said(
        name=source.name,
        description=tags.get("mlflow.note.content", "").strip() or f"{title}, {proof}",
        version=source.version or source.run_id,
        author=tags.get("author", "") or tags.get("mlflow.user", ""),
        license=tags.get("license", "") or tags.get("licence", ""),
        inputs={name: _input(parity, name, golden["inputs"].get(name), image) for name in _fed(converted)},
        outputs={spec.name: _output(converted, spec, golden["outputs"].get(spec.name)) for spec in converted.outputs},
    )


def _fed(converted: ConvertedModel) -> tuple[str, ...]:
    """Return the names of the file's own inputs: behind an adapter they are others than the model's."""
    path = converted.adapter_path
    if path is None:
        return tuple(spec.name for spec in converted.inputs)
    return tuple(one["name"] for one in json.loads(path.read_bytes())["gives"])


def _input(parity: ParityReport, name: str, rows: object, image: Image | None) -> Tensor:
    converted = parity.converted
    known = {spec.name: spec for spec in converted.inputs}.get(name)
    if known is None or known.datatype == "BYTES":
        return Tensor(name=name, description="numbers that adapter.json makes of the model's columns")
    if image and name == converted.interface.image:
        text = f"{image.color} pixels, resized by {converted.interface.resize}"
        ends = _span(image)
        return Tensor(name=name, description=text, low=ends[0], high=ends[1], image=image)
    own = {spec.name: spec for spec in converted.signature.inputs}[name]
    what = "column" if converted.signature.kind == "columns" else "tensor"
    rounded = f", rounded to {known.datatype}" if known.datatype != own.datatype else ""
    optional = "" if own.required else ", may be a gap"
    low, high = _range(rows, known)
    optional += _OBSERVED if low is not None else ""
    return Tensor(name=name, description=f"{what} of {own.datatype}{rounded}{optional}", low=low, high=high)


def _output(converted: ConvertedModel, spec: TensorSpec, rows: object) -> Tensor:
    classes = len(converted.classes)
    floats = spec.datatype.startswith("FP")
    labelled = bool(classes) and floats and len(spec.shape) == 2 and spec.shape[1] == classes
    if labelled and spec.name == "probabilities":
        text = f"probability of each of {classes} classes"
        return Tensor(name=spec.name, description=text, low=0.0, high=1.0, labels=LABELS)
    what = "the predicted class" if spec.name == "label" and classes else f"answer, {spec.datatype}"
    if labelled:
        what = f"score of each of {classes} classes"
    low, high = _range(rows, spec)
    what += _OBSERVED if low is not None else ""
    return Tensor(name=spec.name, description=what, low=low, high=high, labels=LABELS if labelled else "")


def _range(rows: object, spec: TensorSpec) -> tuple[float | None, float | None]:
    """Return the least and the largest number of the golden rows; (None, None) without any."""
    if rows is None or NUMPY[spec.datatype].kind not in "fiu":
        return None, None
    numbers = np.array(rows, np.float64).astype(np.float32)
    finite = numbers[np.isfinite(numbers)]
    return (float(finite.min()), float(finite.max())) if finite.size else (None, None)


def _span(image: Image) -> tuple[float, float]:
    """Return the least and the largest number that a pixel becomes."""
    ends = [(pixel - mean) / std for pixel in (0, 255) for mean, std in zip(image.mean, image.std, strict=True)]
    return min(ends), max(ends)


def _image(converted: ConvertedModel) -> Image | None:
    """Return how images become numbers, None where none do; raises `Refused` for what the schema has no words for."""
    name, path = converted.interface.image, converted.adapter_path
    if not name or path is None:
        return None
    step = next(one for one in json.loads(path.read_bytes())["steps"] if one["kind"] == "image")
    scale, offset = np.array(step["scale"], np.float64), np.array(step["offset"], np.float64)
    if step["layout"] != "NHWC" or not scale.all():
        raise _undescribed(f"the image of {name!r} is {step['layout']} with the scale {step['scale']}")
    mean, std = (array.astype(np.float32) for array in (-offset / scale, 1 / scale))
    ours = _PIXELS[:, None] * scale.astype(np.float32) + offset.astype(np.float32)
    theirs = (_PIXELS[:, None] - mean) / std
    if not np.allclose(ours, theirs, rtol=_CLOSE, atol=_CLOSE):
        raise _undescribed(f"pixel * {step['scale']} + {step['offset']} is not (pixel - mean) / std in float32")
    height, width = step["size"]
    plain = [tuple(float(one) + 0.0 for one in array) for array in (mean, std)]  # -0.0 is 0.0
    return Image(width=width, height=height, color=step["mode"], mean=plain[0], std=plain[1])


def _undescribed(what: str) -> Refused:
    return Refused(
        f"{what}, which TFLite metadata cannot say",
        "Leave [interface] out for this target; the app makes the tensor itself.",
    )


def written(model: Said, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """Return the `ModelMetadata` flatbuffer; `inputs` and `outputs` are names in the order of the main subgraph."""
    import flatbuffers

    write = _Writer(flatbuffers.Builder(1024))
    sides = [
        write.vector([write.tensor(side[name]) for name in names])
        for side, names in ((model.inputs, inputs), (model.outputs, outputs))
    ]
    graph = write.table(10, {2: sides[0], 3: sides[1]})
    root = write.table(
        8,
        {
            0: write.text(model.name),
            1: write.text(model.description),
            2: write.text(model.version),
            3: write.vector([graph]),
            4: write.text(model.author),
            5: write.text(model.license),
            7: write.text(_PARSER),
        },
    )
    write.builder.Finish(root, _IDENTIFIER)
    return bytes(write.builder.Output())


@dataclass(frozen=True, slots=True)
class _Writer:
    """The few shapes of the schema that are needed; an offset of 0 is a field that is left out."""

    builder: Any

    def text(self, text: str) -> int:
        plain = text.replace("\0", " ")  # readers in C++ end a string there
        return int(self.builder.CreateString(plain, "utf-8", "replace")) if plain else 0

    def vector(self, offsets: Sequence[int]) -> int:
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return int(self.builder.EndVector())

    def floats(self, numbers: Sequence[float]) -> int:
        self.builder.StartVector(4, len(numbers), 4)
        for number in reversed(numbers):
            self.builder.PrependFloat32(number)
        return int(self.builder.EndVector())

    def table(self, fields: int, offsets: Mapping[int, int], numbers: Mapping[int, tuple[str, int]] = {}) -> int:
        """Write a table of so many fields; `numbers` are slot -> the builder's name of the type, and the value."""
        self.builder.StartObject(fields)
        for slot, offset in offsets.items():
            if offset:
                self.builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
        for slot, (kind, number) in numbers.items():
            getattr(self.builder, f"Prepend{kind}Slot")(slot, number, 0)
        return int(self.builder.EndObject())

    def tensor(self, one: Tensor) -> int:
        name, description = self.text(one.name), self.text(one.description)
        stats = units = files = 0
        if one.low is not None and one.high is not None:
            stats = self.table(2, {0: self.floats([one.high]), 1: self.floats([one.low])})
        if one.image:
            normal = self.table(2, {0: self.floats(one.image.mean), 1: self.floats(one.image.std)})
            units = self.vector([self.table(2, {1: normal}, {0: ("Uint8", _NORMALIZATION)})])
        if one.labels:
            described = self.text("the classes, one a line")
            file = self.table(5, {0: self.text(one.labels), 1: described}, {2: ("Int8", _AXIS_LABELS)})
            files = self.vector([file])
        content = self.content(one.image)
        return self.table(7, {0: name, 1: description, 3: content, 4: units, 5: stats, 6: files})

    def content(self, image: Image | None) -> int:
        if image is None:
            return self.table(3, {1: self.table(0, {})}, {0: ("Uint8", _FEATURES)})
        size = self.table(2, {}, {0: ("Uint32", image.width), 1: ("Uint32", image.height)})
        known = self.table(2, {1: size}, {0: ("Int8", _COLORS[image.color])})
        return self.table(3, {1: known}, {0: ("Uint8", _IMAGE)})

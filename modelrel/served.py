"""The served interface of a copy: outputs renamed or left out, fields passed through, images in place of a tensor.

The copy's file keeps the model's own names, and is compared with the original under them; a server shows the others.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np

from modelrel import extras, tensors
from modelrel.errors import Invalid, did_you_mean
from modelrel.serving import adapters
from modelrel.serving.adapters import image as images
from modelrel.tensors import Array, Predict, Tensors
from modelrel.values import DATATYPES, ConvertedModel, Interface, Signature, TensorSpec

_PIXELS: Final = {3: "RGB", 1: "L"}
_SIZES: Final = ((1.0, "PNG"), (2.5, "PNG"), (0.6, "PNG"), (1.7, "JPEG"))
"""Sizes, in those of the network's input, and formats of the images that are tried."""


def checked(interface: Interface, signature: Signature, outputs: tuple[TensorSpec, ...]) -> None:
    """Raise `Invalid` where the interface names an output, an input or a datatype that there is none of."""
    names = [spec.name for spec in outputs]
    for served, own in interface.outputs.items():
        if own not in names:
            raise Invalid(
                f"the model has no output {own!r} to serve as {served!r}",
                f"{did_you_mean(own, names)}It has {', '.join(names)}.",
            )
    served_outputs = list(interface.outputs) or names
    taken = {*served_outputs, *(spec.name for spec in signature.inputs)}
    for spec in passed(interface, signature.kind):
        if spec.name in taken:
            raise Invalid(f"{spec.name!r} cannot be passed through: the model has it already", "Choose another name.")
        if spec.datatype not in DATATYPES:
            raise Invalid(
                f"{spec.name!r} cannot be passed through as {spec.datatype!r}",
                f"{did_you_mean(spec.datatype, DATATYPES)}Datatypes: {', '.join(DATATYPES)}.",
            )
    if interface.image:
        _step(interface, signature.inputs)


def passed(interface: Interface, kind: str) -> tuple[TensorSpec, ...]:
    """Return the fields that are passed through: one value a row, text where no datatype is given."""
    found = []
    for field in interface.pass_through:
        name, _, datatype = field.partition(":")
        shape = (-1, 1) if kind == "columns" else (-1,)
        found.append(TensorSpec(name=name, datatype=datatype or "BYTES", shape=shape))
    return tuple(found)


def inputs(converted: ConvertedModel) -> tuple[TensorSpec, ...]:
    """Return what is sent to a server of the copy."""
    interface = converted.interface
    found = tuple(
        TensorSpec(name=spec.name, datatype="BYTES", shape=(-1,)) if spec.name == interface.image else spec
        for spec in converted.inputs
    )
    return (*found, *passed(interface, _kind(converted)))


def outputs(converted: ConvertedModel) -> tuple[TensorSpec, ...]:
    """Return what a server of the copy gives."""
    known = {spec.name: spec for spec in converted.outputs}
    found = tuple(replace(known[own], name=name) for name, own in _chosen(converted).items())
    return (*found, *passed(converted.interface, _kind(converted)))


def predict(converted: ConvertedModel) -> str:
    """Return the served output that stands for the original's `predict`: the first one where that is left out."""
    chosen = converted.interface.outputs
    own = [name for name, inner in chosen.items() if inner == converted.predict]
    return (own or list(chosen) or [converted.predict])[0]


def adapter(interface: Interface, inputs: tuple[TensorSpec, ...]) -> dict[str, object]:
    """Return the content of `adapter.json` for an interface with an image."""
    gives = [{"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)} for spec in inputs]
    return {"schema": adapters.SCHEMA, "steps": [_step(interface, inputs)], "gives": gives}


def dressed(converted: ConvertedModel, copy: Predict) -> Predict:
    """Return the copy as a server shows it: served inputs in, served outputs out."""
    interface = converted.interface
    path = converted.adapter_path
    ready = adapters.load(path) if interface.image and path else None
    through = [spec.name for spec in passed(interface, _kind(converted))]
    chosen = _chosen(converted)

    def served(rows: Tensors) -> dict[str, Array]:
        own = {name: array for name, array in rows.items() if name not in through}
        found = copy(ready(own) if ready else own)
        return {name: found[inner] for name, inner in chosen.items()} | {name: rows[name] for name in through}

    return served


def rows(converted: ConvertedModel, own: Tensors) -> dict[str, Array]:
    """Return N rows as they are sent to a server: those of the model, with images and passed fields made up."""
    found = dict(own)
    count = tensors.rows(own)
    for spec in passed(converted.interface, _kind(converted)):
        kind = tensors.NUMPY[spec.datatype]
        values = [f"row {row}" if kind.kind == "O" else row % 2 for row in range(count)]
        found[spec.name] = np.array(values, kind).reshape([count, *spec.shape[1:]])
    if name := converted.interface.image:
        spec = next(spec for spec in converted.inputs if spec.name == name)
        found[name] = pictures(spec, count)
    return {spec.name: found[spec.name] for spec in inputs(converted)}


def pictures(spec: TensorSpec, count: int) -> Array:
    """Return `count` encoded images as base64 text, (count,): coloured noise over gradients, of several sizes."""
    extras.load("PIL")
    from PIL import Image

    height, width, channels, _ = _layout(spec)
    random = np.random.default_rng(0)
    made = np.empty(count, object)
    for row in range(count):
        scale, form = _SIZES[row % len(_SIZES)]
        size = (max(int(height * scale), 1), max(int(width * scale), 1), channels)
        slope = np.linspace(0, 255, size[0])[:, None, None] * random.random(channels)
        pixels = np.clip(slope + random.normal(0, 60, size) * random.random(), 0, 255).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels if channels == 3 else pixels[:, :, 0]).save(stream, form)
        made[row] = base64.b64encode(stream.getvalue()).decode()
    return made


def manifest(converted: ConvertedModel) -> Mapping[str, object]:
    """Return the part of `modelrel.json` that says how served names become the file's; {} where they are the same."""
    interface = converted.interface
    through = [spec.name for spec in passed(interface, _kind(converted))]
    if not interface.outputs and not through:
        return {}
    return {"interface": {"outputs": dict(_chosen(converted)), "passed": through}}


def _chosen(converted: ConvertedModel) -> Mapping[str, str]:
    """Return served name -> the model's name of each output that is served."""
    return converted.interface.outputs or {spec.name: spec.name for spec in converted.outputs}


def _kind(converted: ConvertedModel) -> str:
    return converted.signature.kind


def _layout(spec: TensorSpec) -> tuple[int, int, int, str]:
    """Return height, width, channels and layout of an input of images; raises `Invalid` where it is none."""
    shape = spec.shape
    if len(shape) == 4 and spec.datatype in ("FP32", "UINT8"):
        if shape[3] in _PIXELS and min(shape[1:3]) > 0:
            return shape[1], shape[2], shape[3], "NHWC"
        if shape[1] in _PIXELS and min(shape[2:]) > 0:
            return shape[2], shape[3], shape[1], "NCHW"
    raise Invalid(
        f"the input {spec.name!r} is {spec.datatype} {list(shape)}, which is no image of a fixed size",
        "Images become FP32 or UINT8 of the shape [-1, height, width, 3 or 1] or [-1, 3 or 1, height, width].",
    )


def _step(interface: Interface, inputs: tuple[TensorSpec, ...]) -> dict[str, Any]:
    names = [spec.name for spec in inputs]
    if interface.image not in names:
        raise Invalid(
            f"the model has no input {interface.image!r} that could take an image",
            f"{did_you_mean(interface.image, names)}It has {', '.join(names)}.",
        )
    spec = inputs[names.index(interface.image)]
    height, width, channels, layout = _layout(spec)
    if interface.resize not in images.RESIZE:
        raise Invalid(
            f"images cannot be resized by {interface.resize!r}",
            f"{did_you_mean(interface.resize, images.RESIZE)}Choose {', '.join(images.RESIZE)}.",
        )
    return {
        "kind": "image",
        "takes": [spec.name],
        "gives": [spec.name],
        "size": [height, width],
        "mode": _PIXELS[channels],
        "resize": interface.resize,
        "layout": layout,
        "datatype": spec.datatype,
        "scale": _numbers("scale", interface.scale, channels),
        "offset": _numbers("offset", interface.offset, channels),
    }


def _numbers(name: str, said: str, channels: int) -> list[float]:
    """Return one number a channel from text: a number or a fraction ("1/255"), or one for each, by commas."""
    try:
        found = [float(top) / float(below or 1) for top, _, below in (one.partition("/") for one in said.split(","))]
    except (ValueError, ZeroDivisionError):
        found = []
    if len(found) == 1:
        found *= channels
    if len(found) != channels or not np.isfinite(found).all():
        raise Invalid(
            f"[interface] {name} is {said!r}, and an image of {channels} channels takes one number, or {channels}",
            f'Write for example {name} = "1/255", or {name} = "{", ".join(["0.5"] * channels)}".',
        )
    return found

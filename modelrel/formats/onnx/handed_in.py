"""A copy that somebody converted elsewhere: checked as what it is, untrusted, and fitted to the release's interface."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, NoReturn

import numpy as np
import onnx
from onnx import TensorProto, ValueInfoProto, helper

from modelrel import onnx_file
from modelrel.errors import Refused
from modelrel.formats.onnx import from_file
from modelrel.formats.onnx.graph import ELEMENT, Core
from modelrel.formats.onnx.opsets import NEWEST
from modelrel.formats.order import Order
from modelrel.tensors import Array, datatype, text
from modelrel.values import TensorSpec

PRODUCER: Final = "modelrel.handed_in_producer"
"""The key in the file's metadata under which the producer of the file as given is kept."""

_GIVEN: Final = "the file handed in"
_ROWS: Final = 3  # enough to tell a fixed number of rows from a free one
_OLDEST: Final = 7  # the first opset that onnxruntime runs
_USUAL: Final = {
    "label": ("label", "output_label"),
    "probabilities": ("probabilities", "output_probability"),
    "scores": ("scores",),
    "prediction": ("prediction", "variable"),
}
"""The names that converters give to outputs; they decide only where kind and shape leave a choice."""


def core(given: Path, order: Order, hints: Mapping[str, object]) -> tuple[Core, Order]:
    """Return the file as a core, and the order with what the file's metadata must keep.

    Raises `Refused` where it is no ONNX model, keeps data outside of itself, does not run, or where its inputs or
    outputs cannot be matched with the original's without a guess.
    """
    content = given.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    model = _read(content)
    zipped = _unmapped(model, order)
    merged = _enters(model, order)
    answered = _tried(model, order, merged=merged)
    outputs = _matched(answered, order)
    left = [name for name in answered if name not in outputs.values()]
    producer = " ".join(written_by(model)).strip()
    _typed(model, answered)
    notes = [*zipped, f"handed in, written by {producer or 'an unnamed tool'}; sha256 of the file as given: {digest}"]
    if left:
        notes.append(f"the original has no output like {', '.join(left)}, which the copy leaves out")
    made = Core(
        model=model, outputs=outputs, merged=merged, notes=tuple(notes), hints=hints, opsets=_opsets(model)
    )  # fmt: skip
    kept = {**order.metadata, PRODUCER: producer, "modelrel.handed_in_sha256": digest}
    return made, replace(order, metadata=kept)


def written_by(model: onnx.ModelProto) -> tuple[str, str]:
    """Return name and version of the tool that wrote a file; CatBoost gives a page of text that holds its version."""
    found = re.search(r"\d+(\.\d+)+\w*", model.producer_version)
    return model.producer_name, found.group() if found else " ".join(model.producer_version.split())[:40]


def _read(content: bytes) -> onnx.ModelProto:
    model = onnx_file.parsed(content, _GIVEN)
    onnx_file.refuse_outside(model, _GIVEN)
    return onnx_file.checked(model, _GIVEN)


def _unmapped(model: onnx.ModelProto, order: Order) -> list[str]:
    """Make a tensor of a list of maps (ZipMap); return what was done.

    Raises `Refused` where its columns are not the original's classes, in their order.
    """
    for name, (_, classes) in onnx_file.zipmaps(model).items():
        if tuple(classes) != order.answers.classes:
            raise Refused(
                f"the output {name} of the file handed in maps {classes[:5]}, and {order.answers.estimator} knows "
                f"{list(order.answers.classes[:5])}",
                "Convert with zipmap=False: options={id(model): {'zipmap': False}} in skl2onnx and onnxmltools.",
            )
    return from_file.unmapped(model)[1]


def _opsets(model: onnx.ModelProto) -> dict[str, int]:
    found = {"" if entry.domain == "ai.onnx" else entry.domain: entry.version for entry in model.opset_import}
    version = found.setdefault("", NEWEST)  # no operator of the file is of this domain; ours around it are
    if version < _OLDEST:
        raise Refused(f"the file handed in is of opset {version}", f"Convert with opset {_OLDEST} or newer.")
    return found


def _enters(model: onnx.ModelProto, order: Order) -> bool:
    """Put the file's inputs into the signature's order; return whether it takes all columns side by side."""
    constants = {constant.name for constant in model.graph.initializer}
    found = [value for value in model.graph.input if value.name not in constants]
    specs = order.signature.inputs
    if any(value.type.WhichOneof("value") != "tensor_type" for value in found):
        _misfit("takes an input that is no tensor", found, order)
    merged = len(found) == 1 and order.signature.kind == "columns"
    if merged:
        pairs = [(found[0], replace(spec, shape=(-1, len(specs)))) for spec in specs]
    elif len(found) != len(specs):
        _misfit(f"takes {len(found)} inputs", found, order)
    else:
        found = _in_order(found, order)
        pairs = list(zip(found, specs, strict=True))
    for value, spec in pairs:
        _fitting(value, spec, order)
    del model.graph.input[:]
    model.graph.input.extend(found)
    return merged


def _in_order(found: list[ValueInfoProto], order: Order) -> list[ValueInfoProto]:
    """Return inputs in the signature's order: by their names where these are the columns', else as they come."""
    specs = order.signature.inputs
    for cleaned in (False, True):  # skl2onnx makes identifiers of column names
        key = _identifier if cleaned else str
        named = {key(value.name): value for value in found}
        wanted = [key(spec.name) for spec in specs]
        if len(named) == len(found) and set(named) == set(wanted):
            return [named[name] for name in wanted]
    names = {spec.name for spec in specs}
    same = [value.name for value in found if value.name in names]
    if same:
        _misfit(f"names some inputs as the columns ({', '.join(same[:5])}) and others not", found, order)
    return found


def _identifier(name: str) -> str:
    return re.sub(r"\W", "_", name, flags=re.ASCII)


def _fitting(value: ValueInfoProto, spec: TensorSpec, order: Order) -> None:
    """Raise `Refused` where an input cannot take what the signature has for it."""
    tensor = value.type.tensor_type
    if (tensor.elem_type == TensorProto.STRING) != (spec.datatype == "BYTES"):
        _misfit(f"takes {_element(tensor.elem_type)} for {spec.name}, which is {spec.datatype}", [value], order)
    if not tensor.HasField("shape"):
        return
    sizes = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
    wanted = spec.shape if len(spec.shape) > 1 else (-1, 1)
    if sizes and sizes[0] > 0:
        raise Refused(
            f"the file handed in takes exactly {sizes[0]} rows at once (input {value.name})",
            "Convert with a free first dimension (None).",
        )
    alike = (size < 1 or want < 0 or size == want for size, want in zip(sizes[1:], wanted[1:], strict=False))
    if len(sizes) != len(wanted) or not all(alike):
        _misfit(f"takes the shape {sizes} for {value.name}, where it gets {list(wanted)}", [value], order)


def _misfit(what: str, found: list[ValueInfoProto], order: Order) -> NoReturn:
    mine = ", ".join(f"{value.name}: {_element(value.type.tensor_type.elem_type)}" for value in found[:8])
    needed = ", ".join(f"{spec.name}: {spec.datatype}{list(spec.shape)}" for spec in order.signature.inputs[:8])
    raise Refused(
        f"the file handed in {what}; it has {mine or 'no input'}, and the signature has {needed}",
        "It must take all columns in one [N, columns] tensor, or one [N, 1] input per column, in the signature's "
        "order or with its names.",
    )


def _tried(model: onnx.ModelProto, order: Order, *, merged: bool) -> dict[str, Array]:
    """Run the file on a few real rows; return its answers, which tell what each output is."""
    import onnxruntime

    specs = order.signature.inputs
    for value in model.graph.output:
        if value.type.WhichOneof("value") != "tensor_type":
            raise Refused(
                f"the output {value.name} of the file handed in is no tensor", "Convert it with tensors alone."
            )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    columns = [order.rows[spec.name][np.arange(_ROWS) % len(order.rows[spec.name])] for spec in specs]
    if merged:
        columns = [np.concatenate(columns, axis=1)]
    feeds = {value.name: _fed(value, array) for value, array in zip(model.graph.input, columns, strict=True)}
    names = [value.name for value in model.graph.output]
    try:
        loaded = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        found = dict(zip(names, map(np.asarray, loaded.run(names, feeds)), strict=True))
    except Exception as error:
        raise Refused(
            f"onnxruntime does not run the file handed in: {_line(error)}", "Convert it for this onnxruntime."
        ) from error
    for name, array in found.items():
        if array.ndim == 0 or len(array) != _ROWS:
            raise Refused(
                f"the output {name} of the file handed in has the shape {list(array.shape)} for {_ROWS} rows",
                "Each output must have one entry a row.",
            )
    return found


def _fed(value: ValueInfoProto, array: Array) -> Array:
    """Return rows as an input takes them; a missing text is empty, and one dimension is one value a row."""
    array = array.reshape(-1, 1) if array.ndim == 1 else array
    if value.type.tensor_type.elem_type == TensorProto.STRING:
        return text(["" if item is None else str(item) for item in array.ravel()], array.shape)
    return array.astype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))


def _matched(answered: Mapping[str, Array], order: Order) -> dict[str, str]:
    """Return the original's outputs -> the file's, by kind and shape, and by name only where these leave a choice."""
    matched: dict[str, str] = {}
    for name in order.answers.outputs:
        free = [mine for mine in answered if mine not in matched.values()]
        fitting = [mine for mine in free if _alike(name, answered[mine], order)]
        chosen = fitting if len(fitting) == 1 else [mine for mine in _USUAL.get(name, (name,)) if mine in fitting]
        if len(chosen) != 1:
            has = ", ".join(f"{mine}: {datatype(array.dtype)}{_per_row(array)}" for mine, array in answered.items())
            kind = order.shapes.get(name)
            needed = f"{kind.datatype}{list(kind.shape)}" if kind else "one entry a row"
            many = f"has {len(fitting)} outputs that could be" if fitting else "has no output that could be"
            raise Refused(
                f"the file handed in {many} the original's {name} ({needed}); it has {has}",
                f"It must give {', '.join(order.answers.outputs)} of {order.answers.estimator}, by these names.",
            )
        matched[name] = chosen[0]
    return matched


def _alike(name: str, array: Array, order: Order) -> bool:
    """Whether an answer of the file can be this output of the original."""
    kind = "text" if array.dtype.kind in "OUS" else "real" if array.dtype.kind == "f" else "whole"
    width = int(np.prod(array.shape[1:]))
    spec = order.shapes.get(name)
    if spec is None:
        return (kind != "real") == (name == "label")
    wanted = {"BYTES": {"text"}, "FP32": {"real"}, "FP64": {"real"}, "FP16": {"real"}}.get(spec.datatype, {"whole"})
    if spec.datatype.startswith("FP") and name == "label":
        wanted = {"real", "whole"}
    return kind in wanted and (-1 in spec.shape[1:] or width == int(np.prod(spec.shape[1:])))


def _typed(model: onnx.ModelProto, answered: Mapping[str, Array]) -> None:
    """Declare each output as what it turned out to be: some converters leave that open."""
    for value in model.graph.output:
        value.type.tensor_type.elem_type = ELEMENT[datatype(answered[value.name].dtype)]


def _per_row(array: Array) -> list[int]:
    return [-1, *array.shape[1:]]


def _element(number: int) -> str:
    return str(TensorProto.DataType.Name(number)).lower()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]

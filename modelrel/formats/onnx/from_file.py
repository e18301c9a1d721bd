"""A model that is an ONNX graph already: taken as it is, behind the release's interface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from modelrel import onnx_file
from modelrel.errors import Invalid, Refused
from modelrel.formats.onnx.graph import ELEMENT, Core
from modelrel.formats.onnx.opsets import NEWEST
from modelrel.formats.order import Order

_OLDEST: Final = 7  # the first opset that onnxruntime runs
_ROWS: Final = 3  # enough to tell a fixed number of rows from a free one


def write(native: Any, order: Order) -> Core:
    """Return a logged graph (`flavors.onnx.Graph`) as a core: its lists of maps become tensors, its rows free.

    Raises `Refused` where its inputs are not the signature's, it does not answer the rows at hand, an output has no
    datatype of the release, or it takes one row at once whatever it declares; `Invalid` for another opset than its own.
    """
    model = ModelProto()
    model.CopyFrom(native.model)
    opsets = _opsets(model, order)
    notes = [f"the graph as it was logged, written by {model.producer_name or 'an unnamed tool'}"]
    outputs, said = unmapped(model)
    notes += said
    found, merged = onnx_file.matched(model, order.signature)
    if order.rows and outputs.keys() - order.shapes.keys():
        raise Refused(  # what does not run inside the worker's limits shall not be run outside of them
            f"the {order.answers.estimator} does not answer the rows at hand",
            "Look with -v at what onnxruntime says; log it with the signature, and an input example, of what it takes.",
        )
    if any((onnx_file.sizes(value) or [-1])[0] == 1 for value in found):
        _free(model, found)
        notes.append("it takes one row at once; its first dimension is freed in the copy")
    for value in model.graph.output:
        if value.name in outputs.values() and value.type.tensor_type.elem_type not in ELEMENT.values():
            kind = TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
            raise Refused(f"the ONNX model answers {value.name} as {kind}, which no target gives", "Cast it to float.")
    entered = [_column(model, value) for value in found]
    del model.graph.input[:]
    model.graph.input.extend(entered)
    return Core(model=model, outputs=outputs, merged=merged, notes=tuple(notes), opsets=opsets)


def freed(order: Order) -> Order:
    """Return the order without those dimensions of outputs that the signature leaves to the rows."""
    if all(size >= 0 for spec in order.signature.inputs for size in spec.shape[1:]):
        return order
    shapes = {name: replace(spec, shape=(-1,) * len(spec.shape)) for name, spec in order.shapes.items()}
    return replace(order, shapes=shapes)


def _opsets(model: ModelProto, order: Order) -> dict[str, int]:
    found = {"" if entry.domain == "ai.onnx" else entry.domain: entry.version for entry in model.opset_import}
    version = found.setdefault("", NEWEST)  # no operator of the graph is of this domain; ours around it are
    if version < _OLDEST:
        raise Refused(f"the ONNX model is of opset {version}", f"Export it with opset {_OLDEST} or newer.")
    if order.opset not in (0, version):
        raise Invalid(
            f"the ONNX model is of opset {version}, and opset {order.opset} is asked for",
            "Leave out --opset, or export the model again.",
        )
    return found


def unmapped(model: ModelProto) -> tuple[dict[str, str], list[str]]:
    """Take ZipMap off the end of the graph; return the names of the outputs -> tensors, and sentences that say so."""
    maps = onnx_file.zipmaps(model)
    outputs = {value.name: maps[value.name][0] if value.name in maps else value.name for value in model.graph.output}
    if not maps:
        return outputs, []
    nodes = [node for node in model.graph.node if node.output[0] not in maps]
    kept = [value for value in model.graph.output if value.name not in maps]
    added = [
        helper.make_tensor_value_info(tensor, TensorProto.FLOAT, ["N", len(classes)])
        for tensor, classes in maps.values()
    ]
    for one, listed in ((model.graph.node, nodes), (model.graph.output, kept + added)):
        del one[:]
        one.extend(listed)
    return outputs, [f"{', '.join(maps)}: a tensor with a column for each class, instead of a list of maps (ZipMap)"]


def _free(model: ModelProto, found: Sequence[Any]) -> None:
    """Free the first dimension of inputs and outputs; raises `Refused` where the graph does not take more rows then."""
    for value in (*found, *model.graph.output):
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].Clear()
            value.type.tensor_type.shape.dim[0].dim_param = "N"
    del model.graph.value_info[:]
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    names = [value.name for value in model.graph.output]
    feeds = {value.name: _some(value) for value in found}
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        counts = {np.shape(array)[:1] for array in session.run(names, feeds)}
    except Exception as error:
        raise _single(found[0].name, onnx_file.line(error)) from error
    if counts != {(_ROWS,)}:
        raise _single(found[0].name, f"it answers {sorted(counts)} for {_ROWS} rows")


def _some(value: Any) -> Any:
    """Return a few rows of zeros, or of empty texts, for an input."""
    shape = [_ROWS, *(max(size, 1) for size in (onnx_file.sizes(value) or [1])[1:])]
    return np.zeros(shape, helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))


def _column(model: ModelProto, value: Any) -> Any:
    """Return an input as a matrix, which the release's interface gives; one of N values gets its shape back inside."""
    if onnx_file.sizes(value) is None or len(onnx_file.sizes(value) or []) != 1:
        return value
    taken = {name for node in model.graph.node for name in (*node.input, *node.output)}
    taken |= {one.name for one in (*model.graph.input, *model.graph.initializer)}
    name, shape = (f"{value.name}{end}" for end in ("_column", "_shape"))
    while name in taken or shape in taken:
        name, shape = f"{name}_", f"{shape}_"
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), shape))
    model.graph.node.insert(0, helper.make_node("Reshape", [name, shape], [value.name]))
    return helper.make_tensor_value_info(name, value.type.tensor_type.elem_type, ["N", 1])


def _single(name: str, said: str) -> Refused:
    return Refused(
        f"the ONNX model takes exactly 1 row at once (input {name}), and no more when that is freed: {said}",
        "Export it with a free first dimension.",
    )

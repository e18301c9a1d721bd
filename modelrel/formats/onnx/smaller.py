"""ONNX copies made smaller: weights of 16 or 8 bits, or whole layers of 8 bits.

`float16` and `dynamic` keep a weight matrix in float16, or in int8 with a scale for each of its columns, and widen it
when the model is loaded: only the weights are rounded. onnxruntime's own tools round more. Its `quantize_dynamic` takes
one scale for a whole batch (ONNX's DynamicQuantizeLinear), so that the answer to a row depends on the others; a graph
computed in float16 overflows at 65504, which many a column of a table is beyond. `int8` is its `quantize_static`,
calibrated on rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from modelrel import tensors
from modelrel.errors import Refused
from modelrel.formats.onnx import graph
from modelrel.formats.order import Order, refuse_trees
from modelrel.tensors import Array, Tensors

_LEAST: Final = 64
"""Numbers of a matrix that is worth it."""

_BATCH: Final = 32
_FLOATS: Final = (TensorProto.FLOAT, TensorProto.DOUBLE)
_LARGEST: Final = float(np.finfo(np.float16).max)
_LAYERS: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_BETWEEN: Final = ("Flatten", "MaxPool", "Relu", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
"""What hands whole numbers on as they are; all else computes in float32, Softmax and Sigmoid too."""


def made(model: ModelProto, order: Order) -> ModelProto:
    """Return the model as small as `order.quantize` asks, with the same inputs and outputs; `model` is used up.

    Raises `Refused` where there is nothing in it to make smaller, or int8 knows no form of it.
    """
    if any(node.op_type.startswith("TreeEnsemble") for node in model.graph.node):
        refuse_trees(order, "ONNX")
    if order.quantize == "int8":
        model = _layers(_narrowed(model), order)
    elif not _weights(model, eight=order.quantize == "dynamic"):
        raise _nothing(order)
    del model.graph.value_info[:], model.metadata_props[:]
    return graph.normalised(model, order)


def _nothing(order: Order) -> Refused:
    what = "layer of weights" if order.quantize == "int8" else f"matrix of {_LEAST} weights or more"
    return Refused(
        f"nothing in the ONNX copy of {order.answers.estimator} can be made smaller by {order.quantize}: "
        f"it holds no {what} that can",
        "Leave out --quantize.",
    )


def _weights(model: ModelProto, *, eight: bool) -> int:
    """Pack the weight matrices, and put in front what widens them; return how many there were."""
    nodes: list[NodeProto] = []
    axes = _axes(model.graph)
    packed = []
    for constant in model.graph.initializer:
        if constant.data_type not in _FLOATS or len(constant.dims) < 2 or np.prod(constant.dims) < _LEAST:
            continue
        weights = numpy_helper.to_array(constant)
        if constant.name not in axes or not np.isfinite(weights).all():
            continue
        if not eight and np.abs(weights).max() > _LARGEST:
            continue
        kept = _eight(constant, weights, axes[constant.name]) if eight else _sixteen(constant, weights)
        packed.append((constant, kept[0]))
        nodes += kept[1]
    for old, new in packed:
        model.graph.initializer.remove(old)
        model.graph.initializer.extend(new)
    after = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *after])
    return len(packed)


def _sixteen(constant: TensorProto, weights: Array) -> tuple[list[TensorProto], list[NodeProto]]:
    name = f"{constant.name}_16"
    widen = helper.make_node("Cast", [name], [constant.name], to=constant.data_type)
    return [numpy_helper.from_array(weights.astype(np.float16), name)], [widen]


def _eight(constant: TensorProto, weights: Array, axis: int) -> tuple[list[TensorProto], list[NodeProto]]:
    """Return weights as whole numbers of -127 to 127, with a scale for each place of an axis."""
    others = tuple(place for place in range(weights.ndim) if place != axis)
    largest = np.abs(weights).max(axis=others, keepdims=True)
    scale = np.maximum(np.where(largest > 0, largest / 127, 1.0).astype(weights.dtype), np.finfo(weights.dtype).tiny)
    whole = np.clip(np.rint(weights / scale), -127, 127).astype(np.int8)
    name = constant.name
    # Not DequantizeLinear, which onnxruntime runs again for each call: these two it computes once, when it loads.
    nodes = [
        helper.make_node("Cast", [f"{name}_8"], [f"{name}_wide"], to=constant.data_type),
        helper.make_node("Mul", [f"{name}_wide", f"{name}_scale"], [name]),
    ]
    return [numpy_helper.from_array(whole, f"{name}_8"), numpy_helper.from_array(scale, f"{name}_scale")], nodes


def _axes(inner: GraphProto) -> dict[str, int]:
    """Return, for each constant that a layer takes as its weights, the axis of what they are added up for.

    Other tables, such as what an encoder compares with, are left exact.
    """
    wide = {constant.name: len(constant.dims) for constant in inner.initializer}
    found: dict[str, int] = {}
    for node in inner.node:
        said = {one.name: one.i for one in node.attribute}
        second = {
            "MatMul": -1, "Gemm": 0 if said.get("transB") else 1, "Conv": 0, "ConvTranspose": 1, "LSTM": 1, "GRU": 1,
            "RNN": 1,
        }.get(node.op_type)  # fmt: skip
        if node.op_type == "Gather" and node.input[0] in wide:
            found.setdefault(node.input[0], 0)
        if second is None or node.domain not in ("", "ai.onnx"):
            continue
        recurrent = node.op_type in ("LSTM", "GRU", "RNN")
        for name in node.input[1 : 3 if recurrent else 2]:
            if name in wide:
                found.setdefault(name, second % wide[name])
        if node.op_type in ("MatMul", "Gemm") and wide.get(node.input[0], 0) >= 2:
            first = wide[node.input[0]] - 2 if node.op_type == "MatMul" else int(said.get("transA", 0) != 0)
            found.setdefault(node.input[0], first)
    return found


def _narrowed(model: ModelProto) -> ModelProto:
    """Compute in float32 what is computed in float64; the inputs and outputs stay as they are."""
    inner = model.graph
    names: dict[str, str] = {}
    before, after = [], []
    for value in inner.input:
        if value.type.tensor_type.elem_type == TensorProto.DOUBLE:
            names[value.name] = f"{value.name}_32"
            before.append(helper.make_node("Cast", [value.name], [names[value.name]], to=TensorProto.FLOAT))
    for value in inner.output:
        if value.type.tensor_type.elem_type == TensorProto.DOUBLE:
            names[value.name] = f"{value.name}_32"
            after.append(helper.make_node("Cast", [names[value.name]], [value.name], to=TensorProto.DOUBLE))
    _narrow(inner)
    for node in inner.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    nodes = [*before, *inner.node, *after]
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del inner.node[:], inner.value_info[:]
    inner.node.extend(copies)
    return model


def _narrow(inner: GraphProto) -> None:
    for constant in inner.initializer:
        _as_float(constant)
    for node in inner.node:
        for one in node.attribute:
            if one.type == onnx.AttributeProto.GRAPH:
                for value in (*one.g.input, *one.g.output):
                    if value.type.tensor_type.elem_type == TensorProto.DOUBLE:
                        value.type.tensor_type.elem_type = TensorProto.FLOAT
                del one.g.value_info[:]
                _narrow(one.g)
            elif one.type == onnx.AttributeProto.TENSOR and node.domain in ("", "ai.onnx"):
                _as_float(one.t)
            elif node.op_type == "Cast" and one.name == "to" and one.i == TensorProto.DOUBLE:
                one.i = TensorProto.FLOAT


def _as_float(constant: TensorProto) -> None:
    if constant.data_type == TensorProto.DOUBLE:
        with np.errstate(over="ignore"):
            narrow = numpy_helper.to_array(constant).astype(np.float32)
        constant.CopyFrom(numpy_helper.from_array(narrow, constant.name))


def _layers(model: ModelProto, order: Order) -> ModelProto:
    """Return the model with its layers in 8 bits, by onnxruntime's tool, with the ranges that the rows have."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    if not any(node.op_type in _LAYERS for node in model.graph.node):
        raise _nothing(order)
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{number}"  # the tool knows nodes by name, and the copies at the border have none
    with tempfile.TemporaryDirectory(prefix="modelrel-int8-") as work:
        given, written = Path(work, "given.onnx"), Path(work, "written.onnx")
        # it would ask for a pre-processing that takes another library, and that our graphs do not need
        model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
        given.write_bytes(model.SerializeToString(deterministic=True))
        _runs(given, order)
        quantize_static(
            given,
            written,
            _Reader(order.rows),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[*_LAYERS, *_BETWEEN],
            per_channel=True,
            # 7 bits for weights: sums of two products of 8 bits overflow on processors without VNNI instructions
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"QDQOpTypePerChannelSupportToAxis": {"MatMul": 1}},
        )
        made = onnx.load(written)
    if not any(node.op_type == "QuantizeLinear" for node in made.graph.node):
        raise _nothing(order)
    return made


def _runs(path: Path, order: Order) -> None:
    """Raise `Refused` where the graph has operators with no float32 form."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise Refused(
            f"the ONNX copy of {order.answers.estimator} has no int8 form, for it does not run in float32: "
            f"{' '.join(str(error).split())[:200]}",
            "Choose --quantize dynamic or float16, which leave the operators as they are.",
        ) from error


class _Reader:
    """Rows as onnxruntime's calibration reads them (its `CalibrationDataReader`): some at a time, then None."""

    def __init__(self, rows: Tensors) -> None:
        self._batches = self._each(rows)

    @staticmethod
    def _each(rows: Tensors) -> Iterator[dict[str, Array]]:
        for at in range(0, tensors.rows(rows), _BATCH):
            piece = tensors.take(rows, slice(at, at + _BATCH))
            yield {name: _fed(array) for name, array in piece.items()}

    def get_next(self) -> dict[str, Any] | None:
        """Return the next rows."""
        return next(self._batches, None)


def _fed(array: Array) -> Array:
    if array.dtype != object:
        return array
    return tensors.text(["" if item is None else item for item in array.ravel()], array.shape)

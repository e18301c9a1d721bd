"""ONNX graphs of numbers -> TensorFlow operators that TFLite has, in float32: pipelines that are not trees.

One function for each ONNX operator (onnx.ai/onnx/operators), with float64 read as float32. `verify` decides whether
float32 is enough for a model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from modelrel.errors import Refused
from modelrel.formats.onnx.tree_operators import read_back
from modelrel.formats.tflite import activations, convolutions, interface, resizing, support_vectors
from modelrel.formats.tflite.from_trees import leaves
from modelrel.values import TensorSpec

_ML: Final = "ai.onnx.ml"
_NUMBERS: Final = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
_WHOLE: Final = (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
_SHAPES: Final = ("Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten")


def function(
    model: ModelProto, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], estimator: str
) -> interface.Make:
    """Return what builds a model, whose inputs and outputs have the names of these, with TensorFlow.

    Raises `Refused` where it needs an operator that is not known here, naming all of them.
    """
    other = sorted({_name(node) for node in model.graph.node} - _OPERATORS.keys() - {"Constant"})
    if other:
        raise Refused(
            f"{estimator} has no converter to TFLite: it needs {', '.join(other)}, which has no form there",
            "Convert it to onnx, or release another estimator.",
        )

    return interface.built(lambda tf, given: _run(tf, model, given), inputs, outputs)


def _name(node: NodeProto) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type


@dataclass(frozen=True, slots=True)
class _Call:
    """One node: TensorFlow, what goes in, its attributes, and how many outputs it has."""

    tf: Any
    inputs: Sequence[Any]
    said: Mapping[str, Any]
    outputs: int = 1

    def get(self, name: str, otherwise: Any = None) -> Any:
        """Return an attribute."""
        return self.said.get(name, otherwise)

    def fixed(self, number: int, name: str = "") -> list[int] | None:
        """Return whole numbers that an input, or an attribute of older operators, fixes; None where there is none."""
        if len(self.inputs) > number and self.inputs[number] is not None:
            if not isinstance(self.inputs[number], np.ndarray):
                raise Refused("the model computes a shape from its rows, which TFLite does not", "Convert it to onnx.")
            return [int(value) for value in self.inputs[number].ravel()]
        found = self.said.get(name)
        return None if found is None else [int(value) for value in found]


def _run(tf: Any, model: ModelProto, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return every tensor of the graph."""
    fixed = {constant.name: _array(constant) for constant in model.graph.initializer}
    found: dict[str, Any] = {"": None, **given}
    idle = _idle(model)
    for node in model.graph.node:
        if node.output[0] in idle and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]]
            continue
        if (node.input or node.op_type == "Constant") and all(name in fixed for name in node.input):
            # What depends on no row is computed here, in float64.
            known = ReferenceEvaluator(node).run(None, {name: fixed[name] for name in node.input})
            fixed |= zip(node.output, known, strict=True)
            continue
        found |= {name: _narrowed(fixed[name]) for name in node.input if name in fixed}
        said = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        call = _Call(tf, [found[name] for name in node.input], said, len(node.output))
        answered = _OPERATORS[_name(node)](call)
        found |= zip(node.output, answered if isinstance(answered, tuple) else (answered,), strict=False)
    return found | {name: _narrowed(array) for name, array in fixed.items()}


def _idle(model: ModelProto) -> set[str]:
    """Return what casts to numbers give that are cast to whole ones again, with nothing but new shapes between.

    skl2onnx writes labels so. Left out, they are never numbers that int8 would round.
    """
    users: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    ends = {value.name for value in model.graph.output}

    def whole(name: str) -> bool:
        return name not in ends and all(
            _to(node) in _WHOLE or (node.op_type in _SHAPES and node.input[0] == name and whole(node.output[0]))
            for node in users.get(name, ())
        )

    return {node.output[0] for node in model.graph.node if _to(node) in _NUMBERS and whole(node.output[0])}


def _to(node: NodeProto) -> int:
    """Return the type that a Cast gives; 0 for other nodes."""
    return int(node.attribute[0].i) if node.op_type == "Cast" else 0


def _array(constant: onnx.TensorProto) -> Any:
    array = numpy_helper.to_array(constant)
    if array.dtype.kind in "OUS":
        return np.array([one.decode() if isinstance(one, bytes) else one for one in array.ravel()]).reshape(array.shape)
    return array


def _narrowed(array: Any) -> Any:
    with np.errstate(over="ignore"):
        return array.astype(np.float32) if array.dtype == np.float64 else array


def _cast(call: _Call) -> Any:
    kind = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(call.said["to"]))
    if kind.kind in "OUS":
        raise Refused("the model makes text of numbers, which TFLite does not", "Convert it to onnx.")
    kind = np.dtype(np.float32) if kind == np.float64 else kind
    (x,) = call.inputs
    return x.astype(kind) if isinstance(x, np.ndarray) else call.tf.cast(x, kind)


def _reshaped(call: _Call) -> Any:
    x, tf = call.inputs[0], call.tf
    if len(call.inputs) > 1 and not isinstance(call.inputs[1], np.ndarray):
        return tf.reshape(x, tf.cast(call.inputs[1], tf.int32))
    shape = call.fixed(1, "shape") or []
    return tf.reshape(x, [tf.shape(x)[place] if size == 0 else size for place, size in enumerate(shape)])


def _gathered(call: _Call) -> Any:
    x, index = call.inputs
    return call.tf.gather(x, index, axis=int(call.get("axis", 0)))


def _extracted(call: _Call) -> Any:
    """Pick columns: ai.onnx.ml ArrayFeatureExtractor works on the last axis, and gives (1, n) for a vector."""
    x, index = call.inputs
    found = call.tf.gather(x, call.tf.reshape(index, [-1]), axis=-1)
    return found if len(x.shape) > 1 else call.tf.reshape(found, [1, -1])


def _gathered_elements(call: _Call) -> Any:
    x, index = call.inputs
    axis = int(call.get("axis", 0))
    if axis != len(x.shape) - 1 or len(x.shape) > 2:
        raise Refused("the model picks elements along another axis than the last", "Convert it to onnx.")
    return call.tf.gather(x, index, axis=axis, batch_dims=axis)


def _reduced(name: str) -> Callable[[_Call], Any]:
    def reduce(call: _Call) -> Any:
        axes = call.fixed(1, "axes")
        kept = bool(call.get("keepdims", 1))
        x = call.inputs[0]
        if name == "sum_square":
            return call.tf.reduce_sum(x * x, axis=axes, keepdims=kept)
        return getattr(call.tf, f"reduce_{name}")(x, axis=axes, keepdims=kept)

    return reduce


def _largest(name: str) -> Callable[[_Call], Any]:
    def find(call: _Call) -> Any:
        axis = int(call.get("axis", 0))
        x = call.inputs[0]
        if x.dtype not in (call.tf.float32, np.float32):
            x = call.tf.cast(x, call.tf.float32)
        found = getattr(call.tf, name)(x, axis=axis, output_type=call.tf.int64)
        return call.tf.expand_dims(found, axis) if call.get("keepdims", 1) else found

    return find


def _folded(name: str) -> Callable[[_Call], Any]:
    def fold(call: _Call) -> Any:
        total = call.inputs[0]
        for more in call.inputs[1:]:
            total = getattr(call.tf, name)(total, more)
        return total

    return fold


def _plain(name: str) -> Callable[[_Call], Any]:
    def answer(call: _Call) -> Any:
        room = call.tf
        for part in name.split("."):
            room = getattr(room, part)
        return room(*call.inputs)

    return answer


def _product(call: _Call) -> Any:
    a, b = call.inputs
    if len(b.shape) > 1:
        return call.tf.matmul(a, b)
    return call.tf.squeeze(call.tf.matmul(a, call.tf.reshape(b, [-1, 1])), axis=[-1])


def _trees(call: _Call) -> Any:
    """Return the sums of an ai.onnx.ml TreeEnsemble, as they are added in float32."""
    tf, x = call.tf, call.inputs[0]
    if int(call.get("aggregate_function", 1)) != 1 or int(call.get("post_transform", 0)):
        raise Refused("the model averages trees inside an operator", "Convert it to onnx.")
    forest, targets, count = read_back.forest(call.said)
    values = tf.gather(forest.leaves[:, 0].astype(np.float32), leaves(tf, x, forest))
    if count == len(targets) and np.array_equal(targets, np.arange(count)):
        return values
    columns = [
        tf.reduce_sum(tf.gather(values, np.flatnonzero(targets == column).astype(np.int32), axis=1), axis=1)[:, None]
        for column in range(count)
    ]
    return tf.concat(columns, axis=1) if count > 1 else columns[0]


def _multiplied(call: _Call) -> Any:
    """Return alpha * A' @ B' + beta * C."""
    a, b, *rest = call.inputs
    product = call.tf.matmul(a, b, transpose_a=bool(call.get("transA", 0)), transpose_b=bool(call.get("transB", 0)))
    product = product * np.float32(call.get("alpha", 1.0))
    return product + rest[0] * np.float32(call.get("beta", 1.0)) if rest and rest[0] is not None else product


def _line(call: _Call) -> Any:
    """Return ai.onnx.ml LinearRegressor's sums, one column for each target."""
    if call.get("post_transform", b"NONE") != b"NONE":
        raise Refused("the model changes its sums inside an operator", "Convert it to onnx.")
    targets = int(call.get("targets", 1))
    weights = np.array(call.said["coefficients"], np.float32).reshape(targets, -1)
    found = call.tf.matmul(call.tf.cast(call.inputs[0], call.tf.float32), weights, transpose_b=True)
    return found + np.array(call.get("intercepts", [0.0] * targets), np.float32)


def _best(call: _Call) -> Any:
    x = call.inputs[0]
    (count,) = call.fixed(1) or [1]
    if int(call.get("axis", -1)) not in (-1, len(x.shape) - 1):
        raise Refused("the model sorts along another axis than the last", "Convert it to onnx.")
    sign = 1 if call.get("largest", 1) else -1
    values, places = call.tf.math.top_k(x * np.float32(sign), count, sorted=True)
    return values * np.float32(sign), call.tf.cast(places, call.tf.int64)


def _spread(call: _Call) -> Any:
    value = call.get("value")
    fill = np.float32(0) if value is None else _narrowed(numpy_helper.to_array(value)).ravel()[0]
    return call.tf.fill(call.inputs[0], fill)


def _scattered(call: _Call) -> Any:
    """Add the cells of each row of a matrix to it."""
    tf, (x, columns, values) = call.tf, call.inputs
    if int(call.get("axis", 0)) != 1 or call.get("reduction") != b"add":
        raise Refused("the model puts numbers into a matrix, which TFLite only adds", "Convert it to onnx.")
    columns = tf.cast(columns, tf.int32)
    rows = tf.range(tf.shape(columns)[0])[:, None] + tf.zeros_like(columns)
    return x + tf.scatter_nd(tf.stack([rows, columns], axis=2), values, tf.shape(x))


def _sliced(call: _Call) -> Any:
    starts, ends = call.fixed(1) or [], call.fixed(2) or []
    axes = call.fixed(3) or list(range(len(starts)))
    steps = call.fixed(4) or [1] * len(starts)
    index: list[Any] = [slice(None)] * len(call.inputs[0].shape)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        index[axis] = slice(start, None if end >= 2**31 else end, step)
    return call.inputs[0][tuple(index)]


def _squeezed(call: _Call) -> Any:
    return call.tf.squeeze(call.inputs[0], axis=call.fixed(1, "axes"))


def _unsqueezed(call: _Call) -> Any:
    x = call.inputs[0]
    for axis in sorted(call.fixed(1, "axes") or []):
        x = call.tf.expand_dims(x, axis)
    return x


def _flat(call: _Call) -> Any:
    return call.tf.reshape(call.inputs[0], [call.tf.shape(call.inputs[0])[0], -1])


_OPERATORS: Final[dict[str, Callable[[_Call], Any]]] = {
    "Abs": _plain("abs"),
    "Add": _plain("add"),
    "And": _plain("logical_and"),
    "ArgMax": _largest("argmax"),
    "ArgMin": _largest("argmin"),
    "Cast": _cast,
    "Concat": lambda call: call.tf.concat(list(call.inputs), axis=int(call.said["axis"])),
    "ConstantOfShape": _spread,
    "Cos": _plain("cos"),
    "CumSum": lambda call: call.tf.cumsum(call.inputs[0], axis=(call.fixed(1) or [0])[0]),
    "Div": _plain("divide"),
    "Equal": _plain("equal"),
    "Exp": _plain("exp"),
    "Expand": _plain("broadcast_to"),
    "Flatten": _flat,
    "Floor": _plain("floor"),
    "Gather": _gathered,
    "GatherElements": _gathered_elements,
    "Gemm": _multiplied,
    "Greater": _plain("greater"),
    "GreaterOrEqual": _plain("greater_equal"),
    "Identity": lambda call: call.inputs[0],
    "IsNaN": _plain("math.is_nan"),
    "Less": _plain("less"),
    "LessOrEqual": _plain("less_equal"),
    "Log": _plain("math.log"),
    "MatMul": _product,
    "Max": _folded("maximum"),
    "Min": _folded("minimum"),
    "Mul": _plain("multiply"),
    "Neg": _plain("negative"),
    "Not": _plain("logical_not"),
    "Or": _plain("logical_or"),
    "Pow": lambda call: call.tf.pow(call.inputs[0], call.tf.cast(call.inputs[1], call.inputs[0].dtype)),
    "Reciprocal": lambda call: 1.0 / call.inputs[0],
    "ReduceLogSumExp": _reduced("logsumexp"),
    "ReduceMax": _reduced("max"),
    "ReduceMean": _reduced("mean"),
    "ReduceMin": _reduced("min"),
    "ReduceProd": _reduced("prod"),
    "ReduceSum": _reduced("sum"),
    "ReduceSumSquare": _reduced("sum_square"),
    "Relu": _plain("nn.relu"),
    "Reshape": _reshaped,
    "ScatterElements": _scattered,
    "Resize": resizing.resized,
    "Shape": lambda call: call.tf.shape(call.inputs[0], out_type=call.tf.int64)[call.get("start", 0) : call.get("end")],
    "Sigmoid": _plain("sigmoid"),
    "Sign": _plain("sign"),
    "Sin": _plain("sin"),
    "Slice": _sliced,
    "Softmax": lambda call: call.tf.nn.softmax(call.inputs[0], axis=int(call.get("axis", -1))),
    "Sqrt": _plain("sqrt"),
    "Squeeze": _squeezed,
    "Sub": _plain("subtract"),
    "Sum": _folded("add"),
    "Tanh": _plain("tanh"),
    "TopK": _best,
    "Transpose": lambda call: call.tf.transpose(call.inputs[0], call.get("perm")),
    "Unsqueeze": _unsqueezed,
    "Where": _plain("where"),
    **activations.OPERATORS,
    **convolutions.OPERATORS,
    f"{_ML}.ArrayFeatureExtractor": _extracted,
    f"{_ML}.LinearRegressor": _line,
    f"{_ML}.SVMClassifier": lambda call: support_vectors.classes(call.tf, call.inputs[0], call.said),
    f"{_ML}.SVMRegressor": lambda call: support_vectors.score(call.tf, call.inputs[0], call.said),
    f"{_ML}.TreeEnsemble": _trees,
}
"""ONNX operator -> what makes it of TensorFlow's."""

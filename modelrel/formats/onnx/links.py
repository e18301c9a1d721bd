"""From the sums of trees to answers: link functions, labels, and the graph around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from onnx import TensorProto, helper

from modelrel.formats.onnx.graph import DOMAIN_ML, Core, Nodes
from modelrel.formats.onnx.opsets import ML_TREES, NEWEST
from modelrel.formats.order import Order
from modelrel.values import Scalar

INPUT: Final = "X"
"""The core's one input: all features side by side, float64 (N, features)."""


def core(nodes: Nodes, order: Order, outputs: Mapping[str, tuple[str, int]], hints: Mapping[str, object]) -> Core:
    """Return the core that `nodes` makes of INPUT; `outputs` are name -> (tensor, element type)."""
    graph = helper.make_graph(
        nodes.nodes,
        "core",
        [helper.make_tensor_value_info(INPUT, TensorProto.DOUBLE, [None, None])],
        [helper.make_tensor_value_info(tensor, element, None) for tensor, element in outputs.values()],
        initializer=nodes.constants,
    )
    opsets = [helper.make_opsetid("", order.opset or NEWEST), helper.make_opsetid(DOMAIN_ML, ML_TREES)]
    return Core(
        model=helper.make_model(graph, opset_imports=opsets),
        outputs={name: tensor for name, (tensor, _) in outputs.items()},
        merged=True,
        hints=hints,
    )


def sigmoid(nodes: Nodes, raw: str, slope: float = 1.0) -> str:
    """Return 1 / (1 + exp(-slope * raw))."""
    return nodes.add("Sigmoid", raw if slope == 1 else nodes.add("Mul", raw, nodes.constant(float(slope))))


def log1p(nodes: Nodes, value: str) -> str:
    """Return log(1 + value) for values from 0 on, to the last bits of small ones too (Kahan's correction)."""
    one = nodes.constant(1.0)
    above_one = nodes.add("Add", value, one)
    kept = nodes.add("Sub", above_one, one)
    lost, large = nodes.add("Equal", kept, nodes.constant(0.0)), nodes.add("Greater", value, nodes.constant(2.0**53))
    ratio = nodes.add("Div", value, nodes.add("Where", lost, one, kept))
    found = nodes.add("Mul", nodes.add("Log", above_one), nodes.add("Where", large, one, ratio))
    return nodes.add("Where", lost, value, found)


def both(nodes: Nodes, positive: str, kind: Any = np.float64) -> str:
    """Return (1 - p, p) as (N, 2) from p as (N, 1), which is of the dtype `kind`."""
    return nodes.add("Concat", nodes.add("Sub", nodes.constant(1.0, kind), positive), positive, axis=1)


def largest(nodes: Nodes, scores: str) -> str:
    """Return the number of the largest column, the first of equal ones: int64 (N,)."""
    return nodes.add("ArgMax", scores, axis=1, keepdims=0, select_last_index=0)


def above(nodes: Nodes, value: str, limit: str, *, or_equal: bool = False) -> str:
    """Return 1 where `value` (N, 1) is above `limit`, else 0: int64 (N,)."""
    return compared(nodes, "GreaterOrEqual" if or_equal else "Greater", value, limit)


def compared(nodes: Nodes, operator: str, value: str, limit: str) -> str:
    """Return 1 where the operator holds for `value` (N, 1) and `limit`, else 0: int64 (N,)."""
    over = nodes.add(operator, value, limit)
    return nodes.add("Reshape", nodes.cast(over, TensorProto.INT64), nodes.constant([-1], np.int64))


def labels(nodes: Nodes, index: str, classes: Sequence[Scalar]) -> str:
    """Return the label of each class number."""
    return nodes.add("Gather", nodes.constant(_known(classes)), index, axis=0)


def element(classes: Sequence[Scalar]) -> int:
    """Return the element type of the labels."""
    known = _known(classes)
    return int(TensorProto.STRING if known.dtype.kind == "O" else helper.np_dtype_to_tensor_dtype(known.dtype))


def _known(classes: Sequence[Scalar]) -> Any:
    return np.array(classes, object if isinstance(classes[0], str) else None)

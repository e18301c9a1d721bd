"""Scalers kept apart from the layers behind them, in graphs whose weights are rounded.

TensorFlow's converter multiplies what scales a layer's input into the layer's weights. In float32 that is as good; but
where columns have very different sizes, so have the weights then, and the small ones are lost in 8 bits. (In int8,
what goes into the scaler is in 8 bits already, and each step more costs.)
"""

from __future__ import annotations

from typing import Final

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

_SCALES: Final = ("Div", "Mul")
_PASSED: Final = ("Cast", "Identity", "Reshape")


def apart(model: ModelProto) -> ModelProto:
    """Return a copy of the model in which layers take scaled inputs cut in two and joined again.

    That changes no number, and the converter multiplies nothing through it.
    """
    found = ModelProto.FromString(model.SerializeToString())
    graph = found.graph
    made = {name: node for node in graph.node for name in node.output}
    wide = {constant.name: tuple(constant.dims) for constant in graph.initializer}
    nodes: list[NodeProto] = []
    for number, node in enumerate(graph.node):
        weights = wide.get(node.input[1], ()) if node.op_type in ("MatMul", "Gemm") else ()
        if len(weights) == 2 and weights[0] > 1 and not _said(node, "transB") and _scaled(node.input[0], made):
            name = f"modelrel_apart_{number}"
            places = {f"{name}_0": 0, f"{name}_half": weights[0] // 2, f"{name}_all": weights[0], f"{name}_axis": 1}
            graph.initializer.extend(numpy_helper.from_array(np.array([at]), key) for key, at in places.items())
            start, half, end, axis = places
            for ends, part in (((start, half), f"{name}_a"), ((half, end), f"{name}_b")):
                nodes.append(helper.make_node("Slice", [node.input[0], *ends, axis], [part]))
            nodes.append(helper.make_node("Concat", [f"{name}_a", f"{name}_b"], [name], axis=1))
            node.input[0] = name
        nodes.append(NodeProto.FromString(node.SerializeToString()))
    del graph.node[:]
    graph.node.extend(nodes)
    return found


def _scaled(name: str, made: dict[str, NodeProto]) -> bool:
    node = made.get(name)
    while node is not None and node.op_type in _PASSED:
        node = made.get(node.input[0])
    return node is not None and node.op_type in _SCALES


def _said(node: NodeProto, name: str) -> int:
    return next((int(one.i) for one in node.attribute if one.name == name), 0)

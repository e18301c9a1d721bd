"""ONNX files made by hand, and the models that hold them as MLflow's onnx flavor would: for files that are hostile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from modelrel.values import SourceModel
from tests.models import pulled

ONE = TensorProto.FLOAT


def held(folder: Path, content: bytes) -> SourceModel:
    """Return a model whose model.onnx is `content`, and whose signature is one float32 tensor x (N, 3)."""
    top = folder / "source"
    top.mkdir(parents=True)
    (top / "model.onnx").write_bytes(content)
    inputs = [{"type": "tensor", "name": "x", "tensor-spec": {"dtype": "float32", "shape": [-1, 3]}}]
    (top / "MLmodel").write_text(
        "flavors:\n  onnx:\n    data: model.onnx\n  python_function:\n    loader_module: mlflow.onnx\n"
        f"signature:\n  inputs: '{json.dumps(inputs)}'\n"
    )
    return pulled(folder, "onnx")


def graph(*nodes: Any, constants: Any = (), functions: Any = (), domains: Any = ()) -> ModelProto:
    """Return a model from x (N, 3) to y (N, 3), whose last node gives y."""
    made = helper.make_graph(
        list(nodes) or [helper.make_node("Abs", ["x"], ["y"])],
        "made",
        [helper.make_tensor_value_info("x", ONE, ["N", 3])],
        [helper.make_tensor_value_info("y", ONE, ["N", 3])],
        initializer=list(constants),
    )
    opsets = [helper.make_opsetid("", 18), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(made, opset_imports=opsets, ir_version=8, functions=list(functions))


def added(constant: TensorProto) -> ModelProto:
    """Return a model that adds a constant to x."""
    return graph(helper.make_node("Add", ["x", constant.name], ["y"]), constants=[constant])


def elsewhere(location: str, length: int = 12, offset: int = 0) -> bytes:
    """Return a model whose constant (3,) lies in another file."""
    constant = TensorProto(name="k", dims=[3], data_type=ONE, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": str(offset), "length": str(length)}.items():
        constant.external_data.add(key=key, value=value)
    return added(constant).SerializeToString()


def nested(depth: int) -> bytes:
    """Return a model of so many If inside one another; the bytes are put together here, for no library goes so deep."""
    body = _body(helper.make_node("Neg", ["x"], ["y0"]).SerializeToString(), "y0")
    other = _body(helper.make_node("Abs", ["x"], ["e"]).SerializeToString(), "e")
    for level in range(1, depth + 1):
        node = helper.make_node("If", ["c"], [f"y{level}"]).SerializeToString()
        for name, inner in {"then_branch": body, "else_branch": other}.items():
            kind = AttributeProto(name=name, type=AttributeProto.GRAPH).SerializeToString()
            node += _field(NodeProto.ATTRIBUTE_FIELD_NUMBER, kind + _field(AttributeProto.G_FIELD_NUMBER, inner))
        body = _body(node, f"y{level}")
    true = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True), "t"))
    before = GraphProto(node=[true], input=[helper.make_tensor_value_info("x", ONE, ["N", 3])]).SerializeToString()
    model = ModelProto(ir_version=8, opset_import=[helper.make_opsetid("", 18)]).SerializeToString()
    return model + _field(ModelProto.GRAPH_FIELD_NUMBER, before + body)


def _body(node: bytes, output: str) -> bytes:
    rest = GraphProto(name="b", output=[helper.make_tensor_value_info(output, ONE, ["N", 3])]).SerializeToString()
    return _field(GraphProto.NODE_FIELD_NUMBER, node) + rest


def _field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def doubling(count: int) -> ModelProto:
    """Return a model of functions each of which calls the one before twice."""
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)]
    functions = [helper.make_function("mine", "f0", ["a"], ["b"], [helper.make_node("Abs", ["a"], ["b"])], opsets)]
    for number in range(1, count):
        nodes = [
            helper.make_node(f"f{number - 1}", ["a"], ["m"], domain="mine"),
            helper.make_node(f"f{number - 1}", ["m"], ["b"], domain="mine"),
        ]
        functions.append(helper.make_function("mine", f"f{number}", ["a"], ["b"], nodes, opsets))
    last = helper.make_node(f"f{count - 1}", ["x"], ["y"], domain="mine")
    return graph(last, functions=functions, domains=["mine"])


def varint(number: int) -> bytes:
    """Return a number as Protocol Buffers writes it."""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])

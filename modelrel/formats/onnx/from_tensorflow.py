"""TensorFlow functions -> ONNX by tf2onnx, with what it gets wrong put right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from onnx import ModelProto, NodeProto, defs, helper

from modelrel import extras, networks
from modelrel.errors import Invalid, Refused
from modelrel.formats.onnx.graph import Core, Nodes
from modelrel.formats.onnx.settled import bodies, settle
from modelrel.formats.order import Order
from modelrel.tensors import NUMPY
from modelrel.values import TensorSpec

_OPSETS: Final = (15, 18)  # tf2onnx 1.17 writes no newer one, and what is put right here takes CastLike
_DOMAINS: Final = ("", "ai.onnx.ml")


def write(native: Any, order: Order) -> Core:
    """Return the function that is served as ONNX.

    Raises `Refused` for an operator without an exact form, naming all of them, and `Invalid` for an opset that
    tf2onnx does not write.
    """
    oldest, newest = _OPSETS
    opset = order.opset or newest
    if not oldest <= opset <= newest:
        raise Invalid(
            f"opset {opset} cannot be written for a TensorFlow model: tf2onnx writes {oldest} to {newest}",
            f"Choose --opset {newest}, or leave it out.",
        )
    tf = extras.load("tensorflow")
    specs = order.signature.inputs
    names = [f"input_{number}" for number in range(len(specs))]
    function = native.function
    signature = [_tensor(tf, spec, name) for name, spec in zip(names, specs, strict=True)]

    def answer(*given: Any) -> list[Any]:
        flat = {
            spec.name: tf.reshape(tensor, [-1]) if len(spec.shape) == 1 else tensor
            for spec, tensor in zip(specs, given, strict=True)
        }
        return [tf.identity(one) for one in function.call(networks.entered(tf, function, order.signature, flat))]

    concrete = tf.function(answer, input_signature=signature, autograph=False).get_concrete_function()
    model, tensors = _converted(native.owner, concrete, len(specs), opset)
    _restored(model)
    settle(model)
    _known(model, order.answers.estimator)
    _entered(model, tensors[: len(specs)], specs)
    outputs = {spec.name: name for spec, name in zip(function.outputs, tensors[len(specs) :], strict=True)}
    opsets = {entry.domain: entry.version for entry in model.opset_import if entry.domain in _used(model)}
    return Core(model=model, outputs=outputs, merged=False, opsets=opsets)


def _tensor(tf: Any, spec: TensorSpec, name: str) -> Any:
    # A tensor of one dimension arrives as a matrix of one column.
    shape = [None, *(None if size < 0 else size for size in (spec.shape[1:] or (1,)))]
    return tf.TensorSpec(shape, tf.string if spec.datatype == "BYTES" else NUMPY[spec.datatype], name)


def _converted(owner: Any, concrete: Any, count: int, opset: int) -> tuple[ModelProto, list[str]]:
    """Return what tf2onnx writes, and the names of its inputs, then outputs.

    These are the steps of its own `from_keras`, which takes Keras models only; `from_function` knows no tables.
    """
    import tensorflow as tf
    from tf2onnx import optimizer, tf_loader, tfonnx

    # After the inputs come what it captures: constants of layers, which freezing puts in.
    inputs = [tensor.name for tensor in concrete.inputs[:count]]
    outputs = [tensor.name for tensor in concrete.outputs]
    with tf.device("/cpu:0"):
        frozen, tables = tf_loader.from_trackable(owner, concrete, inputs, outputs, False)
        with tf.Graph().as_default() as graph:
            tf.import_graph_def(frozen, name="")
            made = tfonnx.process_tf_graph(
                graph, continue_on_error=True, opset=opset, input_names=inputs, output_names=outputs,
                initialized_tables=tables,
            )  # fmt: skip
            model = optimizer.optimize_graph(made, catch_errors=False).make_model("modelrel")
    return model, [*inputs, *outputs]


def _entered(model: ModelProto, names: list[str], specs: tuple[TensorSpec, ...]) -> None:
    """Put the inputs into the order of the signature; one that nothing depends on is there all the same."""
    found = {value.name: value for value in model.graph.input}
    wanted = [
        found.get(name)
        or helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(NUMPY[spec.datatype]), None)
        for name, spec in zip(names, specs, strict=True)
    ]
    fresh = [type(value).FromString(value.SerializeToString()) for value in wanted]
    del model.graph.input[:]
    model.graph.input.extend(fresh)


def _used(model: ModelProto) -> set[str]:
    return {node.domain for node in _nodes(model.graph)} | {""}


def _nodes(graph: Any) -> list[NodeProto]:
    return [one for node in graph.node for one in (node, *(n for body in bodies(node) for n in _nodes(body)))]


def _known(model: ModelProto, estimator: str) -> None:
    """Raise `Refused` where a node is no operator of ONNX: tf2onnx leaves those it does not know as they are."""
    version = {entry.domain: entry.version for entry in model.opset_import}
    other = sorted(
        {
            node.op_type
            for node in _nodes(model.graph)
            if node.domain not in _DOMAINS or not defs.has(node.op_type, version.get(node.domain, 1), node.domain)
        }
    )
    if other:
        raise Refused(
            f"{estimator} has no exact form in ONNX: it needs TensorFlow's {', '.join(other)}",
            "Take that layer out of the model, and compute it before the model is called.",
        )


def _restored(model: ModelProto) -> None:
    """Write those of TensorFlow's operators that tf2onnx left alone with ONNX's."""
    numbers = iter(range(len(_nodes(model.graph))))
    for graph in (model.graph, *(body for node in _nodes(model.graph) for body in bodies(node))):
        fresh: list[NodeProto] = []
        for node in graph.node:
            form = _FORMS.get(node.op_type) if node.domain == "" else None
            if form is None:
                fresh.append(type(node).FromString(node.SerializeToString()))
                continue
            nodes = Nodes(f"restored_{next(numbers)}")
            made = form(nodes, node)
            fresh += [*nodes.nodes, helper.make_node("Identity", [made], [node.output[0]])]
            graph.initializer.extend(nodes.constants)
        del graph.node[:]
        graph.node.extend(fresh)


def _erfc(nodes: Nodes, node: NodeProto) -> str:
    """1 - erf(x)."""
    one = nodes.add("CastLike", nodes.constant(1.0, np.float32), node.input[0])
    return nodes.add("Sub", one, nodes.add("Erf", node.input[0]))


def _expm1(nodes: Nodes, node: NodeProto) -> str:
    """exp(x) - 1."""
    one = nodes.add("CastLike", nodes.constant(1.0, np.float32), node.input[0])
    return nodes.add("Sub", nodes.add("Exp", node.input[0]), one)


def _bucketize(nodes: Nodes, node: NodeProto) -> str:
    """The number of boundaries that x is not below, int32: NaN is below none (std::upper_bound)."""
    (boundaries,) = [helper.get_attribute_value(one) for one in node.attribute if one.name == "boundaries"]
    edges = nodes.add("CastLike", nodes.constant(list(boundaries), np.float32), node.input[0])
    x = nodes.add("Unsqueeze", node.input[0], nodes.constant([-1], np.int64))
    reached = nodes.cast(nodes.add("Not", nodes.add("Less", x, edges)), 6)
    return nodes.add("ReduceSum", reached, nodes.constant([-1], np.int64), keepdims=0)


def _bincount(nodes: Nodes, node: NodeProto) -> str:
    """How often each of 0 ... size - 1 is in a row, or whether it is; as TensorFlow, others are left out."""
    said = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    x, size = node.input[0], node.input[1]
    places = nodes.add("Range", *(nodes.add("Reshape", one, nodes.constant([], np.int64)) for one in (
        nodes.add("CastLike", nodes.constant(0, np.int64), x), nodes.add("CastLike", size, x),
        nodes.add("CastLike", nodes.constant(1, np.int64), x),
    )))  # fmt: skip
    same = nodes.cast(nodes.add("Equal", nodes.add("Unsqueeze", x, nodes.constant([-1], np.int64)), places), 1)
    if said.get("binary_output"):
        return nodes.add("ReduceMax", same, keepdims=0, axes=[-2])
    return nodes.add("ReduceSum", same, nodes.constant([-2], np.int64), keepdims=0)


_FORMS: Final[dict[str, Callable[[Nodes, NodeProto], str]]] = {
    "Erfc": _erfc,
    "Expm1": _expm1,
    "Bucketize": _bucketize,
    "DenseBincount": _bincount,
}
"""Operators of TensorFlow that tf2onnx 1.17 copies into its files, where no runtime knows them."""

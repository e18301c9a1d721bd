"""The order of an ONNX graph's nodes, and names inside its loops, that depend on nothing but what it computes.

Converters walk over sets, leave independent nodes in the order of some hash, or count through everything that their
process ever converted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto


def settle(model: ModelProto) -> None:
    """Put nodes into the order in which the outputs need them, drop the others, and name what is inside loops."""
    _ordered(model.graph)
    numbers = count()
    for node in model.graph.node:
        _named_inside(node, {}, numbers)


def bodies(node: NodeProto) -> list[GraphProto]:
    """Return the graphs inside a node (Loop, If, Scan)."""
    return [attribute.g for attribute in node.attribute if attribute.type == AttributeProto.GRAPH]


def needed(node: NodeProto) -> list[str]:
    """Return the tensors that a node takes, those that its bodies take from outside included."""
    found = list(node.input)
    for body in bodies(node):
        local = _local(body)
        found += [name for inner in body.node for name in needed(inner) if name not in local]
        found += [value.name for value in body.output if value.name not in local]
    return [name for name in found if name]


def rename_inside(node: NodeProto, names: Mapping[str, str]) -> None:
    """Rename what a node's bodies take from outside."""
    for body in bodies(node):
        local = _local(body)
        outer = {old: new for old, new in names.items() if old not in local}
        for inner in body.node:
            inner.input[:] = [outer.get(name, name) for name in inner.input]
            rename_inside(inner, outer)
        for value in body.output:
            value.name = outer.get(value.name, value.name)


def walk(graph: GraphProto) -> list[NodeProto]:
    """Return the nodes, each after those it needs, in the order in which the outputs come to need them; no others."""
    makers = {name: node for node in graph.node for name in node.output if name}
    begun: set[int] = set()
    order: list[NodeProto] = []
    stack: list[tuple[str, bool]] = [(value.name, False) for value in reversed(graph.output)]
    while stack:  # no recursion: unrolled networks are thousands of nodes deep
        name, ready = stack.pop()
        node = makers.get(name)
        if node is not None and ready:
            order.append(node)
        elif node is not None and id(node) not in begun:
            begun.add(id(node))
            stack.append((name, True))
            stack += [(inner, False) for inner in reversed(needed(node))]
    return order


def _local(body: GraphProto) -> set[str]:
    made = {name for node in body.node for name in node.output}
    return made | {value.name for value in (*body.input, *body.initializer)}


def _ordered(graph: GraphProto) -> None:
    """Order the nodes, and those inside them, by a walk from the outputs; the constants by their first use."""
    _without_aliases(graph)
    for node in graph.node:
        for body in bodies(node):
            _ordered(body)
    order = walk(graph)
    used = [*(value.name for value in graph.output), *(name for node in order for name in needed(node))]
    constants = {constant.name: constant for constant in graph.initializer}
    kept = [constants[name] for name in dict.fromkeys(used) if name in constants]
    _replaced(graph, order, kept)


def _without_aliases(graph: GraphProto) -> None:
    """Take every Identity out, and put one before each output: which of two equal tensors had one is chance."""
    source = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity" and not node.domain}
    kept = [node for node in graph.node if node.output[0] not in source]
    made = {name for node in kept for name in node.output}
    inner = {value.name: f"{value.name}/inner" for value in graph.output if value.name in made}

    def real(name: str) -> str:
        while name in source:
            name = source[name]
        return inner.get(name, name)

    names = {name: real(name) for name in (*source, *inner)}
    for node in kept:
        node.input[:] = [names.get(name, name) for name in node.input]
        rename_inside(node, names)
        node.output[:] = [inner.get(name, name) for name in node.output]
    asked = [(value.name, real(value.name)) for value in graph.output]
    ends = [NodeProto(op_type="Identity", input=[found], output=[name]) for name, found in asked if name != found]
    _replaced(graph, [*kept, *ends], list(graph.initializer))


def _replaced(graph: GraphProto, nodes: Sequence[NodeProto], constants: Sequence[TensorProto]) -> None:
    # Copies, for the list that is emptied owns them.
    fresh, kept = [_copy(node) for node in nodes], [_constant(one) for one in constants]
    del graph.node[:]
    del graph.initializer[:]
    del graph.value_info[:]
    graph.node.extend(fresh)
    graph.initializer.extend(kept)


def _copy(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy


def _constant(constant: TensorProto) -> TensorProto:
    copy = TensorProto()
    copy.CopyFrom(constant)
    return copy


def _named_inside(node: NodeProto, outer: dict[str, str], numbers: count[int]) -> None:
    for body in bodies(node):
        names = dict(outer)
        body.name = "body"
        for value in body.input:
            names[value.name] = f"inner_{next(numbers)}"
        for constant in body.initializer:
            names[constant.name] = f"inner_{next(numbers)}"
            constant.name = names[constant.name]
        for inner in body.node:
            _named_inside(inner, names, numbers)
            inner.name = inner.doc_string = ""
            inner.input[:] = [names.get(name, name) for name in inner.input]
            for name in inner.output:
                if name:
                    names[name] = f"inner_{next(numbers)}"
            inner.output[:] = [names.get(name, name) for name in inner.output]
        for value in (*body.input, *body.output):
            value.name = names.get(value.name, value.name)
            _unsized(value)


def _unsized(value: ValueInfoProto) -> None:
    """Forget the names of open dimensions, which are numbered too."""
    for size in value.type.tensor_type.shape.dim:
        if size.dim_param:
            size.ClearField("dim_param")

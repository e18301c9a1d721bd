"""An ONNX graph in an order, and with names inside its loops, that depend on nothing but what it computes.

Some converters walk over sets, or count through everything that their process ever converted.
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


def _needed(node: NodeProto) -> list[str]:
    """Return the tensors that a node takes, those of its bodies from outside included."""
    found = list(node.input)
    for body in bodies(node):
        local = {value.name for value in (*body.input, *body.initializer)}
        local |= {name for inner in body.node for name in inner.output}
        found += [name for inner in body.node for name in _needed(inner) if name not in local]
        found += [value.name for value in body.output if value.name not in local]
    return [name for name in found if name]


def _ordered(graph: GraphProto) -> None:
    """Order the nodes, and those inside them, by a walk from the outputs; the constants by their first use."""
    _without_aliases(graph)
    for node in graph.node:
        for body in bodies(node):
            _ordered(body)
    makers = {name: node for node in graph.node for name in node.output if name}
    done: set[int] = set()
    order: list[NodeProto] = []
    used: list[str] = [value.name for value in graph.output]
    for wanted in [value.name for value in graph.output]:
        stack: list[tuple[str, bool]] = [(wanted, False)]
        while stack:  # no recursion: unrolled networks are thousands of nodes deep
            name, ready = stack.pop()
            node = makers.get(name)
            if node is None or id(node) in done:
                continue
            if ready:
                done.add(id(node))
                order.append(node)
                used += _needed(node)
            else:
                stack.append((name, True))
                stack += [(inner, False) for inner in reversed(_needed(node))]
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
        _renamed(node, names)
        node.output[:] = [inner.get(name, name) for name in node.output]
    asked = [(value.name, real(value.name)) for value in graph.output]
    ends = [NodeProto(op_type="Identity", input=[found], output=[name]) for name, found in asked if name != found]
    _replaced(graph, [*kept, *ends], list(graph.initializer))


def _renamed(node: NodeProto, names: Mapping[str, str]) -> None:
    """Rename what a node takes, and what its bodies take from outside."""
    node.input[:] = [names.get(name, name) for name in node.input]
    for body in bodies(node):
        local = {value.name for value in (*body.input, *body.initializer)}
        local |= {name for inner in body.node for name in inner.output}
        outer = {old: new for old, new in names.items() if old not in local}
        for inner in body.node:
            _renamed(inner, outer)
        for value in body.output:
            value.name = outer.get(value.name, value.name)


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

"""The edges of a graph, made of what onnxruntime's Swift bindings hold: no double, no half, no 16 bits, no truth.

Source: microsoft/onnxruntime `objectivec/include/ort_enums.h` and `ort_enums.mm` (float, 8, 32 and 64 bit integers,
text; truth only of late). A double goes in as two whole numbers, significand * 2 ** exponent, which is exact; it comes
out as two floats whose sum has 48 of its 53 bits. Others are cast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from modelrel.values import TensorSpec

if TYPE_CHECKING:
    import onnx

HELD: Final = {"FP32", "INT8", "UINT8", "INT32", "UINT32", "INT64", "UINT64", "BYTES"}
"""What the bindings hold."""

_CAST: Final = {"BOOL": "UINT8", "INT16": "INT32", "UINT16": "UINT32", "FP16": "FP32"}
"""What is cast -> as what it crosses the edge."""

BEYOND: Final = 4096
"""The exponent of what is not finite: 2 ** 4096 is infinity, and 0 times that is NaN."""

KEY: Final = "modelrel.edges"
"""Where the graph's metadata says by which names a tensor crosses its edge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """How a tensor crosses: `held` is the datatype of each of `names`, one or two tensors of the same shape."""

    spec: TensorSpec
    held: str
    names: tuple[str, ...]


def edges(specs: tuple[TensorSpec, ...], taken: frozenset[str], suffixes: tuple[str, str]) -> tuple[Edge, ...]:
    """Return how tensors cross; new names are none of `taken`."""
    return tuple(_edge(spec, taken, suffixes) for spec in specs)


def _edge(spec: TensorSpec, taken: frozenset[str], suffixes: tuple[str, str]) -> Edge:
    if spec.datatype in HELD:
        return Edge(spec=spec, held=spec.datatype, names=(spec.name,))
    if spec.datatype == "FP64":
        held = "INT64" if suffixes == IN else "FP32"
        return Edge(spec=spec, held=held, names=tuple(_free(f"{spec.name}/{one}", taken) for one in suffixes))
    return Edge(spec=spec, held=_CAST[spec.datatype], names=(_free(f"{spec.name}/edge", taken),))


IN: Final = ("significand", "exponent")
OUT: Final = ("high", "low")


def _free(name: str, taken: frozenset[str]) -> str:
    while name in taken:
        name += "'"
    return name


def names(model: onnx.ModelProto) -> frozenset[str]:
    """Return every name in the graph."""
    graph = model.graph
    found = {one.name for one in (*graph.input, *graph.output, *graph.initializer)}
    return frozenset(found | {name for node in graph.node for name in (*node.input, *node.output)})


def wrapped(model: onnx.ModelProto, inputs: tuple[Edge, ...], outputs: tuple[Edge, ...]) -> None:
    """Change the edges of a graph: what was an input or output is a tensor inside, of the same name."""
    from onnx import helper

    graph = model.graph
    front, behind = [], []
    for edge in inputs:
        if edge.names != (edge.spec.name,):
            front += _entering(edge)
            _replace(graph.input, edge)
    for edge in outputs:
        if edge.names != (edge.spec.name,):
            behind += _leaving(edge)
            _replace(graph.output, edge)
    nodes = [*front, *graph.node, *behind]
    del graph.node[:]
    graph.node.extend(nodes)
    if all(one.domain not in ("", "ai.onnx") for one in model.opset_import):
        model.opset_import.append(helper.make_opsetid("", 13))


def _replace(ports: Any, edge: Edge) -> None:
    from onnx import helper

    place = next(at for at, port in enumerate(ports) if port.name == edge.spec.name)
    old = ports[place].type.tensor_type
    sizes = [one.dim_param or (one.dim_value if one.HasField("dim_value") else None) for one in old.shape.dim]
    made = [helper.make_tensor_value_info(name, _number(edge.held), sizes) for name in edge.names]
    kept = [*list(ports)[:place], *made, *list(ports)[place + 1 :]]
    del ports[:]
    ports.extend(kept)


def _entering(edge: Edge) -> list[Any]:
    from onnx import TensorProto, helper

    name = edge.spec.name
    if edge.spec.datatype != "FP64":
        return [helper.make_node("Cast", [edge.names[0]], [name], to=_number(edge.spec.datatype))]
    whole, power = (f"{one}/double" for one in edge.names)
    two, scale = f"{edge.names[1]}/two", f"{edge.names[1]}/scale"
    return [
        helper.make_node("Cast", [edge.names[0]], [whole], to=TensorProto.DOUBLE),
        helper.make_node("Cast", [edge.names[1]], [power], to=TensorProto.DOUBLE),
        helper.make_node("Constant", [], [two], value=helper.make_tensor("two", TensorProto.DOUBLE, [], [2.0])),
        helper.make_node("Pow", [two, power], [scale]),
        helper.make_node("Mul", [whole, scale], [name]),
    ]


def _leaving(edge: Edge) -> list[Any]:
    from onnx import TensorProto, helper

    name = edge.spec.name
    if edge.spec.datatype != "FP64":
        return [helper.make_node("Cast", [name], [edge.names[0]], to=_number(edge.held))]
    high, low = edge.names
    return [
        helper.make_node("Cast", [name], [high], to=TensorProto.FLOAT),
        helper.make_node("Cast", [high], [f"{high}/double"], to=TensorProto.DOUBLE),
        helper.make_node("Sub", [name, f"{high}/double"], [f"{low}/double"]),
        helper.make_node("Cast", [f"{low}/double"], [low], to=TensorProto.FLOAT),
    ]


def _number(datatype: str) -> int:
    from onnx import TensorProto

    known = {
        "BOOL": TensorProto.BOOL, "UINT8": TensorProto.UINT8, "UINT16": TensorProto.UINT16,
        "UINT32": TensorProto.UINT32, "UINT64": TensorProto.UINT64, "INT8": TensorProto.INT8,
        "INT16": TensorProto.INT16, "INT32": TensorProto.INT32, "INT64": TensorProto.INT64,
        "FP16": TensorProto.FLOAT16, "FP32": TensorProto.FLOAT, "FP64": TensorProto.DOUBLE,
        "BYTES": TensorProto.STRING,
    }  # fmt: skip
    return int(known[datatype])


def plain(inputs: tuple[Edge, ...], outputs: tuple[Edge, ...], served: Mapping[str, str]) -> dict[str, object]:
    """Return what the metadata says: name -> datatype, and the names by which it crosses; outputs by served name."""
    shown = {own: name for name, own in served.items()}
    return {
        "inputs": {one.spec.name: [one.spec.datatype, list(one.names)] for one in inputs},
        "outputs": {shown[one.spec.name]: [one.spec.datatype, list(one.names)] for one in outputs},
    }

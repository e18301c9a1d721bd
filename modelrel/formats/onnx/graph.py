"""Building ONNX graphs: adding nodes, and putting the signature's interface around a converted core."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from modelrel import __version__
from modelrel.errors import Refused
from modelrel.formats.onnx import large, settled
from modelrel.formats.onnx.opsets import ML, ML_TREES, NEWEST
from modelrel.formats.order import Order
from modelrel.tensors import NUMPY, datatype
from modelrel.values import Signature, TensorSpec

ELEMENT: Final = {name: helper.np_dtype_to_tensor_dtype(dtype) for name, dtype in NUMPY.items()}
"""Open Inference datatype -> ONNX element type (text is dtype object, which ONNX calls STRING)."""

DOMAIN_ML: Final = "ai.onnx.ml"
_IR: Final = 10  # what opset 22 came with; older runtimes refuse newer ones


class Nodes:
    """A growing list of nodes and constants, whose tensor names never clash."""

    def __init__(self, prefix: str = "modelrel") -> None:
        """Start empty; every name begins with `prefix`."""
        self._prefix = prefix
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._count = 0

    def name(self) -> str:
        """Return a new tensor name."""
        self._count += 1
        return f"{self._prefix}_{self._count}"

    def add(self, op: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Append one node with one output, and return the output's name."""
        output = self.name()
        self.nodes.append(helper.make_node(op, list(inputs), [output], domain=domain, **attributes))
        return output

    def add_large(self, op: str, x: str, domain: str, long: large.Large, **attributes: Any) -> str:
        """Append a node of one input that has long attributes beside others, and return its output's name."""
        output = self.add(op, x, domain=domain, **attributes)
        large.put(self.nodes[-1], long)
        return output

    def constant(self, value: Any, dtype: Any = None) -> str:
        """Append a constant and return its name; text becomes a STRING tensor."""
        array = np.asarray(value, dtype)
        name = self.name()
        if array.dtype.kind in "OUS":
            flat = [str(item).encode() for item in array.ravel()]
            self.constants.append(helper.make_tensor(name, TensorProto.STRING, array.shape, flat))
        else:
            self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def cast(self, name: str, element: int) -> str:
        """Append a Cast, and return its output's name."""
        return self.add("Cast", name, to=element)


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """What a converter wrote, before it has the signature's interface.

    Its one input is all columns side by side (`merged`), or it has one per column in the signature's order.
    `outputs` maps the names that the release uses to those of the core's tensors; `open` names the dimensions of an
    output, beside the first, that no row fixes. `opsets` (domain -> version) is empty unless they are given with the
    core. Where an `adapter` stands in front (what `adapter.json` holds), `inputs` are what it gives, one for each
    input of the core.
    """

    model: ModelProto
    outputs: Mapping[str, str]
    merged: bool
    notes: tuple[str, ...] = ()
    hints: Mapping[str, object] = field(default_factory=dict)
    inputs: tuple[TensorSpec, ...] = ()
    adapter: Mapping[str, object] = field(default_factory=dict)
    opsets: Mapping[str, int] = field(default_factory=dict)
    open: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def element_of(model: ModelProto, name: str) -> int:
    """Return the element type that the core declares for one of its inputs or outputs."""
    for value in (*model.graph.input, *model.graph.output):
        if value.name == name:
            return int(value.type.tensor_type.elem_type)
    raise KeyError(name)


def bordered(core: Core, order: Order) -> tuple[ModelProto, tuple[TensorSpec, ...]]:
    """Return the model with the signature's inputs and the release's outputs, and the outputs' specs."""
    nodes = Nodes()
    if core.adapter:
        order = replace(order, signature=Signature(kind="tensor", inputs=core.inputs))
    feeds = _enter(core, order, nodes)
    inner = inlined(core.model, feeds, nodes)
    outputs = tuple(
        _leave(core, order, nodes, name, inner[tensor])
        for name, tensor in core.outputs.items()
        if name in order.answers.outputs
    )
    graph = helper.make_graph(
        nodes.nodes,
        "modelrel",
        [_value(spec) for spec in order.signature.inputs],
        [_value(spec) for spec in outputs],
        initializer=nodes.constants,
    )
    return normalised(helper.make_model(graph, opset_imports=_opsets(core, order)), order), outputs


def _enter(core: Core, order: Order, nodes: Nodes) -> dict[str, str]:
    """Cast (and join) the signature's inputs to what the core takes; return core input -> tensor."""
    wanted = list(core.model.graph.input)
    specs = order.signature.inputs
    if order.signature.kind == "columns" and core.merged:
        element = wanted[0].type.tensor_type.elem_type
        cast = [_entered(spec, element, nodes) for spec in specs]
        return {wanted[0].name: nodes.add("Concat", *cast, axis=1) if len(cast) > 1 else cast[0]}
    if len(wanted) != len(specs):
        raise Refused(
            f"the converter made {len(wanted)} inputs from {len(specs)} columns", "Rename columns that look alike."
        )
    return {
        value.name: _entered(spec, value.type.tensor_type.elem_type, nodes)
        for value, spec in zip(wanted, specs, strict=True)
    }


def _entered(spec: TensorSpec, element: int, nodes: Nodes) -> str:
    name = spec.name
    if len(spec.shape) == 1:
        # A tensor of one dimension is one value a row; every converter works on matrices.
        name = nodes.add("Reshape", name, nodes.constant([-1, 1], np.int64))
    return name if ELEMENT[spec.datatype] == element else nodes.cast(name, element)


def inlined(model: ModelProto, feeds: Mapping[str, str], nodes: Nodes) -> dict[str, str]:
    """Copy a model's nodes and constants with new tensor names; return old name -> new name."""
    renamed = dict(feeds) | {"": ""}
    for constant in model.graph.initializer:
        copy = TensorProto()
        copy.CopyFrom(constant)
        renamed[constant.name] = copy.name = nodes.name()
        nodes.constants.append(copy)
    for node in model.graph.node:
        copy_node = NodeProto()
        copy_node.CopyFrom(node)
        for name in node.output:
            renamed.setdefault(name, nodes.name())
        copy_node.input[:] = [renamed[name] for name in node.input]
        copy_node.output[:] = [renamed[name] for name in node.output]
        copy_node.ClearField("doc_string")
        copy_node.ClearField("name")  # two models may have given the same one
        settled.rename_inside(copy_node, renamed)
        nodes.nodes.append(copy_node)
    return renamed


def _leave(core: Core, order: Order, nodes: Nodes, name: str, tensor: str) -> TensorSpec:
    """Give one output the datatype and dimensions of the original's, and its name."""
    element = element_of(core.model, core.outputs[name])
    spec = order.shapes.get(name) or _guessed(name, element, order)
    free = core.open.get(name, ())
    spec = replace(spec, shape=tuple(-1 if axis in free else size for axis, size in enumerate(spec.shape)))
    spec = _released(name, spec, element)
    if len(spec.shape) == 1:
        tensor = nodes.add("Reshape", tensor, nodes.constant([-1], np.int64))
    elif len(spec.shape) == 2:
        wanted = [-1, spec.shape[1]] if spec.shape[1] >= 0 else [0, -1]
        tensor = nodes.add("Reshape", tensor, nodes.constant(wanted, np.int64))
    if ELEMENT[spec.datatype] != element:
        tensor = nodes.cast(tensor, ELEMENT[spec.datatype])
    nodes.nodes.append(helper.make_node("Identity", [tensor], [name]))
    return spec


def _released(name: str, spec: TensorSpec, element: int) -> TensorSpec:
    """Return the spec as released: labels are INT64, BOOL or text; numbers FP32 or FP64 as in the original."""
    kind = spec.datatype
    if name == "label" and kind not in ("BYTES", "BOOL"):
        kind = "BYTES" if element == TensorProto.STRING else "INT64" if kind[0] in "IU" else kind
    return TensorSpec(name=name, datatype=kind, shape=spec.shape)


def _guessed(name: str, element: int, order: Order) -> TensorSpec:
    """Return what an output is where no row could be tried."""
    kind = datatype(np.dtype(helper.tensor_dtype_to_np_dtype(element)))
    wide = len(order.answers.classes) or -1
    shape = (-1, wide) if name in ("probabilities", "transformed") else (-1,)
    return TensorSpec(name=name, datatype=kind, shape=shape)


def _value(spec: TensorSpec) -> onnx.ValueInfoProto:
    shape = ["N" if number == 0 else (None if size < 0 else size) for number, size in enumerate(spec.shape)]
    return helper.make_tensor_value_info(spec.name, ELEMENT[spec.datatype], shape)


def _opsets(core: Core, order: Order) -> list[onnx.OperatorSetIdProto]:
    """Return the opsets, sorted; the default one is what was asked for, whatever the core could do with less."""
    if core.opsets:
        return [helper.make_opsetid(name, version) for name, version in sorted(core.opsets.items())]
    model = core.model
    found = {entry.domain: entry.version for entry in model.opset_import}
    trees = any(node.op_type == "TreeEnsemble" for node in model.graph.node)
    found |= {"": order.opset or NEWEST, DOMAIN_ML: ML_TREES if trees else ML}
    used = {node.domain for node in model.graph.node} | {""}
    return [helper.make_opsetid(name, found[name]) for name in sorted(used)]


def normalised(model: ModelProto, order: Order) -> ModelProto:
    """Order nodes, and number them and tensors in order of appearance, so that equal models are equal bytes."""
    graph = model.graph
    in_order = [NodeProto.FromString(node.SerializeToString()) for node in settled.walk(graph)]
    del graph.node[:]  # it owns the nodes, hence the copies
    graph.node.extend(in_order)
    fixed = {value.name for value in (*graph.input, *graph.output)} | {""}
    names: dict[str, str] = {name: name for name in fixed}
    used = {name for node in graph.node for name in settled.needed(node)}
    for number, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{number}"
        for name in (*settled.needed(node), *node.output):
            if name not in names:
                names[name] = _unused(f"t{len(names)}", fixed)
        node.input[:] = [names[name] for name in node.input]
        node.output[:] = [names[name] for name in node.output]
        settled.rename_inside(node, names)
    constants = [constant for constant in graph.initializer if constant.name in used]
    for constant in constants:
        constant.name = names[constant.name]
    constants.sort(key=lambda constant: (len(constant.name), constant.name))
    del graph.initializer[:]
    graph.initializer.extend(constants)
    model.ir_version = _IR
    model.producer_name = "modelrel"
    model.producer_version = __version__
    for key, value in sorted(order.metadata.items()):
        model.metadata_props.add(key=key, value=value)
    return model


def _unused(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name

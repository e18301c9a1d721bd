"""Making a converted graph in double precision runnable: casts where an operator only knows float32.

skl2onnx 1.20 declares float64 results for operators of ai.onnx.ml that give float32, and writes some for which
onnxruntime has no float64 kernel. Everything around them stays in double, so that (for instance) a scaler in
front of trees is exact, and only what the operator itself does is done in float32.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper

from modelrel.formats.onnx.graph import DOMAIN_ML, Nodes

_FLOAT, _DOUBLE = TensorProto.FLOAT, TensorProto.DOUBLE

_FLOAT_OUT: Final = frozenset({
    "FeatureVectorizer", "LinearClassifier", "LinearRegressor", "Normalizer", "OneHotEncoder", "Scaler",
    "SVMClassifier", "SVMRegressor", "TreeEnsembleClassifier", "TreeEnsembleRegressor",
})  # fmt: skip
"""Operators of ai.onnx.ml whose numbers are float32 whatever goes in."""

_FLOAT_IN: Final = frozenset({
    "LinearRegressor", "SVMClassifier", "SVMRegressor", "TreeEnsembleClassifier", "TreeEnsembleRegressor",
})  # fmt: skip
"""Operators that get float32: no kernel for double, or (trees) because scikit-learn itself casts to float32."""


def repaired(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with every declared type true; computing stays in float64 wherever there is a kernel."""
    nodes = Nodes("repair")
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    types |= {constant.name: constant.data_type for constant in model.graph.initializer}
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    for node in model.graph.node:
        if node.op_type == "Imputer" and types.get(node.input[0]) == _DOUBLE:
            _impute(node, nodes, types)
            continue
        _cast_inputs(node, nodes, types, opsets)
        nodes.nodes.append(node)
        types |= _results(node, types, opsets)
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.node[:]
    fixed.graph.node.extend(nodes.nodes)
    fixed.graph.initializer.extend(nodes.constants)
    del fixed.graph.value_info[:]
    for value in fixed.graph.output:
        value.type.tensor_type.elem_type = types.get(value.name, value.type.tensor_type.elem_type)
    return fixed


def _impute(node: NodeProto, nodes: Nodes, types: dict[str, int]) -> None:
    """Write Imputer, which has no float64 kernel in onnxruntime, as Where(x is missing, value, x)."""
    said = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    missing = float(said.get("replaced_value_float", float("nan")))
    values = nodes.constant(list(said["imputed_value_floats"]), np.float64)
    source = node.input[0]
    if np.isnan(missing):
        gap = nodes.add("IsNaN", source)
    else:
        gap = nodes.add("Equal", source, nodes.constant(missing, np.float64))
    nodes.nodes.append(helper.make_node("Where", [gap, values, source], list(node.output)))
    types[node.output[0]] = _DOUBLE


def _cast_inputs(node: NodeProto, nodes: Nodes, types: dict[str, int], opsets: dict[str, int]) -> None:
    """Cast the node's inputs: to float32 where it knows nothing else, else all of one kind to the widest."""
    if any(attribute.name == "nodes_values_as_tensor" for attribute in node.attribute):
        return  # our own trees, which compare in float64
    if node.domain == DOMAIN_ML and node.op_type in _FLOAT_IN and types.get(node.input[0]) == _DOUBLE:
        node.input[0] = nodes.cast(node.input[0], _FLOAT)
        types[node.input[0]] = _FLOAT
        return
    for group in _alike(node, opsets):
        kinds = {types.get(node.input[index], 0) for index in group}
        if kinds >= {_FLOAT, _DOUBLE}:
            for index in group:
                if types[node.input[index]] == _FLOAT:
                    node.input[index] = nodes.cast(node.input[index], _DOUBLE)
                    types[node.input[index]] = _DOUBLE


def _schema(node: NodeProto, opsets: dict[str, int]) -> onnx.defs.OpSchema | None:
    """Return the operator's schema, or None for one that onnx does not describe (com.microsoft)."""
    if not onnx.defs.has(node.op_type, node.domain):
        return None
    return onnx.defs.get_schema(node.op_type, opsets.get(node.domain, 1), node.domain)


def _alike(node: NodeProto, opsets: dict[str, int]) -> list[list[int]]:
    """Return the groups of input positions that must have one type, by the operator's schema."""
    schema = _schema(node, opsets)
    if schema is None:
        return []
    formal = schema.inputs
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(node.input):
        wanted = formal[min(index, len(formal) - 1)]
        if name and wanted.is_homogeneous:
            groups.setdefault(wanted.type_str, []).append(index)
    return list(groups.values())


def _results(node: NodeProto, types: dict[str, int], opsets: dict[str, int]) -> dict[str, int]:
    """Return output name -> element type of one node."""
    if node.domain == DOMAIN_ML and node.op_type in _FLOAT_OUT:
        found = {node.output[-1]: int(_FLOAT)}
        if len(node.output) == 2:
            text = any(entry.name == "classlabels_strings" and entry.strings for entry in node.attribute)
            found[node.output[0]] = int(TensorProto.STRING if text else TensorProto.INT64)
        return found
    schema = _schema(node, opsets)
    if schema is None:
        return {name: types.get(node.input[0], 0) for name in node.output}
    given = {name: helper.make_tensor_type_proto(types[name], None) for name in node.input if types.get(name)}
    try:
        inferred = onnx.shape_inference.infer_node_outputs(
            schema,
            node,
            given,
            opset_imports=[helper.make_opsetid(domain, version) for domain, version in opsets.items()],
        )
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError):
        return {}
    return {name: kind.tensor_type.elem_type for name, kind in inferred.items()}

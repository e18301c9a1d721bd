"""Steps of scikit-learn pipelines that skl2onnx converts with modules of ours, and a scaler in float32."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from onnx import TensorProto

from modelrel.formats.onnx import from_trees, sklearn_tail, sklearn_trees
from modelrel.formats.onnx.graph import Nodes
from modelrel.formats.order import Order

_KEEP_SPARSE: Final = frozenset(
    {"MaxAbsScaler", "StandardScaler", "SelectKBest", "SelectPercentile", "VarianceThreshold"}
)


def register(order: Order) -> None:
    """Make skl2onnx convert these steps with this module (in this process)."""
    sklearn_trees.register()
    single = all(spec.datatype in ("FP32", "BYTES") for spec in order.signature.inputs)
    sklearn_tail.register(single=single)
    _register_scaler(single)


def mark_sparse(native: Any) -> None:
    """Note on each booster of a pipeline whether the steps before it hand it sparse rows."""
    sparse = False
    for _, step in getattr(native, "steps", ()):
        kind = type(step).__name__
        if kind == "ColumnTransformer":
            sparse = bool(step.sparse_output_)
        elif kind == "OneHotEncoder":
            sparse = bool(step.sparse_output)
        elif kind not in _KEEP_SPARSE and hasattr(step, "transform"):
            sparse = False
        elif hasattr(step, "predict"):
            setattr(step, sklearn_trees.SPARSE, sparse)


def _register_scaler(single: bool) -> None:
    """Scale in float32 where every number comes in float32: scikit-learn then does, and a tree sees the rounding."""
    from skl2onnx import update_registered_converter
    from skl2onnx.operator_converters.scaler_op import convert_sklearn_scaler
    from skl2onnx.shape_calculators.scaler import calculate_sklearn_scaler_output_shapes
    from sklearn.preprocessing import StandardScaler

    update_registered_converter(
        StandardScaler,
        "SklearnScaler",
        calculate_sklearn_scaler_output_shapes,
        _scaled if single else convert_sklearn_scaler,
        overwrite=True,
        options={"div": ["std", "div", "div_cast"]},
    )


def _scaled(scope: Any, operator: Any, container: Any) -> None:
    native = operator.raw_operator
    nodes = Nodes(scope.get_unique_operator_name("modelrel"))
    joined = [nodes.cast(variable.full_name, TensorProto.FLOAT) for variable in operator.inputs]
    x = nodes.add("Concat", *joined, axis=1) if len(joined) > 1 else joined[0]
    if native.with_mean:
        x = nodes.add("Sub", x, nodes.constant(native.mean_, np.float32))
    if native.with_std:
        x = nodes.add("Div", x, nodes.constant(native.scale_, np.float32))
    from_trees.finish(nodes, container, operator, (nodes.cast(x, TensorProto.DOUBLE),))

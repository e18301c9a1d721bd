"""Steps of scikit-learn pipelines that skl2onnx converts with modules of ours: an imputer, a scaler in float32."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from onnx import TensorProto

from modelrel.errors import Refused
from modelrel.formats.onnx import from_trees, known_faults, sklearn_tail, sklearn_text, sklearn_trees
from modelrel.formats.onnx.graph import Nodes
from modelrel.formats.order import Order
from modelrel.values import Signature

_KEEP_SPARSE: Final = frozenset(
    {"MaxAbsScaler", "Normalizer", "StandardScaler", "SelectKBest", "SelectPercentile", "VarianceThreshold"}
)


def register(order: Order) -> None:
    """Make skl2onnx convert these steps with this module (in this process)."""
    sklearn_trees.register()
    kinds = {spec.datatype for spec in order.signature.inputs}
    single = "FP32" in kinds <= {"FP32", "BYTES"}  # what is made of text alone is float64
    sklearn_tail.register(single=single)
    sklearn_text.register()
    _register_scaler(single)
    _register_imputer(order.signature)


_MAKE_SPARSE: Final = frozenset({"CountVectorizer", "HashingVectorizer", "TfidfTransformer", "TfidfVectorizer"})


def _gives_sparse(step: Any) -> bool:
    """Whether what a step of a FeatureUnion gives is sparse, which makes all of it so."""
    last = step
    while hasattr(last, "steps"):
        last = last.steps[-1][1]
    return type(last).__name__ in _MAKE_SPARSE or bool(getattr(last, "sparse_output", False))


def mark_sparse(native: Any) -> None:
    """Note on each booster of a pipeline whether the steps before it hand it sparse rows.

    Raises `Refused` where a sparse row may hold zeros, which XGBoost tells from what the row does not hold.
    """
    sparse = False
    hashes = [part for part in known_faults.parts(native) if type(part).__name__ == "HashingVectorizer"]
    cancels = any(part.alternate_sign and not part.binary for part in hashes)
    for _, step in getattr(native, "steps", ()):
        kind = type(step).__name__
        if kind == "ColumnTransformer":
            sparse = bool(step.sparse_output_)
        elif kind == "OneHotEncoder":
            sparse = bool(step.sparse_output)
        elif kind in _MAKE_SPARSE:
            sparse = True
        elif kind == "FeatureUnion":
            sparse = any(_gives_sparse(inner) for _, inner in step.transformer_list)
        elif kind not in _KEEP_SPARSE and hasattr(step, "transform"):
            sparse = False
        elif hasattr(step, "predict"):
            if cancels and type(step).__module__.startswith("xgboost"):
                raise Refused(
                    f"HashingVectorizer with alternate_sign before {kind}: a count that cancels to 0 is not missing",
                    "Train it with alternate_sign=False.",
                )
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


def _register_imputer(signature: Signature) -> None:
    """Fill gaps with the float64 numbers that were fitted: ONNX's own Imputer holds float32, beside some threshold."""
    from skl2onnx import update_registered_converter
    from skl2onnx.common.data_types import DoubleTensorType
    from skl2onnx.operator_converters.imputer_op import convert_sklearn_imputer
    from skl2onnx.shape_calculators.imputer import calculate_sklearn_imputer_output_shapes
    from sklearn.impute import SimpleImputer

    kinds = {spec.name: spec.datatype for spec in signature.inputs}

    def filled(scope: Any, operator: Any, container: Any) -> None:
        native = operator.raw_operator
        plain = all(isinstance(variable.type, DoubleTensorType) for variable in operator.inputs)
        # A constant is kept as an object, which looks like an imputer of texts: there "" stands for missing.
        missing = math.nan if native.missing_values == "" else native.missing_values
        if not plain or not isinstance(missing, int | float):
            convert_sklearn_imputer(scope, operator, container)
            return
        nodes = Nodes(scope.get_unique_operator_name("modelrel"))
        joined = [variable.full_name for variable in operator.inputs]
        x = nodes.add("Concat", *joined, axis=1) if len(joined) > 1 else joined[0]
        values = native.statistics_.astype(np.float64)
        # Where all its columns are float32, scikit-learn fills them with float32 numbers.
        own = [kinds.get(name, "") for name in getattr(native, "feature_names_in_", kinds)]
        if set(own if all(own) else kinds.values()) == {"FP32"}:
            values = values.astype(np.float32).astype(np.float64)
        gap = nodes.add("IsNaN", x) if math.isnan(missing) else nodes.add("Equal", x, nodes.constant(float(missing)))
        result = nodes.add("Where", gap, nodes.constant(values), x)
        from_trees.finish(nodes, container, operator, (result,))

    update_registered_converter(
        SimpleImputer, "SklearnSimpleImputer", calculate_sklearn_imputer_output_shapes, filled, overwrite=True
    )

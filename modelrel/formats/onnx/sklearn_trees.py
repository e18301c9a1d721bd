"""Models of trees as steps that skl2onnx meets: scikit-learn's own, XGBoost's and LightGBM's.

skl2onnx 1.20 writes float32 trees and never reads `missing_go_to_left`, so it is wrong on a row with a gap (which
forests take, trained on gaps or not), and it does not end on a tree that splits on "is missing". Of histogram
gradient boosting it does not read the categories, and it fails there with protobuf 7.
"""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from typing import Any, Final

from onnx import TensorProto

from modelrel import trees
from modelrel.formats.onnx import from_trees
from modelrel.formats.onnx.graph import Nodes

SPARSE: Final = "modelrel_sparse_"
"""Attribute of a booster (in the converter's copy) whose rows come sparse, where XGBoost takes 0 for missing."""

_TREE: Final = {"zipmap": [True, False, "columns"], "nocl": [True, False], "raw_scores": [False, True]}
_OPTIONS: Final = {**_TREE, "output_class_labels": [False, True]}


def register() -> None:
    """Make skl2onnx convert models of trees with this module (in this process)."""
    from skl2onnx.common import shape_calculator as shapes
    from skl2onnx.shape_calculators.isolation_forest import calculate_isolation_forest_output_shapes
    from sklearn import ensemble, tree

    classified, predicted = (
        shapes.calculate_linear_classifier_output_shapes,
        shapes.calculate_linear_regressor_output_shapes,
    )
    for name in ("DecisionTree", "ExtraTree", "RandomForest", "ExtraTrees", "GradientBoosting"):
        room = tree if hasattr(tree, f"{name}Classifier") else ensemble
        _declare(getattr(room, f"{name}Classifier"), classified, _OPTIONS)
        _declare(getattr(room, f"{name}Regressor"), predicted)
    _declare(ensemble.IsolationForest, calculate_isolation_forest_output_shapes, {"score_samples": [False]})
    _declare(ensemble.HistGradientBoostingClassifier, _shaped, _OPTIONS)
    _declare(ensemble.HistGradientBoostingRegressor, _shaped)
    # A model that uses them has imported them; nothing is imported for one that does not.
    for library, names in (
        ("xgboost", ("XGBClassifier", "XGBRFClassifier", "XGBRegressor", "XGBRFRegressor")),
        ("lightgbm", ("LGBMClassifier", "LGBMRegressor")),
    ):
        if library in sys.modules:
            for name in names:
                kind = getattr(sys.modules[library], name)
                classifies = hasattr(kind, "predict_proba")
                _declare(kind, classified if classifies else predicted, _TREE if classifies else None)


def _declare(kind: type[Any], shaped: Any, options: dict[str, Any] | None = None) -> None:
    from skl2onnx import update_registered_converter

    more = {} if options is None else {"options": options}
    update_registered_converter(kind, f"Modelrel{kind.__name__}", shaped, _convert, overwrite=True, **more)


def _shaped(operator: Any) -> None:
    """Declare the outputs; skl2onnx's own functions refuse several inputs, which columns of text and numbers are."""
    from skl2onnx.common.data_types import DoubleTensorType, Int64TensorType, StringTensorType

    native = operator.raw_operator
    count = operator.inputs[0].get_first_dimension()
    operator.outputs[-1].set_type(DoubleTensorType([count, len(getattr(native, "classes_", "1"))]))
    if len(operator.outputs) > 1:
        text = native.classes_.dtype.kind in "OUS"
        operator.outputs[0].set_type((StringTensorType if text else Int64TensorType)([count]))


def _convert(scope: Any, operator: Any, container: Any) -> None:
    native = operator.raw_operator
    ensemble = trees.read(native)
    assert ensemble is not None
    nodes = Nodes(scope.get_unique_operator_name("modelrel"))
    if ensemble.entry.codes:
        x = _coded(nodes, operator, ensemble)
        ensemble = replace(ensemble, entry=trees.Entry())
    else:
        x = nodes.cast(operator.inputs[0].full_name, TensorProto.DOUBLE)
    if getattr(native, SPARSE, False):
        # A sparse row does not hold its zeros, and what a row does not hold is missing to XGBoost.
        gap = nodes.add("Equal", x, nodes.constant(0.0))
        x = nodes.add("Where", gap, nodes.constant(math.nan), x)
    from_trees.finish(nodes, container, operator, from_trees.answered(nodes, x, ensemble))


def _coded(nodes: Nodes, operator: Any, ensemble: trees.Ensemble) -> str:
    """Return all features side by side, categories as their places; they come as one tensor, or one each."""
    from skl2onnx.common.data_types import StringTensorType

    given = []
    for variable in operator.inputs:
        width = ensemble.features if len(operator.inputs) == 1 else int(variable.type.shape[1])
        given.append((variable.full_name, width, isinstance(variable.type, StringTensorType)))
    return from_trees.with_codes(nodes, given, ensemble.entry, type(operator.raw_operator).__name__)

"""scikit-learn's trees for skl2onnx, from their arrays: float64 thresholds, and NaN goes where it goes there.

skl2onnx 1.20 writes float32 trees and never reads `missing_go_to_left`, so it is wrong on a row with a gap
(which forests take, trained on gaps or not), and it does not end on a tree that splits on "is missing".
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
from onnx import TensorProto, helper

from modelrel.errors import Refused
from modelrel.formats.onnx import links, trees
from modelrel.formats.onnx.graph import Nodes
from modelrel.formats.onnx.trees import Mode, Tree
from modelrel.values import Scalar

OPTIONS: Final = {
    "zipmap": [True, False, "columns"],
    "nocl": [True, False],
    "output_class_labels": [False, True],
    "raw_scores": [False, True],
}
"""What skl2onnx may ask of a classifier's converter."""


def register() -> None:
    """Make skl2onnx convert trees and ensembles of them with this module (in this process)."""
    from skl2onnx import update_registered_converter
    from skl2onnx.common import shape_calculator as shapes
    from skl2onnx.shape_calculators.isolation_forest import calculate_isolation_forest_output_shapes
    from sklearn import ensemble, tree

    for kind in (
        tree.DecisionTreeClassifier,
        tree.ExtraTreeClassifier,
        ensemble.RandomForestClassifier,
        ensemble.ExtraTreesClassifier,
        ensemble.GradientBoostingClassifier,
    ):
        calculate = shapes.calculate_linear_classifier_output_shapes
        update_registered_converter(
            kind, f"Modelrel{kind.__name__}", calculate, _convert, overwrite=True, options=OPTIONS
        )
    for kind in (
        tree.DecisionTreeRegressor,
        tree.ExtraTreeRegressor,
        ensemble.RandomForestRegressor,
        ensemble.ExtraTreesRegressor,
        ensemble.GradientBoostingRegressor,
    ):
        calculate = shapes.calculate_linear_regressor_output_shapes
        update_registered_converter(kind, f"Modelrel{kind.__name__}", calculate, _convert, overwrite=True)

    update_registered_converter(
        ensemble.IsolationForest,
        "ModelrelIsolationForest",
        calculate_isolation_forest_output_shapes,
        _convert,
        overwrite=True,
        options={"score_samples": [False]},
    )


def forest(native: Any) -> list[Tree]:
    """Return the trees of a fitted tree or ensemble, their leaves weighing nothing yet; empty for another model."""
    singles = _singles(native)
    # A bag gives each member some of the columns only, and a tree numbers those; its members need not be trees.
    picked = getattr(native, "estimators_features_", None)
    columns = [None] * len(singles) if picked is None else [np.asarray(own) for own in picked]
    found = []
    for single, own in zip(singles, columns, strict=True):
        if hasattr(single, "tree_"):
            tree = _tree(single.tree_)
            found.append(tree if own is None else replace(tree, feature=own[tree.feature]))
    return found


def _singles(native: Any) -> list[Any]:
    """Return the members of an ensemble; gradient boosting has a table of them, (rounds, classes)."""
    members = getattr(native, "estimators_", [native])
    # NumPy would take a member that is itself a forest for a row of trees.
    return list(members.ravel()) if isinstance(members, np.ndarray) else list(members)


def _tree(native: Any) -> Tree:
    leaf = native.children_left < 0
    tree = trees.from_nodes(
        leaf, (native.children_left, native.children_right), native.feature, native.threshold, Mode.LEQ
    )
    if not hasattr(native, "missing_go_to_left"):
        return tree  # before scikit-learn 1.3 no tree takes a gap
    return replace(tree, missing=np.asarray(native.missing_go_to_left)[~leaf].astype(np.int64))


def _tables(native: Any) -> list[Any]:
    """Return the vectors of each tree's leaves, (leaves, classes or 1)."""
    return [_table(single) for single in _singles(native)]


def _table(single: Any) -> Any:
    tree = single.tree_
    table = tree.value[tree.children_left < 0, 0, :]
    if hasattr(tree, "missing_go_to_left") or not hasattr(single, "classes_"):
        return table
    return table / table.sum(axis=1, keepdims=True)  # before scikit-learn 1.3 leaves hold weights, not shares


def _entered(nodes: Nodes, native: Any, x: str) -> str:
    """Return the features as scikit-learn's trees see them: rounded to float32."""
    if getattr(native, "n_outputs_", 1) > 1:
        raise Refused(
            f"{type(native).__name__} predicts several targets at once",
            "Release one model per target: several outputs have no common form in the formats.",
        )
    return nodes.cast(nodes.cast(x, TensorProto.FLOAT), TensorProto.DOUBLE)


def answered(native: Any, nodes: Nodes, x: str) -> tuple[str, ...] | None:
    """Add a fitted tree or ensemble on the features `x` (N, features); return its results, label before numbers.

    Returns None for a model that this module does not write.
    """
    write = next((write for kind, write in _WRITERS.items() if type(native).__name__ == kind), None)
    if write is None or not type(native).__module__.startswith("sklearn."):
        return None
    return write(nodes, _entered(nodes, native, x), native)


def _convert(scope: Any, operator: Any, container: Any) -> None:
    nodes = Nodes(scope.get_unique_operator_name("modelrel"))
    results = answered(operator.raw_operator, nodes, operator.inputs[0].full_name)
    assert results is not None
    finish(nodes, container, operator, results)


def _classifier(nodes: Nodes, x: str, native: Any) -> tuple[str, ...]:
    if hasattr(native, "init_"):
        index, probabilities = _boosted_classes(nodes, x, native)
    else:
        probabilities = trees.looked_up(nodes, x, forest(native), _tables(native))
        index = links.largest(nodes, probabilities)
    label, _ = links.labels(nodes, index, known_classes(native))
    return label, probabilities


def known_classes(native: Any) -> list[Scalar]:
    """Return the class labels; numbers as integers where that loses nothing, which is what skl2onnx declares."""
    known = native.classes_
    whole = known.dtype.kind not in "OUS" and (known == np.trunc(known)).all()
    found: list[Scalar] = (known.astype(np.int64) if whole else known).tolist()
    return found


def _regressor(nodes: Nodes, x: str, native: Any) -> tuple[str, ...]:
    if hasattr(native, "init_"):
        return (_boosted(nodes, x, native),)
    weighed = [replace(tree, leaves=table[:, 0]) for tree, table in zip(forest(native), _tables(native), strict=True)]
    total = trees.summed(nodes, x, weighed, np.zeros(len(weighed), np.int64), 1)
    return (nodes.add("Div", total, nodes.constant(float(len(weighed)))),)


def _boosted(nodes: Nodes, x: str, native: Any) -> str:
    """Return the raw sums of gradient boosting: where it starts, plus its shrunken trees, (N, classes or 1)."""
    start = type(getattr(native, "init_", "zero")).__name__
    if start not in ("DummyClassifier", "DummyRegressor", "str"):
        raise Refused(
            f"{type(native).__name__} starts from a {start}, which has no proven copy",
            "Train it with init=None or init='zero'.",
        )
    # Where it starts does not depend on the row with such an init.
    first = native._raw_predict_init(np.zeros((1, native.n_features_in_)))  # noqa: SLF001 - there is no public one
    weighed = [
        replace(tree, leaves=table[:, 0] * native.learning_rate)
        for tree, table in zip(forest(native), _tables(native), strict=True)
    ]
    width = native.estimators_.shape[1]
    targets = np.arange(len(weighed)) % width
    return nodes.add("Add", trees.summed(nodes, x, weighed, targets, width), nodes.constant(first, np.float64))


def _boosted_classes(nodes: Nodes, x: str, native: Any) -> tuple[str, str]:
    """Return class numbers and probabilities of gradient boosting."""
    raw = _boosted(nodes, x, native)
    if len(native.classes_) > 2:
        return links.largest(nodes, raw), nodes.add("Softmax", raw, axis=1)
    slope = 2.0 if native.loss == "exponential" else 1.0
    index = links.above(nodes, raw, nodes.constant(0.0), or_equal=True)
    return index, links.both(nodes, links.sigmoid(nodes, raw, slope))


def _isolation(nodes: Nodes, x: str, native: Any) -> tuple[str, ...]:
    """Write IsolationForest: 2 ** -(mean depth / expected depth), the offset taken off (Liu et al., 2008)."""
    weighed = []
    for single, tree in zip(native.estimators_, forest(native), strict=True):
        leaf = single.tree_.children_left < 0
        # counted here: scikit-learn keeps these numbers since 1.3 only, and under names of its own
        rest = [_expected_depth(int(samples)) for samples in single.tree_.n_node_samples[leaf]]
        weighed.append(replace(tree, leaves=_depths(single.tree_)[leaf] + np.array(rest)))
    total = trees.summed(nodes, x, weighed, np.zeros(len(weighed), np.int64), 1)
    samples = getattr(native, "_max_samples", None) or native.max_samples_  # before scikit-learn 1.3, public
    if samples <= 1:
        raise Refused("IsolationForest was trained on one sample", "Train it on more.")
    expected = _expected_depth(int(samples)) * len(weighed)
    share = nodes.add("Neg", nodes.add("Div", total, nodes.constant(expected)))
    score = nodes.add("Pow", nodes.constant(2.0), share)
    decision = nodes.add("Sub", nodes.add("Neg", score), nodes.constant(float(native.offset_)))
    outlier = nodes.add("Less", decision, nodes.constant(0.0))
    label = nodes.add("Where", outlier, nodes.constant(-1, np.int64), nodes.constant(1, np.int64))
    return label, decision


def _depths(tree: Any) -> Any:
    """Return how many splits stand above each node of a scikit-learn tree, (nodes,) float64."""
    depths = np.zeros(tree.node_count)
    level = np.array([0])
    while len(level):
        inner = level[tree.children_left[level] >= 0]
        level = np.concatenate([tree.children_left[inner], tree.children_right[inner]])
        depths[level] = np.tile(depths[inner] + 1.0, 2)
    return depths


def _expected_depth(samples: int) -> float:
    """Return the mean depth of an unsuccessful search among `samples` (`sklearn.ensemble._iforest`)."""
    if samples <= 2:
        return float(max(samples - 1, 0))
    return float(2.0 * (np.log(samples - 1.0) + np.euler_gamma) - 2.0 * (samples - 1.0) / samples)


_WRITERS: Final = {
    "DecisionTreeClassifier": _classifier,
    "ExtraTreeClassifier": _classifier,
    "RandomForestClassifier": _classifier,
    "ExtraTreesClassifier": _classifier,
    "GradientBoostingClassifier": _classifier,
    "DecisionTreeRegressor": _regressor,
    "ExtraTreeRegressor": _regressor,
    "RandomForestRegressor": _regressor,
    "ExtraTreesRegressor": _regressor,
    "GradientBoostingRegressor": _regressor,
    "IsolationForest": _isolation,
}


def finish(nodes: Nodes, container: Any, operator: Any, results: tuple[str, ...]) -> None:
    """Hand the nodes to skl2onnx, each result under the name that it expects.

    Numbers stay float64 whatever it declares: `repair` makes the declarations true afterwards.
    """
    for variable, result in zip(operator.outputs, results, strict=True):
        nodes.nodes.append(helper.make_node("Identity", [result], [variable.full_name]))
    container.nodes.extend(nodes.nodes)
    container.initializers.extend(nodes.constants)

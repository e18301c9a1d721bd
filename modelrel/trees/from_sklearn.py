"""scikit-learn's trees, forests, boosted and isolation forests, read from their arrays.

Its trees compare `float32(x) <= threshold` in float64, and since 1.3 send NaN to a side of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np

from modelrel.errors import Refused
from modelrel.trees.ensemble import Choice, Ensemble, Entry
from modelrel.trees.forest import Floats, Forest, Nodes, planted, renamed, together
from modelrel.values import Scalar

_SINGLE: Final = Entry(single=True)
_AT_HAND: Final = 30_000


def read(native: Any) -> Ensemble | None:
    """Return a fitted tree or ensemble of trees; None for another model.

    Raises `Refused` for several targets at once, and for gradient boosting that starts from another model.
    """
    found = _READERS.get(type(native).__name__)
    if found is None or not type(native).__module__.startswith("sklearn."):
        return None
    if getattr(native, "n_outputs_", 1) > 1:
        raise Refused(
            f"{type(native).__name__} predicts several targets at once",
            "Release one model per target: several outputs have no common form in the formats.",
        )
    return found(native)


def forest(native: Any) -> Forest | None:
    """Return the trees among the members of any fitted ensemble, or None; leaves hold what scikit-learn keeps there."""
    singles = _singles(native)
    # A bag gives each member some of the columns only, and a tree numbers those; its members need not be trees.
    columns = getattr(native, "estimators_features_", None)
    if columns is None:
        trees = [single for single in singles if hasattr(single, "tree_")]
        return _forest(trees) if trees else None
    parts = [
        renamed(_forest([single]), np.asarray(own, np.int64))
        for single, own in zip(singles, columns, strict=True)
        if hasattr(single, "tree_")
    ]
    return together(parts) if parts else None


def known_classes(native: Any) -> tuple[Scalar, ...]:
    """Return the class labels; numbers as integers where that loses nothing, which is what skl2onnx declares."""
    known = native.classes_
    whole = known.dtype.kind not in "OUS" and (known == np.trunc(known)).all()
    found: list[Scalar] = (known.astype(np.int64) if whole else known).tolist()
    return tuple(found)


def _singles(native: Any) -> list[Any]:
    """Return the members of an ensemble; gradient boosting has a table of them, (rounds, classes)."""
    members = getattr(native, "estimators_", [native])
    # NumPy would take a member that is itself a forest for a row of trees.
    return list(members.ravel()) if isinstance(members, np.ndarray) else list(members)


def _forest(singles: list[Any], leaves: Floats | None = None) -> Forest:
    """Join trees; `leaves` stand for what they keep there."""
    if leaves is None:
        leaves = np.concatenate([single.tree_.value[single.tree_.children_left < 0, 0, :] for single in singles])
        if hasattr(singles[0], "classes_") and not hasattr(singles[0].tree_, "missing_go_to_left"):
            leaves = leaves / leaves.sum(axis=1, keepdims=True)  # before 1.3 they hold weights, not shares
    parts, start = [], 0
    for some in _some([single.tree_ for single in singles]):
        end = start + sum(tree.n_leaves for tree in some)
        parts.append(_planted(some, leaves[start:end]))
        start = int(end)
    return parts[0] if len(parts) == 1 else together(parts)


def _some(trees: list[Any]) -> Iterator[list[Any]]:
    """Yield trees in lists of some ten thousand nodes, which a processor has at hand."""
    found: list[Any] = []
    nodes = 0
    for tree in trees:
        found.append(tree)
        nodes += tree.node_count
        if nodes > _AT_HAND:
            yield found
            found, nodes = [], 0
    if found:
        yield found


def _planted(trees: list[Any], leaves: Floats) -> Forest:
    def joined(name: str) -> Any:
        return np.concatenate([np.asarray(getattr(tree, name)) for tree in trees])

    first = joined("children_left")
    nodes = Nodes(
        sizes=np.array([tree.node_count for tree in trees], np.int64),
        leaf=first < 0,
        first=first,
        second=joined("children_right"),
        feature=joined("feature"),
        threshold=joined("threshold"),
        # before scikit-learn 1.3 no tree takes a gap
        missing=joined("missing_go_to_left").astype(bool) if hasattr(trees[0], "missing_go_to_left") else None,
    )
    return planted(nodes, leaves)


def _classifier(native: Any) -> Ensemble:
    singles = _singles(native)
    return Ensemble(
        features=native.n_features_in_,
        forest=_forest(singles),
        targets=None,
        base=np.zeros(len(native.classes_)),
        entry=_SINGLE,
        divisor=float(len(singles)),
        choice=Choice(classes=known_classes(native)),
    )


def _regressor(native: Any) -> Ensemble:
    singles = _singles(native)
    return Ensemble(
        features=native.n_features_in_,
        forest=_forest(singles),
        targets=np.zeros(len(singles), np.int64),
        base=np.zeros(1),
        entry=_SINGLE,
        divisor=float(len(singles)),
    )


def _boosted(native: Any, **more: Any) -> Ensemble:
    """Return gradient boosting: where it starts, plus its shrunken trees."""
    start = type(getattr(native, "init_", "zero")).__name__
    if start not in ("DummyClassifier", "DummyRegressor", "str"):
        raise Refused(
            f"{type(native).__name__} starts from a {start}, which has no proven copy",
            "Train it with init=None or init='zero'.",
        )
    # Where it starts does not depend on the row with such an init.
    base = native._raw_predict_init(np.zeros((1, native.n_features_in_)))  # noqa: SLF001 - there is no public one
    singles = _singles(native)
    plain = np.concatenate([single.tree_.value[single.tree_.children_left < 0, 0, 0] for single in singles])
    return Ensemble(
        features=native.n_features_in_,
        forest=_forest(singles, plain * native.learning_rate),
        targets=np.arange(len(singles), dtype=np.int64) % native.estimators_.shape[1],
        base=np.asarray(base, np.float64).ravel(),
        entry=_SINGLE,
        **more,
    )


def _boosted_classes(native: Any) -> Ensemble:
    known = known_classes(native)
    if len(known) > 2:
        return _boosted(native, link="softmax", choice=Choice(classes=known, of="raw"))
    slope = 2.0 if native.loss == "exponential" else 1.0
    choice = Choice(classes=known, rule="at_least", of="raw")
    return _boosted(native, link="sigmoid", slope=slope, pair=True, choice=choice)


def _isolation(native: Any) -> Ensemble:
    """Return IsolationForest: 2 ** -(mean depth / expected depth), the offset taken off (Liu et al., 2008)."""
    singles = _singles(native)
    depths = []
    for single in singles:
        leaf = single.tree_.children_left < 0
        # counted here: scikit-learn keeps these numbers since 1.3 only, and under names of its own
        rest = [_expected_depth(int(samples)) for samples in single.tree_.n_node_samples[leaf]]
        depths.append(_depths(single.tree_)[leaf] + np.array(rest))
    found = _forest(singles, np.concatenate(depths))
    columns = getattr(native, "estimators_features_", None)
    if columns is not None and native.max_features != 1.0:
        found = together([
            renamed(_forest([single], own_depths), np.asarray(own, np.int64))
            for single, own_depths, own in zip(singles, depths, columns, strict=True)
        ])  # fmt: skip
    samples = getattr(native, "_max_samples", None) or native.max_samples_  # before scikit-learn 1.3, public
    if samples <= 1:
        raise Refused("IsolationForest was trained on one sample", "Train it on more.")
    expected = _expected_depth(int(samples)) * len(singles)
    return Ensemble(
        features=native.n_features_in_,
        forest=found,
        targets=np.zeros(len(singles), np.int64),
        base=np.zeros(1),
        entry=_SINGLE,
        divisor=expected,
        link="isolation",
        offset=float(native.offset_),
        choice=Choice(classes=(1, -1), rule="below"),
    )


def _expected_depth(samples: int) -> float:
    """Return the mean depth of an unsuccessful search among `samples` (`sklearn.ensemble._iforest`)."""
    if samples <= 2:
        return float(max(samples - 1, 0))
    return float(2.0 * (np.log(samples - 1.0) + np.euler_gamma) - 2.0 * (samples - 1.0) / samples)


def _depths(tree: Any) -> Any:
    """Return how many splits stand above each node of a scikit-learn tree, (nodes,) float64."""
    depths = np.zeros(tree.node_count)
    level = np.array([0])
    while len(level):
        inner = level[tree.children_left[level] >= 0]
        level = np.concatenate([tree.children_left[inner], tree.children_right[inner]])
        depths[level] = np.tile(depths[inner] + 1.0, 2)
    return depths


_READERS: Final[dict[str, Callable[[Any], Ensemble]]] = {
    "DecisionTreeClassifier": _classifier,
    "ExtraTreeClassifier": _classifier,
    "RandomForestClassifier": _classifier,
    "ExtraTreesClassifier": _classifier,
    "GradientBoostingClassifier": _boosted_classes,
    "DecisionTreeRegressor": _regressor,
    "ExtraTreeRegressor": _regressor,
    "RandomForestRegressor": _regressor,
    "ExtraTreesRegressor": _regressor,
    "GradientBoostingRegressor": _boosted,
    "IsolationForest": _isolation,
}

"""scikit-learn's histogram gradient boosting: float64 thresholds, gaps and categories as it keeps them."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from modelrel.errors import Refused
from modelrel.trees.ensemble import Choice, Ensemble, Entry, LinkName
from modelrel.trees.forest import Forest, Mode, Nodes, planted
from modelrel.trees.from_sklearn import known_classes

_LINKS: Final[dict[str, LinkName]] = {"IdentityLink": "identity", "LogLink": "exp"}
_EXACT_INTEGERS: Final = 2**53  # float64 holds every whole number below


def read(native: Any) -> Ensemble:
    """Return a fitted HistGradientBoostingClassifier or -Regressor.

    Raises `Refused` for categories and losses that have no exact copy.
    """
    known = categories(native)
    found = forest(native)
    width = int(native.n_trees_per_iteration_)
    shared: dict[str, Any] = {
        "features": native.n_features_in_,
        "forest": found,
        "targets": np.arange(len(found.roots), dtype=np.int64) % width,
        "base": np.asarray(native._baseline_prediction, np.float64).ravel(),  # noqa: SLF001 - there is no public one
        "entry": Entry(codes=known),
    }
    if hasattr(native, "classes_"):
        classes = known_classes(native)
        if len(classes) > 2:
            return Ensemble(link="softmax", choice=Choice(classes=classes, of="raw"), **shared)
        choice = Choice(classes=classes, rule="above", of="raw")
        return Ensemble(link="sigmoid", pair=True, choice=choice, **shared)
    link = type(native._loss.link).__name__  # noqa: SLF001 - there is no public one
    if link not in _LINKS:
        raise Refused(
            f"{type(native).__name__} with loss={native.loss!r} has no proven copy",
            "Train it with one of scikit-learn's own losses.",
        )
    return Ensemble(link=_LINKS[link], **shared)


def forest(native: Any) -> Forest:
    """Return the trees, round by round and class by class, over the features in the order of the inputs.

    A feature of categories holds a category's place among `categories`, and anything below 0 where it is none.
    Raises `Refused` for categories that have no exact copy.
    """
    sizes = {index: len(listed) for index, listed in categories(native).items()}
    singles = [single for round_ in native._predictors for single in round_]  # noqa: SLF001
    said = np.concatenate([single.nodes for single in singles])
    leaf = said["is_leaf"].astype(bool)
    feature = _order(native)[said["feature_idx"]]
    left, picks = said["missing_go_to_left"].astype(bool), said["is_categorical"].astype(bool) & ~leaf
    counts = np.array([len(single.nodes) for single in singles], np.int64)
    owner = np.repeat(np.arange(len(singles)), counts)
    members = []
    for number in np.flatnonzero(picks).tolist():
        known = np.arange(sizes[int(feature[number])], dtype=np.float64)
        goes = np.isin(known, _bits(singles[owner[number]].raw_left_cat_bitsets[said["bitset_idx"][number]]))
        # What is not known goes where a gap goes, so the set is that of the other side.
        members.append(known[goes != left[number]])
    swapped = picks & left
    nodes = Nodes(
        sizes=counts,
        leaf=leaf,
        first=np.where(swapped, said["right"], said["left"]).astype(np.int64),
        second=np.where(swapped, said["left"], said["right"]).astype(np.int64),
        feature=feature,
        threshold=np.where(picks, 0.0, said["num_threshold"]),
        missing=left & ~picks,
        mode=np.where(picks, Mode.MEMBER, Mode.LEQ).astype(np.uint8),
    )
    return planted(nodes, said["value"][leaf].astype(np.float64), members)


def categories(native: Any) -> dict[int, list[Any]]:
    """Return feature -> its categories as they come in, in the order of their codes, a missing one left out."""
    picked = getattr(native, "is_categorical_", None)
    if picked is None or not np.any(picked):
        return {}
    if getattr(native, "_preprocessor", None) is None:
        raise Refused(
            f"{type(native).__name__} has categories as scikit-learn kept them before 1.4, which has no proven copy",
            "Train it with scikit-learn 1.4 or newer.",
        )
    encoder = native._preprocessor.named_transformers_["encoder"]  # noqa: SLF001 - there is no public one
    known = [_listed(found) for found in encoder.categories_]
    return dict(zip(np.flatnonzero(picked).tolist(), known, strict=True))


def _listed(found: Any) -> list[Any]:
    listed: list[Any] = np.asarray(found).tolist()
    if listed and isinstance(listed[-1], float) and np.isnan(listed[-1]):
        listed.pop()  # NaN comes last
    texts = [isinstance(value, str) for value in listed if value is not None]
    if any(texts) and ("" in listed or not all(texts)):
        raise Refused(
            "histogram gradient boosting knows a category that is an empty text, which a copy cannot tell from a gap",
            "Replace it by a word before training.",
        )
    numbers = [value for value in listed if isinstance(value, int | float)]
    if any(abs(value) >= _EXACT_INTEGERS for value in numbers):
        raise Refused(
            "histogram gradient boosting knows a category beyond 2**53, where float64 merges whole numbers",
            "Encode the categories as small numbers before training.",
        )
    return listed


def _order(native: Any) -> Any:
    """Return the input's feature of each feature of the trees: those with categories come first there."""
    picked = getattr(native, "is_categorical_", None)
    if picked is None or not np.any(picked):
        return np.arange(native.n_features_in_)
    return np.concatenate([np.flatnonzero(picked), np.flatnonzero(~np.asarray(picked))])


def _bits(words: Any) -> Any:
    """Return the numbers of the set bits of words of 32 bits, the lowest first."""
    return np.flatnonzero(np.unpackbits(np.asarray(words).astype("<u4").view(np.uint8), bitorder="little"))

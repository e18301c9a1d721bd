"""What a fitted scikit-learn pipeline tells about its inputs: thresholds, categories, ranges, gaps.

Followed forward through steps that keep features apart: a feature after them is `scale * input + shift` of one
input, or a test for one of its categories, or something that is not followed further.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from modelrel import trees
from modelrel.trees import Forest
from modelrel.values import Signature


@dataclass(frozen=True, slots=True)
class Way:
    """How a feature comes from an input: `input = (feature - shift) / scale`; `source` -1: not followed."""

    source: int = -1
    scale: float = 1.0
    shift: float = 0.0


def found(native: Any, signature: Signature, forest: Forest | None = None) -> dict[str, object]:
    """Return `{"features": [...]}`, one entry per input feature; empty where the model is not understood.

    `forest` is what a model of trees alone was already read into.
    """
    if signature.kind == "columns":
        names = [spec.name for spec in signature.inputs]
    else:
        shape = signature.inputs[0].shape
        names = [""] * (shape[1] if len(shape) == 2 else 1)
    if len(signature.inputs) > 1 and signature.kind == "tensor":
        return {}
    said: list[dict[str, object]] = [{} for _ in names]
    if forest is not None:
        _split(trees.thresholds(forest, len(names)), [Way(index) for index in range(len(names))], said)
        return {"features": said}
    _follow(native, [Way(index) for index in range(len(names))], names, said)
    return {"features": said}


def _follow(step: Any, ways: list[Way], names: Sequence[str], said: list[dict[str, object]]) -> list[Way] | None:
    """Note what one step tells about the inputs, and return the ways after it (None: lost)."""
    kind = type(step).__name__
    if hasattr(step, "steps"):
        after: list[Way] | None = ways
        for _, inner in step.steps:
            if after is not None and inner is not None and not isinstance(inner, str):
                after = _follow(inner, after, names, said)
        return after
    if kind in ("ColumnTransformer", "FeatureUnion"):
        return _columns(step, ways, names, said)
    if kind == "StandardScaler":
        return _scaled(step, ways, said)
    if kind == "MinMaxScaler":
        _ranges(ways, step.data_min_, step.data_max_, said)
        return _moved(ways, step.scale_, step.min_)
    if kind in ("OneHotEncoder", "OrdinalEncoder"):
        _categories(step, ways, said)
        return [Way()] * len(step.get_feature_names_out())
    if kind == "SimpleImputer":
        return _imputed(step, ways, said)
    if kind == "FrozenEstimator":
        return _follow(step.estimator, ways, names, said)
    if kind == "CalibratedClassifierCV":
        for inner in step.calibrated_classifiers_:
            _follow(inner.estimator, ways, names, said)
    else:
        _last(step, ways, said)
    return None


def _last(step: Any, ways: list[Way], said: list[dict[str, object]]) -> None:
    """Note what a step tells after which features are not followed: words, knots, splits."""
    kind = type(step).__name__
    if kind in ("CountVectorizer", "HashingVectorizer", "TfidfVectorizer"):
        _vocabulary(getattr(step, "vocabulary_", _ANY_WORDS), ways, said)
        return
    if kind in _KNOTS:
        _knots(_KNOTS[kind](step), ways, said)
        return
    _stands_for_missing(step, ways, said)
    forest = trees.forest(step)
    if hasattr(step, "_predictors"):
        _codes(trees.categories(step), ways, said)
    if forest is not None:
        _split(trees.thresholds(forest, len(ways)), ways, said)


_KNOTS: Final[dict[str, Callable[[Any], Any]]] = {
    "IsotonicRegression": lambda step: [step.X_thresholds_],
    "QuantileTransformer": lambda step: step.quantiles_.T,
    "KBinsDiscretizer": lambda step: step.bin_edges_,
    "SplineTransformer": lambda step: [spline.t for spline in step.bsplines_],
}
"""Step -> for each of its features, where its curve bends or its bins end."""

_MOST_KNOTS: Final = 200
_MOST_WORDS: Final = 100


def _knots(listed: Any, ways: list[Way], said: list[dict[str, object]]) -> None:
    for way, knots in zip(ways, listed, strict=False):
        if way.source >= 0 and way.scale:
            back = np.unique((np.asarray(knots, np.float64) - way.shift) / way.scale)
            back = back[np.isfinite(back)]
            picked = np.unique(np.linspace(0, len(back) - 1, min(len(back), _MOST_KNOTS)).astype(int))
            said[way.source]["knots"] = back[picked].tolist()


_ANY_WORDS: Final = ("a", "and", "don't", "été", "good", "it", "naïve", "not", "the", "to", "was", "well-known", "you")
"""What stands for the words of hashes, which are not kept."""


def _vocabulary(known: Iterable[object], ways: list[Way], said: list[dict[str, object]]) -> None:
    if len(ways) == 1 and ways[0].source >= 0:
        words = sorted(str(word) for word in known)
        picked = np.unique(np.linspace(0, len(words) - 1, min(len(words), _MOST_WORDS)).astype(int))
        said[ways[0].source]["vocabulary"] = [words[index] for index in picked]


def _stands_for_missing(step: Any, ways: list[Way], said: list[dict[str, object]]) -> None:
    """Note numbers that boosters may take for a gap: XGBoost's own, and all that LightGBM holds for zero."""
    library = type(step).__module__.partition(".")[0]
    found: list[float] = []
    own = getattr(step, "missing", None) if library == "xgboost" else None
    if isinstance(own, int | float) and np.isfinite(own):
        found = [float(own)]
    if library == "lightgbm":
        found = [0.0, 1e-36, -1e-36, 1e-35, -1e-35]
    for way in ways if found else ():
        if way.source >= 0 and way.scale:
            said[way.source]["missing"] = [(value - way.shift) / way.scale for value in found]


def _columns(step: Any, ways: list[Way], names: Sequence[str], said: list[dict[str, object]]) -> list[Way] | None:
    after: list[Way] = []
    union = [(name, inner, slice(None)) for name, inner in getattr(step, "transformer_list", ())]
    for _, inner, columns in union or step.transformers_:
        if isinstance(inner, str) and inner == "drop":
            continue
        picked = [ways[index] for index in positions(columns, names, len(ways))]
        if isinstance(inner, str) or type(inner).__name__ == "FunctionTransformer":
            after += picked
            continue
        through = _follow(inner, picked, names, said)
        after += [Way()] * len(inner.get_feature_names_out()) if through is None else through
    return after


def positions(columns: Any, names: Sequence[str], count: int) -> list[int]:
    """Return column positions from names, positions, masks, slices, or one of them."""
    if isinstance(columns, slice):
        return list(range(count))[columns]
    listed = [columns] if isinstance(columns, str | int) else list(columns)
    if listed and isinstance(listed[0], bool | np.bool_):
        return [index for index, chosen in enumerate(listed) if chosen]
    return [names.index(entry) if isinstance(entry, str) else int(entry) for entry in listed]


def _imputed(step: Any, ways: list[Way], said: list[dict[str, object]]) -> list[Way] | None:
    for way in ways:
        if step.statistics_.dtype == object and way.source >= 0:
            said[way.source]["exclusive"] = [""]  # it stands for "missing" in the copy
    return ways if len(step.get_feature_names_out()) == len(ways) else None


def _scaled(step: Any, ways: list[Way], said: list[dict[str, object]]) -> list[Way]:
    ones = np.ones(len(ways))
    scale = ones if step.scale_ is None else step.scale_
    mean = 0 * ones if step.mean_ is None else step.mean_
    _ranges(ways, mean - 2 * scale, mean + 2 * scale, said)
    return _moved(ways, 1 / scale, -mean / scale)


def _moved(ways: list[Way], scale: Any, shift: Any) -> list[Way]:
    return [
        Way(way.source, way.scale * float(times), way.shift * float(times) + float(plus))
        for way, times, plus in zip(ways, scale, shift, strict=True)
    ]


def _ranges(ways: list[Way], low: Any, high: Any, said: list[dict[str, object]]) -> None:
    for way, least, most in zip(ways, low, high, strict=True):
        if way.source >= 0 and way.scale == 1 and way.shift == 0 and np.isfinite([least, most]).all():
            said[way.source] |= {"low": float(least), "high": float(most)}


def _categories(step: Any, ways: list[Way], said: list[dict[str, object]]) -> None:
    for way, known in zip(ways, step.categories_, strict=True):
        if way.source >= 0:
            listed = np.asarray(known).tolist()
            if any(value is None or value != value for value in listed):  # noqa: PLR0124 - only NaN is not itself
                said[way.source]["exclusive"] = [""]  # it stands for "missing" in the copy
            said[way.source]["categories"] = [value for value in listed if isinstance(value, str | int | bool)]


def _codes(known: dict[int, list[Any]], ways: list[Way], said: list[dict[str, object]]) -> None:
    """Note the categories of features that come straight from an input."""
    for index, listed in known.items():
        way = ways[index]
        if way.source >= 0 and (way.scale, way.shift) == (1.0, 0.0):
            said[way.source]["categories"] = [value for value in listed if value is not None]
            if None in listed:
                said[way.source]["exclusive"] = [""]  # it stands for "missing" in the copy


def _split(thresholds: list[list[float]], ways: list[Way], said: list[dict[str, object]]) -> None:
    for way, values in zip(ways, thresholds, strict=True):
        if way.source >= 0 and values and way.scale:
            back = (np.array(values) - way.shift) / way.scale
            old = said[way.source].get("thresholds", [])
            assert isinstance(old, list)
            said[way.source]["thresholds"] = sorted({*old, *back.tolist()})

"""Isotonic calibration bends at scores of the model inside: rows that have just these scores, looked for by halving."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from modelrel import tensors
from modelrel.flavors import frames
from modelrel.tensors import NUMPY, Array, Tensors
from modelrel.values import Signature

_MOST: Final = 40
"""Knots of one curve that are looked for."""

_HALVINGS: Final = 80
"""More than the bits of a float64 between two rows."""

_NEAR: Final = 64
"""Units in the last place of a usual score: what its own sum is exact to."""

_STEEP: Final = 1e-5
"""What the last bits of a score may change a probability by: as much as copies may differ."""

Score = Callable[[Tensors], Array]


@dataclass(frozen=True)
class Curve:
    """One isotonic curve: the scores that go into it, (N,), where it bends, (K,), and how steep it is there, (K,)."""

    score: Score
    knots: Array
    slopes: Array


def curves(native: Any, signature: Signature) -> list[Curve]:
    """Return the isotonic curves of a CalibratedClassifierCV that stands alone or at the end of a pipeline."""
    before: list[Any] = []
    while hasattr(native, "steps") or hasattr(native, "best_estimator_"):
        if hasattr(native, "best_estimator_"):
            native = native.best_estimator_
        else:
            before += [step for _, step in native.steps[:-1] if step is not None and step != "passthrough"]
            native = native.steps[-1][1]
    return [
        Curve(_scored(one, column, before, signature), *_picked(curve.X_thresholds_, curve.y_thresholds_))
        for one in getattr(native, "calibrated_classifiers_", ())
        for column, curve in enumerate(getattr(one, "calibrators", ()))
        if hasattr(curve, "X_thresholds_")
    ]


def reached(found: list[Curve], rows: Tensors, signature: Signature, seconds: float) -> tuple[dict[str, Array], Array]:
    """Return rows on both sides of knots, made between `rows`; and how many knots were reached, missed, not tried.

    The last of the four counts is of knots that are left alone: see `_beside`.
    """
    end = time.perf_counter() + seconds
    made: list[dict[str, Array]] = []
    counts = np.zeros(4, np.int64)
    for curve in found:
        if time.perf_counter() > end:
            counts[2] += len(curve.knots)
            continue
        pieces, steep = _beside(curve, rows, signature, end)
        made += pieces
        counts += len(pieces), len(curve.knots) - len(pieces) - steep, 0, steep
    return (tensors.stack(list(made)) if made else tensors.take(rows, slice(0))), counts


def _beside(curve: Curve, rows: Tensors, signature: Signature, end: float) -> tuple[list[dict[str, Array]], int]:
    """Return, for each knot that is reached, rows whose scores are just below and just above it.

    Not at the knot itself: where the curve is at 1/2 there, the last bit of a sum would decide the label, and no copy
    adds in the original's order. For the same reason knots where the curve rises too steeply are left alone; returns
    how many.
    """
    scores = curve.score(rows)
    rows, scores = tensors.take(rows, np.isfinite(scores)), scores[np.isfinite(scores)]
    if not len(scores):
        return [], 0
    size = np.maximum(np.abs(curve.knots), np.median(np.abs(scores)))
    near = _NEAR * np.spacing(size.astype(scores.dtype))
    # Scores lie as far apart as the inputs that make them.
    coarse = any(spec.datatype == "FP32" for spec in signature.inputs)
    reach = np.maximum(2 * near, _NEAR * np.spacing(size.astype(np.float32))) if coarse else 2 * near
    able = curve.slopes * near <= _STEEP
    knots, near, reach = curve.knots[able], near[able], reach[able]
    sides = [_halved(curve.score, (rows, scores), (knots + way * near, reach, way), signature, end) for way in (-4, 4)]
    gap = np.abs(scores[:, None] - knots)
    found = []
    for place in range(len(knots)):
        made = [side[place] for side in sides if place in side]
        if len(made) == 2:
            found.append(tensors.stack(list(made)))
        elif gap[:, place].min() <= near[place]:
            # The scores of trees leap, and only what was asked anyway may stand on a knot.
            found.append(tensors.take(rows, [gap[:, place].argmin()]))
    return found, int((~able).sum())


def _halved(
    score: Score, known: tuple[Tensors, Array], goal: tuple[Array, Array, int], signature: Signature, end: float
) -> dict[int, dict[str, Array]]:
    """Return the place of each score that is reached -> one row with it, on the way between two known rows.

    `goal` holds the wanted scores, how far off one may be, and on which side (negative: below).
    """
    wanted, reach, side = goal
    rows, scores = known
    below = np.array([_nearest(scores, scores < one, one) for one in wanted])
    above = np.array([_nearest(scores, scores >= one, one) for one in wanted])
    places = np.flatnonzero((below >= 0) & (above >= 0))
    if not len(places):
        return {}
    wanted = wanted[places]
    first, second = tensors.take(rows, below[places]), tensors.take(rows, above[places])
    low, high = np.zeros(len(places)), np.ones(len(places))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if time.perf_counter() > end or not ((middle > low) & (middle < high)).any():
            break
        under = score(_between(first, second, middle, signature)) < wanted
        low, high = np.where(under, middle, low), np.where(under, high, middle)
    made = _between(first, second, low if side < 0 else high, signature)
    good = np.flatnonzero(np.abs(score(made) - wanted) <= reach[places])
    return {int(places[index]): tensors.take(made, [index]) for index in good}


def _nearest(scores: Array, able: Array, knot: float) -> int:
    """Return the row whose score is nearest to the knot among those that are able, or -1."""
    gap = np.where(able, np.abs(scores - knot), np.inf)
    return int(gap.argmin()) if np.isfinite(gap).any() else -1


def _between(first: Tensors, second: Tensors, part: Array, signature: Signature) -> dict[str, Array]:
    """Return rows on the way from `first` to `second`: real numbers in between, all else from `first` until the end."""
    found = {}
    for spec in signature.inputs:
        one, other = first[spec.name], second[spec.name]
        share = part.reshape(-1, *[1] * (one.ndim - 1))
        if spec.datatype in ("FP32", "FP64"):
            with np.errstate(invalid="ignore", over="ignore"):
                way = (one.astype(np.float64) * (1 - share) + other.astype(np.float64) * share).astype(one.dtype)
            found[spec.name] = np.where(share == 0, one, np.where(share == 1, other, way))
        else:
            found[spec.name] = np.where(share < 1, one, other).astype(NUMPY[spec.datatype])
    return found


def _scored(one: Any, column: int, before: list[Any], signature: Signature) -> Score:
    estimator = one.estimator if hasattr(one, "estimator") else one.base_estimator

    def score(rows: Tensors) -> Array:
        data = frames.given(rows, signature)
        for step in before:
            data = step.transform(data)
        if hasattr(estimator, "decision_function"):
            found = np.asarray(estimator.decision_function(data))
        else:
            found = np.asarray(estimator.predict_proba(data))
            found = found[:, 1] if found.shape[1] == 2 else found
        return found if found.ndim == 1 else np.asarray(found[:, column])

    return score


def _picked(knots: Any, values: Any) -> tuple[Array, Array]:
    """Return the knots, or `_MOST` of them - those nearest to each other, and others evenly - and their slopes."""
    array = np.asarray(knots, np.float64)
    gaps = np.maximum(np.diff(array), np.finfo(np.float64).tiny)
    rises = np.abs(np.diff(np.asarray(values, np.float64))) / gaps
    slopes = np.maximum(np.append(0.0, rises), np.append(rises, 0.0))
    if len(array) <= _MOST:
        return array, slopes
    # Where knots are near each other a small error of the score is a large one of the probability.
    close = np.argsort(np.minimum(np.append(np.inf, gaps), np.append(gaps, np.inf)), kind="stable")[: _MOST // 2]
    some = np.unique([*close, *np.linspace(0, len(array) - 1, _MOST // 2).astype(int)])
    return array[some], slopes[some]

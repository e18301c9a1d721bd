"""Scalers before trees folded into the thresholds: every float32 number takes the leaf that it takes behind them.

A scaler works on each column alone, and each of its steps (a subtraction, a division) rounds, but never turns the
order of two numbers around. So for each split there is a largest float32 number that still goes left, which is found
by asking the fitted scalers themselves, in the dtype in which the model gets its rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from modelrel.trees.ensemble import Ensemble, Entry
from modelrel.trees.forest import Forest, Mode

STEPS: Final = frozenset({"StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler", "SimpleImputer"})
"""Steps that keep the order of numbers in each column, and the columns apart."""

Transform = Callable[[NDArray[Any]], NDArray[Any]]


def scalers(native: Any) -> list[Any] | None:
    """Return the steps of a Pipeline before its last, where each is one of STEPS that keeps all columns; else None."""
    steps = getattr(native, "steps", None)
    if not steps or len(steps) < 2:
        return None
    found = [step for _, step in steps[:-1] if step is not None and step != "passthrough"]
    return found if all(map(_plain, found)) else None


def _plain(step: Any) -> bool:
    if type(step).__name__ not in STEPS or not type(step).__module__.startswith("sklearn."):
        return False
    if type(step).__name__ == "SimpleImputer":
        # It leaves out a column that was never filled, and adds some for what was missing; and a number that stands
        # for a gap would be filled out of the order.
        whole = getattr(step, "indicator_", None) is None and step.statistics_.dtype.kind == "f"
        gaps = isinstance(step.missing_values, float) and np.isnan(step.missing_values)
        return bool(whole and gaps and not np.isnan(step.statistics_).any())
    return True


def folded(ensemble: Ensemble, transform: Transform, dtype: Any) -> Ensemble | None:
    """Return an ensemble on the rows before `transform`, exact for float32 numbers; None where that is not known.

    `transform` takes rows (N, features) of `dtype`. Only comparisons are folded: categories, and LightGBM's and
    XGBoost's own numbers for a gap or a zero, are left.
    """
    entry, forest = ensemble.entry, ensemble.forest
    plain = Entry(single=entry.single)
    if forest is None or forest.members or forest.linear is not None or ensemble.weights is not None:
        return None
    if (entry.zeros is not None, bool(entry.floor), bool(entry.cut), bool(entry.codes)) != (False,) * 4:
        return None
    if not np.isnan(entry.missing):
        return None
    seen = _Seen(transform, dtype, ensemble.features, single=plain.single)
    return replace(ensemble, forest=_moved(forest, seen, ensemble.features), entry=Entry(single=True))


class _Seen:
    """What the trees see of a number in each column."""

    def __init__(self, transform: Transform, dtype: Any, features: int, *, single: bool) -> None:
        self._transform, self._dtype, self._features, self._single = transform, dtype, features, single

    def of(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the rows (N, features) as the trees see them."""
        with np.errstate(all="ignore"):
            found = np.asarray(self._transform(rows.astype(self._dtype)))
            return (found.astype(np.float32) if self._single else found).astype(np.float64)


def _moved(forest: Forest, seen: _Seen, features: int) -> Forest:
    """Return the forest with thresholds on the numbers before the scalers, all LEQ."""
    at = np.flatnonzero(forest.mode != Mode.LEAF)
    pairs = np.unique(np.stack([forest.feature[at], forest.threshold[at], forest.mode[at]], axis=1), axis=0)
    column, threshold, strict = pairs[:, 0].astype(np.int64), pairs[:, 1], pairs[:, 2] == Mode.LT
    counts = np.bincount(column, minlength=features)
    place = np.arange(len(pairs)) - np.repeat(np.cumsum(counts) - counts, counts)
    rows = np.zeros((max(int(counts.max(initial=0)), 1), features), np.float32)

    def holds(numbers: NDArray[np.float32]) -> NDArray[np.bool_]:
        rows[place, column] = numbers
        found = seen.of(rows)[place, column]
        with np.errstate(invalid="ignore"):
            return np.where(strict, found < threshold, found <= threshold)

    low = np.full(len(pairs), _ORDER_LOW, np.int64)  # may hold
    high = np.full(len(pairs), _ORDER_HIGH, np.int64)
    never = ~holds(_number(low))
    while (low < high).any():
        middle = (low + high + 1) >> 1
        below = holds(_number(middle))
        low, high = np.where(below, middle, low), np.where(below, high, middle - 1)
    found = np.where(never, -np.inf, _number(low).astype(np.float64))
    gap = holds(np.full(len(pairs), np.nan, np.float32))
    filled = ~np.isnan(seen.of(np.full((1, features), np.nan, np.float32))[0])
    index = _where(pairs, np.stack([forest.feature[at], forest.threshold[at], forest.mode[at]], axis=1))
    moved, missing, mode = forest.threshold.copy(), forest.missing.copy(), forest.mode.copy()
    moved[at], mode[at] = found[index], Mode.LEQ
    missing[at] = np.where(filled[forest.feature[at]], gap[index], forest.missing[at])
    return replace(forest, threshold=moved, missing=missing, mode=mode)


def _where(pairs: NDArray[np.float64], asked: NDArray[np.float64]) -> NDArray[np.int64]:
    _, index = np.unique(np.concatenate([pairs, asked]), axis=0, return_inverse=True)
    return np.asarray(index.ravel()[len(pairs) :], np.int64)


_ORDER_LOW: Final = -0x7F7FFFFF
_ORDER_HIGH: Final = 0x7F7FFFFF
"""The places of the least and the largest finite float32 number among all, 0.0 being at 0."""


def _number(order: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the float32 numbers at places of their order."""
    bits = np.abs(order).astype(np.uint32) | np.where(order < 0, np.uint32(0x80000000), np.uint32(0))
    return bits.view(np.float32)

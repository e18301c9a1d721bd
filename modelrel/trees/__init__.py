"""Models made of trees: one form for all libraries, which every format's writers start from.

`read` makes an `Ensemble` of a fitted model: what happens to a row before its trees, the trees as arrays (`Forest`),
and what is made of their sums. `answers` runs it in NumPy alone.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from modelrel.trees import from_catboost, from_hist, from_lightgbm, from_sklearn, from_xgboost
from modelrel.trees.ensemble import ZERO_BOUND, Choice, Ensemble, Entry, hints
from modelrel.trees.forest import MOST_THRESHOLDS, Floats, Forest, Ints, Linear, Mode, at_most, picked, thresholds
from modelrel.trees.from_hist import categories
from modelrel.trees.from_xgboost import has_pandas_categories
from modelrel.trees.interpreted import answers, entered, reached

__all__ = [
    "MOST_THRESHOLDS",
    "ZERO_BOUND",
    "Choice",
    "Ensemble",
    "Entry",
    "Floats",
    "Forest",
    "Ints",
    "Linear",
    "Mode",
    "answers",
    "at_most",
    "categories",
    "entered",
    "forest",
    "has_pandas_categories",
    "hints",
    "picked",
    "reached",
    "read",
    "thresholds",
]


def read(native: Any) -> Ensemble | None:
    """Return the model as an ensemble, or None where it is no model of trees (a Pipeline is none).

    Raises `Refused` for what has no exact form.
    """
    with _undisturbed():
        return _read(native)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Collect no garbage in this block: it makes many small objects, and each look walks through all libraries'."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _read(native: Any) -> Ensemble | None:
    library = type(native).__module__.partition(".")[0]
    if library == "xgboost":
        return from_xgboost.read(native)
    if library == "lightgbm":
        return from_lightgbm.read(native)
    if library == "catboost":
        return from_catboost.read(native)
    if hasattr(native, "_predictors"):
        return from_hist.read(native)
    return from_sklearn.read(native)


def forest(native: Any) -> Forest | None:
    """Return the trees in a fitted model, whatever it makes of them; None where it has none.

    Raises `Refused` for what has no exact form.
    """
    library = type(native).__module__.partition(".")[0]
    if library == "xgboost":
        return from_xgboost.forest(native)
    if library == "lightgbm":
        return from_lightgbm.forest(native)
    if library == "catboost":
        return from_catboost.forest(native)
    if hasattr(native, "_predictors"):
        return from_hist.forest(native)
    return from_sklearn.forest(native)

"""Models made of trees: one form for all libraries, which every format's writers start from.

`read` makes an `Ensemble` of a fitted model: what happens to a row before its trees, the trees as arrays (`Forest`),
and what is made of their sums. `answers` runs it in NumPy alone.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from modelrel.trees import from_catboost, from_hist, from_lightgbm, from_sklearn, from_xgboost
from modelrel.trees.ensemble import ZERO_BOUND, Choice, Ensemble, Entry, hints
from modelrel.trees.folded import folded as _folded
from modelrel.trees.folded import scalers
from modelrel.trees.forest import MOST_THRESHOLDS, Floats, Forest, Ints, Linear, Mode, at_most, picked, thresholds
from modelrel.trees.from_hist import categories
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
    "folded",
    "forest",
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
        found: Ensemble | None = _room(native).read(native)
    return found


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


def _room(native: Any) -> Any:
    """Return the module that reads models of this kind."""
    library = type(native).__module__.partition(".")[0]
    if hasattr(native, "_predictors"):
        return from_hist
    return {"xgboost": from_xgboost, "lightgbm": from_lightgbm, "catboost": from_catboost}.get(library, from_sklearn)


def folded(native: Any, dtypes: Sequence[Any]) -> Ensemble | None:
    """Return a Pipeline of scalers and a model of trees as one ensemble, exact for rows of float32 numbers.

    `dtypes` are those in which its columns come. Returns None for another model, or where it would not be exact.
    """
    steps = scalers(native)
    ensemble = read(native.steps[-1][1]) if steps is not None else None
    dtype = np.result_type(*dtypes) if dtypes else None
    if steps is None or ensemble is None or dtype not in (np.float32, np.float64):
        return None

    def transform(rows: Any) -> Any:
        from sklearn import config_context

        # The columns have no names here, and numbers far out overflow on the way.
        with warnings.catch_warnings(), config_context(assume_finite=True):
            warnings.simplefilter("ignore")
            for step in steps:
                rows = step.transform(rows)
        return rows

    return _folded(ensemble, transform, dtype)


def forest(native: Any) -> Forest | None:
    """Return the trees in a fitted model, whatever it makes of them; None where it has none.

    Raises `Refused` for what has no exact form.
    """
    found: Forest | None = _room(native).forest(native)
    return found

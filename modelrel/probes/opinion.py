"""Who is wrong where original and copy differ: the conversion, or the runtime that answers for the copy."""

from __future__ import annotations

from typing import Final

import numpy as np

from modelrel import tensors
from modelrel.tensors import Array, Predict, Tensors
from modelrel.values import Tolerance

_ROWS: Final = 8
_LIMIT: Final = Tolerance()


def blamed(name: str, given: Tensors, answers: tuple[Tensors, Tensors], reference: Predict) -> str:
    """Return a sentence: whether an independent runtime of the copy sides with the original on the rows that differ.

    `given` are the rows, `answers` those of the original and of the copy for them, `name` the output that differs.
    Returns "" where that runtime cannot run the copy, or agrees with neither.
    """
    original, copy = answers[0][name], answers[1][name]
    rows = np.flatnonzero(_different(original, copy))[:_ROWS]
    if not len(rows):
        return ""  # a rounding error, refused for a tolerance that is tighter than ours
    try:
        second = reference(tensors.take(given, rows))[name]
    except Exception:  # noqa: BLE001 - an evaluator that does not know an operator raises anything
        return ""
    if second.dtype.kind in "US":
        second = second.astype(object)
    if second.shape != original[rows].shape:
        return ""
    if not _different(original[rows], second).any():
        return f"the runtime is wrong on {name}: an independent one runs this copy and agrees with the original"
    if not _different(copy[rows], second).any():
        return f"the conversion is wrong on {name}: an independent runtime of the copy answers like the copy"
    return ""


def _different(first: Array, second: Array) -> Array:
    return tensors.differ(first, second, rtol=_LIMIT.rtol, atol=_LIMIT.atol)

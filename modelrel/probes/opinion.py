"""Who is wrong where original and copy differ: the conversion, the runtime of the copy, or the original's rounding."""

from __future__ import annotations

from typing import Final

import numpy as np

from modelrel import tensors
from modelrel.tensors import Array, Predict, Tensors
from modelrel.values import Tolerance

ITSELF: Final = "the original itself"
_ROWS: Final = 8
_WIDE_ROWS: Final = 200
_LIMIT: Final = Tolerance()


def rounded(name: str, given: Tensors, answers: tuple[Tensors, Tensors], wide: Predict) -> tuple[Array, str]:
    """Return on which rows the original itself rounds, (K,) indices, and a sentence about them ("": on none).

    `given` are the rows, `answers` those of the original and of the copy for them, `name` the output that differs,
    `wide` the original asked in float64. It rounds where it differs from its own float64 answer, and the copy does not.
    """
    none = np.zeros(0, np.int64)
    original, copy = answers[0][name], answers[1][name]
    rows = np.flatnonzero(_different(original, copy))[:_WIDE_ROWS]
    if not len(rows) or not any(array.dtype == np.float32 for array in given.values()):
        return none, ""
    exact = wide({key: _widened(array[rows]) for key, array in given.items()}).get(name)
    if exact is None or exact.shape != copy[rows].shape:
        return none, ""
    own = rows[~_different(exact, copy[rows])]
    if not len(own):
        return none, ""
    by = ""
    if original.dtype.kind == "f":
        kept = exact[np.isin(rows, own)]
        by = f" by up to {tensors.errors(kept, original[own])[0].max():.3g}"
    return own, (
        f"{ITSELF} differs from its own float64 answers{by} on {name} of {len(own):,} of the {len(rows):,} "
        "such rows looked at: it computes in float32, and the copy answers as it does in float64"
    )


def _widened(array: Array) -> Array:
    return array.astype(np.float64) if array.dtype == np.float32 else array


def blamed(name: str, given: Tensors, answers: tuple[Tensors, Tensors], reference: Predict, told: Array) -> str:
    """Return a sentence: whether an independent runtime of the copy sides with the original on the rows that differ.

    `given` are the rows, `answers` those of the original and of the copy for them, `name` the output that differs;
    the rows `told` are explained already. Returns "" where that runtime cannot run the copy, or agrees with neither.
    """
    original, copy = answers[0][name], answers[1][name]
    looked = np.flatnonzero(_different(original, copy))[:_WIDE_ROWS]
    rows = np.setdiff1d(looked, told)[:_ROWS]
    if not len(rows):
        return ""  # explained, or a rounding error that is refused for a tolerance tighter than ours
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

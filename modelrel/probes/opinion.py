"""Who is wrong where original and copy differ: the reader of the model, the writer of the copy, or its runtime."""

from __future__ import annotations

from typing import Final

import numpy as np

from modelrel import tensors
from modelrel.tensors import Array, Predict, Tensors
from modelrel.values import Tolerance

_ROWS: Final = 8
_LIMIT: Final = Tolerance()


def blamed(
    name: str, given: Tensors, answers: tuple[Tensors, Tensors], others: tuple[Predict | None, Predict | None]
) -> str:
    """Return a sentence: with whom two others side on the rows that differ.

    `given` are the rows, `answers` those of the original and of the copy for them, `name` the output that differs.
    `others` are an independent runtime of the copy, and the model's trees as they are read, run in NumPy. Returns ""
    where neither answers, or they agree with nobody.
    """
    original, copy = answers[0][name], answers[1][name]
    rows = np.flatnonzero(_different(original, copy))[:_ROWS]
    if not len(rows):
        return ""  # a rounding error, refused for a tolerance that is tighter than ours
    asked = tensors.take(given, rows)
    second, read = (_sided(name, other, asked, (original[rows], copy[rows])) for other in others)
    if second == "original":
        return f"the runtime is wrong on {name}: an independent one runs this copy and agrees with the original"
    independent = f"the conversion is wrong on {name}"
    if second == "copy":
        independent += ": an independent runtime of the copy answers like the copy"
    if read == "copy":
        return f"{independent}; its trees are read wrongly: as they are read they answer like the copy"
    if read == "original":
        return f"{independent}; the copy is written wrongly: the trees as they are read answer like the original"
    return independent if second == "copy" else ""


def _sided(name: str, other: Predict | None, given: Tensors, answers: tuple[Array, Array]) -> str:
    """Return with which of the two answers another one agrees on each row; "" for neither."""
    if other is None:
        return ""
    try:
        found = other(given)[name]
    except Exception:  # noqa: BLE001 - an evaluator that does not know an operator raises anything
        return ""
    if found.dtype.kind in "US":
        found = found.astype(object)
    if found.size != answers[0].size:
        return ""
    found = found.reshape(answers[0].shape)
    for side, answer in zip(("original", "copy"), answers, strict=True):
        if not _different(answer, found).any():
            return side
    return ""


def _different(first: Array, second: Array) -> Array:
    return tensors.differ(first, second, rtol=_LIMIT.rtol, atol=_LIMIT.atol)

"""One output of a copy beside the original's: how far apart they are, on which row the most, and that in a sentence."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from modelrel import figures, tensors
from modelrel.measured import Far, OutputParity, Spread, Tolerance
from modelrel.probes import evidence
from modelrel.probes.interview import Answered
from modelrel.tensors import Array, Tensors

_FAR: Final = 5
_PAIRS: Final = 240
_SMALLEST: Final = -36
"""Half powers of ten below which an error counts as one of 1e-18, which is less than float64 has beside 0.01."""


def compared(name: str, answered: Answered, answers: Tensors, tolerance: Tolerance) -> OutputParity:
    """Compare one output over all rows: labels must be equal, numbers within the tolerance."""
    original, copy = answered.outputs[name], answers[name]
    if original.dtype.kind == "f":
        absolute, relative = tensors.errors(original, copy)
        # Against 0 there is no relative error, and the record has no infinity: the absolute one tells.
        relative = np.where(np.isfinite(absolute) & np.isinf(relative), 0.0, relative)
        over = tensors.excess(original, copy, rtol=tolerance.rtol, atol=tolerance.atol)
        wrong = int((over > 0).sum())
        lie = spread(name, answered, copy, absolute)
    else:
        different = tensors.disagree(original, copy) & ~answered.undecided(answers)
        absolute = relative = np.zeros(len(original))
        over = different.astype(np.float64)
        wrong = int(different.sum())
        lie = None
    # Where every row is exact, all excesses are -inf: then the first row stands for them.
    worst = int(np.argmax(over))
    return OutputParity(
        name=name,
        datatype=tensors.datatype(copy.dtype),
        rows=len(original),
        disagreements=wrong,
        max_abs_error=float(absolute.max()),
        max_rel_error=float(relative.max()),
        worst_row=worst,
        worst_source=answered.origin[worst],
        worst_input={key: evidence.single(array[worst]) for key, array in answered.inputs.items()},
        worst_original=evidence.single(original[worst]),
        worst_copy=evidence.single(copy[worst]),
        spread=lie,
    )


def spread(name: str, answered: Answered, copy: Array, absolute: Array) -> Spread:
    """Return how the largest absolute errors of N rows, (N,), lie, with a few pairs of numbers that they come from."""
    original = answered.outputs[name]
    errors = absolute[np.isfinite(absolute) & (absolute > 0)]
    halves = np.maximum(np.floor(2 * np.log10(errors)), _SMALLEST).astype(int)
    counted = zip(*np.unique(halves, return_counts=True), strict=True)
    first, second = original.astype(np.float64).ravel(), copy.astype(np.float64).ravel()
    finite = np.flatnonzero(np.isfinite(first) & np.isfinite(second))
    picked = finite[np.unique(np.linspace(0, len(finite) - 1, min(len(finite), _PAIRS)).astype(int))]
    return Spread(
        exact=int((absolute == 0).sum()),
        halves=tuple((int(half), int(count)) for half, count in counted),
        far=tuple(_far(int(row), answered, (original, copy), float(absolute[row])) for row in _farthest(absolute)),
        pairs=tuple((_short(one), _short(other)) for one, other in zip(first[picked], second[picked], strict=True)),
    )


def _farthest(absolute: Array) -> Array:
    """Return the rows with the largest errors, the largest first; those without one are none."""
    order = np.argsort(-absolute, kind="stable")[:_FAR]
    return np.asarray(order[absolute[order] > 0])


def _far(row: int, answered: Answered, pair: tuple[Array, Array], error: float) -> Far:
    original, copy = (array[row].ravel() for array in pair)
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(copy.astype(np.float64) - original.astype(np.float64))
    column = int(np.argmax(np.where(np.isnan(apart), np.inf, apart)))
    given = figures.brief({key: evidence.single(array[row]) for key, array in answered.inputs.items()})
    off = _short(float(np.nan_to_num(error)))  # a record has no infinity
    return Far(
        row=row, source=answered.origin[row], error=off, column=column, original=str(original[column]),
        copy=str(copy[column]), given=given,
    )  # fmt: skip


def _short(value: float) -> float:
    """Return a number with as many digits as a float32 has; a record has no more use for them."""
    return float(f"{value:.9g}")


def sentence(parity: OutputParity, tolerance: Tolerance) -> str:
    """Say how one output differs, and on which row the most."""
    share = f"{parity.disagreements:,} of {parity.rows:,} rows"
    by = ""
    if parity.datatype.startswith("FP"):
        error = parity.max_abs_error
        off = f"{error:.3g}" if math.isfinite(error) else "infinity (a missing number)"
        by = f" by up to {off} (allowed: {tolerance.atol:g} + {tolerance.rtol:g} of the value)"
    return f"{parity.name} differs on {share}{by}; {worst(parity)}"


def worst(parity: OutputParity) -> str:
    """Say on which row an output differs the most."""
    given = evidence.short(parity.worst_input)
    original, copy = evidence.short(parity.worst_original), evidence.short(parity.worst_copy)
    return (
        f"worst row {parity.worst_row} ({parity.worst_source}) {given}: "
        f"the original answers {original}, the copy {copy}"
    )


def labels_alone(original: Tensors, copy: Tensors, tolerance: Tolerance) -> int:
    """Return on how many rows a label differs while every number agrees (0 where there is only one of the two)."""
    labels: list[Array] = []
    numbers: list[Array] = []
    for name in original.keys() & copy.keys():
        found = numbers if original[name].dtype.kind == "f" else labels
        found.append(tensors.differ(original[name], copy[name], rtol=tolerance.rtol, atol=tolerance.atol))
    if not labels or not numbers:
        return 0
    return int((np.any(labels, axis=0) & ~np.any(numbers, axis=0)).sum())


def rounded(answered: Answered, answers: Tensors) -> tuple[str, ...]:
    """Say how many labels differ where the original's own rounding chose its label."""
    labels = [name for name in answers if name in answered.outputs and answered.outputs[name].dtype.kind != "f"]
    differ = [tensors.disagree(answered.outputs[name], answers[name]) for name in labels]
    count = int((np.any(differ, axis=0) & answered.undecided(answers)).sum()) if differ else 0
    said = f"{count:,} labels differ where the original's two best probabilities differ by its own rounding alone"
    return (said,) if count else ()

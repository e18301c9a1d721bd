"""One output of a copy beside the original's: how far apart they are, on which row the most, and that in a sentence."""

from __future__ import annotations

import math

import numpy as np

from modelrel import tensors
from modelrel.measured import OutputParity, Tolerance
from modelrel.probes import evidence
from modelrel.probes.interview import Answered
from modelrel.tensors import Array, Tensors


def compared(name: str, answered: Answered, answers: Tensors, tolerance: Tolerance) -> OutputParity:
    """Compare one output over all rows: labels must be equal, numbers within the tolerance."""
    original, copy = answered.outputs[name], answers[name]
    if original.dtype.kind == "f":
        absolute, relative = tensors.errors(original, copy)
        # Against 0 there is no relative error, and the record has no infinity: the absolute one tells.
        relative = np.where(np.isfinite(absolute) & np.isinf(relative), 0.0, relative)
        over = tensors.excess(original, copy, rtol=tolerance.rtol, atol=tolerance.atol)
        wrong = int((over > 0).sum())
    else:
        different = tensors.disagree(original, copy) & ~answered.undecided(answers)
        absolute = relative = np.zeros(len(original))
        over = different.astype(np.float64)
        wrong = int(different.sum())
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
    )


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

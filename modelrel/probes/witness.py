"""A second runtime of the copy that must agree too, for a format whose files are run by many."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from modelrel import extras, tensors
from modelrel.measured import Tolerance
from modelrel.probes import evidence
from modelrel.probes.interview import Answered
from modelrel.tensors import Predict


def heard(second: str, other: Predict | None, answered: Answered, tolerance: Tolerance) -> tuple[tuple[str, ...], bool]:
    """Return what a person is told of a format's second runtime, in sentences, and whether it agrees.

    `second` is the distribution that brings it ("": the format has none), `other` the copy run by it, None where it is
    not installed. It answers every row that the original answered. Raises `Refused` where it fails on one.
    """
    if not second:
        return (), True
    if other is None:
        return (f"one runtime alone was asked: {second} is not installed",), True
    answers = other(answered.inputs)
    name = f"{second} {extras.version(second)}".strip()
    wrong = tuple(_differing(name, answered, answers, tolerance))
    if wrong:
        return wrong, False
    floats = [
        float(np.minimum(*tensors.errors(answered.outputs[key], array)).max())
        for key, array in answers.items()
        if array.dtype.kind == "f"
    ]
    numbers = f", its numbers within {max(floats):.3g} of them or of their size" if floats else ""
    return (f"{name} answers all {len(answered.origin):,} rows like the original{numbers}",), True


def _differing(name: str, answered: Answered, answers: tensors.Tensors, tolerance: Tolerance) -> Iterator[str]:
    undecided = answered.undecided(answers)
    for key, array in answers.items():
        original = answered.outputs[key]
        if original.shape != array.shape or original.dtype.kind != array.dtype.kind:
            yield f"{name} gives {key} as {array.dtype} {list(array.shape)}"
            continue
        bad = tensors.differ(original, array, rtol=tolerance.rtol, atol=tolerance.atol)
        if array.dtype.kind != "f":
            bad &= ~undecided
        if bad.any():
            row = int(np.argmax(bad))
            given = {field: evidence.single(column[row]) for field, column in answered.inputs.items()}
            yield (
                f"{name} gives another {key} on {int(bad.sum()):,} of {len(bad):,} rows; row {row} "
                f"({answered.origin[row]}) {evidence.short(given)}: the original answers "
                f"{evidence.short(evidence.single(original[row]))}, it {evidence.short(evidence.single(array[row]))}"
            )

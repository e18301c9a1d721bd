"""What a smaller copy loses, on the rows that a model is for: agreement, errors, and metrics by the right answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np

from modelrel import tensors
from modelrel.errors import Invalid, Refused
from modelrel.measured import BUDGETS, Loss, LossBudget, Metric, OutputLoss
from modelrel.probes.interview import Answered
from modelrel.tensors import Array, Predict, Tensors
from modelrel.values import ConvertedModel, TensorSpec, VerifyOptions

REAL: Final = frozenset({"example", "data", "training data"})
MADE: Final = frozenset({"permuted", "jittered", "ranged"})
ENOUGH: Final = 100
"""Real rows that are enough to count on them alone; otherwise made-up usual rows are counted too."""

_SUM: Final = 1e-3
_SEVERAL: Final = 16
"""Columns of an output that are judged each in its own standard deviation."""

GATED: Final = ("accuracy", "F1", "R²")


@dataclass(frozen=True, slots=True)
class Judged:
    """The rows that are counted, with both answers and what numbers may be off, and what is lost on them."""

    answered: Answered
    answers: Tensors
    limits: Mapping[str, float]
    loss: Loss


def budget(converted: ConvertedModel, options: VerifyOptions) -> LossBudget:
    """Return what the copy may lose: its mode's budget, with what the user says instead."""
    return replace(BUDGETS[converted.quantize], **options.loss)


def laxer(loss: Loss, options: VerifyOptions) -> bool:
    """Whether a proof allowed more than is asked for now."""
    may, now = loss.budget, replace(BUDGETS[loss.mode], **options.loss)
    errors = may.max_error > now.max_error or may.mean_error > now.mean_error
    return errors or may.drop > now.drop or may.agreement < now.agreement


def judged(converted: ConvertedModel, answered: Answered, answers: Tensors, options: VerifyOptions) -> Judged:
    """Count over the rows that the model is for: real ones, and made-up usual ones where those are few."""
    real, made = (np.array([source in kind for source in answered.origin], np.bool_) for kind in (REAL, MADE))
    counted = np.flatnonzero(real if real.sum() >= ENOUGH else real | made)
    if not len(counted):
        raise Refused(
            f"there is no usual row of {converted.source.label} on which its smaller copy could be judged",
            "Give some by --data FILE, or log the model with an input_example.",
        )
    some, theirs = _taken(answered, counted), tensors.take(answers, counted)
    may = budget(converted, options)
    outputs = tuple(
        _off(name, some.outputs[name], theirs[name])
        for name in theirs
        if name in some.outputs and theirs[name].dtype.kind == "f"
    )
    generated = np.flatnonzero(made) if real.sum() >= ENOUGH else np.zeros(0, np.int64)
    apart = _taken(answered, generated) if len(generated) else None
    return Judged(
        some,
        theirs,
        {one.name: may.max_error * one.unit for one in outputs},
        Loss(
            mode=converted.quantize,
            budget=may,
            rows=len(counted),
            sources=dict(Counter(some.origin)),
            agreement=_agreement(some.outputs, theirs),
            generated_agreement=_agreement(apart.outputs, tensors.take(answers, generated)) if apart else None,
            outputs=outputs,
            metrics=(),
            size=converted.file.size,
            exact_size=converted.exact_size,
        ),
    )


def _taken(answered: Answered, index: Array) -> Answered:
    return replace(
        answered,
        inputs=tensors.take(answered.inputs, index),
        origin=tuple(answered.origin[row] for row in index),
        outputs=tensors.take(answered.outputs, index),
    )


def _off(name: str, original: Array, copy: Array) -> OutputLoss:
    first, second = (one.astype(np.float64).reshape(len(one), -1) for one in (original, copy))
    width = first.shape[1]
    # Several targets may be of very different sizes; the columns of something wide are parts of one thing.
    units = np.ones(width) if name == "probabilities" or _shares(original) else _spread(first)
    absolute = np.zeros((len(first), 0))
    if width:
        absolute = np.stack([tensors.errors(first[:, [at]], second[:, [at]])[0] / units[at] for at in range(width)], 1)
    largest = absolute.max(axis=1, initial=0.0)
    return OutputLoss(
        name=name,
        unit=float(units.max(initial=0.0)) or 1.0,
        max_error=float(largest.max()),
        mean_error=float(largest.mean()),
    )


def _spread(flat: Array) -> Array:
    """Return the unit of each column, (K,): its standard deviation, or the largest of all where there are many.

    Where all answers are equal, their size is what an error is seen against.
    """
    finite = flat[np.isfinite(flat).all(axis=1)]
    spread = finite.std(axis=0) if len(finite) else np.zeros(flat.shape[1])
    largest = float(spread.max(initial=0.0)) or float(np.abs(finite).max(initial=0.0)) or 1.0
    if len(spread) > _SEVERAL:
        return np.full(len(spread), largest)
    return np.where(spread > 0, spread, largest)


def _shares(array: Array) -> bool:
    """Whether an output holds probabilities of classes: (N, 2 or more), from 0 to 1, with the sum 1."""
    if array.dtype.kind != "f" or array.ndim != 2 or array.shape[1] < 2:
        return False
    wide = array.astype(np.float64)
    return bool((wide >= 0).all() and (np.abs(wide.sum(axis=1) - 1) <= _SUM).all())


def _agreement(original: Tensors, copy: Tensors) -> float | None:
    """Return the share of rows on which all labels agree, or without labels the classes of the highest probability.

    Labels are all outputs that are no real numbers. None without any of them.
    """
    shared = [name for name in original if name in copy]
    labels = [tensors.disagree(original[name], copy[name]) for name in shared if original[name].dtype.kind != "f"]
    classes = [original[name].argmax(axis=1) != copy[name].argmax(axis=1) for name in shared if _shares(original[name])]
    differ = labels or classes
    return float(1 - np.any(differ, axis=0).mean()) if differ else None


def metrics(
    call: Callable[..., Any], converted: ConvertedModel, copy: Predict, data: Tensors, right: Array
) -> tuple[Metric, ...]:
    """Return how good original and copy are on the rows `data`, (N, ...) each, with the right answers `right`, (N,).

    `call` asks the process that holds the original (`Worker.call`); rows on which it raises are left out. Accuracy and
    F1 (the mean over the classes) for labels, R² and mean absolute error for numbers. Raises `Invalid` where the right
    answers are of another kind than the model's.
    """
    held = tensors.held(data, converted.inputs)
    reply = call("predict", held, signature=asdict(converted.signature))
    kept = np.array(reply.value["kept"], np.int64)
    right, theirs = right[kept], copy(tensors.take(held, kept))
    both = [_said(converted, answers, reply.arrays, right) for answers in (reply.arrays, theirs)]
    if both[0].dtype.kind != "f" or "label" in reply.arrays:
        right = _alike(right, both[0], converted)
        first, second = (_classification(right, one) for one in both)
    elif right.dtype.kind in "fiub":
        first, second = (_regression(right.astype(np.float64), one) for one in both)
    else:
        raise Invalid(
            f"the right answers are no numbers, and {converted.predict} of {converted.source.label} is one",
            "Name the column of the target with --label.",
        )
    return tuple(Metric(name=key, original=first[key], copy=second[key], rows=len(kept)) for key in first)


def _said(converted: ConvertedModel, answers: Tensors, original: Tensors, right: Array) -> Array:
    """Return what a model said, (N,): its label, its class by shares or scores of classes, or its number.

    What the numbers are is told by the `original`'s, and by the right answers: scores of classes are as many as there
    are classes, which are numbered, and one score between 0 and 1 decides between 0 and 1.
    """
    name = "label" if "label" in original else converted.predict
    first, found = (one[name].reshape(len(right), -1) for one in (original, answers))
    width = first.shape[1]
    numbered = right.dtype.kind in "iub" and 0 <= right.min(initial=0) <= right.max(initial=0) < max(width, 2)
    if width > 1 and first.dtype.kind == "f" and (numbered or _shares(first)):
        return np.asarray(found.argmax(axis=1))
    if width != 1:
        raise Invalid(
            f"{name} of {converted.source.label} is {width} values a row, and --label names one column of them",
            "Leave out --label: agreement and errors are counted without it.",
        )
    if name != "label" and numbered and first.dtype.kind == "f" and ((first >= 0) & (first <= 1)).all():
        return np.asarray(found[:, 0] > 0.5, np.int64)
    return found[:, 0].astype(np.float64) if found.dtype.kind == "f" else found[:, 0]


def _alike(right: Array, answered: Array, converted: ConvertedModel) -> Array:
    """Return right answers in the datatype of labels; raises `Invalid` where they share no value with them."""
    known = set(converted.classes) or set(answered.ravel().tolist())
    if answered.dtype.kind in "OUS":
        right = tensors.text([str(one) for one in right.tolist()], right.shape)
    elif right.dtype.kind in "fiub" and answered.dtype.kind in "fiub":
        right = right.astype(np.float64)
    if not known & set(right.tolist()):
        few, mine = (", ".join(map(repr, sorted(some, key=str)[:5])) for some in (set(right.tolist()), known))
        raise Invalid(
            f"the right answers are {few}, ..., and none of them is one that the model knows ({mine}, ...)",
            "Name the column that holds the model's own labels with --label.",
        )
    return right


def _classification(right: Array, answered: Array) -> dict[str, float]:
    """Return accuracy, and F1 = 2 TP / (2 TP + FP + FN) as the mean over the classes that occur in `right`."""
    scores = []
    for known in sorted(set(right.tolist()), key=str):
        truly, said = right == known, answered == known
        scores.append(2 * (truly & said).sum() / (truly.sum() + said.sum()))
    return {"accuracy": float((right == answered).mean()), "F1": float(np.mean(scores))}


def _regression(right: Array, answered: Array) -> dict[str, float]:
    """Return R² = 1 - sum of squared errors / sum of squares about the mean, and the mean absolute error."""
    error = answered - right
    around = ((right - right.mean()) ** 2).sum()
    return {"R²": float(1 - (error**2).sum() / around) if around else 0.0, "MAE": float(np.abs(error).mean())}


def sentences(loss: Loss) -> list[str]:
    """Return what is beyond the budget, with the figures."""
    found, may = [], loss.budget
    on = f"of {loss.rows:,} rows ({', '.join(f'{count:,} {name}' for name, count in loss.sources.items())})"
    if loss.agreement is not None and not loss.agreement >= may.agreement:
        found.append(f"{loss.agreement:.2%} {on} have the original's label (budget: at least {may.agreement:.2%})")
    for one in loss.outputs:
        of = "" if one.unit == 1 else f" standard deviations (one is {one.unit:.4g})"
        if not one.max_error <= may.max_error:
            found.append(f"{one.name} is off by up to {one.max_error:.3g}{of} {on} (budget: {may.max_error:g})")
        if not one.mean_error <= may.mean_error:
            found.append(f"{one.name} is off by {one.mean_error:.3g}{of} on average {on} (budget: {may.mean_error:g})")
    return found + [
        f"{metric.name} falls from {metric.original:.4f} to {metric.copy:.4f} on {metric.rows:,} rows whose right "
        f"answers are known (budget: by {may.drop:g})"
        for metric in loss.metrics
        if metric.name in GATED and not metric.original - metric.copy <= may.drop
    ]


def infinite(answered: Answered, answers: Tensors, specs: tuple[TensorSpec, ...]) -> tuple[str, ...]:
    """Return a sentence for each output for which one of the two gives no finite number, and the other does."""
    found = []
    for spec in specs:
        original, copy = answered.outputs[spec.name], answers[spec.name]
        if original.dtype.kind != "f":
            continue
        for one, other, names in ((copy, original, ("copy", "original")), (original, copy, ("original", "copy"))):
            lost = (~np.isfinite(one) & np.isfinite(other)).reshape(len(one), -1).any(axis=1)
            if lost.any():
                where = Counter(answered.origin[row] for row in np.flatnonzero(lost))
                said = ", ".join(f"{count:,} {source}" for source, count in where.items())
                found.append(
                    f"{spec.name} of the {names[0]} is no finite number on {lost.sum():,} rows where the {names[1]} "
                    f"gives one ({said})"
                )
    return tuple(found)


def gaps(converted: ConvertedModel, answered: Answered) -> tuple[str, ...]:
    """Return a sentence where the original answers rows with gaps, and the file takes int8, which holds none."""
    names = [unit.name for unit in converted.units if unit.name in answered.inputs]
    gone = [np.isnan(answered.inputs[name]).reshape(len(answered.origin), -1).any(axis=1) for name in names]
    count = int(np.any(gone, axis=0).sum()) if gone else 0
    return (
        f"the copy takes no gaps, for int8 holds none: {count:,} rows with gaps are answered as if they were 0",
    ) * bool(count)

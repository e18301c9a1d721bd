"""Answers: what two versions say to the same rows, and which of their answers are others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from modelrel import served, tensors
from modelrel.errors import ModelrelError
from modelrel.formats import FORMATS, behind
from modelrel.probes import evidence, rows
from modelrel.steps.facts import Copy, Known
from modelrel.targets.questions import Golden
from modelrel.tensors import Array, Tensors
from modelrel.values import TensorSpec

_SHOWN: Final = 5
_MOST: Final = 100_000
_RTOL, _ATOL = 1e-4, 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One row that both were asked: where it comes from, what was sent, and both answers, by output."""

    source: str
    inputs: Mapping[str, Any]
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    error: float
    flipped: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One output, over all rows: how many differ (numbers: by more than rounding), and by how much at most."""

    name: str
    datatype: str
    differ: int
    largest: float
    mean: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What came of asking two versions the same rows; `why` says why they were not asked, "" where they were.

    `flips` counts rows with another label, `differ` those with any other answer, `worst` are those that differ most.
    """

    why: str = ""
    rows: int = 0
    sources: Mapping[str, int]
    formats: tuple[str, str] = ("", "")
    differ: int = 0
    flips: int = 0
    outputs: tuple[Output, ...] = ()
    worst: tuple[Answer, ...] = ()
    notes: tuple[str, ...] = ()


def compare(a: Known, b: Known, data: Path | None = None) -> Answers:
    """Ask the copies of A and B the same rows: those that verify recorded, the logged examples, and `data`.

    Raises `Invalid` where `data` does not fit the signature of B.
    """
    first, second = _copies(a, b)
    if first is None or second is None:
        lacking = [one for one, copy in ((a, first), (b, second)) if copy is None]
        names = " and ".join(one.label for one in lacking)
        run = "; ".join(f"modelrel convert {one.label}" for one in lacking)
        return Answers(why=f"no verified copy of {names} is at hand (run: {run})", sources={})
    if wrong := _unfit(served.inputs(first.converted), served.inputs(second.converted)):
        return Answers(why=f"{a.label} cannot be asked what {b.label} is: {wrong}", sources={})
    given = list(_rows(a, b, first, second))
    if data is not None:
        signature = second.converted.signature
        given.append((data.name, served.rows(second.converted, rows.read(data, signature))))
    notes = _notes(a, b, first, second)
    asked = tensors.stack([part for _, part in given])
    origin = [name for name, part in given for _ in range(tensors.rows(part))]
    try:
        before, after = _asked(first, asked), _asked(second, asked)
    except ModelrelError as error:
        return Answers(why=f"a copy could not be asked: {error.message}", sources={})
    counted = {name: origin.count(name) for name, _ in given}
    formats = (first.converted.format, second.converted.format)
    return replace(_compared(asked, before, after, origin), sources=counted, formats=formats, notes=notes)


def _copies(a: Known, b: Known) -> tuple[Copy | None, Copy | None]:
    """Return the copies to ask: those of one format, where both have one, which were verified."""
    of_a, of_b = ({copy.converted.format: copy for copy in one.copies if copy.parity} for one in (a, b))
    for form in FORMATS:
        if form in of_a and form in of_b:
            return of_a[form], of_b[form]
    return next(iter(of_a.values()), None), next(iter(of_b.values()), None)


def _unfit(old: tuple[TensorSpec, ...], new: tuple[TensorSpec, ...]) -> str:
    """Return why rows of the new inputs cannot be sent to the old ones, or ""."""
    there = {spec.name: spec for spec in new}
    for spec in old:
        found = there.get(spec.name)
        if found is None:
            return f"its input {spec.name} is none of the other's"
        if found.datatype != spec.datatype or found.shape != spec.shape:
            return (
                f"its input {spec.name} is {spec.datatype} {list(spec.shape)}, not {found.datatype} {list(found.shape)}"
            )
    return ""


def _rows(a: Known, b: Known, first: Copy, second: Copy) -> list[tuple[str, dict[str, Array]]]:
    """Return rows in the served form of B, by where they come from; those of A where they fit B as well."""
    names = [spec.name for spec in served.inputs(second.converted)]
    found = [*_own(b, second)]
    if not _unfit(served.inputs(second.converted), served.inputs(first.converted)):
        found += _own(a, first)
    return [(name, {key: part[key] for key in names}) for name, part in found]


def _own(one: Known, copy: Copy) -> list[tuple[str, dict[str, Array]]]:
    assert copy.parity is not None
    found = [(f"golden rows of {one.label}", dict(Golden.of(copy.parity).inputs))]
    try:
        example = rows.example(replace(copy.converted.source, signature=copy.converted.signature))
    except ModelrelError:
        return found  # what verify says of it is in its findings
    if example is not None:
        some = tensors.take(example, slice(0, _MOST))
        found.append((f"input example of {one.label}", served.rows(copy.converted, some)))
    return found


def _notes(a: Known, b: Known, first: Copy, second: Copy) -> tuple[str, ...]:
    said = []
    if first.converted.format != second.converted.format:
        said.append(f"{a.label} is asked as {first.converted.format}, {b.label} as {second.converted.format}")
    extra = {spec.name for spec in served.inputs(second.converted)} - {s.name for s in served.inputs(first.converted)}
    if extra:
        said.append(f"only {b.label} is told {', '.join(sorted(extra))}")
    one, other = ({spec.name for spec in served.outputs(copy.converted)} for copy in (first, second))
    if one ^ other:
        said.append(f"outputs that only one of them has are not compared: {', '.join(sorted(one ^ other))}")
    return tuple(said)


def _asked(copy: Copy, asked: Tensors) -> dict[str, Array]:
    converted = copy.converted
    predict = behind(
        None if converted.interface.image else converted.adapter_path, FORMATS[converted.format].load(converted.path)
    )
    own = {spec.name: asked[spec.name] for spec in served.inputs(converted)}
    return served.dressed(converted, predict)(own)


def _compared(asked: Tensors, before: Tensors, after: Tensors, origin: list[str]) -> Answers:
    count = len(origin)
    differs, flipped, errors = np.zeros(count, bool), np.zeros(count, bool), np.zeros(count)
    outputs = []
    for name in before:
        if name not in after:
            continue
        first, second = before[name], after[name]
        shaped = first.shape == second.shape
        other = tensors.differ(first, second, rtol=_RTOL, atol=_ATOL) if shaped else np.ones(count, bool)
        size = np.zeros(count)
        if shaped and first.dtype.kind == second.dtype.kind == "f":
            size = np.nan_to_num(tensors.errors(first, second)[0], posinf=np.finfo(np.float64).max)
            errors = np.maximum(errors, size)
        else:
            flipped |= other
        differs |= other
        outputs.append(
            Output(name=name, datatype=tensors.datatype(second.dtype), differ=int(other.sum()),
                   largest=float(size.max(initial=0.0)), mean=float(size.mean()) if count else 0.0)
        )  # fmt: skip
    order = [int(row) for row in np.lexsort((-errors, ~flipped)) if differs[row]]
    return Answers(
        rows=count, sources={}, differ=int(differs.sum()), flips=int(flipped.sum()), outputs=tuple(outputs),
        worst=tuple(_answer(row, asked, before, after, (origin[row], float(errors[row]), bool(flipped[row])))
                    for row in _different(order, asked)),
    )  # fmt: skip


def _different(order: list[int], asked: Tensors) -> list[int]:
    """Return the first few rows that are not the same row again."""
    found: dict[str, int] = {}
    for row in order:
        key = json.dumps({name: evidence.single(array[row]) for name, array in asked.items()}, default=str)
        found.setdefault(key, row)
        if len(found) == _SHOWN:
            break
    return list(found.values())


def _answer(row: int, asked: Tensors, before: Tensors, after: Tensors, told: tuple[str, float, bool]) -> Answer:
    def single(arrays: Tensors) -> dict[str, Any]:
        return {name: evidence.single(array[row]) for name, array in arrays.items()}

    source, error, flipped = told
    return Answer(
        source=source, inputs=single(asked), before=single(before), after=single(after), error=error, flipped=flipped
    )

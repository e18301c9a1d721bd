"""Verify: original and copy answer the same rows, and the copy passes only if it answers alike."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from modelrel import __version__, archive, extras, originals, records, served, tensors, trees
from modelrel.environments import Limits, Worker
from modelrel.errors import Invalid, Refused
from modelrel.formats import FORMATS, behind
from modelrel.originals import Wanted
from modelrel.probes import budget, evidence, opinion, rows, training
from modelrel.probes.budget import Queue
from modelrel.probes.generated import Group, Maker
from modelrel.probes.interview import Answered, Interview
from modelrel.serving import adapters
from modelrel.tensors import Array, Predict, Tensors
from modelrel.values import (
    ConvertedModel,
    Coverage,
    OutputParity,
    ParityReport,
    Signature,
    SourceModel,
    Tolerance,
    VerifyOptions,
)

_SIZES: Final = (1, 2, 7, 31, 257)
"""Sizes of the batches in which the copy answers again, besides all rows at once."""

_SINGLES: Final = 48
"""Rows that it then answers at least."""

_CROSSED: Final = 200
"""Rows made of those nearest to a tie."""

_IMAGES: Final = 32
_TIMED_RUNS: Final = 3
_TIMED_ROWS: Final = 4000

_IN_MEMORY: Final = 20
"""Bytes of memory for a byte of the model's files, to be on the safe side."""


def verify(
    converted: ConvertedModel,
    options: VerifyOptions,
    note: Callable[[str], None] = lambda _: None,
    ahead: Worker | None = None,
) -> ParityReport:
    """Compare the copy with the original on real and generated rows, and return the proof.

    `ahead` is a worker that has the original, and did nothing with it. Writes `golden.json` and `modelrel.json` beside
    the copy. Raises `Refused` where they differ, after writing what was measured to `ParityReport.refused.json`, or
    where the copy is not the recorded one; `Invalid` where `options.data` does not fit the signature.
    """
    source = converted.source
    records.intact(converted)
    own = originals.wanted(source, options.env)
    python = str(originals.ready(own, note)) if own else ""
    with ahead or Worker(source, _limits(options), python) as worker:
        worker.start()  # it loads while the rows are made and onnxruntime loads the copy
        copy = _behind(converted, FORMATS[converted.format].load(converted.path))
        maker, given, unused = _prepared(converted, options)
        answered, covered = _asked(worker, converted, maker, given, options)
        note(f"asking the copy about {len(answered.origin):,} rows")
        answers = _answers(copy, answered.inputs)
        _alike(converted, answered.outputs, answers)
        parities = _parities(answered, answers, options.tolerance)
        second = _second(worker, converted, answered, answers, parities)
    batches, batch_error, batch_wrong = _batched(copy, answered, answers, options.tolerance)
    measured: dict[str, Any] = {
        "tolerance": options.tolerance,
        **_counted(answered, answers, options.tolerance),
        "batch_sizes": batches,
        "outputs": parities,
        "batch_max_abs_error": batch_error,
        "original_us_per_row": answered.us_per_row,
        "copy_us_per_row": _timed(copy, answered.inputs),
        "data_sha256": archive.sha256(options.data) if options.data else "",
        "findings": (*_where(source, own), *unused, *_found(converted, answered, answers), *second),
        "environment": own.digest if own else "",
        "budget_s": options.budget,
        "coverage": covered,
        # The copy ran here, wherever it was written; packages carry the runtime that is proven.
        "tools": {"modelrel": __version__, **converted.tools, **extras.versions(*_runtimes(converted))},
    }
    _gate(converted, measured, (*filter(None, (batch_wrong,)), *second))
    golden = evidence.golden(converted, answered.inputs, answered.origin, copy)
    manifest = evidence.manifest(converted, parities, len(answered.origin))
    return ParityReport(converted=converted, golden=golden, manifest=manifest, **measured)


def _behind(converted: ConvertedModel, predict: Predict) -> Predict:
    """Return `predict` behind the model's own adapter; images are made pixels in front of original and copy alike."""
    return behind(None if converted.interface.image else converted.adapter_path, predict)


def _runtimes(converted: ConvertedModel) -> tuple[str, ...]:
    adapter = converted.adapter_path
    return (*FORMATS[converted.format].RUNTIMES, *(adapters.requires(adapter) if adapter else ()))


def _counted(answered: Answered, answers: Tensors, tolerance: Tolerance) -> dict[str, Any]:
    return {
        "rows": len(answered.origin),
        "sources": dict(Counter(answered.origin)),
        "ties": int(answered.tied().sum()),
        "labels_alone": _labels_alone(answered.outputs, answers, tolerance),
    }


def ahead(source: SourceModel, options: VerifyOptions) -> tuple[Worker, ...]:
    """Return a worker that is loading the original for `verify`, or none where it is better to wait.

    That is where the environment is still to be made, or a model in memory twice might be too much for the machine.
    """
    limits = _limits(options)
    large = sum(file.size for file in source.files) * _IN_MEMORY > limits.memory
    if large or originals.wanted(source, options.env) is not None:
        return ()
    return (Worker(source, limits).start(),)


def _limits(options: VerifyOptions) -> Limits:
    return Limits(seconds=options.seconds, memory_bytes=options.memory_bytes)


def _answers(copy: Predict, inputs: Tensors) -> Tensors:
    """Return what the copy answers: rows that are alike side by side, which takes a large forest half the time."""
    order = tensors.neighbours(inputs)
    back = np.argsort(order)
    answered = copy(tensors.take(inputs, order))
    return {name: array[back] if array.shape[:1] == order.shape else array for name, array in answered.items()}


def _timed(copy: Predict, inputs: Tensors) -> float:
    """Return the microseconds that the copy takes a row, over a few thousand rows at most."""
    some = tensors.take(inputs, np.arange(min(tensors.rows(inputs), _TIMED_ROWS)))
    return evidence.seconds(lambda: copy(some), _TIMED_RUNS) / tensors.rows(some) * 1e6


def _parities(answered: Answered, answers: Tensors, tolerance: Tolerance) -> tuple[OutputParity, ...]:
    shared = [name for name in answers if name in answered.outputs]
    return tuple(_compared(name, answered, answers, tolerance) for name in shared)


def _second(
    worker: Worker, converted: ConvertedModel, answered: Answered, answers: Tensors, parities: tuple[OutputParity, ...]
) -> tuple[str, ...]:
    """Return who is wrong, where an output differs and it can be told."""
    if not any(parity.disagreements for parity in parities):
        return ()
    reference = FORMATS[converted.format].reference(converted.path)
    second = reference and _behind(converted, reference)
    return opinion.told(worker.call, converted, answered, answers, second)


def _found(converted: ConvertedModel, answered: Answered, answers: Tensors) -> tuple[str, ...]:
    known = FORMATS[converted.format].suspicions(converted.path)
    return (*answered.findings, *_rounded(answered, answers), *known)


def _where(source: SourceModel, own: Wanted | None) -> tuple[str, ...]:
    """Say where the original ran, unless it is what everybody expects: here, with what it was trained with."""
    if own is not None:
        return (f"original ran in {originals.described(own, tuple(originals.LIBRARIES.values()))}",)
    other = originals.differing(originals.versions(source))
    return tuple(
        f"original ran with {name} {extras.version(name) or '(not installed)'}, and was trained with {version}"
        for name, version in other.items()
    )


def _prepared(converted: ConvertedModel, options: VerifyOptions) -> tuple[Maker, list[Group], tuple[str, ...]]:
    """Return what makes rows, the real rows - the example, the user's data - and why some are not used."""
    source = converted.source
    assert source.signature is not None
    given: list[Group] = []
    unused = []
    try:
        example = rows.example(source)
    except Invalid as error:
        unused.append(f"the input example is not used: {error.message}")
    else:
        given += [Group("example", example)] if example is not None else []
    if options.data is not None:
        given.append(Group("data", rows.read(options.data, source.signature)))
    hints = json.loads((source.folder / converted.hints.path).read_text()) if converted.hints else {}
    # Rows are such as the copy can hold: what it takes in float32, the original is asked in float32 too.
    real = tensors.held(tensors.stack([group.rows for group in given]), converted.inputs) if given else None
    maker = Maker(Signature(kind=source.signature.kind, inputs=converted.inputs), real, hints, options.seed)
    return maker, given, tuple(unused)


def _asked(
    worker: Worker, converted: ConvertedModel, maker: Maker, given: list[Group], options: VerifyOptions
) -> tuple[Answered, tuple[Coverage, ...]]:
    """Ask the original real and usual rows, what errors are likely in, then mixed gaps and likely ties."""
    talk = Interview(worker.call, converted)
    start = time.perf_counter()
    always = [*given, *_images(converted), *maker.usual(options.rows)]
    talk.ask(always)
    made = (*maker.missing(), *maker.special(), *maker.unseen(), *maker.knots(), *maker.texts(), *maker.extremes())
    logged = training.logged(converted.source)
    splits = Queue("thresholds", len(maker.splits()), maker.thresholds(), "splits")
    listed = [logged.queue, splits, *budget.queues(made)]
    covered = budget.spend(listed, talk.ask, options.budget - (time.perf_counter() - start))
    more = maker.gaps(talk.able, max(options.rows // 5, 20))
    near = talk.near_ties()
    if near is not None:
        more += maker.crossed(near, _CROSSED)
    if more:
        talk.ask(more)
    counted = Counter[str]()
    for group in always:
        counted[group.source] += group.items
    whole = (Coverage(source=source, asked=count, of=count) for source, count in counted.items())
    bends = talk.inner_knots(options.budget - (time.perf_counter() - start))
    said = {training.SOURCE: logged.left_out, splits.source: _left_out(maker)}
    return talk.answered(), (*whole, *budget.with_left_out(covered, said), *bends)


def _images(converted: ConvertedModel) -> tuple[Group, ...]:
    """Return rows that are images as the adapter gives them, where images are served."""
    interface, path = converted.interface, converted.adapter_path
    if not interface.image or path is None:
        return ()
    spec = next(spec for spec in converted.inputs if spec.name == interface.image)
    return (Group("images", adapters.load(path)({spec.name: served.pictures(spec, _IMAGES)})),)


def _left_out(maker: Maker) -> str:
    """Say of how many features the converter told a part of the thresholds only."""
    count = sum(len(feature.hint.thresholds) >= trees.MOST_THRESHOLDS for feature in maker.features)
    most = f"{trees.MOST_THRESHOLDS:,} thresholds, evenly picked, are looked at"
    return f"of {count:,} features with more splits {most}" if count else ""


def _alike(converted: ConvertedModel, original: Tensors, copy: Tensors) -> None:
    """Raise `Refused` where an output is missing, or has another shape or kind of element."""
    hint = "The converter gives another interface than the original; convert again, or release another estimator."
    for spec in converted.outputs:
        if spec.name not in original or spec.name not in copy:
            raise Refused(f"the output {spec.name} is not given by both the original and the copy", hint)
        first, second = original[spec.name], copy[spec.name]
        if first.shape != second.shape:
            raise Refused(
                f"{spec.name} has the shape {list(second.shape)} in the copy and {list(first.shape)} in the original",
                hint,
            )
        if first.dtype.kind != second.dtype.kind:
            raise Refused(
                f"{spec.name} is {tensors.datatype(second.dtype)} in the copy and "
                f"{tensors.datatype(first.dtype)} in the original",
                hint,
            )


def _rounded(answered: Answered, answers: Tensors) -> tuple[str, ...]:
    """Say how many labels differ where the original's own rounding chose its label."""
    labels = [name for name in answers if name in answered.outputs and answered.outputs[name].dtype.kind != "f"]
    differ = [tensors.disagree(answered.outputs[name], answers[name]) for name in labels]
    count = int((np.any(differ, axis=0) & answered.undecided(answers)).sum()) if differ else 0
    said = f"{count:,} labels differ where the original's two best probabilities differ by its own rounding alone"
    return (said,) if count else ()


def _compared(name: str, answered: Answered, answers: Tensors, tolerance: Tolerance) -> OutputParity:
    """Compare one output over all rows: labels must be equal, numbers within the tolerance."""
    original, copy = answered.outputs[name], answers[name]
    if original.dtype.kind == "f":
        absolute, relative = tensors.errors(original, copy)
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


def _labels_alone(original: Tensors, copy: Tensors, tolerance: Tolerance) -> int:
    """Return on how many rows a label differs while every number agrees (0 where there is only one of the two)."""
    labels: list[Array] = []
    numbers: list[Array] = []
    for name in original.keys() & copy.keys():
        found = numbers if original[name].dtype.kind == "f" else labels
        found.append(tensors.differ(original[name], copy[name], rtol=tolerance.rtol, atol=tolerance.atol))
    if not labels or not numbers:
        return 0
    return int((np.any(labels, axis=0) & ~np.any(numbers, axis=0)).sum())


def _batched(
    copy: Predict, answered: Answered, answers: Tensors, tolerance: Tolerance
) -> tuple[tuple[int, ...], float, str]:
    """Ask the copy in batches of several sizes; return the sizes, the worst error, and a sentence if wrong."""
    count = len(answered.origin)
    worst, wrong = 0.0, ""
    sizes = tuple(size for size in _SIZES if size < count)
    for size in sizes:
        picked = np.unique(np.linspace(0, count - 1, min(count, max(_SINGLES, 2 * size))).astype(int))
        pieces = [copy(tensors.take(answered.inputs, picked[at : at + size])) for at in range(0, len(picked), size)]
        single = tensors.stack(list(pieces))
        for name, array in single.items():
            whole = answers[name][picked]
            if whole.dtype.kind == "f":
                worst = max(worst, float(tensors.errors(whole, array)[0].max()))
            bad = tensors.differ(whole, array, rtol=tolerance.rtol, atol=tolerance.atol)
            if bad.any() and not wrong:
                row = int(picked[np.argmax(bad)])
                wrong = f"{name} of row {row} is another one in a batch of {size} than in one of {count}"
    return (*sizes, count), worst, wrong


def _gate(converted: ConvertedModel, measured: Mapping[str, Any], others: tuple[str, ...]) -> None:
    """Raise `Refused` where the copy differs, having written down everything that was measured.

    `others` are sentences about what is wrong beside the outputs that differ.
    """
    failed = [parity for parity in measured["outputs"] if parity.disagreements]
    if not failed and not others:
        (converted.folder / converted.format / evidence.REFUSED).unlink(missing_ok=True)
        return
    sentences = [*(_sentence(parity, measured["tolerance"]) for parity in failed), *others]
    evidence.refused(converted, measured, sentences)
    raise Refused(
        f"the {converted.format} copy of {converted.source.label} ({converted.estimator}) differs from the original: "
        + "; ".join(sentences),
        " ".join(_advice(converted, others)),
    )


def _advice(converted: ConvertedModel, others: tuple[str, ...]) -> list[str]:
    """Return what to do about a copy that differs, in sentences."""
    said = [f"Everything measured is in {converted.format}/{evidence.REFUSED}; the copy is not released."]
    if any(sentence.startswith(opinion.ITSELF) for sentence in others):
        said.append("Train and log the model on float64 rows, so that it does not round.")
    if converted.handed_in:
        said.append("It was handed in, and stands until modelrel convert --force converts again.")
    return said


def _sentence(parity: OutputParity, tolerance: Tolerance) -> str:
    """Say how one output differs, and on which row the most."""
    given = evidence.short(parity.worst_input)
    original, copy = evidence.short(parity.worst_original), evidence.short(parity.worst_copy)
    share = f"{parity.disagreements:,} of {parity.rows:,} rows"
    by = ""
    if parity.datatype.startswith("FP"):
        error = parity.max_abs_error
        off = f"{error:.3g}" if math.isfinite(error) else "infinity (a missing number)"
        by = f" by up to {off} (allowed: {tolerance.atol:g} + {tolerance.rtol:g} of the value)"
    return (
        f"{parity.name} differs on {share}{by}; worst row {parity.worst_row} ({parity.worst_source}) {given}: "
        f"the original answers {original}, the copy {copy}"
    )

"""Verify: original and copy answer the same rows, and the copy passes only if it answers alike."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from modelrel import __version__, archive, extras, originals, records, served, tensors, trees
from modelrel.environments import Limits, Worker
from modelrel.errors import Invalid, Refused
from modelrel.formats import FORMATS, behind, python
from modelrel.measured import Coverage, Loss, Metric, OutputParity, Tolerance
from modelrel.originals import Wanted
from modelrel.probes import budget, comparison, evidence, loss, opinion, rows, training, witness
from modelrel.probes.budget import Queue
from modelrel.probes.generated import Group, Maker
from modelrel.probes.interview import Answered, Interview
from modelrel.serving import adapters
from modelrel.tensors import Predict, Tensors
from modelrel.values import ConvertedModel, ParityReport, Signature, SourceModel, VerifyOptions

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
    program = str(originals.ready(own, note)) if own else ""
    with ahead or Worker(source, _limits(options), program) as worker:
        worker.start()  # it loads while the rows are made and onnxruntime loads the copy
        copy = _behind(converted, _loaded(converted, options))
        maker, given, unused = _prepared(converted, options)
        answered, covered = _asked(worker, converted, maker, given, options)
        note(f"asking the copy about {len(answered.origin):,} rows")
        answers = _answers(copy, answered.inputs)
        _alike(converted, answered.outputs, answers)
        judge = _within if converted.quantize else _exact
        verdict = judge(_Asked(worker, converted, copy), answered, answers, options)
    batches, batch_error, batch_wrong = _batched(copy, answered, answers, options.tolerance)
    measured: dict[str, Any] = {
        "tolerance": options.tolerance,
        **_counted(answered, answers, options.tolerance),
        "batch_sizes": batches,
        "outputs": verdict.parities,
        "batch_max_abs_error": batch_error,
        "original_us_per_row": answered.us_per_row,
        "copy_us_per_row": _timed(copy, answered.inputs),
        "data_sha256": archive.sha256(options.data) if options.data else "",
        "findings": (*_where(source, own), *unused, *_found(converted, answered, answers), *verdict.findings),
        "environment": own.digest if own else "",
        "budget_s": options.budget,
        "coverage": covered,
        "loss": verdict.loss,
        # The copy ran here, wherever it was written; packages carry the runtime that is proven.
        "tools": {"modelrel": __version__, **converted.tools, **extras.versions(*_runtimes(converted))},
    }
    _gate(converted, measured, verdict.wrong, (*filter(None, (batch_wrong,)), *verdict.second))
    golden = evidence.golden(converted, answered.inputs, answered.origin, copy)
    manifest = evidence.manifest(converted, verdict.parities, len(answered.origin))
    return ParityReport(converted=converted, golden=golden, manifest=manifest, **measured)


def _loaded(converted: ConvertedModel, options: VerifyOptions) -> Predict:
    """Return the copy, loaded as it is deployed; the model as it is runs within the limits of the original."""
    if converted.format == "python":
        return python.load(converted.path, options.seconds, options.memory_bytes, options.env)
    return FORMATS[converted.format].load(converted.path)


def _behind(converted: ConvertedModel, predict: Predict) -> Predict:
    """Return `predict` behind the model's own adapter; images are made pixels in front of original and copy alike."""
    return behind(None if converted.interface.image else converted.adapter_path, predict)


def _runtimes(converted: ConvertedModel) -> tuple[str, ...]:
    adapter = converted.adapter_path
    return (*FORMATS[converted.format].RUNTIMES, *(adapters.requires(adapter) if adapter else ()))


@dataclass(frozen=True, slots=True)
class _Asked:
    """Who can be asked: the process that holds the original, and the copy."""

    worker: Worker
    converted: ConvertedModel
    copy: Predict


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    """What came of the comparison: each output, what is `wrong` with them, and who is, where that can be told."""

    parities: tuple[OutputParity, ...]
    wrong: tuple[str, ...]
    second: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    loss: Loss | None = None


def _exact(asked: _Asked, answered: Answered, answers: Tensors, options: VerifyOptions) -> _Verdict:
    """Compare a copy that must answer as the original does: every row counts."""
    shared = [name for name in answers if name in answered.outputs]
    parities = tuple(comparison.compared(name, answered, answers, options.tolerance) for name in shared)
    second = _second(asked.worker, asked.converted, answered, answers, parities)
    wrong = tuple(comparison.sentence(parity, options.tolerance) for parity in parities if parity.disagreements)
    heard, agreed = _heard(asked.converted, answered, options.tolerance)
    others = (*second, *(() if agreed else heard))
    return _Verdict(parities=parities, wrong=wrong, second=others, findings=(*second, *heard))


def _within(asked: _Asked, answered: Answered, answers: Tensors, options: VerifyOptions) -> _Verdict:
    """Hold a smaller copy against the budget of what it may lose, on the rows that the model is for."""
    converted = asked.converted
    judged = loss.judged(converted, answered, answers, options)
    found = replace(judged.loss, metrics=_metrics(asked, options))
    parities = tuple(
        comparison.compared(
            name, judged.answered, judged.answers, Tolerance(rtol=0.0, atol=judged.limits.get(name, 0.0))
        )
        for name in judged.answers
        if name in judged.answered.outputs
    )
    wrong = loss.sentences(found)
    if wrong:
        shown = [parity for parity in parities if parity.disagreements] or parities
        wrong += [f"of {parity.name}, {comparison.worst(parity)}" for parity in shown]
    lost = loss.infinite(answered, answers, converted.outputs)
    return _Verdict(
        parities=parities, wrong=tuple(wrong), findings=(*lost, *loss.gaps(converted, answered)), loss=found
    )


def _metrics(asked: _Asked, options: VerifyOptions) -> tuple[Metric, ...]:
    signature = asked.converted.signature
    if not options.label:
        return ()
    if options.data is None:
        raise Invalid(f"there is no data with a column {options.label!r}", "Give the rows by --data FILE.")
    data = rows.read(options.data, signature, options.label)
    right = rows.labels(options.data, signature, options.label)
    return loss.metrics(asked.worker.call, asked.converted, asked.copy, data, right)


def _counted(answered: Answered, answers: Tensors, tolerance: Tolerance) -> dict[str, Any]:
    return {
        "rows": len(answered.origin),
        "sources": dict(Counter(answered.origin)),
        "ties": int(answered.tied().sum()),
        "labels_alone": comparison.labels_alone(answered.outputs, answers, tolerance),
    }


def ahead(source: SourceModel, options: VerifyOptions) -> tuple[Worker, ...]:
    """Return a worker that can load the original for `verify` before it is needed, or none where it is better to wait.

    That is where the environment is still to be made, or a model in memory twice might be too much for the machine.
    """
    limits = _limits(options)
    large = sum(file.size for file in source.files) * _IN_MEMORY > limits.memory
    if large or originals.wanted(source, options.env) is not None:
        return ()
    return (Worker(source, limits),)


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


def _second(
    worker: Worker, converted: ConvertedModel, answered: Answered, answers: Tensors, parities: tuple[OutputParity, ...]
) -> tuple[str, ...]:
    """Return who is wrong, where an output differs and it can be told."""
    wraps = converted.source.flavor == "pyfunc"  # what differs may be the wrapper's work, which no opinion knows
    if wraps or not any(parity.disagreements for parity in parities):
        return ()
    reference = FORMATS[converted.format].reference(converted.path)
    second = reference and _behind(converted, reference)
    return opinion.told(worker.call, converted, answered, answers, second)


def _heard(converted: ConvertedModel, answered: Answered, tolerance: Tolerance) -> tuple[tuple[str, ...], bool]:
    room = FORMATS[converted.format]
    other = room.reference(converted.path) if room.SECOND else None
    return witness.heard(room.SECOND, other, answered, tolerance)


def _found(converted: ConvertedModel, answered: Answered, answers: Tensors) -> tuple[str, ...]:
    known = FORMATS[converted.format].suspicions(converted.path)
    return (*answered.findings, *comparison.rounded(answered, answers), *known)


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
    signature = converted.signature
    source = replace(converted.source, signature=signature)
    given: list[Group] = []
    unused = []
    try:
        example = rows.example(source)
    except Invalid as error:
        unused.append(f"the input example is not used: {error.message}")
    else:
        given += [Group("example", example)] if example is not None else []
    if options.data is not None:
        given.append(Group("data", rows.read(options.data, signature, options.label)))
    hints = json.loads((source.folder / converted.hints.path).read_text()) if converted.hints else {}
    # Rows are such as the copy can hold: what it takes in float32, the original is asked in float32 too.
    real = tensors.held(tensors.stack([group.rows for group in given]), converted.inputs) if given else None
    if "rows" in hints:  # rows that take every branch of the copy, as the writer found them
        given.append(Group("branches", rows.fitted(hints["rows"], signature, "hints.json")))
    maker = Maker(Signature(kind=signature.kind, inputs=converted.inputs), real, hints, options.seed)
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
    logged = training.logged(replace(converted.source, signature=converted.signature))
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


def _gate(
    converted: ConvertedModel, measured: Mapping[str, Any], wrong: tuple[str, ...], others: tuple[str, ...]
) -> None:
    """Raise `Refused` where the copy differs, having written down everything that was measured.

    `wrong` are sentences about outputs that differ, `others` about what is wrong beside them.
    """
    if not wrong and not others:
        (converted.folder / converted.format / evidence.REFUSED).unlink(missing_ok=True)
        return
    evidence.refused(converted, measured, [*wrong, *others])
    which = f"{converted.quantize} {converted.format}" if converted.quantize else converted.format
    how = "loses more than it may" if converted.quantize and wrong else "differs from the original"
    raise Refused(
        f"the {which} copy of {converted.source.label} ({converted.estimator}) {how}: " + "; ".join([*wrong, *others]),
        " ".join(_advice(converted, others)),
    )


def _advice(converted: ConvertedModel, others: tuple[str, ...]) -> list[str]:
    """Return what to do about a copy that differs, in sentences."""
    said = [f"Everything measured is in {converted.format}/{evidence.REFUSED}; the copy is not released."]
    if any(sentence.startswith(opinion.ITSELF) for sentence in others):
        said.append("Train and log the model on float64 rows, so that it does not round.")
    if converted.source.flavor == "pyfunc" and converted.format != "python":
        said.append("If its predict does more than that model's, release it as it is (--to python).")
    if converted.quantize:
        said.append("Scale the model's inputs, choose a milder --quantize, or none.")
    if converted.handed_in:
        said.append("It was handed in, and stands until modelrel convert --force converts again.")
    return said

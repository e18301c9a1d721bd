"""Verify: original and copy answer the same rows, and the copy passes only if it answers alike."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from modelrel import __version__, archive, extras, originals, records, tensors
from modelrel.environments import Limits, Worker
from modelrel.errors import Invalid, Refused
from modelrel.formats import FORMATS
from modelrel.originals import Wanted
from modelrel.probes import evidence, rows
from modelrel.probes.generated import Group, Maker
from modelrel.tensors import Predict, Tensors
from modelrel.values import ConvertedModel, OutputParity, ParityReport, SourceModel, Tolerance, VerifyOptions

_SINGLES: Final = 48
"""Rows that the copy also answers one by one, and two by two."""

_TIMED_RUNS: Final = 3


@dataclass(frozen=True, slots=True)
class Answered:
    """Rows that the original answered: inputs, where each comes from, outputs, and what was left out."""

    inputs: Tensors
    origin: tuple[str, ...]
    outputs: Tensors
    seconds: float
    findings: tuple[str, ...]


def verify(
    converted: ConvertedModel,
    options: VerifyOptions,
    note: Callable[[str], None] = lambda _: None,
) -> ParityReport:
    """Compare the copy with the original on real and generated rows, and return the proof.

    Writes `golden.json` and `modelrel.json` beside the copy. Raises `Refused` where they differ, after writing
    what was measured to `ParityReport.refused.json`, or where the copy is not the recorded one; `Invalid` where
    `options.data` does not fit the signature.
    """
    source = converted.source
    records.intact(converted)
    limits = Limits(seconds=options.seconds, memory_bytes=options.memory_bytes)
    own = originals.wanted(source, options.env)
    python = str(originals.ready(own, note)) if own else ""
    with Worker(source, limits, python) as worker:
        worker.start()  # it loads while the rows are made and onnxruntime loads the copy
        copy = FORMATS[converted.format].load(converted.path)
        maker, groups, unused = _groups(converted, options)
        note(f"asking the original about {sum(tensors.rows(group.rows) for group in groups):,} rows")
        answered = _asked(worker, converted, maker, groups, options)
    note(f"asking the copy about {len(answered.origin):,} rows")
    answers = copy(answered.inputs)
    _alike(converted, answered.outputs, answers)
    parities = tuple(
        _compared(name, answered, answers, options.tolerance) for name in answers if name in answered.outputs
    )
    batches, batch_error, batch_wrong = _batched(copy, answered, answers, options.tolerance)
    measured: dict[str, Any] = {
        "tolerance": options.tolerance,
        "rows": len(answered.origin),
        "sources": dict(Counter(answered.origin)),
        "batch_sizes": batches,
        "outputs": parities,
        "batch_max_abs_error": batch_error,
        "original_us_per_row": answered.seconds / len(answered.origin) * 1e6,
        "copy_us_per_row": evidence.seconds(lambda: copy(answered.inputs), _TIMED_RUNS) / len(answered.origin) * 1e6,
        "data_sha256": archive.sha256(options.data) if options.data else "",
        "findings": (*_where(source, own), *unused, *answered.findings, *_suspicions(converted)),
        "environment": own.digest if own else "",
        # The copy ran here, wherever it was written; packages carry the runtime that is proven.
        "tools": {"modelrel": __version__, **converted.tools, **extras.versions("onnxruntime", "numpy")},
    }
    _gate(converted, measured, batch_wrong)
    golden = evidence.golden(converted, answered.inputs, answered.origin, copy)
    manifest = evidence.manifest(converted, parities, len(answered.origin))
    (source.folder / converted.format / evidence.REFUSED).unlink(missing_ok=True)
    return ParityReport(converted=converted, golden=golden, manifest=manifest, **measured)


def _suspicions(converted: ConvertedModel) -> tuple[str, ...]:
    return FORMATS[converted.format].suspicions(converted.path)


def _where(source: SourceModel, own: Wanted | None) -> tuple[str, ...]:
    """Say where the original ran, unless it is what everybody expects: here, with what it was trained with."""
    if own is not None:
        return (f"original ran in {originals.described(own, tuple(originals.LIBRARIES.values()))}",)
    other = originals.differing(originals.versions(source))
    return tuple(
        f"original ran with {name} {extras.version(name) or '(not installed)'}, and was trained with {version}"
        for name, version in other.items()
    )


def _groups(converted: ConvertedModel, options: VerifyOptions) -> tuple[Maker, list[Group], tuple[str, ...]]:
    """Return the rows to ask about - the example, the user's data, and generated ones - and why some are not."""
    source = converted.source
    assert source.signature is not None
    given, unused = [], []
    try:
        example = rows.example(source)
    except Invalid as error:
        unused.append(f"the input example is not used: {error.message}")
    else:
        given += [Group("example", example)] if example is not None else []
    if options.data is not None:
        given.append(Group("data", rows.read(options.data, source.signature)))
    hints = json.loads((source.folder / converted.hints.path).read_text()) if converted.hints else {}
    real = tensors.stack([group.rows for group in given]) if given else None
    maker = Maker(source.signature, real, hints, options.seed)
    made = [*maker.usual(options.rows), *maker.thresholds(), *maker.missing(), *maker.unseen()]
    return maker, [*given, *made], tuple(unused)


def _asked(
    worker: Worker, converted: ConvertedModel, maker: Maker, groups: list[Group], options: VerifyOptions
) -> Answered:
    """Ask the original, then once more with gaps in those features where a gap did not make it raise."""
    first, kept = _ask(worker, converted, groups, _TIMED_RUNS)
    starts = np.cumsum([0, *(tensors.rows(group.rows) for group in groups)])
    able = [
        group.features[0]
        for group, start in zip(groups, starts, strict=False)
        if group.source == "missing" and start in kept
    ]
    gaps = maker.gaps(able, max(options.rows // 5, 20))
    if not gaps:
        return first
    second, _ = _ask(worker, converted, gaps, 0)
    return Answered(
        tensors.stack([first.inputs, second.inputs]),
        first.origin + second.origin,
        tensors.stack([first.outputs, second.outputs]),
        first.seconds / len(first.origin) * (len(first.origin) + len(second.origin)),
        first.findings + second.findings,
    )


def _ask(worker: Worker, converted: ConvertedModel, groups: list[Group], repeat: int) -> tuple[Answered, set[int]]:
    """Return the original's answers, and the numbers of the rows that it answered."""
    assert converted.source.signature is not None
    asked = tensors.stack([group.rows for group in groups])
    origin = [group.source for group in groups for _ in range(tensors.rows(group.rows))]
    reply = worker.call("predict", asked, signature=asdict(converted.source.signature), repeat=repeat)
    kept = [int(index) for index in reply.value["kept"]]
    dropped = Counter(origin) - Counter(origin[index] for index in kept)
    said = "; ".join(reply.value["raised"])
    findings = tuple(
        f"the original raises on {count} of the {source} rows, which are left out ({said[:200]})"
        for source, count in dropped.items()
    )
    inputs = tensors.take(asked, np.array(kept))
    answered = Answered(
        inputs, tuple(origin[index] for index in kept), reply.arrays, float(reply.value["seconds"]), findings
    )
    return answered, set(kept)


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


def _compared(name: str, answered: Answered, answers: Tensors, tolerance: Tolerance) -> OutputParity:
    """Compare one output over all rows: labels must be equal, numbers within the tolerance."""
    original, copy = answered.outputs[name], answers[name]
    if original.dtype.kind == "f":
        absolute, relative = tensors.errors(original, copy)
        over = tensors.excess(original, copy, rtol=tolerance.rtol, atol=tolerance.atol)
        wrong = int((over > 0).sum())
    else:
        different = tensors.disagree(original, copy)
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


def _batched(
    copy: Predict, answered: Answered, answers: Tensors, tolerance: Tolerance
) -> tuple[tuple[int, ...], float, str]:
    """Ask the copy row by row and two by two; return the batch sizes, the worst error, and a sentence if wrong."""
    count = len(answered.origin)
    picked = np.unique(np.linspace(0, count - 1, min(count, _SINGLES)).astype(int))
    worst, wrong = 0.0, ""
    for size in (1, 2):
        pieces = [copy(tensors.take(answered.inputs, picked[at : at + size])) for at in range(0, len(picked), size)]
        single = tensors.stack(list(pieces))
        for name, array in single.items():
            whole = answers[name][picked]
            if whole.dtype.kind == "f":
                worst = max(worst, float(tensors.errors(whole, array)[0].max()))
                bad = tensors.excess(whole, array, rtol=tolerance.rtol, atol=tolerance.atol) > 0
            else:
                bad = tensors.disagree(whole, array)
            if bad.any() and not wrong:
                row = int(picked[np.argmax(bad)])
                wrong = f"{name} of row {row} is another one in a batch of {size} than in one of {count}"
    return (1, 2, count), worst, wrong


def _gate(converted: ConvertedModel, measured: Mapping[str, Any], batch_wrong: str) -> None:
    """Raise `Refused` where the copy differs, having written down everything that was measured."""
    failed = [parity for parity in measured["outputs"] if parity.disagreements]
    if not failed and not batch_wrong:
        return
    sentences = [_sentence(parity, measured["tolerance"]) for parity in failed] + [batch_wrong] * bool(batch_wrong)
    evidence.refused(converted, measured, sentences)
    raise Refused(
        f"the {converted.format} copy of {converted.source.label} ({converted.estimator}) differs from the original: "
        + "; ".join(sentences),
        f"Everything measured is in {converted.format}/{evidence.REFUSED}; the copy is not released.",
    )


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

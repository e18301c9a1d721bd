"""Notes: what is another one since the version before, as release notes in Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from modelrel import figures
from modelrel.errors import Invalid
from modelrel.markdown import code, table, text
from modelrel.registry import Registry, VersionInfo, history, reference
from modelrel.steps import diff as diff_step
from modelrel.steps import pull
from modelrel.steps.answers import Answers
from modelrel.steps.diff import Diff, Line, Part
from modelrel.steps.facts import Delivery, Known

_MOST: Final = 50
"""Versions in between that are described."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Between:
    """The versions between two, the oldest first; `more` is how many there are beside them."""

    versions: tuple[VersionInfo, ...] = ()
    more: int = 0


def span(said: str, registry: Registry) -> tuple[str, str]:
    """Return what A and B are of `A..B` (B may leave out the name); of B alone, A is who held its alias before.

    A is "" where there was nobody. Raises `Invalid` for what names no model.
    """
    before, dots, after = said.rpartition("..")
    if not dots or not before or (Path(said).expanduser() / "MLmodel").is_file():
        return _holder_before(said, registry), said
    if not after:
        raise Invalid(f"{said!r} does not say until when", "Write for example churn/7..churn/8, or churn/7..8.")
    first = reference.parse(before)
    if "/" not in after and "@" not in after and first.kind in ("version", "alias", "stage", "latest"):
        known = after.isdecimal() or after.lower() == "latest" or reference.stage_name(after)
        after = f"{first.name}/{after}" if known else f"{first.name}@{after}"
    return before, after


def _holder_before(said: str, registry: Registry) -> str:
    """Return the version that B took over from: by the history, else an alias's holder below it, else the one below."""
    located = pull.locate(reference.parse(said), registry)
    if located.kind != "version":
        return ""
    name, number = located.name, int(located.value)
    model = registry.model(name)
    moves = history.entries(model) if model else ()
    took = [one.previous for one in moves if one.version == located.value and one.event == "promoted" and one.previous]
    took = [one for one in took if registry.version(name, one)]
    if took:
        return f"{name}/{took[-1]}"
    held = {int(one) for one in (model.aliases.values() if model else ()) if one.isdecimal() and int(one) < number}
    lower = sorted(held, reverse=True) or range(number - 1, max(number - 1 - _MOST, 0), -1)
    return next((f"{name}/{one}" for one in lower if registry.version(name, str(one))), "")


def between(a: Known | None, b: Known, registry: Registry) -> Between:
    """Return the versions of one model that lie between A and B."""
    if a is None or a.source.name != b.source.name or not (a.source.version + b.source.version).isdecimal():
        return Between()
    numbers = list(range(int(a.source.version) + 1, int(b.source.version)))
    found = [registry.version(b.source.name, str(number)) for number in numbers[-_MOST:]]
    return Between(versions=tuple(one for one in found if one), more=max(0, len(numbers) - _MOST))


def markdown(b: Known, found: Diff | None, others: Between = Between()) -> str:
    """Return the notes of B, by what differs from the version before (None: there was none); all text is escaped."""
    lines = [f"# {text(b.label)}", ""]
    lines += [text(b.description), ""] if b.description else []
    lines += [f"Changes since {text(found.before)}.", ""] if found else []
    lines += _metrics(b, found)
    if found is not None:
        lines += [*_breaks(found), *_changes(found), *_answers(found.answers, found)]
    lines += [*_between(others), *_proof(b), *_limits(b), *_evidence(b)]
    return "\n".join(lines).rstrip() + "\n"


def _metrics(b: Known, found: Diff | None) -> Iterator[str]:
    """Yield the metrics of B; those that changed with what they were."""
    if not b.source.metrics:
        return
    lines = {
        line.what: line for part in (found.parts if found else ()) if part.name == "metrics" for line in part.lines
    }
    yield from ("## Metrics", "")
    if found is None:
        rows = [(code(name), figures.number(value)) for name, value in sorted(b.source.metrics.items())]
        yield from table(("metric", text(b.label)), rows, right=(1,))
    else:
        names = [*b.source.metrics, *(name for name in lines if name not in b.source.metrics)]
        same = Line(what="", before=None, after=None)
        rows_ = [_row(lines.get(name, same), name, b) for name in names]
        yield from table(("metric", text(found.before), text(found.after), "change"), rows_, right=(1, 2, 3))
    yield ""


def _row(line: Line, name: str, b: Known) -> tuple[str, str, str, str]:
    if not line.what:
        value = figures.number(b.source.metrics[name])
        return code(name), value, value, "the same"
    return code(name), figures.text(line.before), figures.text(line.after), _change(line)


def _change(line: Line) -> str:
    if line.before is None or line.after is None:
        return "new" if line.before is None else "gone"
    said = figures.change(line.before, line.delta, line.unit)
    return {"better": f"{said} (better)", "worse": f"{said} (**worse**)"}.get(line.tone, said)


def _breaks(found: Diff) -> Iterator[str]:
    if found.breaks:
        yield from ("## Breaking", "", *(f"- {text(one)}" for one in found.breaks), "")


def _changes(found: Diff) -> Iterator[str]:
    shown = [part for part in found.parts if part.lines and part.name not in ("metrics", "origin")]
    same = [part.name for part in found.parts if not part.lines and not part.unknown]
    if shown or same:
        yield from ("## What changed", "")
    for part in shown:
        yield from (f"**{part.name.capitalize()}**", "", *_lines(part, found), "")
    if same:
        yield from (f"The same as before: {', '.join(same)}.", "")


def _lines(part: Part, found: Diff) -> list[str]:
    rows = [
        (text(line.what), *(code(figures.text(one, line.unit)) for one in (line.before, line.after)), _change(line))
        for line in part.lines
    ]
    return table(("", text(found.before), text(found.after), "change"), rows)


def _answers(found: Answers, whole: Diff) -> Iterator[str]:
    if found.why or not found.rows:
        return
    yield from ("## Answers", "")
    said = f"{found.flips:,} with another label" if found.flips else "no label changed"
    yield f"Of {found.rows:,} rows that both were asked, {found.differ:,} have another answer ({said})."
    yield ""
    rows = [tuple(code(figures.brief(one)) for one in (row.inputs, row.before, row.after)) for row in found.worst]
    if rows:
        yield from (*table(("row", text(whole.before), text(whole.after)), rows), "")


def _between(others: Between) -> Iterator[str]:
    if not others.versions:
        return
    yield from ("## Versions in between", "")
    for one in others.versions:
        yield f"- {text(f'{one.name}/{one.version}')}: {text(one.description) or 'no description'}"
    yield from ([f"- and {others.more} older ones"] if others.more else [])
    yield ""


def _proof(b: Known) -> Iterator[str]:
    proven = [copy for copy in b.copies if copy.parity]
    if not proven:
        return
    yield from ("## How it was proven", "")
    for copy in proven:
        assert copy.parity is not None
        yield (
            f"- The {text(copy.converted.format)} copy answered {copy.parity.rows:,} rows as the original: "
            f"{copy.parity.disagreements:,} labels differ, the largest error is {copy.parity.max_abs_error:.2g}."
        )
    for one in b.smokes:
        yield (
            f"- The {text(one.package.target)} package was started and asked ({len(one.checks)} checks): first answer "
            f"after {figures.seconds(one.first_answer_s)}, p99 {figures.text(one.p99_ms, 'ms')}."
        )
    yield ""


def limits(b: Known) -> tuple[str, ...]:
    """Return what a person should know of a release: the notes of conversions, proofs and packages, each once."""
    said = [
        note for copy in b.copies for note in (*copy.converted.notes, *(copy.parity.findings if copy.parity else ()))
    ]
    said += [f"{one.source}: {one.left_out}" for copy in b.copies if copy.parity for one in copy.parity.coverage
             if one.left_out]  # fmt: skip
    return tuple(dict.fromkeys(said))


def _limits(b: Known) -> Iterator[str]:
    if found := limits(b):
        yield from ("## Known limits", "", *(f"- {text(one)}" for one in found), "")


def digests(b: Known) -> Iterator[tuple[str, str]]:
    """Yield what names the bytes of a release for good: what it is, and its digest or id."""
    source = b.source
    said = (
        ("git commit", source.git_commit),
        ("run", source.run_id),
        ("model as pulled, sha256", source.digest if source.files else ""),
        *((f"{copy.converted.format} copy, sha256", copy.converted.file.sha256) for copy in b.copies),
        *(pair for one in b.deliveries for pair in _delivered(one)),
    )
    yield from ((name, value) for name, value in said if value)


def _delivered(one: Delivery) -> Iterator[tuple[str, str]]:
    name, package = diff_step.target_of(one), one.package
    artifact = next((file.sha256 for file in package.files if file.path == package.artifact), "")
    yield f"{name} package, sha256", artifact or package.digest
    if package.image:
        yield f"{name} image", package.image.manifest or package.image.id
    if one.pushed:
        yield f"{name} pushed as {one.pushed.name}", one.pushed.digest
    if one.attestation and one.attestation.key:
        yield f"{name} evidence signed by key", one.attestation.key


def _evidence(b: Known) -> Iterator[str]:
    rows = [(text(name), code(value)) for name, value in digests(b)]
    if rows:
        yield from ("## Evidence", "", *table(("what", "digest"), rows), "")

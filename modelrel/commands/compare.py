"""Commands that compare and report: diff, notes, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelrel.commands.call import MODEL, Model, call, shared

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from modelrel.delivered import Promotion
    from modelrel.steps.answers import Answers
    from modelrel.steps.diff import Diff, Line
    from modelrel.steps.facts import Known

Data = Annotated[Path | None, typer.Option(metavar="FILE", help="Rows to ask both: csv, parquet, json, npy or npz.")]
Since = Annotated[
    str, typer.Argument(metavar="A..B", help="churn/7..churn/8, churn/7..8, or churn/8: since the holder before.")
]
Out = Annotated[Path | None, typer.Option(metavar="FILE", help="Where to write it.")]

_TONES = {"better": "green", "worse": "yellow", "breaks": "red"}


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (diff, notes, report):
        app.command()(shared(command))


def known(text: str) -> Known:
    """Return what is known of the model that the user named."""
    from modelrel.registry import reference
    from modelrel.steps import facts, pull

    registry = call().registry()
    return facts.of(pull.locate(reference.parse(text), registry), registry, call().dist)


def diff(
    before: Annotated[str, MODEL], after: Annotated[str, MODEL], data: Data = None
) -> None:  # fmt: skip
    """Show what is another one in a version than in the one before it: metrics, signature, sizes, answers."""
    from modelrel.records import plain
    from modelrel.steps import answers
    from modelrel.steps import diff as step

    a, b = known(before), known(after)
    found = step.diff(a, b, answers.compare(a, b, data), _ways())
    call().result(plain(found), *_shown(found))


def _ways() -> dict[str, str]:
    """Return which way the policy says that a metric is better."""
    rungs = call().settings.policy.rungs.values()
    return {name: metric.better for rung in rungs for name, metric in rung.metrics.items()}


def _shown(found: Diff) -> list[RenderableType]:
    from rich.text import Text

    from modelrel.show import table

    rows = [
        (Text(part.name if index == 0 else "", "bold"), line.what, *_cells(line))
        for part in found.parts
        for index, line in enumerate(part.lines)
    ]
    same = [part.name for part in found.parts if not part.lines and not part.unknown]
    said = [f"• {part.name}: {part.unknown}" for part in found.parts if part.unknown]
    said += [f"• the same: {', '.join(same)}"] if same else []
    said += [f"• breaks callers of {found.before}: {one}" for one in found.breaks]
    said += [f"• {one}" for one in found.problems]
    shown: list[RenderableType] = [table("", ("", "what", found.before, found.after, "change"), rows)] if rows else []
    return [*shown, *(Text(one) for one in said), *_asked(found.answers, found)]


def _cells(line: Line) -> tuple[str, str, Text]:
    from rich.text import Text

    from modelrel import figures

    change = figures.change(line.before, line.delta, line.unit)
    said = ", ".join(filter(None, (change, line.tone if line.tone != "breaks" else "breaks callers")))
    if line.before is None or line.after is None:
        said = ", ".join(filter(None, ("new" if line.before is None else "gone", said)))
    cells = [figures.hexadecimal(figures.text(value, line.unit)) for value in (line.before, line.after)]
    return (cells[0], cells[1], Text(said, _TONES.get(line.tone, "")))


def _asked(found: Answers, said: Diff) -> list[RenderableType]:
    """Return what came of asking both the same rows."""
    from rich.text import Text

    from modelrel import figures
    from modelrel.show import table

    if found.why:
        return [Text(f"• answers: {found.why}")]
    where = ", ".join(f"{count:,} {name}" for name, count in found.sources.items())
    flips = f"; {found.flips:,} have another label" if found.flips else "; no label changed"
    rows = [
        (one.name, f"{one.differ:,}", figures.number(one.largest), figures.number(one.mean)) for one in found.outputs
    ]
    worst = [
        (str(index + 1), figures.brief(one.before), figures.brief(one.after), figures.brief(one.inputs))
        for index, one in enumerate(found.worst)
    ]
    return [
        Text(f"answers to the same {found.rows:,} rows ({where}): {found.differ:,} differ{flips}"),
        *([table("", ("output", "differ", "by at most", "on average"), rows)] if found.differ else []),
        *([table("the rows that differ most", ("", said.before, said.after, "row"), worst)] if worst else []),
        *(Text(f"• {note}") for note in found.notes),
    ]


def notes(since: Since, out: Out = None) -> None:
    """Write release notes in Markdown: what is another one since the version before."""
    from modelrel import archive
    from modelrel.steps import answers
    from modelrel.steps import diff as compared
    from modelrel.steps import notes as step

    registry = call().registry()
    before, after = step.span(since, registry)
    a, b = known(before) if before else None, known(after)
    found = compared.diff(a, b, answers.compare(a, b), _ways()) if a else None
    text = step.markdown(b, found, step.between(a, b, registry))
    if out is not None:
        archive.write(out, text.encode())
    value: dict[str, Any] = {"from": a.label if a else None, "to": b.label, "markdown": text}
    if call().json or out:
        call().result(value, f"wrote {out}")
    else:
        print(text, end="")  # as it is: lines of Markdown must not be folded


def report(model: Model, out: Out = None) -> None:
    """Write the report of a release: one HTML file with its verdict, lineage, proof, latency, sizes and parts."""
    from modelrel import archive
    from modelrel.steps import report as step
    from modelrel.steps import summary

    found = known(model)
    page = step.page(found, _next(found))
    path = out or found.source.folder / summary.REPORT
    archive.write(path, page.encode())
    call().result({"model": found.label, "report": str(path), "size": len(page.encode())}, f"wrote {path}")


def _next(found: Known) -> Promotion | None:
    """Return how the policy judges the next rung of its ladder, None where there is none or nothing to judge."""
    from modelrel.commands import promotion
    from modelrel.errors import ModelrelError
    from modelrel.steps import evidence, promote

    policy = call().settings.policy
    held = [policy.ladder.index(alias) for alias in (*found.aliases, found.stage) if alias in policy.ladder]
    higher = policy.ladder[max(held, default=-1) + 1 :]
    if not higher or not found.smokes:
        return None
    change = promotion.change(higher[0], None)
    try:
        attested = evidence.attested(found.smokes, policy.public_keys)
        return promote.plan(found.smokes, call().registry(), change, policy, attested)
    except ModelrelError:
        return None  # no registered version, or another registry: there is nothing to promote

"""The summary of a release in Markdown, as GitHub shows it on the page of a run (`$GITHUB_STEP_SUMMARY`)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from modelrel.markdown import table

if TYPE_CHECKING:
    from modelrel.commands.outputs import Told
    from modelrel.delivered import Package

LIMIT: Final = 1024 * 1024
"""Bytes that GitHub takes of one step."""

_CUT: Final = "\n\n*The rest does not fit here; the release folder has all of it.*\n"
_MARKS: Final = {"passed": "✅", "failed": "❌", "missing": "❓"}
_STAGES: Final = {"done": "✅", "up to date": "🟰", "would change": "🔶", "would be refused": "❌"}


def escaped(text: str) -> str:
    r"""Return foreign text as Markdown that shows it and does nothing else: no markup, no link, no mention.

    >>> escaped("<b>|x|</b> *a* [l](http://x)")
    '&#60;b&#62;&#124;x&#124;&#60;/b&#62; &#42;a&#42; &#91;l&#93;(http&#58;//x)'
    """
    flat = " ".join(text.split())
    active = re.sub(r"[&<>|\\`*_~\[\]#@!$]|:(?=//)|(?<=\b[wW]{3})\.", lambda match: f"&#{ord(match[0])};", flat)
    return re.sub(r"^([-+=]|\d+(?=[.)](\s|$)))", r"&#8203;\1", active)  # no list, no rule, no heading


def markdown(one: Told, limit: int = LIMIT) -> str:
    """Return the summary; what is beyond `limit` bytes is cut between two lines, and said so."""
    lines: list[str] = []
    size = len(_CUT.encode())
    for line in _lines(one):
        size += len(line.encode()) + 1
        if size > limit:
            return "\n".join(lines) + _CUT if len(_CUT.encode()) <= limit else ""
        lines.append(line)
    return "\n".join([*lines, ""])


def _lines(one: Told) -> Iterator[str]:
    message, hint = one.error
    yield f"## {_mark(one)} {escaped(one.label)}: {_end(one)}"
    yield ""
    if message:
        yield f"> {escaped(message)}"
        yield from ([">", f"> {escaped(hint)}"] if hint else [])
        yield ""
    if one.stages:
        rows: list[tuple[str, ...]] = [
            (_STAGES[stage.outcome], stage.stage, stage.outcome, stage.detail, f"{stage.seconds:.1f} s")
            for stage in one.stages
        ]
        rows += [("❌", one.running[0], "stopped", "", f"{one.running[1]:.1f} s")] if message and one.running[0] else []
        yield from _table(("", "stage", "result", "what", "time"), rows)
    if one.rules:
        yield "### Policy"
        yield ""
        rules = [(_MARKS[rule.outcome], rule.name, rule.found, rule.wanted, rule.hint) for rule in one.rules]
        yield from _table(("", "rule", "found", "wanted", "what to do"), rules)
    if one.packages:
        yield "### Packages"
        yield ""
        yield from _packages(one)
    for push in one.pushed:
        yield f"- pushed: {escaped(push.name)} as {escaped(push.digest)}"
    if one.run:
        yield ""
        yield f"Evidence: {escaped(str(one.run.folder))}" + (
            f"; report: {escaped(str(one.report))}" if one.report else ""
        )


def _mark(one: Told) -> str:
    return "❌" if one.stop is not None else "✅"


def _end(one: Told) -> str:
    if one.stop is not None:
        return "refused" if one.verdict == "refused" else f"stopped (exit {one.exit_code})"
    if one.promotion:
        change = f"{one.promotion.kind} {one.promotion.to}: {one.promotion.previous or 'nobody'} → {one.version}"
        return escaped(f"would be promoted, {change}" if one.dry_run else f"promoted, {change}")
    return "would be released" if one.dry_run else f"{one.command}d"


def _packages(one: Told) -> Iterator[str]:
    from modelrel.show import megabytes

    rows = [
        (package.target, megabytes(package.size), _parts(package), *_parity(package), package.digest[:16])
        for package in one.packages
    ]
    yield from _table(("target", "size", "parts", "rows compared", "labels differ", "largest error", "sha256"), rows)


def _parts(package: Package) -> str:
    from modelrel.show import megabytes

    largest = sorted(package.parts.items(), key=lambda part: -part[1])[:4]
    return ", ".join(f"{name} {megabytes(size)}" for name, size in largest)


def _parity(package: Package) -> tuple[str, str, str]:
    parity = package.parity
    return f"{parity.rows:,}", str(parity.disagreements), f"{parity.max_abs_error:.2g}"


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    yield from table(columns, ([escaped(cell) for cell in row] for row in rows))
    yield ""

"""Markdown around text of others: what they wrote stays text, whatever it looks like.

Source: GitHub Flavored Markdown 0.29. GitHub makes mentions and references of the finished page, so that a backslash
does not keep it from calling people; a space of no width does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_SPECIAL = re.compile(r"[\\`*_{}\[\]<>()|~!&$]")
_STARTS = re.compile(r"^([#+=-]|\d{1,9}(?=\.))")
_CALLS = re.compile(r"([@#])(?=\w)|\b(GH-)(?=\d)")
_LINKS = re.compile(r"(?i)\b(https?|ftp|mailto|xmpp)(?=:)|\b(www)(?=\.)")


def text(said: str) -> str:
    r"""Return text of others as one line of Markdown that shows it as it is, and calls nobody.

    >>> text("*hi* @team, see <b>#12</b>")
    '\\*hi\\* @&#8203;team, see \\<b\\>#&#8203;12\\</b\\>'
    """
    line = " ".join(said.split())
    escaped = _SPECIAL.sub(r"\\\g<0>", line)
    escaped = _LINKS.sub(r"\g<0>&#8203;", _CALLS.sub(r"\g<0>&#8203;", escaped))
    starts = _STARTS.match(line)
    if starts is None:
        return escaped
    number = starts[0].isdigit()
    return f"{escaped[: starts.end()]}\\{escaped[starts.end() :]}" if number else f"\\{escaped}"


def code(said: str) -> str:
    """Return text of others as code, one line of it; "" stays "".

    >>> code("a`b")
    '``a`b``'
    """
    line = " ".join(said.split())
    if not line:
        return ""
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    pad = " " if line[0] == "`" or line[-1] == "`" else ""
    ticks = "`" * (longest + 1)
    return f"{ticks}{pad}{line}{pad}{ticks}"


def table(columns: Iterable[str], rows: Iterable[Iterable[str]], right: Iterable[int] = ()) -> list[str]:
    """Return the lines of a table whose cells are Markdown already; the columns `right` hold numbers."""
    heads = list(columns)
    rule = ["--:" if index in set(right) else "---" for index, _ in enumerate(heads)]
    lines = [heads, rule, *(list(row) for row in rows)]
    return ["| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines]


def _cell(cell: str) -> str:
    # a table is cut at bars before code is seen, and `\|` after a backslash is cut as well
    return re.sub(r"(\\*)\|", lambda found: found[0] if len(found[1]) % 2 else f"{_apart(found[1])}\\|", cell)


def _apart(backslashes: str) -> str:
    return backslashes + "\u200b" if backslashes else ""

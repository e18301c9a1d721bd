"""modelrel.toml, looked through: all that is wrong in it at once, and in which line."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modelrel.commands.settings import FILE, RULES, faults
from modelrel.errors import Invalid, did_you_mean

if TYPE_CHECKING:
    from modelrel.policy import Finding, Policy

_KEY: Final = r"""(?:[A-Za-z0-9_-]+|"(?:\\.|[^"\\])*"|'[^']*')"""
_PATH: Final = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_HEADER: Final = re.compile(rf"\s*\[\[?\s*({_PATH})\s*\]")
_PAIR: Final = re.compile(rf"\s*({_PATH})\s*=(.*)", re.DOTALL)
_TEXT: Final = re.compile(
    r'"""(?:\\.|[^\\])*?"""|"""[\s\S]*|"(?:\\.|[^"\\\n])*"'
    r"|'''[\s\S]*?'''|'''[\s\S]*|'[^'\n]*'|#[^\n]*"
)
"""Texts and comments; one of several lines that is not closed takes the rest."""


def examined(text: str, folder: Path) -> tuple[Finding, ...]:
    """Return all that is wrong in the text of a modelrel.toml, by line; `folder` is where its paths begin."""
    from modelrel.policy import Finding

    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"at line (\d+)", str(error))
        end = max(1, len(text.splitlines()))
        return (Finding(path=(), message=f"it is not valid TOML: {error}", line=int(at[1]) if at else end),)
    places = lines(text)
    found = [replace(one, line=_line(places, one.path)) for one in _findings(content, folder)]
    return tuple(sorted(found, key=lambda one: (one.line, one.path)))


def _findings(content: Mapping[str, Any], folder: Path) -> Iterator[Finding]:
    from modelrel.policy import Finding, examine, findings
    from modelrel.targets import TARGETS

    settings = {name: value for name, value in content.items() if name != RULES}
    for path, fault in faults(settings):
        yield Finding(path=path, message=fault.message.removeprefix(f"{FILE}: "), hint=fault.hint)
    release = content.get("release") if isinstance(content.get("release"), dict) else {}
    asked = release.get("target", []) if release else []
    for name in [asked] if isinstance(asked, str) else asked if isinstance(asked, list) else []:
        if name not in TARGETS:
            hint = f"{did_you_mean(str(name), TARGETS)}Targets: {', '.join(TARGETS)}."
            yield Finding(path=("release", "target"), message=f"there is no target {name!r}", hint=hint)
    policy, wrong = findings(content.get(RULES, {}))
    yield from wrong
    yield from examine(policy, TARGETS)
    yield from _keys(policy, folder)
    promote = release.get("promote", "") if release else ""
    if policy.ladder and promote and promote not in policy.ladder:
        yield Finding(
            path=("release", "promote"),
            message=f"[release] promotes to {promote!r}, which is not on the ladder ({', '.join(policy.ladder)})",
            hint=f"{did_you_mean(str(promote), policy.ladder)}Promote to one of them, or add it.",
            wrong=False,
        )


def _keys(policy: Policy, folder: Path) -> Iterator[Finding]:
    from modelrel.policy import Finding
    from modelrel.steps.grounds import key_id

    for path in policy.public_keys:
        try:
            key_id(str(folder / path))
        except Invalid as error:
            yield Finding(path=(RULES, "public_keys"), message=error.message, hint=error.hint, wrong=False)


def _line(places: Mapping[tuple[str, ...], int], path: tuple[str, ...]) -> int:
    """Return the line of a key, or of the nearest table around it; 0 where there is none."""
    return next((places[path[:end]] for end in range(len(path), 0, -1) if path[:end] in places), 0)


def lines(text: str) -> dict[tuple[str, ...], int]:
    r"""Return the line (from 1) of every table and key in valid TOML; keys of inline tables are not told apart.

    `tomllib` says no places. Format: toml.io/en/v1.0.0.

    >>> lines("[a]\nb = 1\n[a.'c d']\ne.f = [\n 2]\n")
    {('a',): 1, ('a', 'b'): 2, ('a', 'c d'): 3, ('a', 'c d', 'e'): 4, ('a', 'c d', 'e', 'f'): 4}
    """
    found: dict[tuple[str, ...], int] = {}
    section: tuple[str, ...] = ()
    waiting, begun = "", 0
    for number, line in enumerate(text.split("\n"), 1):
        if waiting:
            waiting += "\n" + line
            if _open(waiting):
                continue
            waiting = ""
            continue
        if header := _HEADER.match(line):
            section = path = _names(header[1])
        elif pair := _PAIR.match(line):
            path = (*section, *_names(pair[1]))
            waiting = pair[2] if _open(pair[2]) else ""
        else:
            continue
        begun = len(section) if path != section else 0
        for end in range(begun + 1, len(path) + 1):
            found.setdefault(path[:end], number)
    return found


def _names(path: str) -> tuple[str, ...]:
    return tuple(tomllib.loads(f"x = {key}")["x"] if key[0] in "\"'" else key for key in re.findall(_KEY, path))


def _open(value: str) -> bool:
    """Return whether a value goes on in the next line: a bracket, or a text of several lines, is not closed."""
    begun = False

    def cut(found: re.Match[str]) -> str:
        nonlocal begun
        quotes = found[0][:3]
        begun |= quotes in ('"""', "'''") and (len(found[0]) < 6 or not found[0].endswith(quotes))
        return ""

    bare = _TEXT.sub(cut, value)
    return begun or bare.count("[") + bare.count("{") > bare.count("]") + bare.count("}")

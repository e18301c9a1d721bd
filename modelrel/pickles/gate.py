"""The gate before a model is loaded: what nobody here knows is refused, unless the user names it.

Of a model that is Python code by nature (pyfunc, and modules of PyTorch), code of its author is what was asked for: it
goes through where it does not name programs, files, the network or other code. That is a look at names, not a sandbox.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Final

from modelrel.errors import Refused
from modelrel.pickles.files import ASKS, CODE, Finding
from modelrel.pickles.names import usual_maker

CODE_FLAVORS: Final = frozenset({"pyfunc", "pytorch"})
"""Flavors whose models are code."""

_METHODS: Final = ("builtins.getattr", "__builtin__.getattr")
"""By what a method is pickled: what it was asked for has a verdict of its own, or is an alarm of the machine."""

_SHOWN: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """What was let through: the names and files that the user allowed and that were needed, and what to know."""

    allowed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def admit(label: str, flavor: str, findings: Iterable[Finding], allow: Sequence[str] = ()) -> Admitted:
    """Return what was let through of the files of a model.

    `allow` are globals (`company.models.Churn`, `company.*`) or files of the model (`code/*`), as patterns. Raises
    `Refused`, naming all that was not allowed, where something dangerous or unknown is left.
    """
    odd = [one for one in findings if one.verdict in ("unknown", "dangerous")]
    natural = flavor in CODE_FLAVORS
    modules = _modules(odd) if natural else frozenset()
    used: dict[str, None] = {}
    refused, own = [], []
    for one in odd:
        if file := _matching(_short(one.path), allow):
            used[file] = None
            continue
        left = []
        for name in (*one.dangerous, *one.unknown):
            if name in _METHODS:
                continue
            if natural and (usual_maker(name) or (name in one.unknown and name.partition(".")[0] in modules)):
                continue
            if given := _matching(name, allow):
                used[given] = None
            else:
                left.append(name)
        why = [
            said for said in one.why if not said.startswith(ASKS) and not (natural and said == CODE and _readable(one))
        ]
        if left or why:
            refused.append((one, left, why))
        elif natural:
            own.append(_short(one.path))
    if refused:
        raise _refusal(label, refused)
    said = (
        (f"loading it runs code of its author ({', '.join(own[:3])}), of which the names were looked at",)
        if own
        else ()
    )
    told = (f"allowed though nobody here knows it: {', '.join(used)}",) if used else ()
    return Admitted(allowed=tuple(used), notes=(*said, *told))


def _refusal(label: str, refused: list[tuple[Finding, list[str], list[str]]]) -> Refused:
    said, hints = [], []
    for one, names, why in refused[:_SHOWN]:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        found = [*([ASKS + ", ".join(names[:_SHOWN]) + more] if names else []), *why[:3]]
        said.append(f"{_short(one.path)} ({one.verdict}) {'; '.join(found)}")
        hints += [_short(one.path)] if why else names
    more = f"; and {len(refused) - _SHOWN} more files" if len(refused) > _SHOWN else ""
    flags = " ".join(f"--allow-pickle {name}" for name in list(dict.fromkeys(hints))[:3])
    return Refused(
        f"loading {label} would run what is not known to be harmless: {'; '.join(said)}{more}"[:2000],
        f"Find out who logged it; where all of that is meant, allow it by name: {flags}"
        f"{' …' if len(set(hints)) > 3 else ''}.",
    )


def _short(path: str) -> str:
    return path.removeprefix("source/")


def _matching(name: str, allow: Sequence[str]) -> str:
    """Return the pattern that allows a name or file, "" where none does."""
    return next((one for one in allow if fnmatchcase(name, one)), "")


def _modules(findings: Sequence[Finding]) -> frozenset[str]:
    """Return the modules whose code the model brings as files that could be looked at."""
    found = set()
    for one in findings:
        parts = PurePosixPath(_short(one.path)).with_suffix("").parts
        if _readable(one) and "code" in parts[:-1]:
            found.add(parts[parts.index("code") + 1])
    return frozenset(found)


def _readable(one: Finding) -> bool:
    return one.path.endswith(".py") and one.verdict == "unknown"

"""What became of a model's aliases: its history, with what modelrel did not write itself, and who held what before."""

from __future__ import annotations

from collections.abc import Container, Iterable

from modelrel.promoted import Entry, Kind
from modelrel.registry import history, turns
from modelrel.registry.lookup import ModelInfo


def of(model: ModelInfo) -> tuple[Entry, ...]:
    """Return the history of a model, the oldest first.

    A move outside modelrel shows as a gap: an alias that an entry found elsewhere than the one before had put it, or
    that is elsewhere now. Its entry has no id and nobody in `by`; it happened between the `at` of its neighbours, and
    its own says since when it may have. A promotion that was set but broken off before its entry was written counts; an
    alias that modelrel never moved has no history.
    """
    written = history.entries(model)
    told = [*written, *_unwritten(model, {entry.id for entry in written})]
    ends: dict[tuple[Kind, str], Entry] = {}
    found: list[Entry] = []
    for entry in sorted(told, key=lambda one: one.id):
        if entry.event != "refused":
            last = ends.get((entry.kind, entry.to))
            if entry.previous != (last.version if last else ""):
                found.append(_outside(entry.kind, entry.to, last, entry.previous))
            ends[entry.kind, entry.to] = entry
        found.append(entry)
    # which version a stage holds is not said of the model; an alias is
    for (kind, to), last in ends.items():
        now = model.aliases.get(to, "")
        if kind == "alias" and now != last.version:
            found.append(_outside(kind, to, last, now))
    return tuple(found)


def _unwritten(model: ModelInfo, known: Container[str]) -> Iterable[Entry]:
    """Yield what claims announce that was done, and that none of the known entries tells yet."""
    for alias, holder in model.aliases.items():
        for claim in turns.claims(model, "alias", alias).values():
            if turns.happened(claim, holder) and claim.entry.id not in known:
                yield claim.entry


def _outside(kind: Kind, to: str, last: Entry | None, now: str) -> Entry:
    previous, since = (last.version, last.at) if last else ("", "")
    return Entry(id="", event="outside", kind=kind, to=to, version=now, previous=previous, by="", at=since)


def holders(model: ModelInfo, kind: Kind, to: str) -> tuple[str, ...]:
    """Return the versions that held an alias (or stage) before the one that does now, the last one first.

    A rollback takes away what came after the version that it goes back to: the next one goes further back, not forth.
    """
    stack = _stack(entry for entry in of(model) if (entry.kind, entry.to) == (kind, to))
    return tuple(version for version in reversed(stack[:-1]) if version)


def _stack(moves: Iterable[Entry]) -> list[str]:
    stack: list[str] = []
    for entry in moves:
        if entry.event == "refused":
            continue
        if entry.event == "rolled back" and entry.version in stack[:-1]:
            stack.pop()
            while stack[-1] != entry.version:
                stack.pop()
        elif not stack or stack[-1] != entry.version:
            stack.append(entry.version)
    return stack

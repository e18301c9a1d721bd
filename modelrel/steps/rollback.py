"""Rollback: move an alias (or stage) back to a version that held it before, on evidence that still verifies.

What was good enough once may go back at three in the morning: that its evidence is whole and (where the policy asks for
it) signed is checked again; comparisons with the version that is being replaced are not (`policy.judge`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from modelrel.errors import Invalid, Refused
from modelrel.promoted import Change
from modelrel.registry import Registry, story

Done = TypeVar("Done")


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Who holds an alias of a model now ("": nobody), and the versions to go back to, the one to try first first."""

    name: str
    now: str
    before: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A version that held the alias, and why it is not gone back to."""

    version: str
    why: str


def held(registry: Registry, name: str, change: Change, to: str = "") -> Held:
    """Return who held the alias of a change before; `to` (a version number) leaves only that one.

    Raises `Invalid` where there is no such model, or `to` never held it; `Refused` where nobody held it before.
    """
    model = registry.known_model(name)
    now = model.aliases.get(change.to, "") if change.kind == "alias" else registry.holder(name, stage=change.to)
    before = story.holders(model, change.kind, change.to)
    if to:
        if to not in (*before, now):
            known = f"It was held by {', '.join(dict.fromkeys(before))}." if before else "Nobody held it before."
            raise Invalid(
                f"{name}/{to} never held {change.kind} {change.to}, so nothing goes back to it",
                f"{known} To move it there for the first time: modelrel promote {name}/{to} --to {change.to}.",
            )
        before = (to,)
    if not before:
        raise Refused(
            f"no other version than {now or 'nobody'} held {change.kind} {change.to} of {name} before",
            f"See: modelrel history {name}.",
        )
    return Held(name=name, now=now, before=tuple(dict.fromkeys(one for one in before if one != now or to)))


def back(
    held: Held, change: Change, registry: Registry, attempt: Callable[[str], Done]
) -> tuple[Done, tuple[Skipped, ...]]:
    """Return what `attempt` made of the first version whose evidence verifies, and those that were skipped before it.

    `attempt` promotes a version; a `Refused` that it raises means the next one. Raises `Refused` where none is left,
    with the reason of each.
    """
    skipped: list[Skipped] = []
    for version in held.before:
        if registry.version(held.name, version) is None:
            skipped.append(Skipped(version=version, why="it is not in the registry any more"))
            continue
        try:
            return attempt(version), tuple(skipped)
        except Refused as refusal:  # the next one may do; each reason is told
            skipped.append(Skipped(version=version, why=refusal.message))
    said = "; ".join(f"version {one.version}: {one.why}" for one in skipped)
    raise Refused(
        f"no version that held {change.kind} {change.to} of {held.name} can be gone back to: {said}",
        f"Release one of them again (modelrel release {held.name}/{held.before[0]} --target …), or name the release "
        "folder with --dist.",
    )

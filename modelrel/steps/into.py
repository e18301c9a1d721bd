"""Into: where a promotion takes place when that is not the registry that the model was pulled from."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from modelrel.delivered import Promotion, SmokeReport
from modelrel.errors import Refused
from modelrel.registry import Registry, carried
from modelrel.registry.reference import folder_name
from modelrel.values import SourceModel

_FROM: Final = "modelrel.from_uri"
_URI: Final = re.compile(r"models:/[^/:@\x00-\x1f]+/\d+")


@dataclass(frozen=True, slots=True)
class Route:
    """From which registry a model comes, and in which one, under which name and version, its alias moves.

    `version` is "" for a model that has not been carried over yet. `origin` is None for one that was, where only what
    it became counts: then nobody asks the registry that it came from.
    """

    origin: Registry | None
    registry: Registry
    name: str
    version: str

    @property
    def elsewhere(self) -> bool:
        """Whether it goes from one registry (or name) to another."""
        return self.registry is not self.origin

    def told(self, source: SourceModel) -> tuple[Registry, str, str]:
        """Return the registry, name and version whose tags, metrics and aliases tell of a model."""
        if self.origin is None:
            return self.registry, self.name, self.version
        return self.origin, source.name, source.version

    def called(self, to: str) -> str:
        """Return what the record of a promotion to an alias is called: one file for each alias of each registry."""
        return folder_name(self.name, to) if self.elsewhere else to


def within(registry: Registry, source: SourceModel) -> Route:
    """Return the route of a promotion in the registry that the model was pulled from."""
    return Route(registry, registry, source.name, source.version)


def came(registry: Registry, name: str, version: str) -> tuple[str, Route] | None:
    """Return where a version was carried over from (`models:/churn/6`), and the route of moving an alias to it again.

    None for a version that was registered where it is. Its former registry is not asked: its tags say what it is.
    """
    found = registry.version(name, version)
    tags = found.tags if found else {}
    home = _URI.fullmatch(tags.get(_FROM, ""))
    if not tags.get(carried.SHA256) or not home:
        return None
    return home[0], Route(None, registry, name, version)


def same(source: SourceModel, route: Route) -> None:
    """Raise `Refused` where the version of a route was not carried over from these bytes."""
    found = route.registry.version(route.name, route.version)
    stated = found.tags.get(carried.SHA256, "") if found else ""
    if stated != source.digest:
        raise Refused(
            f"{route.name}/{route.version} in the registry {route.registry.shown} came from files with the digest "
            f"{stated[:16] or 'nobody knows'}…, but the evidence is about {source.digest[:16]}…",
            "Name the release folder that it was carried over from with --dist.",
        )


def route(origin: Registry, into: tuple[Registry, str] | Route | None, smokes: tuple[SmokeReport, ...]) -> Route:
    """Return where a promotion goes: into another registry, under a name, or to where the model comes from.

    The version there is the one that was carried over before, if there is one.
    """
    if isinstance(into, Route):
        return into
    if not smokes:
        return Route(origin, origin, "", "")  # nothing to promote, as `promote.plan` says
    source = smokes[0].package.converted.source
    if into is None:
        return within(origin, source)
    registry, name = into
    version = carried.there(registry, name, source.digest) if registry.model(name) else ""
    return Route(origin, registry, name, version)


def carried_over(planned: Promotion, route: Route, note: Callable[[str], None]) -> Promotion:
    """Return a promotion with its version in the other registry, which is made where it is not there yet.

    Its tags are those of the version here, and where it came from. What the policy refuses is not carried.
    """
    if route.version or route.origin is None or not route.elsewhere or planned.verdict.refused:
        return planned
    source = planned.smokes[0].package.converted.source
    found = route.origin.version(source.name, source.version)
    tags = {key: text for key, text in (found.tags if found else {}).items() if not key.startswith("modelrel.")}
    tags |= {
        "modelrel.from_registry": route.origin.shown,
        _FROM: source.uri,
        "modelrel.from_run": source.run_id,
    }
    return replace(planned, version=carried.carry(route.registry, route.name, source, tags, note))

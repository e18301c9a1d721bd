"""What a promotion is asked for, judged by and remembered as; the values of `delivered` stand on these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["alias", "stage"]
"""What of a registry points at a version."""

Event = Literal["promoted", "rolled back", "refused", "outside"]
"""What an entry of the history tells; `outside` is a move that modelrel did not make, found later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What the user asks of a promotion: which alias (or stage) moves, who asks, and why.

    `expect` is the version that must hold it now ("nobody": none may), "" where that is not said. `rollback` is True
    where it goes back to a version that held it before.
    """

    kind: Kind
    to: str
    by: str
    message: str = ""
    expect: str = ""
    rollback: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule of a policy, held against a release: what was wanted, what was found (with the figure), what to do.

    `missing` is a rule about something that there is no evidence of; it refuses as `failed` does.
    """

    name: str
    outcome: Literal["passed", "failed", "missing"]
    wanted: str
    found: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a policy says of a change, rule by rule, passed ones too; `policy` is its sha256 (hex), "" for none."""

    policy: str
    rules: tuple[Rule, ...]
    at: str

    @property
    def refused(self) -> tuple[Rule, ...]:
        """The rules that did not pass."""
        return tuple(rule for rule in self.rules if rule.outcome != "passed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of a model's history: who moved what from which version to which, when, why, on what evidence.

    `id` sorts by time and is never used twice. `previous` is the version that held it before, "" for nobody. `at` is
    ISO 8601 in UTC. `evidence` are digests: what a person needs to find and check the release again.
    """

    id: str
    event: Event
    kind: Kind
    to: str
    version: str
    previous: str
    by: str
    at: str
    message: str = ""
    modelrel: str = ""
    evidence: Mapping[str, str] = field(default_factory=dict)
    rules: tuple[str, ...] = ()

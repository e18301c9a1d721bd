"""A fault of a library that a copy may carry: which versions have it, how to see it, and what is done about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One line of a format's known-bad table.

    `versions` is a PEP 440 specifier of the bad ones. `concerns` is asked about the native model (`over="model"`) or
    about the copy's graph (`over="graph"`). `producer` limits it to files that this tool wrote ("" any).
    `source` is the address of a public thread, or "measured".
    """

    name: str
    library: str
    versions: str
    over: Literal["model", "graph"]
    condition: str
    concerns: Callable[[Any], bool]
    wrong: str
    action: Literal["warn", "refuse"]
    instead: str
    source: str = "measured"
    producer: str = ""

    @property
    def sentence(self) -> str:
        """What a person is told: where, what goes wrong, and what to do."""
        return f"known fault of {self.library} {self.versions}: {self.condition}: {self.wrong}. {self.instead}"

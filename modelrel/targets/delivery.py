"""What a target gives back: a draft of what it laid out, and the running thing that a smoke test talks to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from modelrel.delivered import Image, Package
from modelrel.values import PackageOptions, ParityReport

Note = Callable[[str], None]
"""Takes one line about what is going on."""


class Response(NamedTuple):
    """An HTTP response: status, headers with lower-case names, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Send = Callable[[str, str, Mapping[str, str], bytes], Response]
"""Method, path, headers, body -> response.

Raises ConnectionError while nobody listens yet, `Refused` when whatever should answer has died.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What a target laid out in its folder; paths are relative to that folder.

    `parts` is the size in bytes of what is inside, by what it is; `artifact` is what gets delivered.
    """

    artifact: str
    python: str
    platform: str
    size: int
    parts: Mapping[str, int]
    image: Image | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The built thing, started as its platform starts it.

    `runner` says how; `shapes` are other ways to put the same HTTP request to it, by name; `memory_bytes` and `log`
    (its last lines) are asked when needed; `settled` raises `Refused` where it has done what its platform forbids;
    `started` is the `time.perf_counter()` at which it was started.
    """

    runner: str
    send: Send
    started: float
    memory_bytes: Callable[[], int]
    log: Callable[[], str]
    shapes: Mapping[str, Send] = field(default_factory=dict)
    settled: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A built file, loaded by the runtime of its platform in a process of its own.

    `ask` takes name -> nested lists, and returns `{"outputs": {name: nested lists}}`, or `{"error": sentence}` for
    what does not fit; it raises `Refused` when the process has ended. `started` is the `time.perf_counter()` at which
    it was started.
    """

    runner: str
    ask: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    started: float
    memory_bytes: Callable[[], int]


def always(_package: Package, _options: PackageOptions) -> bool:
    """Return True: the `stands` of a target that leaves nothing outside the release folder."""
    return True


class Target(Protocol):
    """A way to deliver; modules satisfy it, mypy checks each one.

    `TOOLS` are the distributions whose version decides the bytes; `FORMAT` is what it delivers. `assemble` fills the
    folder `into`; `previous` is the folder of the packaging before, or where that would be. `launch` starts what was
    built and ends it, whatever happens.
    """

    @property
    def TOOLS(self) -> tuple[str, ...]:  # noqa: N802
        """The distributions whose versions decide the bytes."""

    @property
    def FORMAT(self) -> str:  # noqa: N802
        """The format that it delivers."""

    def options(self, given: PackageOptions) -> PackageOptions:
        """Return the options with this target's defaults filled in; raises `Invalid` for what it cannot do."""

    def variables(self, parity: ParityReport, options: PackageOptions, licenses: str) -> Mapping[str, object]:
        """Return what its templates know; `licenses` is one SPDX expression over the wheels inside."""

    def assemble(self, parity: ParityReport, options: PackageOptions, places: Places, note: Note) -> Draft:
        """Lay out the delivery."""

    def stands(self, package: Package, options: PackageOptions) -> bool:
        """Return whether what was built outside the release folder is still there."""

    def launch(self, package: Package, note: Note) -> AbstractContextManager[Running | Program]:
        """Start what was built: a server, or a program that loads a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where a target works: the new folder it fills (`into`), and where the packaging before stands (`previous`)."""

    into: Path
    previous: Path

"""What a target gives back: a draft of what it laid out, and the running thing that a smoke test talks to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from modelrel.delivered import Check, Image, Package
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


Examined = Callable[[], Iterable[Check]]
"""Other checks of what was built; raises `Refused`."""


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
    `started` is the `time.perf_counter()` at which it was started. `examined` looks at what was built in other ways
    than by asking it, and raises `Refused`.
    """

    runner: str
    send: Send
    started: float
    memory_bytes: Callable[[], int]
    log: Callable[[], str]
    shapes: Mapping[str, Send] = field(default_factory=dict)
    settled: Callable[[], None] = lambda: None
    examined: Examined = tuple


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A built file, loaded by the runtime of its platform in a process of its own.

    `ask` takes name -> nested lists, and returns `{"outputs": {name: nested lists}}`, or `{"error": sentence}` for
    what does not fit; it raises `Refused` when the process has ended. `started` is the `time.perf_counter()` at which
    it was started. `examined` is as that of `Running`.
    """

    runner: str
    ask: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    started: float
    memory_bytes: Callable[[], int]
    examined: Examined = tuple


def always(_package: Package, _options: PackageOptions) -> bool:
    """Return True: the `stands` of a target that leaves nothing outside the release folder."""
    return True


class Target(Protocol):
    """A way to deliver; modules satisfy it, mypy checks each one.

    `assemble` fills the folder `into`; `previous` is the folder of the packaging before, or where that would be.
    `launch` starts what was built and ends it, whatever happens.
    """

    @property
    def TOOLS(self) -> tuple[str, ...]:  # noqa: N802
        """The distributions whose versions decide the bytes."""

    @property
    def FORMATS(self) -> tuple[str, ...]:  # noqa: N802
        """The formats that it delivers, the one it takes unless told otherwise first."""

    @property
    def OPTIONS(self) -> frozenset[str]:  # noqa: N802
        """The fields of `PackageOptions` that it takes, besides those that every target takes (`SHARED`)."""

    @property
    def VALUES(self) -> Mapping[str, str]:  # noqa: N802
        """Its own settings (`--set NAME=VALUE`): name -> what it sets, and its default."""

    @property
    def IMAGES(self) -> tuple[str, ...]:  # noqa: N802
        """The targets whose image it deploys, the preferred one first; empty where it stands alone."""

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


SHARED: Final = frozenset({"format", "templates", "max_size", "wheelhouse"})
"""The fields of `PackageOptions` that every target takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where a target works: the new folder it fills (`into`), and where the packaging before stands (`previous`).

    `image` is the packaged image, for targets that deploy one; `variants` are other copies that go beside the model.
    """

    into: Path
    previous: Path
    image: Package | None = None
    variants: tuple[ParityReport, ...] = ()

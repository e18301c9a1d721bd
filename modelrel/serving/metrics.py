"""What is counted while requests run: plain numbers in lists, by protocol, model, version and status.

Of a server with several workers each publishes its counts in the folder they share, and whoever is asked adds them up.
The counts of a worker that is gone stay there, so no counter ever falls.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from bisect import bisect_left
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from .answers import encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .exchange import Exchange
    from .model import Model

SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the histograms of time."""

ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384)
"""Upper bounds of the histogram of rows."""

PUBLISH_S: Final = 1.0
"""How far the counts of the other workers may lag behind."""

GONE: Final = 499
"""The status that is counted where the client went away before its answer (nginx's number)."""

_PROTOCOLS: Final = {"/v2": "v2", "/v2/": "v2", "/v1": "v1", "/v1/": "v1", "/inv": "mlflow"}
_TIMES: Final = len(SECONDS) + 1
_SIZES: Final = len(ROWS) + 1


class Counts(msgspec.Struct):
    """The counts of one process.

    ``requests`` has for (protocol, model, version, status): bytes in, bytes out, seconds, and requests by time.
    ``computed`` has for (model, version, role): rows, seconds, calls by time, calls by rows. ``totals`` and ``now``
    are counters and gauges by name; only the counters of a process that is gone still count.
    """

    pid: int = 0
    started: float = 0.0
    requests: dict[str, list[float]] = {}
    computed: dict[str, list[float]] = {}
    totals: dict[str, float] = {}
    now: dict[str, float] = {}


_decode: Final = msgspec.json.Decoder(Counts).decode
_key: Final = msgspec.json.Decoder(list[str]).decode


class Metrics:
    """The counts of this process, and the way to those of the others.

    ``request`` is for the event loop alone, ``computed`` for any thread. ``read`` is asked for totals and gauges that
    others keep, whenever the counts are looked at.
    """

    def __init__(self, shared: str | None, worker: int, read: Callable[[], tuple[dict[str, float], dict[str, float]]]):
        self.begun = 0
        self.ended = 0
        self._read = read
        self._requests: dict[tuple[str, str, str, int], list[float]] = {}
        self._computed: dict[tuple[str, str, str], list[float]] = {}
        self._lock = threading.Lock()
        self._own = None if shared is None else Path(shared) / f"metrics-{worker}-{os.getpid()}.json"
        self._stop = threading.Event()
        self._publisher: threading.Thread | None = None
        if self._own is not None:
            self._publisher = threading.Thread(target=self._publish_on, name="metrics", daemon=True)
            self._publisher.start()

    def request(self, exchange: Exchange) -> float:
        """Count a request that is over, and return how many seconds it took."""
        took = time.perf_counter() - exchange.began
        model = exchange.model
        path = exchange.path
        word = _PROTOCOLS.get(path[:4]) if exchange.protocol == "http" else exchange.protocol
        if word is None:  # of the other paths, only the one that Vertex AI chooses leads to a model
            word = "other" if model is None else "vertex"
        name, version = (model.name, model.version) if model is not None else ("", "")
        key = (word, name, version, exchange.status)
        try:
            counts = self._requests[key]
        except KeyError:
            counts = self._requests[key] = [0] * (3 + _TIMES)
        counts[0] += exchange.received
        counts[1] += exchange.sent
        counts[2] += took
        counts[3 + bisect_left(SECONDS, took)] += 1
        return took

    def computed(self, model: Model, rows: int, took: float, role: str) -> None:
        """Count an inference: so many rows in so many seconds; ``role`` is "answer" or "shadow"."""
        key = (model.name, model.version, role)
        with self._lock:
            counts = self._computed.get(key)
            if counts is None:
                counts = self._computed[key] = [0] * (2 + _TIMES + _SIZES)
            counts[0] += rows
            counts[1] += took
            counts[2 + bisect_left(SECONDS, took)] += 1
            counts[2 + _TIMES + bisect_left(ROWS, rows)] += 1

    def counts(self) -> Counts:
        """Return the counts of this process."""
        totals, now = self._read()
        own_totals, own_now = process()
        return Counts(
            os.getpid(),
            own_now.pop("process_start_time_seconds", 0.0),
            {_name(*key[:3], str(key[3])): list(counts) for key, counts in self._requests.copy().items()},
            {_name(*key): list(counts) for key, counts in self._computed.copy().items()},
            totals | own_totals,
            {"in_flight": self.begun - self.ended} | now | own_now,
        )

    def merged(self) -> Counts:
        """Return the counts of all workers, past and present: of this one to the last request, of others nearly."""
        if self._own is None:
            return self.counts()
        found = [self.counts()]
        for path in self._own.parent.glob("metrics-*.json"):
            if path != self._own:
                with contextlib.suppress(
                    OSError, msgspec.DecodeError
                ):  # the folder is private: a file may just be gone
                    found.append(_decode(path.read_bytes()))
        return merge(found)

    def close(self) -> None:
        """Publish the last counts."""
        self._stop.set()
        if self._publisher is not None:
            self._publisher.join()

    def _publish_on(self) -> None:
        before = -1
        while True:
            last = self._stop.wait(PUBLISH_S)
            if self.begun + self.ended != before or last:
                before = self.begun + self.ended
                self._publish()
            if last:
                return

    def _publish(self) -> None:
        assert self._own is not None  # else there is no thread
        temporary = self._own.with_suffix(".tmp")
        with contextlib.suppress(OSError):  # a full disk must not end the thread; the next second tries again
            temporary.write_bytes(encode(self.counts()))
            temporary.replace(self._own)


def _name(*labels: str) -> str:
    return encode(labels).decode()


def labels(name: str) -> list[str]:
    """Return the label values of a key of ``Counts``."""
    return _key(name)


def merge(found: Iterable[Counts]) -> Counts:
    """Add up the counts of several processes; the gauges only of those that live."""
    whole = Counts(started=float("inf"))
    for counts in found:
        for series, added in ((whole.requests, counts.requests), (whole.computed, counts.computed)):
            for name, numbers in added.items():
                known = series.get(name)
                series[name] = [*map(sum, zip(known, numbers, strict=True))] if known else numbers
        numbers_of = [(whole.totals, counts.totals)]
        if counts.pid == os.getpid() or _lives(counts.pid):
            numbers_of.append((whole.now, counts.now))
            whole.started = min(whole.started, counts.started)
        for into, named in numbers_of:
            for name, number in named.items():
                into[name] = into.get(name, 0) + number
    return whole


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def process() -> tuple[dict[str, float], dict[str, float]]:
    """Return the counters and gauges of this process by their standard names; those that the system tells."""
    times = os.times()
    totals = {"process_cpu_seconds_total": times.user + times.system}
    now: dict[str, float] = {}
    if sys.platform != "linux":
        return totals, now
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        now["process_virtual_memory_bytes"] = int(fields[20])
        now["process_resident_memory_bytes"] = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
        booted = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
        now["process_start_time_seconds"] = int(booted.split()[1]) + int(fields[19]) / os.sysconf("SC_CLK_TCK")
        now["process_open_fds"] = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (names alone)
        limit = next(line for line in Path("/proc/self/limits").read_text().splitlines() if "open files" in line)
        now["process_max_fds"] = float(limit.split()[3].replace("unlimited", "inf"))
    return totals, now

"""Copies of requests for versions whose answers are only recorded. Nobody waits for them, or sees them fail."""

from __future__ import annotations

import logging
import threading
import time
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .calls import Call
    from .engine import Stats
    from .model import Model
    from .tensors import Array

_log: Final = logging.getLogger("modelrel.serving")

MAX_CALLS: Final = 256
MAX_BYTES: Final = 64 * 1024 * 1024


class Shadows:
    """A line of copies and one thread that computes them. What comes while the line is full is dropped and counted."""

    def __init__(self, stats: Stats, record: Callable[[Call, Sequence[Array], float], None]) -> None:
        """Hand each call that was computed to ``record``, with its results and the milliseconds it took."""
        self._stats = stats
        self._record = record
        self._line: SimpleQueue[tuple[Call, int] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._calls = 0
        self._bytes = 0
        self._thread: threading.Thread | None = None
        self._failing: set[int] = set()

    def put(self, model: Model, call: Call) -> None:
        """Line up a copy of a call for a model."""
        size = sum(array.nbytes for array in call.feeds.values())
        if self._calls >= MAX_CALLS or self._bytes + size > MAX_BYTES or not model.enter():
            self._stats.shadow_dropped += 1
            return
        known = [spec.name for spec in model.outputs]
        copy = replace(call, model=model, outputs=[name for name in call.outputs if name in known] or known)
        with self._lock:
            self._calls += 1
            self._bytes += size
        if self._thread is None:  # not before it is needed: a process may be copied until then
            self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)
            self._thread.start()
        self._line.put((copy, size))

    def _work(self) -> None:
        while (one := self._line.get()) is not None:
            call, size = one
            try:
                self._compute(call)
            finally:
                call.model.leave()
                with self._lock:
                    self._calls -= 1
                    self._bytes -= size

    def _compute(self, call: Call) -> None:
        began = time.perf_counter()
        try:
            results = call.model.run(call.outputs, call.feeds, call.params)
        except Exception as error:  # noqa: BLE001 (a shadow may fail by anything; it is counted)
            self._stats.shadow_failed += 1
            if call.model.number not in self._failing:  # once is enough: it may fail by every request
                self._failing.add(call.model.number)
                _log.warning("the shadow %s/%s fails", call.model.name, call.model.version, exc_info=error)
            return
        self._stats.shadow_computed += 1
        self._record(call, results, (time.perf_counter() - began) * 1e3)

    def close(self) -> None:
        """End the thread; what is still in line is not computed."""
        while True:
            try:
                one = self._line.get_nowait()
            except Empty:
                break
            if one is not None:
                one[0].model.leave()
        self._line.put(None)

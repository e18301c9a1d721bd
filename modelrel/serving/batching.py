"""Concurrent requests that are computed together: one call of the runtime with the rows of all of them.

Nothing waits that need not. While a model is idle, what has come in the same turn of the event loop is computed at
once: on the loop if that is short (so that a lone client pays for no change of threads), else on a thread. What comes
while a thread computes is gathered, and goes together when it is through, or after the longest wait if a core is free.
So the more there is to do, the larger the batches are.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from .answers import Refused
from .caching import said
from .manifest import BrokenModel
from .model import INLINE_MS, InferenceFailed
from .tensors import DTYPES

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence
    from concurrent.futures import Executor

    from .calls import Call
    from .engine import Stats
    from .manifest import TensorSpec
    from .model import Model
    from .tensors import Array

    Outcome = list[Array] | Exception

_log: Final = logging.getLogger("modelrel.serving")


class _Waiting(NamedTuple):
    """A call in line."""

    call: Call
    rows: int
    since: float
    outcome: asyncio.Future[list[Array]]


class _Lane:
    """Calls that may be computed together. ``due`` is whether a turn is about to look at them."""

    def __init__(self) -> None:
        self.due = False
        self.waiting: deque[_Waiting] = deque()
        self.rows = 0
        self.running = 0
        self.timer: asyncio.TimerHandle | None = None


class Batches:
    """The calls that wait for others, and those that are being computed together. It lives on one event loop."""

    def __init__(self, pool: Executor, stats: Stats, max_rows: int, max_wait_s: float, slots: int) -> None:
        """Compute up to ``slots`` batches at a time for calls that are alike, of ``max_rows`` rows each.

        ``pool`` are the threads of models that have none of their own.
        """
        self._pool = pool
        self._stats = stats
        self._max_rows = max_rows
        self._max_wait_s = max_wait_s
        self._slots = slots
        self._lanes: dict[Hashable, _Lane] = {}

    async def results(self, call: Call) -> list[Array]:
        """Return the results of a call, computed with those of others where there are some.

        Raises what ``Model.run`` raises for this call alone.
        """
        loop = asyncio.get_running_loop()
        rows = _rows(call)
        key = None if rows is None or rows > self._max_rows else _alike(call)
        if rows is None or key is None:
            return _given(await loop.run_in_executor(call.model.pool or self._pool, _computed, [call], [0]))
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane()
        waiting = _Waiting(call, rows, loop.time(), loop.create_future())
        lane.waiting.append(waiting)
        lane.rows += rows
        self._stats.waiting += 1
        if lane.running:
            self._go(key, lane, loop)
        elif not lane.due:
            lane.due = True
            loop.call_soon(self._turn, key, lane, loop)
        return await waiting.outcome

    def _turn(self, key: Hashable, lane: _Lane, loop: asyncio.AbstractEventLoop) -> None:
        """Compute what has come in this turn of the loop: here if it is short, and no more than one batch."""
        lane.due = False
        if lane.waiting and not lane.running and self._is_short(lane):
            batch, rows = self._taken(lane)
            if batch:
                _hand_out(batch, _computed([one.call for one in batch], rows))
            if lane.waiting:
                lane.due = True
                loop.call_soon(self._turn, key, lane, loop)
                return
        self._go(key, lane, loop)

    def _is_short(self, lane: _Lane) -> bool:
        """Whether the next batch holds up the event loop no longer than a request may."""
        model = lane.waiting[0].call.model
        return not model.blocks and min(lane.rows, self._max_rows) * model.row_ms <= INLINE_MS

    def _go(self, key: Hashable, lane: _Lane, loop: asyncio.AbstractEventLoop) -> None:
        """Start what should not wait any longer, and see to it that the rest does not wait too long."""
        while lane.waiting and lane.running < self._slots:
            wait = lane.waiting[0].since + self._max_wait_s - loop.time()
            if lane.running and lane.rows < self._max_rows and wait > 0:
                if lane.timer is None:
                    lane.timer = loop.call_later(wait, self._late, key, lane, loop)
                return
            self._start(key, lane, loop)
        if not lane.waiting and not lane.running and not lane.due:
            self._lanes.pop(key, None)

    def _late(self, key: Hashable, lane: _Lane, loop: asyncio.AbstractEventLoop) -> None:
        lane.timer = None
        self._go(key, lane, loop)

    def _start(self, key: Hashable, lane: _Lane, loop: asyncio.AbstractEventLoop) -> None:
        """Compute a batch on a thread."""
        batch, rows = self._taken(lane)
        if lane.timer is not None:
            lane.timer.cancel()
            lane.timer = None
        if not batch:
            return
        lane.running += 1

        def through(computed: asyncio.Future[list[Outcome]]) -> None:
            lane.running -= 1
            if computed.cancelled():
                _hand_out(batch, [Refused(503, "the server is stopping") for _ in batch])
            else:
                _hand_out(batch, computed.result())
            self._go(key, lane, loop)

        pool = batch[0].call.model.pool or self._pool
        work = loop.run_in_executor(pool, _computed, [one.call for one in batch], rows)
        work.add_done_callback(through)

    def _taken(self, lane: _Lane) -> tuple[list[_Waiting], list[int]]:
        """Take the calls that have waited longest, as many as fit into a batch, and return them with their rows."""
        batch: list[_Waiting] = []
        taken = 0
        while lane.waiting and taken + lane.waiting[0].rows <= self._max_rows:
            first = lane.waiting.popleft()
            self._stats.waiting -= 1
            lane.rows -= first.rows
            if not first.outcome.done():  # else whoever asked does not wait any more
                batch.append(first)
                taken += first.rows
        if batch:
            self._stats.batches += 1
            self._stats.batched_calls += len(batch)
            self._stats.batched_rows += taken
        return batch, [one.rows for one in batch]


def _hand_out(batch: Sequence[_Waiting], outcomes: Sequence[Outcome]) -> None:
    """Give each call what came of it."""
    for waiting, outcome in zip(batch, outcomes, strict=True):
        if waiting.outcome.done():
            continue
        if isinstance(outcome, Exception):
            waiting.outcome.set_exception(outcome)
        else:
            waiting.outcome.set_result(outcome)


def _given(outcomes: Sequence[Outcome]) -> list[Array]:
    outcome = outcomes[0]
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _rows(call: Call) -> int | None:
    """Return the number of rows of a call; None where its inputs do not have the same number."""
    rows = None
    for array in call.feeds.values():
        if not array.ndim or rows not in {None, len(array)}:
            return None
        rows = len(array)
    return rows or None


def _alike(call: Call) -> Hashable:
    """Return what calls have in common that may be computed together; None for a call that may not be, with any."""
    try:
        params = said(call.params)
    except (TypeError, ValueError):
        return None
    shapes = tuple((name, array.dtype.str, array.shape[1:]) for name, array in call.feeds.items())
    return call.model.number, tuple(call.outputs), params, shapes


def _computed(calls: Sequence[Call], rows: Sequence[int]) -> list[Outcome]:
    """Compute calls that are alike; what one of them fails by is its own outcome only."""
    model = calls[0].model
    if not model.enter():  # whoever asked has left meanwhile, or the model would be there
        return [Refused(503, f"{model.name}/{model.version} was unloaded")] * len(calls)
    try:
        together = _together(calls, rows) if len(calls) > 1 and model.batches else None
        return [_alone(call) for call in calls] if together is None else together
    finally:
        model.leave()


def _alone(call: Call) -> Outcome:
    try:
        return call.model.run(call.outputs, call.feeds, call.params)
    except Exception as error:  # noqa: BLE001 (it is the client's, and is said there)
        return error


def _together(calls: Sequence[Call], rows: Sequence[int]) -> list[Outcome] | None:
    """Compute calls at once; None where that does not work, whatever the reason."""
    first, model = calls[0], calls[0].model
    try:
        feeds = {name: np.concatenate([call.feeds[name] for call in calls]) for name in first.feeds}
        results = model.run(first.outputs, feeds, first.params)
    except Exception:  # noqa: BLE001 (one of them may be to blame; alone, each says it itself)
        return None
    total = sum(rows)
    if any(not array.ndim or len(array) != total for array in results):
        model.batches = False
        _log.warning("%s/%s does not answer row by row: no more batches", model.name, model.version)
        return None
    ends = np.cumsum(rows).tolist()
    return [[array[end - count : end] for array in results] for end, count in zip(ends, rows, strict=True)]


def may_merge(model: Model) -> bool:
    """Whether requests to a model may be computed together.

    All inputs and outputs must have the rows as their first dimension. That no row changes what comes of another is
    tried out: the golden rows, or some that are made up, give the same together and one by one.
    """
    said_so = all(spec.shape[:1] == (-1,) for spec in (*model.inputs, *model.outputs))
    if said_so and _independent(model):
        return True
    _log.warning("%s/%s is computed request by request: its rows cannot be taken apart", model.name, model.version)
    return False


def _independent(model: Model) -> bool:
    try:
        tried = _rows_to_try(model)
        whole = [model.predict(tried)]
        count = len(next(iter(tried.values())))
        alone = [model.predict({name: array[at : at + 1] for name, array in tried.items()}) for at in range(count)]
        return all(_same(array, [row[name] for row in alone]) for name, array in whole[0].items())
    except (InferenceFailed, Refused, BrokenModel, KeyError, ValueError, TypeError, OverflowError):
        return False


def _same(whole: Array, rows: Sequence[Array]) -> bool:
    if not whole.ndim or len(whole) != len(rows) or any(row.shape != (1, *whole.shape[1:]) for row in rows):
        return False
    joined = np.concatenate(rows)
    if whole.dtype.kind != "f":
        return bool(np.array_equal(whole, joined))
    # Sums are taken in another order with more rows; a row that depends on others differs by more than that.
    scale = float(np.max(np.abs(whole), initial=0.0, where=np.isfinite(whole)))
    return np.allclose(whole, joined, rtol=1e-3, atol=1e-4 * scale, equal_nan=True)


def _rows_to_try(model: Model) -> dict[str, Array]:
    """Return a few rows, different where that is possible: up to four golden ones, or made up."""
    chance = np.random.default_rng(0)
    golden = model.golden()
    if golden is None:
        return {spec.name: _made_up(spec, chance) for spec in model.inputs}
    found: dict[str, Array] = {}
    for spec in model.inputs:
        rows = np.array(golden.inputs[spec.name], DTYPES[spec.datatype]).reshape(spec.shape)[:4]
        if len(rows) == 1:  # a mean over all rows would not show among equal ones
            rows = rows.repeat(3, axis=0)
            if rows.dtype.kind == "f":
                rows = (rows * np.array([1, 0.5, 2]).reshape(-1, *[1] * (rows.ndim - 1))).astype(rows.dtype)
        found[spec.name] = rows
    return found


def _made_up(spec: TensorSpec, chance: np.random.Generator) -> Array:
    shape = (3, *(max(size, 1) for size in spec.shape[1:]))
    dtype: np.dtype[Any] = DTYPES[spec.datatype]
    if dtype.kind == "f":
        return chance.standard_normal(shape).astype(dtype)
    if dtype.kind == "O":
        return chance.choice(np.array(["", "a", "b"], object), shape)
    return chance.integers(0, 2, shape).astype(dtype)

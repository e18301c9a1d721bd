"""What the server records of its requests: counts, a line each, traces, and inputs and outputs to look at later.

A transport makes an ``Exchange`` of a request, and says ``begin`` when its head has come in and ``end`` when its answer
has gone out. In between, the engine finds the exchange in ``CURRENT`` and notes there what happens.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from . import exposition, feedback, tracing
from .access import AccessLog, ErrorLines, Lines
from .exchange import CURRENT, Exchange
from .metrics import GONE, Metrics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from .answers import Answer
    from .calls import Call
    from .engine import Engine
    from .record_files import RecordFiles

    Ask = Callable[[str, str, Mapping[str, str], bytes], Awaitable[Answer]]

_log: Final = logging.getLogger("modelrel.serving")


class Records:
    """The records of one engine. ``close`` writes what is left."""

    def __init__(self, engine: Engine) -> None:
        """Raise ``Unusable`` where what the settings ask for cannot be had."""
        settings = engine.settings
        self._engine = engine
        self._files: RecordFiles | None = None
        if settings.log_predictions:
            from .predictions import Predictions
            from .record_files import RecordFiles

            self._files = RecordFiles(settings.log_predictions, settings)
            engine.observers.append(Predictions(self._files, engine.models, settings).observe)
        self._tracer = tracing.tracer() if settings.otel else None
        if self._tracer is not None:
            engine.observers.append(self._tracer.observe)
        self._lines: Lines | None = None
        self._errors: ErrorLines | None = None
        self._write: Callable[[Exchange, float], None] | None = None
        self.metrics = Metrics(settings.shared, settings.worker, self._numbers)
        engine.router.add(exposition.routes(self.metrics), feedback.routes(self._files))

    def say(self, lines: Lines) -> None:
        """From now on, write the log: errors, and a line for each request unless the settings are against it."""
        self._lines = lines
        self._errors = ErrorLines(lines, self._traced)
        _log.addHandler(self._errors)
        if not self._engine.settings.no_access_log:
            self._write = AccessLog(lines, self._traced).write

    def begin(self) -> None:
        """Note that the head of a request has come in."""
        self.metrics.begun += 1

    def watched(self, protocol: str, ask: Ask) -> Ask:
        """Return what answers requests as ``ask`` does, for a transport that has no more to say than that."""

        async def watched(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
            exchange = Exchange(protocol, method, path, headers)
            exchange.received = len(body)
            CURRENT.set(exchange)
            self.begin()
            status = sent = 0
            try:
                answer = await ask(method, path, headers, body)
                status, sent = answer.status, len(answer.body)
            finally:
                self.end(exchange, status, sent)
            return answer._replace(headers={**answer.headers, "x-request-id": exchange.header.decode()})

        return watched

    def end(self, exchange: Exchange, status: int, sent: int) -> None:
        """Note an answer of ``sent`` bytes that has gone out; ``status`` is 0 where the client did not wait for it."""
        if exchange.call is not None:
            exchange.model = exchange.call.model  # the variant that has computed it
        exchange.status = status or GONE
        exchange.sent = sent
        metrics = self.metrics
        metrics.ended += 1
        took = metrics.request(exchange)
        if self._tracer is not None:
            self._tracer.end(exchange)
        if self._write is not None:
            self._write(exchange, took)
        exchange.call = None  # which knows the exchange: together they would be left to the garbage collector

    def close(self) -> None:
        """Write what is left. Nothing is recorded after."""
        if self._files is not None:
            self._files.close()
        if self._tracer is not None:
            self._tracer.close()
        self.metrics.close()
        if self._errors is not None:
            _log.removeHandler(self._errors)
        if self._lines is not None:
            self._lines.close()

    def computed(self, call: Call, ms: float, role: str) -> None:
        """Count an inference."""
        first = next(iter(call.feeds.values()), None)
        self.metrics.computed(call.model, len(first) if first is not None and first.ndim else 1, ms / 1e3, role)

    def _traced(self, exchange: Exchange) -> tuple[str, str]:
        if self._tracer is not None:
            return self._tracer.ids(exchange)
        parent = tracing.parent(exchange.headers)
        return ("", "") if parent is None else (parent.trace_id, parent.span_id)

    def _numbers(self) -> tuple[dict[str, float], dict[str, float]]:
        """Return the counters and gauges that others keep."""
        totals: dict[str, float] = dict(vars(self._engine.stats))
        now = {"waiting": totals.pop("waiting")}
        files = self._files
        if files is not None:
            now["waiting_bytes"] = files.waiting_bytes
            for kind in ("predictions", "feedback"):
                totals[kind] = files.written[kind]
                totals[f"{kind}_lost"] = files.lost[kind]
        if self._errors is not None and self._lines is not None:
            totals["errors"] = self._errors.count
            totals["lines_lost"] = self._lines.lost
        return totals, now

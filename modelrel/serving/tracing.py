"""Where a request stands in a trace: W3C Trace Context in, and spans out by OpenTelemetry where that is switched on.

Sources: W3C "Trace Context" level 1 (``traceparent``, ``tracestate``); the semantic conventions of OpenTelemetry for
HTTP server spans. What spans are sent to, and how many, is said by the standard variables ``OTEL_*``.
"""

from __future__ import annotations

import re
import threading
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from . import VERSION
from .options import Unusable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .calls import Call
    from .exchange import Exchange
    from .tensors import Array

CLOSE_S: Final = 5.0
"""How long the end of the server waits for the collector."""

_FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)


class Parent(NamedTuple):
    """The span that a request comes from."""

    trace_id: str
    span_id: str
    sampled: bool


def parent(headers: Mapping[str, str]) -> Parent | None:
    """Read ``traceparent``; None where there is none that keeps to the standard."""
    text = headers.get("traceparent")
    found = None if text is None else _FORM.fullmatch(text.strip(" \t"))
    if found is None:
        return None
    version, trace, span, flags, more = found.groups()
    # Version ff is never valid; 00 has these four fields and no more; later ones may have more of them.
    if version == "ff" or (version == "00" and more) or not trace.strip("0") or not span.strip("0"):
        return None
    return Parent(trace, span, bool(int(flags, 16) & 1))


def tracer() -> Tracer:
    """Return what makes spans. Raises ``Unusable`` where OpenTelemetry is not installed."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise Unusable(
            "--otel needs OpenTelemetry: pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"
        ) from error
    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win over what is said here.
    resource = Resource({"service.name": "modelrel", "service.version": VERSION}).merge(Resource.create({}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracer(provider)


class Tracer:
    """Makes a server span of each request, and within it a span of each computation."""

    def __init__(self, provider: Any) -> None:
        """Take the provider that the spans go to."""
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._trace = trace
        self._extract = TraceContextTextMapPropagator().extract
        self._provider = provider
        self._tracer = provider.get_tracer("modelrel.serving", VERSION)

    def observe(self, call: Call, _results: Sequence[Array], ms: float, role: str) -> None:
        """Make the span of a computation that has just ended, ``ms`` milliseconds after it began."""
        exchange = call.exchange
        if exchange is None:
            return
        now = time.time_ns()
        span = self._tracer.start_span(
            f"inference {call.model.name}",
            context=self._trace.set_span_in_context(self._span(exchange)),
            start_time=now - int(ms * 1e6),
            attributes={
                "modelrel.model.name": call.model.name,
                "modelrel.model.version": call.model.version,
                "modelrel.model.format": call.model.format,
                "modelrel.role": role,
            },
        )
        span.end(now)

    def ids(self, exchange: Exchange) -> tuple[str, str]:
        """Return the ids of the trace and of the server span of an exchange."""
        context = self._span(exchange).get_span_context()
        return f"{context.trace_id:032x}", f"{context.span_id:016x}"

    def end(self, exchange: Exchange) -> None:
        """End the server span of an exchange that is over."""
        span = self._span(exchange)
        if span.is_recording():
            span.set_attribute("http.response.status_code", exchange.status)
            span.set_attribute("http.response.body.size", exchange.sent)
            span.set_attribute("modelrel.request.id", exchange.id)
            model = exchange.model
            if model is not None:
                span.set_attributes({"modelrel.model.name": model.name, "modelrel.model.version": model.version})
            if exchange.status >= 500:
                span.set_attribute("error.type", str(exchange.status))
                span.set_status(self._trace.StatusCode.ERROR)
        span.end()

    def close(self) -> None:
        """Send what is left, unless the collector takes too long for it."""
        sending = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        sending.start()
        sending.join(CLOSE_S)

    def _span(self, exchange: Exchange) -> Any:
        """Return the server span of an exchange, which begins with it."""
        if exchange.span is None:
            headers = exchange.headers
            known = exchange.route is not None  # paths that lead nowhere are too many to be names
            attributes = {
                "http.request.method": exchange.method,
                "url.path": exchange.path,
                "url.scheme": "http",
                "client.address": exchange.client,
                "http.request.body.size": exchange.received,
            }
            if known:
                attributes["http.route"] = exchange.path
            if "user-agent" in headers:
                attributes["user_agent.original"] = headers["user-agent"]
            host, _, port = headers.get("host", "").rpartition(":")
            if host and port.isascii() and port.isdigit() and len(port) < 6:
                attributes |= {"server.address": host, "server.port": int(port)}
            elif "host" in headers:
                attributes["server.address"] = headers["host"]
            ago = int((time.perf_counter() - exchange.began) * 1e9)
            exchange.span = self._tracer.start_span(
                f"{exchange.method} {exchange.path}" if known else exchange.method,
                context=self._extract(headers),
                kind=self._trace.SpanKind.SERVER,
                start_time=time.time_ns() - ago,
                attributes=attributes,
            )
        return exchange.span

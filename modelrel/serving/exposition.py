"""``GET /metrics``: the counts in the text format of Prometheus.

Source: "Exposition formats" of the Prometheus documentation, version 0.0.4; and its rules for naming (base units,
``_total`` for counters, one unit and one type a name).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from . import VERSION
from .answers import Answer
from .calls import Route
from .manifest import BrokenModel, inside, read_manifest
from .metrics import ROWS, SECONDS, labels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from .calls import Routes
    from .metrics import Counts, Metrics
    from .model import Model
    from .models import Models, Snapshot

    Provider = Callable[[Models, Snapshot], Routes]

HEADERS: Final = {"content-type": "text/plain; version=0.0.4; charset=utf-8"}

_REQUEST: Final = ("protocol", "model", "version", "status")
_COMPUTED: Final = ("model", "version", "role")
_TIMES: Final = len(SECONDS) + 1

_TOTALS: Final = {
    "errors": ("modelrel_errors_total", "Errors that were logged: requests that failed without a fault of the client."),
    "predictions": ("modelrel_prediction_log_records_total", "Rows that the prediction log has written."),
    "predictions_lost": ("modelrel_prediction_log_dropped_total", "Rows that the prediction log could not keep."),
    "feedback": ("modelrel_feedback_records_total", "Rows of feedback that were written."),
    "feedback_lost": ("modelrel_feedback_dropped_total", "Rows of feedback that could not be kept."),
    "lines_lost": ("modelrel_access_log_dropped_total", "Lines of the log that nobody took off stderr in time."),
    "cache_hits": ("modelrel_cache_hits_total", "Requests that were answered from the cache."),
    "cache_misses": (
        "modelrel_cache_misses_total",
        "Requests that were looked for in the cache and had to be computed.",
    ),
    "batches": ("modelrel_batches_total", "Batches of concurrent requests that were computed together."),
    "batched_calls": ("modelrel_batched_requests_total", "Requests that were computed in batches."),
    "batched_rows": ("modelrel_batched_rows_total", "Rows that were computed in batches."),
    "shadow_computed": ("modelrel_shadow_computed_total", "Copies of requests that shadows have computed."),
    "shadow_failed": ("modelrel_shadow_failed_total", "Copies of requests that shadows could not compute."),
    "shadow_dropped": ("modelrel_shadow_dropped_total", "Copies of requests that shadows had no time for."),
    "process_cpu_seconds_total": ("process_cpu_seconds_total", "Total user and system CPU time spent in seconds."),
}
_NOW: Final = {
    "in_flight": ("modelrel_requests_in_flight", "Requests that are being answered."),
    "waiting": ("modelrel_batch_waiting_requests", "Requests that wait for others to be computed with."),
    "waiting_bytes": ("modelrel_prediction_log_waiting_bytes", "Records that wait to be written."),
    "process_virtual_memory_bytes": ("process_virtual_memory_bytes", "Virtual memory size in bytes."),
    "process_resident_memory_bytes": ("process_resident_memory_bytes", "Resident memory size in bytes."),
    "process_open_fds": ("process_open_fds", "Number of open file descriptors."),
    "process_max_fds": ("process_max_fds", "Maximum number of open file descriptors."),
}


def routes(metrics: Metrics) -> Provider:
    """Return the provider of the route ``/metrics``."""

    def provider(models: Models, _snapshot: Snapshot) -> Routes:
        def handler(_headers: Mapping[str, str], _body: bytes) -> Answer:
            return Answer(200, HEADERS, text(metrics.merged(), models.snapshot).encode())

        return {"/metrics": Route("GET", handler, -1)}  # a thread: it reads files

    return provider


def text(counts: Counts, snapshot: Snapshot) -> str:
    """Say counts, and what is served, in the text format."""
    return "\n".join([*_requests(counts), *_inference(counts), *_models(snapshot), *_numbers(counts), ""])


def _requests(counts: Counts) -> Iterator[str]:
    keyed = sorted((labels(name), numbers) for name, numbers in counts.requests.items())
    yield from _head("modelrel_requests_total", "counter", "Requests that were answered, by HTTP status.")
    for key, numbers in keyed:
        yield _sample("modelrel_requests_total", _REQUEST, key, sum(numbers[3:]))
    whole: dict[tuple[str, ...], list[float]] = {}
    for key, numbers in keyed:
        known = whole.get(tuple(key[:3]))
        whole[tuple(key[:3])] = [*map(sum, zip(known, numbers, strict=True))] if known else numbers
    for at, name, meaning in (
        (0, "modelrel_request_bytes_total", "Bytes of the bodies of requests."),
        (1, "modelrel_response_bytes_total", "Bytes of the bodies of answers."),
    ):
        yield from _head(name, "counter", meaning)
        for three, numbers in whole.items():
            yield _sample(name, _REQUEST[:3], three, numbers[at])
    yield from _head(
        "modelrel_request_duration_seconds", "histogram", "Time from a request's head to its whole answer."
    )
    for three, numbers in whole.items():
        yield from _histogram(
            "modelrel_request_duration_seconds", (_REQUEST[:3], three), SECONDS, numbers[3:], numbers[2]
        )


def _inference(counts: Counts) -> Iterator[str]:
    keyed = sorted((labels(name), numbers) for name, numbers in counts.computed.items())
    for name, meaning, bounds, first, total in (
        ("modelrel_inference_duration_seconds", "Time the model took for one computation.", SECONDS, 2, 1),
        ("modelrel_inference_rows", "Rows of a request that were computed.", ROWS, 2 + _TIMES, 0),
    ):
        yield from _head(name, "histogram", meaning)
        for key, numbers in keyed:
            buckets = numbers[first : first + len(bounds) + 1]
            yield from _histogram(name, (_COMPUTED, key), bounds, buckets, numbers[total])


def _models(snapshot: Snapshot) -> Iterator[str]:
    yield from _head("modelrel_model_loaded", "gauge", "Whether a model version is loaded.")
    for name, version, state, _ in snapshot.states:
        yield _sample("modelrel_model_loaded", ("model", "version"), (name, version), int(state == "READY"))
    yield from _head(
        "modelrel_model_info", "gauge", "What a loaded model version is; the digest is its file's SHA-256."
    )
    for endpoint in snapshot.endpoints.values():
        for version, model in endpoint.versions.items():
            known = (endpoint.name, version, model.format, digest(model))
            yield _sample("modelrel_model_info", ("model", "version", "format", "digest"), known, 1)
    yield from _head("modelrel_build_info", "gauge", "The version of this server.")
    yield _sample("modelrel_build_info", ("version",), (VERSION,), 1)


def _numbers(counts: Counts) -> Iterator[str]:
    for kind, known, numbers in (("counter", _TOTALS, counts.totals), ("gauge", _NOW, counts.now)):
        for key, (name, meaning) in known.items():
            if key in numbers:
                yield from _head(name, kind, meaning)
                yield f"{name} {_number(numbers[key])}"
    if 0 < counts.started < float("inf"):
        name = "process_start_time_seconds"
        yield from _head(name, "gauge", "Start time of the process since unix epoch in seconds.")
        yield f"{name} {_number(counts.started)}"


def _head(name: str, kind: str, meaning: str) -> tuple[str, str]:
    return f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"


def _histogram(
    name: str,
    labelled: tuple[Sequence[str], Sequence[str]],
    bounds: Sequence[float],
    buckets: Sequence[float],
    total: float,
) -> Iterator[str]:
    """Say one histogram; ``buckets`` are the counts between the bounds, the last one what is beyond them."""
    names, values = labelled
    below = 0.0
    for bound, count in zip((*map(_number, bounds), "+Inf"), buckets, strict=True):
        below += count
        yield _sample(f"{name}_bucket", (*names, "le"), (*values, bound), below)
    yield _sample(f"{name}_sum", names, values, total)
    yield _sample(f"{name}_count", names, values, below)


def _sample(name: str, names: Sequence[str], values: Sequence[str], number: float) -> str:
    said = ",".join(f'{label}="{_escaped(value)}"' for label, value in zip(names, values, strict=True))
    return f"{name}{{{said}}} {_number(number)}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(number: float) -> str:
    if number == float("inf"):
        return "+Inf"
    return str(int(number)) if number == int(number) else repr(number)


_digests: Final[WeakKeyDictionary[Model, str]] = WeakKeyDictionary()


def digest(model: Model) -> str:
    """Return the SHA-256 of a model's file, read once; "" where it is gone or the model was never a file."""
    if model not in _digests:
        import hashlib

        found = ""
        with contextlib.suppress(OSError, BrokenModel):
            path = inside(model.folder, read_manifest(model.folder).file)
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        _digests[model] = found
    return _digests[model]

"""The ASGI application: reads a request, asks ``answer``, writes what it says."""

from __future__ import annotations

import asyncio
import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from .answers import JSON_HEADERS, Answer, Refused
from .routing import answer, failure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, MutableMapping

    from .model import Model

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

INLINE_MS: Final = 5.0
"""What a request may hold up the event loop, and so the health checks, for. Longer ones go to a thread."""

INLINE_BYTES: Final = 64 * 1024
"""A body beyond this size goes to a thread whatever the model costs, because reading it takes a millisecond too."""

_JSON: Final = (b"content-type", b"application/json")


def application(model: Model, max_body: int) -> Application:
    """Make the ASGI application of one model. ``max_body`` is the largest request body accepted, in bytes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = ThreadPoolExecutor(max_workers=cores, thread_name_prefix="answer")
    inline_bytes = _inline_bytes(model)

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        method: str = scope["method"]
        path: str = scope["path"]
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        body = b""
        if method not in ("GET", "HEAD"):
            try:
                read = await _body(receive, headers, max_body)
            except Refused as error:
                await _send(send, failure(path, error))
                return
            if read is None:
                return
            body = read
        if len(body) <= inline_bytes:
            result = answer(model, method, path, headers, body)
        else:
            loop = asyncio.get_running_loop()
            result = await loop.run_in_executor(threads, answer, model, method, path, headers, body)
        await _send(send, result)

    return app


def _inline_bytes(model: Model) -> int:
    """Return the size up to which a body is answered on the event loop.

    A hop to a thread and back takes some 70 microseconds, more than most answers. So a request stays if
    it cannot hold so many rows that they take longer than ``INLINE_MS``: a value is at least a digit and a comma.
    """
    row_bytes = sum(2 * math.prod(max(size, 1) for size in spec.shape) for spec in model.inputs)
    return min(INLINE_BYTES, int(INLINE_MS / max(model.row_ms, 1e-3) * row_bytes))


async def _body(receive: Receive, headers: Mapping[str, str], max_body: int) -> bytes | None:
    """Read the request body; None if the client went away. Raises ``Refused`` (413) as soon as it is too large."""
    declared = headers.get("content-length")
    if declared is not None and int(declared) > max_body:
        raise Refused(413, f"the body has {declared} bytes, the limit is {max_body}")
    message = await receive()
    if not message.get("more_body"):
        return message.get("body", b"") if message["type"] == "http.request" else None
    chunks = bytearray(message["body"])
    while message.get("more_body"):
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunks += message["body"]
        if len(chunks) > max_body:
            raise Refused(413, f"the body has more than {max_body} bytes, which is the limit")
    return bytes(chunks)


async def _send(send: Send, result: Answer) -> None:
    length = (b"content-length", b"%d" % len(result.body))
    if result.headers is JSON_HEADERS:
        headers = [_JSON, length]
    else:
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in result.headers.items()]
        headers.append(length)
    await send({"type": "http.response.start", "status": result.status, "headers": headers})
    await send({"type": "http.response.body", "body": result.body})

"""Asking an HTTP server: how a connection is made, when an answer is whole, and which failures may pass."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from email.utils import parsedate_to_datetime
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead
from typing import Any, Final

from modelrel import archive
from modelrel.registry.patience import PASSING, Stumbled

_CONNECT_S: Final = 3.0  # two tries of an address where nobody is end within seven seconds
_PIECE: Final = 2**20
_TRICKLE: Final = 2**14
_LATEST_S: Final = 86_400.0


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows a redirect, and takes the credentials along to the same host only."""

    def redirect_request(self, req: urllib.request.Request, *answer: Any) -> urllib.request.Request | None:
        """Return the request to where a redirect leads, which is the last of what the answer says."""
        found = super().redirect_request(req, *answer)
        if found is not None and found.host.partition(":")[0] != req.host.partition(":")[0]:
            found.remove_header("Authorization")
        return found


def _connect(connection: HTTPConnection, connect: Any) -> None:
    """Connect, with less patience than there is for an answer."""
    patient, connection.timeout = connection.timeout, min(_CONNECT_S, connection.timeout or _CONNECT_S)
    connect()
    connection.timeout = patient
    connection.sock.settimeout(patient)


def _made(kind: type[HTTPConnection], host: str, **options: Any) -> HTTPConnection:
    connection = kind(host, **options)
    connection.connect = partial(_connect, connection, connection.connect)  # type: ignore[method-assign]
    return connection


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(partial(_made, HTTPConnection), req)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(partial(_made, HTTPSConnection), req)


def opener() -> urllib.request.OpenerDirector:
    """Return what sends requests."""
    return urllib.request.build_opener(_SameHost, _Http, _Https)


@contextmanager
def stumbling() -> Iterator[None]:
    """Raise `Stumbled` for what may pass: a connection that fails or is cut, silence, a server in trouble."""
    try:
        yield
    except urllib.error.HTTPError as error:
        if error.code not in PASSING:
            raise
        raise Stumbled(
            f"{error.code} {error.reason}".strip(), after=_retry_after(error.headers), status=error.code
        ) from error
    except urllib.error.URLError as error:
        reason = error.reason
        if type(reason).__name__ == "SSLCertVerificationError" or not isinstance(reason, OSError):
            raise  # asking again does not help
        raise Stumbled(_said(reason), nobody=True) from error
    except (OSError, HTTPException) as error:
        if isinstance(error, OSError) and archive.disk_error(error):
            raise  # a file of ours
        raise Stumbled(_said(error)) from error


def _said(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


def _retry_after(headers: Message) -> float:
    """Return the seconds that an answer asks to wait (RFC 9110, 10.2.3: a number, or a date), 0 where it does not."""
    told = headers.get("Retry-After", "").strip()
    try:
        seconds = float(told) if told.isdigit() else parsedate_to_datetime(told).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0
    return min(max(0.0, seconds), _LATEST_S)


def pieces(answer: HTTPResponse, patience_s: float) -> Iterator[bytes]:
    """Yield the body of an answer; raises `HTTPException` where it ends early, `TimeoutError` where it trickles."""
    begun, got, whole = time.monotonic(), 0, 0
    while piece := answer.read1(_PIECE):
        yield piece
        got, whole = got + len(piece), whole + len(piece)
        if time.monotonic() - begun > 2 * patience_s:
            if got < _TRICKLE:
                raise TimeoutError(f"{got} bytes in {2 * patience_s:.0f} s")
            begun, got = time.monotonic(), 0
    if answer.length:  # what Content-Length promised and did not come
        raise IncompleteRead(b"", answer.length)


def content(answer: HTTPResponse, patience_s: float) -> Any:
    """Return the JSON of an answer, None where it is none; raises `Stumbled` where it says that it is, and is not."""
    body = b"".join(pieces(answer, patience_s))
    try:
        return json.loads(body)
    except ValueError as error:
        # http.client takes headers that are cut off for headers that end; there is no body, then
        if "json" not in answer.headers.get("Content-Type", "") and (body or answer.status != 200):
            return None
        raise Stumbled("an answer that is not whole") from error

"""Packed bodies, both ways: ``gzip`` and ``deflate``, by RFC 9110 (8.4, 12.5.3), 1950, 1951 and 1952."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, Final

from .answers import Refused
from .limits import too_large

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .answers import Answer

PACKED_FROM: Final = 1024
"""Answers below this size are not packed: it would save less than a packet of the network."""

_LEVEL: Final = 1  # numbers as text shrink to nearly the same at any level, and this one takes a third of the time
_STEP: Final = 1 << 16
_MEMBERS: Final = 100
_GZIP, _ZLIB, _RAW = 31, 15, -15  # zlib's numbers for the three wrappings


class Unpacking:
    """A packed body on its way to be read, in steps, so that the first can be taken where time is short."""

    def __init__(self, coding: str, body: bytes, max_body: int) -> None:
        """Begin; raises ``Refused`` (415) for codings other than gzip and deflate, and for several on one another."""
        name = coding.strip().lower()
        if name in {"gzip", "x-gzip"}:
            self._wrapping = _GZIP
        elif name == "deflate":
            # The standard means zlib's format by that word; many clients send the bare one, and both are in use.
            wrapped = len(body) > 1 and body[0] & 15 == 8 and int.from_bytes(body[:2]) % 31 == 0
            self._wrapping = _ZLIB if wrapped else _RAW
        else:
            raise Refused(
                415,
                f"the content encoding {coding!r} is not supported; gzip and deflate are",
                {"accept-encoding": _KNOWN},
            )
        self._reader = zlib.decompressobj(self._wrapping)
        self._members = 1
        self._body = body
        self._at = 0
        self._rest = b""  # taken from the body but not consumed: zlib copies it each time, so it is kept short
        self._max_body = max_body
        self._read = bytearray()

    def step(self, size: int) -> bool:
        """Unpack up to ``size`` bytes more and return whether that was all.

        Raises ``Refused``: 413 as soon as it is more than the limit, 400 for what is not packed so.
        """
        goal = min(len(self._read) + size, self._max_body + 1)
        while len(self._read) < goal:
            if not self._rest:
                self._rest = self._body[self._at : self._at + _STEP]
                self._at += len(self._rest)
            try:
                found = self._reader.decompress(self._rest, goal - len(self._read))
            except zlib.error as error:
                raise Refused(400, "the body is not packed as its content encoding says") from error
            self._read += found
            if self._reader.eof:
                self._rest = self._reader.unused_data
                if not self._rest and self._at == len(self._body):
                    return True
                self._next_member()
            else:
                self._rest = self._reader.unconsumed_tail
                if not found and not self._rest and self._at == len(self._body):
                    raise Refused(400, "the packed body stops short")
        if len(self._read) > self._max_body:
            raise too_large(self._max_body)
        return False

    def _next_member(self) -> None:
        """Go on with what follows a packed body: another one, as ``cat`` puts gzip files together."""
        self._members += 1
        if self._wrapping != _GZIP or self._members > _MEMBERS:
            raise Refused(400, "something follows the packed body")
        self._reader = zlib.decompressobj(_GZIP)

    def finish(self) -> bytes:
        """Unpack what is left and return the whole. Raises as ``step``."""
        while not self.step(_STEP):
            pass
        return bytes(self._read)


def unpacked(headers: Mapping[str, str], body: bytes, max_body: int) -> tuple[Mapping[str, str], bytes]:
    """Return the headers and the body as they were before they were packed. Raises ``Refused``."""
    coding = headers.get("content-encoding", "identity")
    if coding.strip().lower() in {"", "identity"} or not body:
        return headers, body
    return bare(headers), Unpacking(coding, body, max_body).finish()


def bare(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers without what was true of the packed body only."""
    return {name: value for name, value in headers.items() if name not in {"content-encoding", "content-length"}}


_KNOWN: Final = "gzip, deflate"


def chosen(accepted: str) -> str | None:
    """Return the coding that an ``Accept-Encoding`` prefers, or None where it wants the body as it is.

    Of equal wishes gzip wins. A malformed weight counts as 0.
    """
    weights: dict[str, float] = {}
    for part in accepted.lower().split(","):
        name, _, parameter = part.partition(";")
        weights[name.strip()] = _weight(parameter)
    gzip = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0)))
    deflate = weights.get("deflate", weights.get("*", 0.0))
    best = max(gzip, deflate)
    if best <= 0 or weights.get("identity", 0.0) > best:
        return None
    return "gzip" if gzip >= deflate else "deflate"


def _weight(parameter: str) -> float:
    key, _, value = parameter.partition("=")
    if not key.strip():
        return 1.0
    try:
        weight = float(value) if key.strip() == "q" else 0.0
    except ValueError:
        return 0.0
    return weight if 0 <= weight <= 1 else 0.0


def wanted(headers: Mapping[str, str], answer: Answer) -> str | None:
    """Return the coding to pack an answer with; None where it stays as it is."""
    if len(answer.body) < PACKED_FROM or "accept-encoding" not in headers or "content-encoding" in answer.headers:
        return None
    return chosen(headers["accept-encoding"])


def packed(answer: Answer, coding: str) -> Answer:
    """Return the answer packed, or as it is where that makes it no smaller."""
    packer: Any = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP if coding == "gzip" else _ZLIB)
    body = packer.compress(answer.body) + packer.flush()
    headers = {**answer.headers, "vary": _with("accept-encoding", answer.headers.get("vary"))}
    if len(body) >= len(answer.body):
        return answer._replace(headers=headers)
    return answer._replace(headers={**headers, "content-encoding": coding}, body=body)


def _with(name: str, names: str | None) -> str:
    return f"{names}, {name}" if names else name

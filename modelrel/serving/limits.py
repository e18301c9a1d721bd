"""How large, how many and how slow: what a client may ask of a server before it is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .answers import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

URL_BYTES: Final = 8 * 1024
HEAD_BYTES: Final = 32 * 1024
"""All headers of a request, names and values."""

HEADERS: Final = 100
"""Headers of a request."""

RECEIVE_S: Final = 20.0
"""Time for a request's headers, and again for its body; a long body gets more by ``BYTES_PER_S``."""

BYTES_PER_S: Final = 16 * 1024
"""What a client must at least send or read, once ``RECEIVE_S`` are over."""

LINGER_S: Final = 2.0
"""How long a refused client may go on sending, so that it gets to read why it was refused."""

KEEP_ALIVE_S: Final = 75.0
"""How long an idle connection is kept: longer than the 60 seconds of common load balancers, which must close first."""

BODIES: Final = 8
"""How many bodies of the largest size may be on their way in at the same time; more are answered 429."""

WASTED_BYTES: Final = 1 << 26
"""What is read and thrown away of a body that was refused, so that its sender can read why; then it is cut."""

ELEMENTS: Final = 1 << 23
"""Commas and opening brackets in a JSON body: a bound to its values. The worst body of so many, short numbers that two
outputs give back, took 1.1 GiB of memory until it was answered; 64 MiB of ``[],`` without this limit took 2.3."""

_SLICE: Final = 1 << 20


def check_declared(headers: Mapping[str, str], max_body: int) -> None:
    """Refuse (413) a body by the length it says it has; its digits were checked by the HTTP parser."""
    declared = headers.get("content-length")
    if declared is not None and int(declared) > max_body:
        raise Refused(413, f"the body has {declared} bytes, the limit is {max_body}")


def too_large(max_body: int) -> Refused:
    """Return the refusal of a body that turns out to be longer than it may be."""
    return Refused(413, f"the body has more than {max_body} bytes, which is the limit")


def check_elements(headers: Mapping[str, str], body: bytes) -> None:
    """Refuse (413) a JSON body of so many values that reading it would take more memory than a server has to give.

    A shorter body than ``ELEMENTS`` bytes needs no check. It takes a millisecond for each MiB, so it is for a thread.
    """
    kind = headers.get("content-type", "application/json")
    if "inference-header-content-length" in headers or not ("json" in kind or "form-urlencoded" in kind):
        return
    found = 0
    for at in range(0, len(body), _SLICE):  # other threads get a turn between the slices
        found += sum(body.count(sign, at, at + _SLICE) for sign in b",[{")
    if found > ELEMENTS:
        raise Refused(413, f"the body has about {found} values, the limit is {ELEMENTS}; send them in several")

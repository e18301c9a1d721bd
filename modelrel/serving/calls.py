"""What a request asks of a model, whatever the protocol: named arrays in, named outputs wanted, a way to say them.

A protocol turns a request into a ``Call``; the engine decides who computes it, when and together with what; and the
call says its results in the protocol it came in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

if TYPE_CHECKING:
    from .answers import Answer
    from .exchange import Exchange
    from .model import Model
    from .models import Endpoint
    from .tensors import Array


class Call(msgspec.Struct, eq=False):
    """One inference: ``model`` is to compute ``outputs`` from ``feeds``, and ``render`` makes the answer of them.

    ``feeds`` holds an array per input of the model, of its dtype and rank. ``outputs`` are served names, in the order
    in which ``render`` takes the arrays; ``render`` is given the call too, because another variant of the model may
    have computed it. ``params`` are what MLflow calls so. ``id`` is the client's name for the request, or None.
    ``headers`` are those of the request (lower-case names), which the engine adds, as ``exchange``, for the records.
    """

    model: Model
    outputs: Sequence[str]
    feeds: Mapping[str, Array]
    render: Callable[[Call, list[Array]], Answer]
    id: str | None = None
    params: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = {}
    exchange: Exchange | None = None


Handler = Callable[[Mapping[str, str], bytes], "Answer | Call"]
"""Headers (lower-case names) and the whole body -> an answer, or what has to be computed for one.

Raises ``Refused``.
"""


class Route(NamedTuple):
    """What answers a path: its verb and handler, and the model that the handler's calls are for.

    A body of up to ``inline_bytes`` is handled on the event loop, a longer one on a thread; -1 is always a thread, for
    what reads files or waits. ``endpoint`` is there where the client left the choice of the version to the server.
    """

    verb: str
    handler: Handler
    inline_bytes: int = 1 << 62
    model: Model | None = None
    endpoint: Endpoint | None = None


Routes = dict[str, Route]
"""Path, percent-decoded -> what answers it."""


def always(fixed: Answer) -> Handler:
    """Return the handler that gives the same answer each time."""
    return lambda _headers, _body: fixed

"""One request as the records see it: its name, when it began, who computed it and what came of it."""

from __future__ import annotations

import os
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .calls import Call, Route
    from .model import Model

ID_LENGTH: Final = 256
"""The longest request id that is kept. A longer one is answered with one of ours in its place."""

_PRINTABLE: Final = "".join(map(chr, range(0x21, 0x7F))).replace("%", "")


class Exchange:
    """One request and its answer.

    ``protocol`` is http or grpc, ``path`` percent-decoded, ``headers`` have lower-case names, ``client`` is the address
    of the peer, ``began`` by ``time.perf_counter``. ``route`` is there once the path was found, ``call`` once the
    request was understood, and ``model`` is what the request was for, or what has computed it. ``status`` is 0 until
    the answer has gone out; ``received`` and ``sent`` count the bytes of the bodies. ``recorded`` says whether the
    prediction log takes this request, None before it was asked. ``span`` is OpenTelemetry's, where that is on.
    """

    __slots__ = (
        "_id",
        "began",
        "call",
        "client",
        "headers",
        "method",
        "model",
        "path",
        "protocol",
        "received",
        "recorded",
        "route",
        "sent",
        "span",
        "status",
    )

    def __init__(self, protocol: str, method: str, path: str, headers: Mapping[str, str]) -> None:
        self.protocol = protocol
        self.method = method
        self.path = path
        self.headers = headers
        self.client = ""
        self.began = time.perf_counter()
        self.route: Route | None = None
        self.call: Call | None = None
        self.model: Model | None = None
        self.status = 0
        self.received = 0
        self.sent = 0
        self.recorded: bool | None = None
        self.span: Any = None
        self._id = ""

    def enters(self, route: Route) -> None:
        """Note what the path leads to."""
        self.route = route
        self.model = route.model

    def asks(self, call: Call) -> None:
        """Note what the request asks for."""
        self.call = call
        self.model = call.model
        call.exchange = self

    @property
    def id(self) -> str:
        """The name of the request: the client's ``id`` of V2, else its header ``x-request-id``, else one of ours."""
        if not self._id:
            own = self.call.id if self.call is not None else None
            wanted = own or self.headers.get("x-request-id")
            self._id = wanted if wanted and len(wanted) <= ID_LENGTH else new_id()
        return self._id

    @property
    def header(self) -> bytes:
        """The id as a header may carry it: what is not printable ASCII is percent-encoded."""
        if not self._id and (self.call is None or not self.call.id) and "x-request-id" not in self.headers:
            self._id = new_id()
            return self._id.encode()
        name = self.id
        if name.isascii() and name.isalnum():  # nearly every one, and ten times as quick
            return name.encode()
        return quote(name, safe=_PRINTABLE, errors="replace").encode()


CURRENT: Final[ContextVar[Exchange | None]] = ContextVar("exchange", default=None)
"""The exchange that this task answers."""

_ids: Final[list[str]] = []
os.register_at_fork(after_in_child=_ids.clear)  # or two processes would hand out the same ones


def new_id() -> str:
    """Return 32 hexadecimal digits that nobody can guess; from a stock, as asking the system costs more than these."""
    try:
        return _ids.pop()
    except IndexError:
        stock = os.urandom(16 * 256).hex()
        _ids.extend(stock[at : at + 32] for at in range(32, len(stock), 32))
        return stock[:32]

"""HTTP without its bytes: what a request may ask, who may ask it, what is said before, instead of and after its answer.

All answers of the server come through ``App.early``, ``App.start`` and its ``done``, in that order; those who look at
requests (logs, metrics, traces) do it there.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import types
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from . import front
from .answers import Answer, Refused
from .compression import Unpacking, bare, packed, wanted
from .cors import Cors
from .exchange import CURRENT, Exchange
from .keys import CHALLENGE, OPEN
from .limits import ELEMENTS, check_declared, check_elements
from .routing import failed, failure

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Mapping

    from .engine import Engine
    from .keys import Keys

    Done = Callable[["Request", Answer], None]

_log: Final = logging.getLogger("modelrel.serving")

_AT_ONCE_BYTES: Final = 64 * 1024
"""What is packed or unpacked on the event loop: it takes less than a millisecond."""

_CHEAP: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_RETRY: Final = {"retry-after": "1"}
_READY: Final = frozenset(path for path in OPEN if not path.endswith("/live"))


class Request:
    """One request. ``headers`` have lower-case names, ``path`` is percent-decoded, ``query`` is not.

    ``body`` is there when it has come in whole. ``answer`` is set where it was refused before that. ``exchange`` is
    what the records know of it.
    """

    __slots__ = ("answer", "body", "exchange", "headers", "keep_alive", "method", "path", "query", "whole")

    def __init__(self, method: str, path: str, query: str, headers: dict[str, str]) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.body: bytes = b""
        self.whole = False
        self.keep_alive = True
        self.answer: Answer | None = None
        self.exchange = Exchange("http", method, path, headers)


class App:
    """One server's HTTP. Everything in it happens on the event loop's thread."""

    def __init__(self, engine: Engine, keys: Keys | None = None) -> None:
        """Take the limits from the engine's settings; ``keys`` are those that clients must have one of."""
        settings = engine.settings
        self.engine = engine
        self.keys = keys
        self.max_body = settings.max_body
        self.stopping = False
        self.working: set[asyncio.Task[None]] = set()
        self._max_in_flight = settings.max_in_flight
        self._timeout = settings.timeout
        self._cors = Cors(settings.cors) if settings.cors else None
        self._threads: ThreadPoolExecutor | None = None

    def early(self, request: Request) -> Answer | None:
        """Return what can be said before the body has come: a refusal, or None."""
        headers = request.headers
        try:
            if self.keys is not None and request.path not in OPEN and not self._is_preflight(request):
                self._check_key(self.keys, headers)
            if "sec-fetch-site" in headers:
                self._check_site(request)
            check_declared(headers, self.max_body)
            self._check_load(request)
        except Refused as error:
            asked = front.locked(error, request.path, headers)
            return self._dressed(request, asked or failure(request.path, error))
        return None

    def start(self, request: Request, done: Done) -> Answer | None:
        """Answer a request at once where nothing has to be waited for; else return None and call ``done`` later.

        ``done`` is called once: with the answer, or when the time for it is over. What computes it then goes on, as
        nothing can end a thread, and counts as in flight until it is through.
        """
        if len(self.working) >= self._max_in_flight:
            try:
                self._check_load(request)
            except Refused as error:
                return self._dressed(request, failure(request.path, error))
        made = self._at_once(request)
        if made is not None and wanted(request.headers, made) is None:
            return self._dressed(request, made)
        # Most others never wait either. Their coroutine is run here to its end, without a task; only what stops at
        # something gets one, for the rest. Both parts share a context of their own, as those of a task would.
        work = self._answered(request, made)
        context = contextvars.copy_context()
        context.run(CURRENT.set, request.exchange)
        try:
            awaited = context.run(work.send, None)
        except StopIteration as finished:
            answer: Answer = finished.value
            return answer
        loop = asyncio.get_running_loop()
        waiting = _Waiting(request, done, self)
        task = loop.create_task(waiting.through(_rest(work, awaited)), context=context)
        self.working.add(task)
        task.add_done_callback(self.working.discard)
        if self._timeout:
            waiting.timer = loop.call_later(self._timeout, waiting.late)
        return None

    async def ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer a gRPC call that was made a request, under the same keys, limits and records."""
        request = Request(method, path, "", dict(headers))
        request.body = body
        request.exchange = exchange = Exchange("grpc", method, path, headers)
        exchange.received = len(body)
        records = self.engine.records
        records.begin()
        answer = None
        try:
            answer = self.early(request)
            if answer is None:
                later: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
                answer = self.start(request, lambda _, said: None if later.done() else later.set_result(said))
                answer = answer or await later
        finally:
            records.end(exchange, answer.status if answer else 0, len(answer.body) if answer else 0)
        return answer._replace(headers={**answer.headers, "x-request-id": exchange.header.decode()})

    def _at_once(self, request: Request) -> Answer | None:
        """Answer what waits for nothing, as most requests do not, and spare it a coroutine; None for all others."""
        body = request.body
        if self.stopping or len(body) > ELEMENTS or request.method == "OPTIONS":
            return None
        if body and "content-encoding" in request.headers:
            return None
        CURRENT.set(request.exchange)
        try:
            return self.engine.at_once(request.exchange, body)
        finally:
            CURRENT.set(None)

    async def _answered(self, request: Request, made: Answer | None) -> Answer:
        """Answer a request; ``made`` is its answer where only the packing is left."""
        headers, body, method = request.headers, request.body, request.method
        try:
            if self.stopping:
                _check_ready(request.path)
            if body and made is None:
                if "content-encoding" in headers:
                    headers, body = await self._unpacked(request)
                if len(body) > ELEMENTS:
                    await self._on_thread(len(body), check_elements, headers, body)
            if made is not None:
                answer = made
            elif method == "OPTIONS":
                answer = self._options(request)
            else:
                answer = await self.engine.answer(method, request.path, headers, body)
            coding = wanted(headers, answer)
            if coding is not None and method != "HEAD":
                answer = await self._on_thread(len(answer.body), packed, answer, coding)
        except Exception as error:  # noqa: BLE001 (the last line of defence)
            answer = failed(method, request.path, error)
        return self._dressed(request, answer)

    async def _unpacked(self, request: Request) -> tuple[dict[str, str], bytes]:
        """Return the headers and the body as they were before the body was packed. Raises ``Refused``."""
        coding = request.headers["content-encoding"]
        if coding.strip().lower() in {"", "identity"}:
            return request.headers, request.body
        unpacking = Unpacking(coding, request.body, self.max_body)
        # A small body may become a large one: the first step is here, the others are not.
        if len(request.body) > _AT_ONCE_BYTES or not unpacking.step(_AT_ONCE_BYTES):
            body = await self._on_thread(self.max_body, unpacking.finish)
        else:
            body = unpacking.finish()
        return bare(request.headers), body

    async def _on_thread(self, size: int, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call something that works on ``size`` bytes, on a thread if they are many."""
        if size <= _AT_ONCE_BYTES:
            return function(*arguments)
        if self._threads is None:
            self._threads = ThreadPoolExecutor(2, thread_name_prefix="pack")
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    def _options(self, request: Request) -> Answer:
        """Say what may be asked of a path; a browser also, whether a page of another site may."""
        if self._cors is not None:
            found = self._cors.preflight(request.headers)
            if found is not None:
                return found
        if request.path == "*":
            return Answer(204, {}, b"")
        try:
            self.engine.router.route("OPTIONS", request.path)
        except Refused as error:
            if error.status != 405:
                raise
            return Answer(204, {"allow": f"{error.headers['allow']}, OPTIONS"}, b"")
        return Answer(204, {}, b"")

    def _is_preflight(self, request: Request) -> bool:
        """Whether a browser asks whether a page may ask; it asks that without the key."""
        return self._cors is not None and request.method == "OPTIONS"

    def _check_key(self, keys: Keys, headers: dict[str, str]) -> None:
        if not keys.authorized(headers):
            sent = "authorization" in headers or "x-api-key" in headers
            said = "the API key is not one of this server's" if sent else "an API key is needed"
            raise Refused(401, f"{said}: send Authorization: Bearer KEY, or X-Api-Key: KEY", CHALLENGE)

    def _check_site(self, request: Request) -> None:
        """Refuse pages of other sites that ask without wanting to read: a browser sends what they do all the same."""
        headers = request.headers
        if headers["sec-fetch-site"] not in {"cross-site", "same-site"} or request.method in _CHEAP:
            return
        if self._cors is None or not self._cors.allows(headers.get("origin", "")):
            raise Refused(403, "pages of other sites may not ask this server (--cors ORIGIN lets them)")

    def _check_load(self, request: Request) -> None:
        if len(self.working) >= self._max_in_flight and request.method not in _CHEAP:
            raise Refused(429, f"{self._max_in_flight} requests are being computed, which is the limit", _RETRY)

    def _dressed(self, request: Request, answer: Answer) -> Answer:
        return answer if self._cors is None else self._cors.dressed(request.headers, answer)

    def refused(self, request: Request, error: Refused) -> Answer:
        """Say a refusal that comes from the connection: too large, too slow, not HTTP."""
        return self._dressed(request, failure(request.path, error))

    def close(self) -> None:
        """End the threads of its own."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)


def _check_ready(path: str) -> None:
    """Refuse (503) to be called ready, server and model, when the server is about to stop."""
    if path in _READY or path.endswith("/ready"):
        raise Refused(503, "the server is about to stop")


class _Waiting:
    """A request that is computed elsewhere, and the end of its time."""

    def __init__(self, request: Request, done: Done, app: App) -> None:
        self.timer: asyncio.TimerHandle | None = None
        self._request = request
        self._done: Done | None = done
        self._app = app

    async def through(self, rest: Coroutine[Any, Any, Answer]) -> None:
        """Wait for the answer and hand it on."""
        answer = await rest
        if self.timer is not None:
            self.timer.cancel()
        self._say(answer)

    def late(self) -> None:
        """Give up waiting."""
        error = Refused(504, "the model takes longer than a request may")
        self._say(self._app.refused(self._request, error))

    def _say(self, answer: Answer) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(self._request, answer)


@types.coroutine
def _rest(work: Coroutine[Any, Any, Answer], awaited: Any) -> Generator[Any, Any, Answer]:
    """Go on with a coroutine that has stopped at ``awaited``."""
    while True:
        try:
            sent = yield awaited
        except BaseException as error:  # noqa: BLE001 - it is the coroutine's, whatever it is
            given: BaseException | None = error
        else:
            given = None
        try:
            awaited = work.send(sent) if given is None else work.throw(given)
        except StopIteration as finished:
            answer: Answer = finished.value
            return answer

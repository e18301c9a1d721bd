"""uvicorn as this server runs it: our connections, a word when it listens, a clock, a drain at a stop signal."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from typing import TYPE_CHECKING, Any

import uvicorn

from .access import Lines
from .app import App
from .protocol import bound
from .wire import Shared

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from types import FrameType

    from .door import Door
    from .engine import Engine
    from .rpc import Rpc


class Server(uvicorn.Server):
    """uvicorn's, but it tells when it listens, cuts who is too slow, and a stop signal is a good end."""

    def __init__(
        self, config: uvicorn.Config, shared: Shared, ready: Callable[[], None], rpc: Rpc | None = None
    ) -> None:
        """Keep what to call when it listens, and what listens for gRPC."""
        super().__init__(config)
        self._rpc = rpc
        self._shared = shared
        self._ready = ready
        # uvicorn waits for these tasks at the end, and cancels them when the time for that is over.
        self.server_state.tasks = shared.app.working

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen, and say so."""
        await self.on_tick(0)
        await super().startup(sockets)
        if self._rpc is not None:
            await self._rpc.start()
        self._ready()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second, take the time; once a second, end the connections whose time is over."""
        stop = await super().on_tick(counter)
        headers = self.server_state.default_headers
        self._shared.tick(asyncio.get_running_loop().time(), headers[0][1] if headers else b"")
        if counter % 10 == 0:
            self._shared.sweep(self.server_state.connections)  # type: ignore[arg-type]
        return stop

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let what has begun come to its end, with an eye on the clock."""
        clock = asyncio.create_task(self._watch())
        rpc = None if self._rpc is None else asyncio.create_task(self._rpc.stop())
        await super().shutdown(sockets)
        if rpc is not None:
            await rpc
        clock.cancel()

    async def _watch(self) -> None:
        counter = 0
        while True:
            await asyncio.sleep(0.1)
            counter += 1
            await self.on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Drain at a stop signal; uvicorn would raise it again afterwards."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.handle_exit)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop: from now on the server is not ready."""
        self._shared.app.stopping = True
        super().handle_exit(sig, frame)


def run(engine: Engine, door: Door, ready: Callable[[], None]) -> None:
    """Serve until a stop signal; ``ready`` is called when the server listens.

    Raises OSError where somebody else took the port meanwhile.
    """
    app = App(engine, door.keys)
    shared = Shared(app)
    tls: dict[str, Any] = {}
    if door.context is not None:
        tls = {"ssl_context_factory": lambda _config, _default: door.context}
    config = uvicorn.Config(
        no_asgi,
        http=bound(shared),
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        timeout_graceful_shutdown=engine.settings.grace,  # type: ignore[arg-type]
        backlog=2048,
        **tls,
    )
    engine.records.say(Lines())
    gc.freeze()  # what is there now stays: the collector need not look at it again and again
    if door.reloads:
        signal.signal(signal.SIGHUP, lambda *_: door.reload())
    rpc = None
    if engine.settings.grpc_port is not None:
        from .rpc import Rpc, routes

        engine.router.add(routes)
        rpc = Rpc(app.ask, engine.settings)
    try:
        Server(config, shared, ready, rpc).run([door.listener])
    finally:
        app.close()
        engine.close()


async def no_asgi(scope: object, receive: object, send: object) -> None:
    """Stand where uvicorn wants an application; our connections never call it."""

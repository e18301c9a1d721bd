"""The server as a process: binds, loads, says that it is ready, serves, drains."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from .door import Door
    from .models import Models
    from .options import Settings

OK: Final = 0
BROKEN_MODEL: Final = 2
NO_PORT: Final = 3


def serve(settings: Settings) -> int:
    """Serve model folders until a stop signal, and return the exit code of the process.

    0 after a drained stop, 2 for a folder or settings that cannot be used, 3 for a port that cannot be had.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        # Before the server is up there is nothing to drain. Process 1 of a container ignores what it does not handle;
        # and an exception would not do, because it may strike in the import of an extension, which makes another of it.
        signal.signal(number, lambda *_: os._exit(OK))
    from .door import BadSettings, Door, NoPort
    from .options import Unusable

    try:
        door = Door(settings)
        if settings.grpc_port is not None:
            from .rpc_port import reserve

            _held = reserve(settings)  # as long as the server runs
        if settings.workers > 1:
            from .workers import serve_many

            return serve_many(settings, door)
        from .models import Models

        models = Models.of_settings(settings)
        return work(settings, door, models, lambda: say_ready(models, door))
    except (BadSettings, Unusable) as error:
        return fail(BROKEN_MODEL, str(error))
    except NoPort as error:
        return fail(NO_PORT, str(error))


def work(settings: Settings, door: Door, models: Models, ready: Callable[[], None]) -> int:
    """Load the models if they are not, serve them until a stop signal, and return the exit code.

    Raises ``NoPort`` where someone else listened first on the port that was bound before the models were loaded.
    """
    from .manifest import BrokenModel

    try:
        if not models.snapshot.endpoints:
            models.load_all()
    except BrokenModel as error:
        return fail(BROKEN_MODEL, str(error))
    from .engine import Engine
    from .loop import run
    from .options import Unusable

    try:
        engine = Engine(models, settings)
    except Unusable as error:
        return fail(BROKEN_MODEL, str(error))
    try:
        run(engine, door, ready)
    except OSError as error:
        raise door.taken(error) from error
    _leave()
    return OK


def _leave() -> None:
    """End now if a thread is still at work when the time for that is over; Python would wait for it."""
    if any(not thread.daemon and thread is not threading.main_thread() for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(OK)


def say_ready(models: Models, door: Door) -> None:
    """Print what is served, and where."""
    served = ", ".join(f"{name}/{version}" for name, version, state, _ in models.snapshot.states if state == "READY")
    where = door.url
    if door.settings.grpc_port is not None:
        from .rpc_port import address

        where = f"grpc://{address(door.settings)} and on {where}"
    print(f"modelrel serving {served} on {where}", file=sys.stderr, flush=True)


def fail(code: int, message: str) -> int:
    """Print why the server cannot be, and return the exit code."""
    print(f"modelrel serving: {message}", file=sys.stderr, flush=True)
    return code

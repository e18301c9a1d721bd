"""Several processes behind one listening socket: a small parent that starts them, starts them again and stops them.

The models are loaded before the processes are made where that is safe: what a process does not change, such as the
weights, is then in memory once for all of them. It is safe for onnxruntime with one thread, which has no threads of
its own that a copy of the process would lack.
"""

from __future__ import annotations

import contextlib
import gc
import os
import selectors
import signal
import socket
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Final, NoReturn

from .manifest import BrokenModel
from .process import BROKEN_MODEL, OK, fail, say_ready, work
from .shared_models import SharedModels

if TYPE_CHECKING:
    from .door import Door
    from .options import Settings

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 30.0
STEADY_S: Final = 60.0
"""A worker that has lived so long is started again without a pause when it dies."""

CUT_S: Final = 5.0
"""What a worker gets on top of the grace before it is killed."""

_SHORT_PATH: Final = 60  # the address of a Unix socket has 104 bytes on some systems


def serve_many(settings: Settings, door: Door) -> int:
    """Serve by several processes until a stop signal, and return the exit code.

    The codes are those of ``process.serve``; what keeps the first processes from starting ends them all.
    """
    from . import engine, loop  # noqa: F401 - what is imported before the processes are made is in memory once

    with tempfile.TemporaryDirectory(prefix="modelrel-", dir=_short(), ignore_cleanup_errors=True) as shared:
        settings.shared = shared
        models = SharedModels.of_settings(settings)
        try:
            if models.survives_a_fork:
                models.load_all()
        except BrokenModel as error:
            return fail(BROKEN_MODEL, str(error))
        return Parent(settings, door, models).run()


def _short() -> str:
    """Return a folder for temporary files whose path is short enough for the address of a Unix socket."""
    folder = tempfile.gettempdir()
    return folder if len(folder) < _SHORT_PATH else "/tmp"  # noqa: S108 - the folder made there is this user's alone


class Worker:
    """One process: its number, and the pipe by which it says that it is ready."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.pid = 0
        self.began = 0.0
        self.pause_s = 0.0
        self.start_at = 0.0
        self.pipe: int | None = None
        self.ready = False


class Parent:
    """The process that makes the others."""

    def __init__(self, settings: Settings, door: Door, models: SharedModels) -> None:
        self._settings = settings
        self._door = door
        self._models = models
        self._workers = [Worker(number) for number in range(settings.workers)]
        self._said_ready = False
        self._code: int | None = None  # of the exit, once it is known that there will be one
        self._kill_at = float("inf")
        self._selector = selectors.DefaultSelector()
        # A worker ends when its parent does, however that happens: then this pipe closes.
        self._alive, self._alive_end = os.pipe()

    def run(self) -> int:
        """Start the workers, keep them running, and return when all have ended."""
        waking, woken = socket.socketpair()
        for end in (waking, woken):
            end.setblocking(False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
        self._selector.register(waking, selectors.EVENT_READ)
        gc.collect()
        gc.freeze()  # the collector would write to every object, and so make each worker a copy of its own
        for worker in self._workers:
            self._start(worker)
        while self._code is None or any(worker.pid for worker in self._workers):
            for key, _ in self._selector.select(self._pause()):
                if key.fileobj is waking:
                    with contextlib.suppress(BlockingIOError):
                        for byte in waking.recv(4096):
                            self._signalled(byte)
                else:
                    self._heard(key.data)
            self._reap()
            self._due()
        signal.set_wakeup_fd(-1)
        return self._code

    def _start(self, worker: Worker) -> None:
        reading, writing = os.pipe()
        worker.began, worker.ready = time.monotonic(), False
        worker.pid = os.fork()
        if worker.pid == 0:
            os.close(reading)
            self._be(worker.number, writing)
        os.close(writing)
        worker.pipe = reading
        self._selector.register(reading, selectors.EVENT_READ, worker)

    def _be(self, number: int, pipe: int) -> NoReturn:
        """Be a worker. Never returns to what the parent was doing."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for name in (signal.SIGTERM, signal.SIGINT):
                signal.signal(name, lambda *_: os._exit(OK))
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._selector.close()
            os.close(self._alive_end)
            self._settings.worker = number
            self._models.join(self._settings)
            code = work(self._settings, self._door, self._models, lambda: _ready(pipe, self._alive))
        except BaseException as error:  # noqa: BLE001 - nothing may get from here into the parent's code
            print(f"modelrel serving: worker {number}: {error or type(error).__name__}", file=sys.stderr)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _signalled(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stop(OK)
        elif number == signal.SIGHUP and self._door.reloads:
            self._door.reload()  # for workers to come
            self._tell(signal.SIGHUP)

    def _heard(self, worker: Worker) -> None:
        """Note that a worker is ready, or that its pipe has closed."""
        assert worker.pipe is not None
        if os.read(worker.pipe, 16):
            worker.ready = True
        self._selector.unregister(worker.pipe)
        os.close(worker.pipe)
        worker.pipe = None
        if not self._said_ready and self._code is None and all(worker.ready for worker in self._workers):
            self._said_ready = True
            say_ready(self._models, self._door)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                for worker in self._workers:
                    if worker.pid == pid:
                        worker.pid = 0
                        self._ended(worker, os.waitstatus_to_exitcode(status))

    def _ended(self, worker: Worker, code: int) -> None:
        """Plan to start a worker again, unless none has ever been ready: then the reason is the same for all."""
        if self._code is not None:
            return
        if not self._said_ready and not worker.ready and code > 0:
            self._stop(code)
            return
        lived = time.monotonic() - worker.began
        worker.pause_s = (
            FIRST_PAUSE_S if lived > STEADY_S else min(max(worker.pause_s * 2, FIRST_PAUSE_S), LONGEST_PAUSE_S)
        )
        worker.start_at = time.monotonic() + worker.pause_s
        how = f"by signal {-code}" if code < 0 else f"with {code}"
        print(f"modelrel serving: worker {worker.number} ended {how}; it is started again", file=sys.stderr, flush=True)

    def _due(self) -> None:
        """Start what is to be started again, and kill what does not stop."""
        now = time.monotonic()
        if self._code is None:
            for worker in self._workers:
                if not worker.pid and now >= worker.start_at:
                    self._start(worker)
        elif now >= self._kill_at:
            self._tell(signal.SIGKILL)

    def _pause(self) -> float | None:
        """Return how long there is nothing to do but to listen; None is until something happens."""
        now = time.monotonic()
        if self._code is not None:
            return max(self._kill_at - now, 0.05)
        due = [worker.start_at - now for worker in self._workers if not worker.pid]
        return max(min(due), 0.0) if due else None

    def _stop(self, code: int) -> None:
        if self._code is None:
            self._code = code
            self._door.listener.close()
            self._kill_at = time.monotonic() + self._settings.grace + CUT_S
            self._tell(signal.SIGTERM)

    def _tell(self, number: int) -> None:
        for worker in self._workers:
            if worker.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, number)


def _ready(pipe: int, alive: int) -> None:
    """Tell the parent, and from now on end when it does."""
    import asyncio

    os.write(pipe, b"ready")
    os.close(pipe)
    asyncio.get_running_loop().add_reader(alive, _orphaned, alive)


def _orphaned(alive: int) -> None:
    import asyncio

    asyncio.get_running_loop().remove_reader(alive)
    os.kill(os.getpid(), signal.SIGTERM)

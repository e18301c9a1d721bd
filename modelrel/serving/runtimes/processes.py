"""Worker processes of one model: started, asked one request at a time, and started again whenever they end."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import site
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..answers import Refused
from . import worker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..tensors import Array

LOAD_S: Final = 600.0
"""How long a model may load."""

_LONGEST_PAUSE_S: Final = 60.0

_NAMES: Final = {int(number): number.name for number in signal.Signals}

_LATER: Final = {"retry-after": "1"}

_PASSED_ON: Final = (
    "PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "SSL_CERT_FILE", "SSL_CERT_DIR",
)  # fmt: skip
"""The only variables of the server that a model sees: others hold keys of the server and of the cloud."""


class ModelRaised(Exception):
    """The model raised on a request; the message is for the operator, ``kind`` the name of the class."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        super().__init__(str(said["error"]))
        self.kind = str(said.get("kind", ""))


class Start(NamedTuple):
    """How a worker is started: the interpreter, the folder for its files, its first message, threads for libraries.

    ``program`` is the module beside ``worker`` that computes, "" for ``worker`` itself. ``packages`` is the folder of
    packages that it sees, and no others, "" for those of the interpreter.
    """

    python: str
    home: Path
    asked: Mapping[str, Any]
    threads: int
    program: str = ""
    packages: str = ""


class _Process:
    """One worker process. Whoever makes it waits for its end: the kernel ends it with the thread that started it."""

    def __init__(self, start: Start) -> None:
        """Start it, without waiting. Raises ``OSError``."""
        self._lock = threading.Lock()
        self._channel, other = socket.socketpair()
        self._home = home = Path(tempfile.mkdtemp(dir=start.home))
        bare = ("-S", "-s") if start.packages else ()
        try:
            self._popen = subprocess.Popen(
                [start.python, *bare, worker.__file__, str(other.fileno()), str(os.getpid()), start.program],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what the model prints is for the operator
                cwd=home,
                env=_environment(home, start),
                pass_fds=(other.fileno(),),
                start_new_session=True,
            )
        except BaseException:
            self._channel.close()
            raise
        finally:
            other.close()
        self.pid = self._popen.pid
        self.busy = self.ended = False  # guarded by the lock of ``Processes``

    def load(self, asked: Mapping[str, Any]) -> None:
        """Wait until the model is loaded. Raises ``ModelRaised``, ``OSError``, ``EOFError``, ``ValueError``."""
        deadline = time.monotonic() + LOAD_S
        worker.send(self._channel, asked, {}, deadline)
        said, _ = worker.receive(self._channel, deadline)
        if "error" in said:
            raise ModelRaised(said)

    def ask(
        self, said: Mapping[str, Any], feeds: Mapping[str, Array], deadline: float | None
    ) -> tuple[Mapping[str, Any], Mapping[str, Array]]:
        """Send a request and wait for its answer; raises as ``worker.send`` and ``worker.receive`` do."""
        worker.send(self._channel, said, feeds, deadline)
        return worker.receive(self._channel, deadline)

    @property
    def gone(self) -> bool:
        """Whether it has closed its end, though nobody may have noticed yet."""
        poll = select.poll()
        poll.register(self._channel, 0)  # asks for nothing but what is always told: the other end is closed
        return bool(poll.poll(0))

    def kill(self) -> None:
        """Kill it and all that it started in its group, if it is still there."""
        with self._lock:
            if self._popen.returncode is None:
                os.killpg(self.pid, signal.SIGKILL)

    def end(self) -> str:
        """Wait until it has ended, kill what it left behind in its group, and say how it ended."""
        # Not reaped here: as long as it is not, its number, the group's too, cannot become another process's.
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with self._lock:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            code = self._popen.wait()
        # A process that left the group may still hold the other end; whoever reads here must not wait for it.
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)
        shutil.rmtree(self._home, ignore_errors=True)
        return f"signal {_NAMES.get(-code, -code)}" if code < 0 else f"exit code {code}"

    def close(self) -> None:
        """Close the channel where nobody will use it any more: its number may be another file's at once."""
        if self.ended and not self.busy:
            self._channel.close()


class Processes:
    """Some worker processes of one model. Safe from any thread; ``close`` ends them."""

    def __init__(self, start: Start, count: int, name: str) -> None:
        """Start ``count`` of them. ``name`` is the model's, for the operator."""
        self._start, self._name = start, name
        self._changed = threading.Condition()
        self._free: list[_Process] = []
        self._all: set[_Process] = set()
        self._up = 0
        self._failed: dict[int, str] = {}  # worker number -> why its last start failed, while it pauses
        self._closed = False
        self._threads = [
            threading.Thread(target=self._keep, args=(number,), name=f"{name} worker {number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def ready(self) -> bool:
        """Whether a process has the model loaded, be it busy or not."""
        return self._up > 0

    @property
    def pids(self) -> list[int]:
        """The numbers of the processes that run."""
        with self._changed:
            return sorted(process.pid for process in self._all)

    def wait(self) -> str:
        """Wait until the first process has loaded the model, or all have failed; return why, or ""."""
        with self._changed:
            self._changed.wait_for(lambda: self._up or len(self._failed) == len(self._threads) or self._closed)
            return "" if self._up else next(iter(self._failed.values()), "it was closed")

    def ask(self, said: Mapping[str, Any], feeds: Mapping[str, Array], seconds: float) -> Mapping[str, Array]:
        """Have a free process compute a request within some seconds (0: any time); it waits for one.

        Raises ``Refused``: 503 where the process ended while it computed, or none can be had; 504 where time is over.
        ``ModelRaised`` where the model raised; ``ValueError`` where its process answered nonsense.
        """
        deadline = time.monotonic() + seconds if seconds else None
        process = self._taken(deadline)
        answered = False
        try:
            reply, arrays = process.ask(said, feeds, deadline)
            answered = True
        except TimeoutError as error:
            raise Refused(504, f"the model took longer than {seconds:g} seconds") from error
        except (EOFError, OSError) as error:
            raise Refused(503, "the model's process ended while it computed this request", _LATER) from error
        finally:
            self._given_back(process, usable=answered)
        if "error" in reply:
            raise ModelRaised(reply)
        return arrays

    def close(self) -> None:
        """End all processes, and return when they are gone."""
        with self._changed:
            self._closed = True
            running = list(self._all)
            self._changed.notify_all()
        for process in running:
            process.kill()
        for thread in self._threads:
            thread.join()

    def _taken(self, deadline: float | None) -> _Process:
        with self._changed:
            while True:
                while self._free:
                    process = self._free.pop()
                    if not process.gone:
                        process.busy = True
                        return process
                left = None if deadline is None else deadline - time.monotonic()
                late = left is not None and left <= 0
                if late and self._up:
                    raise Refused(504, "the model is busy; no process of it was free in time")
                if late or self._closed or self._hopeless():
                    raise Refused(503, "the model is not there now; its process is being started again", _LATER)
                self._changed.wait(left)

    def _hopeless(self) -> bool:
        """Whether there is nothing to wait for: no process is there, and the last tries to start one failed."""
        return not self._up and len(self._failed) == len(self._threads)

    def _given_back(self, process: _Process, *, usable: bool) -> None:
        if not usable:  # what it would still say is the answer to a request that is over
            process.kill()
        with self._changed:
            process.busy = False
            process.close()
            if usable and process in self._all:
                self._free.append(process)
                self._changed.notify()

    def _keep(self, number: int) -> None:
        """Keep one process running until ``close``: start it again at once, but after some time if it cannot load."""
        pause = 0.0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed, pause)
                if self._closed:
                    return
            failed = self._lived(number)
            pause = min(max(2 * pause, 1.0), _LONGEST_PAUSE_S) if failed else 0.0

    def _lived(self, number: int) -> bool:
        """Run one process from its start to its end; return whether it failed to load."""
        try:
            process = _Process(self._start)
        except OSError as error:
            self._note(number, f"{self._start.python} does not start: {error.strerror}")
            return True
        with self._changed:
            self._all.add(process)
            closed = self._closed
        if closed:
            process.kill()
        why = ""
        try:
            process.load(self._start.asked)
        except ModelRaised as error:
            why = str(error)
        except TimeoutError:
            why = f"it loads longer than {LOAD_S:g} seconds"
        except (EOFError, OSError):
            why = "its process ended"
        except (ValueError, MemoryError):
            why = "its process answers nonsense"
        if why:
            process.kill()
        else:
            with self._changed:
                self._up += 1
                self._failed.pop(number, None)
                self._free.append(process)
                self._changed.notify_all()
        ended = process.end()
        with self._changed:
            self._all.discard(process)
            process.ended = True
            process.close()
            if process in self._free:
                self._free.remove(process)
            if not why:
                self._up -= 1
            self._changed.notify_all()
            if not self._closed:
                print(f"modelrel serving: a process of {self._name} ended ({ended})", file=sys.stderr, flush=True)
        if why:
            self._note(number, f"{why} ({ended})" if why == "its process ended" else why)
        return bool(why)

    def _note(self, number: int, why: str) -> None:
        with self._changed:
            self._failed[number] = why
            self._changed.notify_all()


def _environment(home: Path, start: Start) -> dict[str, str]:
    """Return the variables of a worker: few of the server's, and a home of its own."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    if start.packages:
        kept["PYTHONPATH"] = start.packages
    elif start.python == sys.executable and "PYTHONPATH" in os.environ:
        kept["PYTHONPATH"] = os.environ["PYTHONPATH"]  # its own libraries may lie there
    private = {name: str(home) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "MPLCONFIGDIR")}
    threads = {"OMP_NUM_THREADS": str(start.threads)}
    # HOME is private, so the user's own site-packages are named apart.
    fixed = {"PYTHONSAFEPATH": "1", "PYTHONUTF8": "1", "PYTHONUSERBASE": site.getuserbase(), "PYTHONUNBUFFERED": "1"}
    fixed |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "true"}
    return {**threads, **kept, **private, **fixed, "ORT_DISABLE_TELEMETRY": "1"}

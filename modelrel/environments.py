"""Where a model's own code runs: a worker process with limits, a private home and no credentials."""

from __future__ import annotations

import json
import logging
import os
import secrets
import select
import shutil
import signal
import site
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from zipfile import BadZipFile

from modelrel import tensors
from modelrel.errors import Invalid, ModelrelError, Refused, Unavailable, by_kind
from modelrel.tensors import Array, Tensors
from modelrel.values import SourceModel

_LOG = logging.getLogger("modelrel.worker")
"""What models and converters print, line by line, at level DEBUG."""

_PASSED_ON: Final = (
    "PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "CUDA_VISIBLE_DEVICES",
)  # fmt: skip
"""The only variables of this process that a model sees: a list of names to strip would always be too short."""

_LOG_BYTES: Final = 64 * 1024
_REPLY_BYTES: Final = 64 * 1024 * 1024
_POLL_S: Final = 0.05
_MEMORY_SHARE: Final = 0.8
_DOING: Final = {"load": "loading", "convert": "converting", "predict": "predicting", "knots": "predicting"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a worker may use: wall seconds per request, resident bytes (0: 80 % of this machine's memory)."""

    seconds: float = 600.0
    memory_bytes: int = 0

    @property
    def memory(self) -> int:
        """The limit in bytes."""
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return self.memory_bytes or int(machine * _MEMORY_SHARE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the worker answered: plain JSON data, and arrays by name."""

    value: Mapping[str, Any]
    arrays: Mapping[str, Array] = field(default_factory=dict)


def _environment(home: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    # Another interpreter must find modelrel, and nothing else that is installed beside it.
    shown = home / ".modelrel"
    shown.mkdir(exist_ok=True)
    (shown / "modelrel").symlink_to(Path(__file__).resolve().parent, target_is_directory=True)
    private = {name: str(home) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "MPLCONFIGDIR")}
    # HOME is private, so the user's own site-packages are named apart; a fixed hash seed gives stable bytes.
    # Safe path: neither the worker's folder nor the model's can put a module in front of a library.
    fixed = {"PYTHONPATH": str(shown), "PYTHONSAFEPATH": "1"}
    fixed |= {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "ORT_DISABLE_TELEMETRY": "1"}
    return {**kept, **private, **fixed, "PYTHONUSERBASE": site.getuserbase()}


def _family(pid: int) -> list[int]:
    """Return `pid` and the processes below it, as far as /proc tells."""
    found = [pid]
    for parent in found:
        try:
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
        except (OSError, ValueError):
            continue
    return found


def _resident(pid: int) -> int:
    """Return the resident bytes of a process and those below it (0 where /proc does not tell)."""
    pages = 0
    for member in _family(pid):
        try:
            pages += int(Path(f"/proc/{member}/statm").read_text().split()[1])
        except (OSError, ValueError, IndexError):
            continue
    return pages * os.sysconf("SC_PAGE_SIZE")


class Worker:
    """One process (`python -m modelrel.worker`) that loads one model and works on it until it is closed.

    The process starts with `start()` or with the first `call()`, and its model is loading from then on. Use it as
    a context manager: leaving it kills the process and everything the model started in its group.
    """

    def __init__(self, source: SourceModel, limits: Limits = Limits(), python: str = "") -> None:
        """Remember what to load; nothing runs yet. `python` is the interpreter (default: this one)."""
        self._model = {
            "flavor": source.flavor,
            "model_dir": str(source.model_dir.resolve()),
            "signature": asdict(source.signature) if source.signature else None,
            "example": source.input_example,
        }
        self._limits = limits
        self._python = python or sys.executable
        self._home: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._started = threading.Event()
        self._log = bytearray()
        self._pending = b""
        self._count = 0
        self._loading: float | None = None

    def __enter__(self) -> Self:
        """Return the worker itself; it starts when it is first needed."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill the process and delete its folder."""
        self.close()

    def start(self) -> Self:
        """Start the process and its loading, without waiting for either."""
        if self._process is not None:
            return self
        # named before it is there: whoever is interrupted in between can still delete it
        self._home = Path(tempfile.gettempdir(), f"modelrel-worker-{secrets.token_hex(8)}")
        self._home.mkdir(mode=0o700)
        failed: list[OSError] = []
        # The thread that starts the worker lives as long as it: the kernel sends the parent-death signal that
        # the worker asks for when the *thread* that forked it ends.
        self._reader = threading.Thread(target=self._run, args=(self._started, failed), daemon=True)
        self._reader.start()
        self._started.wait()
        if failed:
            raise Unavailable(f"the worker process does not start: {failed[0]}", "Check this Python installation.")
        self._loading = time.monotonic()
        self._send({"action": "load", **self._model})
        return self

    def call(self, action: str, arrays: Tensors | None = None, **fields: object) -> Reply:
        """Send one request and return its answer; `arrays` travel beside it.

        Raises what the worker reported (`Invalid`, `Unavailable`, `Refused`), and `Refused` where it died, was
        out of time or memory, or answered nonsense.
        """
        self.start()
        if self._loading is not None:
            since, self._loading = self._loading, None
            self._receive("load", since + self._limits.seconds)
        self._count += 1
        given = self._folder / f"request-{self._count}.npz"
        taken = self._folder / f"reply-{self._count}.npz"
        request: dict[str, object] = {"action": action, "reply": str(taken), **fields}
        if arrays is not None:
            tensors.save(arrays, given)
            request["arrays"] = str(given)
        self._send(request)
        value = self._receive(action, time.monotonic() + self._limits.seconds)
        try:
            answered = tensors.load(taken) if taken.exists() else {}
        except (ValueError, OSError, KeyError, EOFError, BadZipFile) as error:
            raise self._nonsense(action) from error
        finally:
            given.unlink(missing_ok=True)
            taken.unlink(missing_ok=True)
        return Reply(value=value, arrays=answered)

    def log_tail(self, lines: int = 20) -> str:
        """Return the last lines that the model and the libraries printed."""
        text = bytes(self._log).decode(errors="replace").rstrip()
        return "\n".join(text.splitlines()[-lines:])

    def close(self) -> None:
        """Kill the process group, and delete the worker's folder."""
        if self._reader is not None and self._reader.is_alive():
            self._started.wait()  # whoever was interrupted while it started would leave what comes after
        if self._process is not None:
            self._kill()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    try:
                        stream.close()
                    except OSError:
                        continue  # what was buffered for a dead worker has no reader any more
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)

    @property
    def _folder(self) -> Path:
        assert self._home is not None
        return self._home

    def _run(self, started: threading.Event, failed: list[OSError]) -> None:
        """Start the process, keep the tail of what it prints, and reap it."""
        try:
            process = subprocess.Popen(
                [self._python, "-m", "modelrel.worker", str(self._limits.memory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=self._folder,
                env=_environment(self._folder),
                start_new_session=True,
            )
        except OSError as error:
            failed.append(error)
            started.set()
            return
        self._process = process
        started.set()
        assert process.stderr is not None
        with process.stderr as stream:
            while chunk := os.read(stream.fileno(), 65536):
                self._log += chunk
                del self._log[:-_LOG_BYTES]
                if _LOG.isEnabledFor(logging.DEBUG):
                    _LOG.debug("%s", chunk.decode(errors="replace").rstrip())
        # Not reaped here: as long as it is not, its number (the group's too) cannot become another process's.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

    def _send(self, request: Mapping[str, object]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return  # it is dead: waiting for its answer says how it died

    def _receive(self, action: str, deadline: float) -> Mapping[str, Any]:
        """Wait for one reply, watching time and memory."""
        assert self._process is not None
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        while b"\n" not in self._pending:
            if select.select([pipe], [], [], _POLL_S)[0]:
                chunk = os.read(pipe, 65536)
                if not chunk or len(self._pending) > _REPLY_BYTES:
                    raise self._died(action) if not chunk else self._nonsense(action)
                self._pending += chunk
            elif time.monotonic() > deadline:
                self._kill()
                raise Refused(
                    f"{_DOING.get(action, action)} the model took longer than {self._limits.seconds:g} seconds",
                    "Give it more time, or look with -v at what it does.",
                )
            else:
                self._watch_memory(action)
        line, _, self._pending = self._pending.partition(b"\n")
        try:
            reply = json.loads(line)
            outcome, value = reply["outcome"], dict(reply["value"])
        except (ValueError, KeyError, TypeError) as error:
            raise self._nonsense(action) from error
        if outcome == "done":
            return value
        raise self._reported(value)

    def _reported(self, value: Mapping[str, Any]) -> ModelrelError:
        kind, message, hint = (str(value.get(name, "")) for name in ("kind", "message", "hint"))
        return by_kind(kind, message, hint)

    def _watch_memory(self, action: str) -> None:
        assert self._process is not None
        used = _resident(self._process.pid)
        if used > self._limits.memory:
            self._kill()
            raise Refused(
                f"{_DOING.get(action, action)} the model used {used / 2**20:.0f} MiB of memory, more than the limit "
                f"of {self._limits.memory / 2**20:.0f} MiB",
                "Raise the memory limit, or release a smaller model.",
            )

    def _kill(self) -> int:
        """Kill the whole group, reap the worker, and return its exit code (negative: the signal)."""
        assert self._process is not None
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            if self._reader is not None:
                self._reader.join(timeout=2)
        return self._process.wait()

    def _nonsense(self, action: str) -> ModelrelError:
        self._kill()
        return Invalid(
            f"the worker's answer while {_DOING.get(action, action)} the model is not what was asked for",
            "The model writes to the worker's own channel; do not release it.",
        )

    def _died(self, action: str) -> ModelrelError:
        """Say how the worker ended, and what it printed last."""
        assert self._process is not None
        assert self._reader is not None
        self._reader.join(timeout=2)  # it ends with the process; one that only closed its channel is killed now
        code = self._kill()
        ending = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        last = self.log_tail(1).strip()[:300]
        said = f"; the last line it printed: {last}" if last else ""
        return Refused(
            f"{_DOING.get(action, action)} the model ended its process ({ending}){said}",
            "Load the model by hand to see why; -v shows all it printed.",
        )

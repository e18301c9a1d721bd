"""The models of one of several processes: what one of them loads or unloads, all of them do, before it is answered."""

from __future__ import annotations

import fcntl
import json
import logging
import socket
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .manifest import BrokenModel, read_manifest
from .models import Models

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .options import Settings

_log: Final = logging.getLogger("modelrel.serving")

WAIT_S: Final = 120.0
"""How long a process may take to load what another has loaded; after that it is left behind, and the log says so."""

_ONE_THREAD: Final = frozenset({"onnx"})
"""Formats whose loaded models have no threads and no processes of their own if they are to compute with one thread."""


class SharedModels(Models):
    """``Models`` of a process among others. Until ``join`` it is one without others.

    What was done is kept in the shared folder, for processes that are started later. ``load`` and ``unload`` hold a
    lock on a file there: all processes see all changes in the same order.
    """

    _shared: Path | None = None
    _worker = 0
    _workers = 1

    @property
    def survives_a_fork(self) -> bool:
        """Whether the models may be loaded before the process is copied."""
        if self._threads not in {None, 1}:
            return False
        for folder in self._folders():
            with suppress(BrokenModel):
                if read_manifest(folder).format not in _ONE_THREAD:
                    return False
        return True

    def join(self, settings: Settings) -> None:
        """Become the models of worker ``settings.worker``: do what was done before, and listen for what others do."""
        assert settings.shared is not None
        self._shared, self._worker, self._workers = Path(settings.shared), settings.worker, settings.workers
        path = self._socket(self._worker)
        with self._locked(self._shared):
            path.unlink(missing_ok=True)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(str(path))
            listener.listen(self._workers)
            done = self._done()
            if done and not self.snapshot.endpoints:
                self.load_all()
            for name, verb in done.items():
                with suppress(KeyError, BrokenModel):
                    self._do(verb, name)
        threading.Thread(target=self._listen, args=(listener,), name="models", daemon=True).start()

    def load(self, name: str) -> None:
        """Load a name in every process. Raises as ``Models.load``, also where another process could not."""
        self._everywhere("load", name)

    def unload(self, name: str) -> None:
        """Unload a name in every process. Raises as ``Models.unload``."""
        self._everywhere("unload", name)

    def _do(self, verb: str, name: str) -> None:
        if verb == "load":
            super().load(name)
        else:
            super().unload(name)

    def _everywhere(self, verb: str, name: str) -> None:
        if self._shared is None:
            self._do(verb, name)
            return
        with self._locked(self._shared):
            broken = []
            try:
                self._do(verb, name)
            except BrokenModel as error:  # the versions that are not broken were loaded
                broken.append(str(error))
            done = self._done() | {name: verb}
            fresh = self._shared / "done.new"
            fresh.write_text(json.dumps(done))
            fresh.replace(self._shared / "done.json")
            broken += self._others(verb, name)
        if broken:
            raise BrokenModel("; ".join(dict.fromkeys(broken)))

    def _others(self, verb: str, name: str) -> list[str]:
        """Have the other processes do the same, all at once; return what they could not."""
        asked = []
        for worker in range(self._workers):
            if worker != self._worker:
                peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                peer.settimeout(WAIT_S)
                try:
                    peer.connect(str(self._socket(worker)))
                    peer.sendall(json.dumps([verb, name]).encode() + b"\n")
                    asked.append((worker, peer))
                except OSError:  # not running: when it is started again, it does what was done
                    peer.close()
        broken = []
        for worker, peer in asked:
            with peer, peer.makefile("rb") as replies:
                try:
                    line = replies.readline()
                    if line and (reason := json.loads(line)):
                        broken.append(reason)
                except OSError:
                    _log.error("worker %d does not %s %r in time", worker, verb, name)
        return broken

    def _listen(self, listener: socket.socket) -> None:
        """Do what other processes ask for, on a thread of its own."""
        while True:
            peer, _ = listener.accept()
            with peer, peer.makefile("rb") as asked, suppress(OSError, ValueError):
                verb, name = json.loads(asked.readline())
                reason = ""
                try:
                    self._do(verb, name)
                except KeyError:
                    pass  # unloaded already
                except BrokenModel as error:
                    reason = str(error)
                peer.sendall(json.dumps(reason).encode() + b"\n")

    def _done(self) -> dict[str, str]:
        """Return the last thing that was done to each name."""
        assert self._shared is not None
        try:
            done: dict[str, str] = json.loads((self._shared / "done.json").read_text())
        except FileNotFoundError:
            done = {}
        return done

    def _socket(self, worker: int) -> Path:
        assert self._shared is not None
        return self._shared / f"{worker}.sock"

    @staticmethod
    @contextmanager
    def _locked(folder: Path) -> Iterator[None]:
        with (folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

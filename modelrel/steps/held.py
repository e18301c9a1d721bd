"""The release folder, held by one modelrel at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from modelrel import archive


@contextmanager
def locked(folder: Path, note: Callable[[str], None]) -> Iterator[None]:
    """Hold the release folder: one modelrel at a time works in it; others wait. The kernel frees it at any death.

    Clears away what a killed run left unfinished. A folder that is still empty at the end is removed.
    """
    with archive.translated(folder):
        made = [path for path in (folder.parent, folder) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note(f"waiting for another modelrel that works in {folder}")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        archive.sweep(folder)
        yield
    finally:
        for path in reversed(made):
            with suppress(OSError):
                path.rmdir()
        os.close(descriptor)

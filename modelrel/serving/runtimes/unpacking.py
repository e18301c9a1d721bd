"""A zip of a model, unpacked once into a private folder that is gone when the server is."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import Final

from ..manifest import BrokenModel

DESCRIPTION: Final = "modelrel-origin.json"
"""The entry that says how the model is run; all others are below ``model/``."""

_FOLDER: Final = "model/"
_PREFIX: Final = "modelrel-serving-"
_LOCK: Final = "lock"
_MOST_FILES: Final = 100_000
_MOST_BYTES: Final = 64 * 2**30
_MOST_SAID: Final = 2**24  # bytes of the description
_TIMES: Final = 2000  # how many times smaller than its content an entry may be: deflate does 1032 at most


class Place:
    """A private folder, locked for as long as this process lives, so that others know when nobody needs it."""

    def __init__(self) -> None:
        """Make it, and delete those that servers left behind which were killed. Raises ``OSError``."""
        _sweep()
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
            self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            if (self.path / _LOCK).exists():
                return
            os.close(self._lock)  # swept by another server just before it was locked

    def remove(self) -> None:
        """Delete it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _sweep() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            if folder.lstat().st_uid != os.getuid():
                continue
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            continue
        finally:
            os.close(lock)


def unpack(path: Path, folder: Path) -> bytes:
    """Unpack a zip into ``folder``, and nowhere else, and return its description. Raises ``BrokenModel``."""
    try:
        with zipfile.ZipFile(path) as packed:
            _check(packed)
            for entry in packed.infolist():
                target = folder / entry.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with packed.open(entry) as stream, target.open("xb") as file:
                    shutil.copyfileobj(stream, file)
        return (folder / DESCRIPTION).read_bytes()
    except OSError as error:
        raise BrokenModel(f"{path} cannot be unpacked: {error.strerror or error}") from error
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise BrokenModel(f"{path} is no zip of a model: {error}") from error
    except Exception as error:  # zlib.error and its like, which have no common class
        raise BrokenModel(f"{path} is damaged: {error}") from error


def _check(packed: zipfile.ZipFile) -> None:
    """Raise ``ValueError`` for entries that leave the folder, stand twice, are no files, or claim too large a size."""
    entries = packed.infolist()
    names = {entry.filename for entry in entries}
    size = sum(entry.file_size for entry in entries)
    if len(names) != len(entries) or len(entries) > _MOST_FILES or size > _MOST_BYTES:
        raise ValueError(f"it holds {len(entries)} entries, {len(names)} names, {size} bytes")
    if not {DESCRIPTION, f"{_FOLDER}MLmodel"} <= names:
        raise ValueError(f"it has no {DESCRIPTION}, or no {_FOLDER}MLmodel")
    for entry in entries:
        name = entry.filename
        parts = PurePosixPath(name).parts
        kind = stat.S_IFMT(entry.external_attr >> 16)
        inside = name == DESCRIPTION or (name.startswith(_FOLDER) and len(parts) > 1)
        odd = ".." in parts or "\\" in name or ":" in parts[0] or any(ord(char) < 32 for char in name)
        if not inside or odd or entry.is_dir() or kind not in (0, stat.S_IFREG):
            raise ValueError(f"it holds {name!r}, which is no file of a model")
        if entry.file_size > _TIMES * max(entry.compress_size, 1):
            raise ValueError(f"it holds {name!r}, {entry.compress_size} bytes that claim to be {entry.file_size}")
        if name == DESCRIPTION and entry.file_size > _MOST_SAID:
            raise ValueError(f"it says in {entry.file_size} bytes how its model is run")

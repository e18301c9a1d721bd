"""Digests of files that were written once and are read by every release: unpacked wheels, and our own server.

A file is read again only where it may have changed since: where its place on the disk (inode), size, or times are
others than when it was read. Of the times, `ctime` is what no program can set back, so that also a file which was
changed and given its old date is read again. What only this folder vouches for must not be verified by it: records and
the files that they name are read each time (`records.changed`).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from modelrel import archive
from modelrel.errors import Unavailable

_SETTLED_NS: Final = 2_000_000_000
"""A file that was touched less than this before it was read may be written again within the same tick of its clock."""

Seen = list[int | str]
"""Device, inode, size, mtime, ctime (nanoseconds) of a file when it was read, and its sha256 (hex)."""


def of(paths: Iterable[Path], kept: Path) -> Mapping[Path, str]:
    """Return the sha256 (hex) of each file; `kept` is the file that remembers them from one run to the next."""
    known = _read(kept)
    found: dict[str, Seen] = {}
    wanted = {path: os.fspath(path) for path in paths}
    for path, name in wanted.items():
        seen = known.get(name)
        state = _state(name)
        found[name] = seen if seen is not None and seen[:-1] == state else [*state, archive.sha256(path)]
    now = time.time_ns()
    settled = {name: seen for name, seen in found.items() if int(seen[4]) < now - _SETTLED_NS}
    if settled != known:
        with suppress(Unavailable):  # a cache that cannot be written to is read all the same
            archive.write(kept, json.dumps(settled).encode())
    return {path: str(found[name][-1]) for path, name in wanted.items()}


def _state(name: str) -> Seen:
    info = os.stat(name)  # noqa: PTH116  # of a thousand files, by name
    return [info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns]


def _read(kept: Path) -> dict[str, Seen]:
    try:
        found = json.loads(kept.read_bytes())
    except (OSError, ValueError):
        return {}
    fits = isinstance(found, dict) and all(isinstance(seen, list) and len(seen) == 6 for seen in found.values())
    return found if fits else {}

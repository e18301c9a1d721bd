"""Why two files that should have the same bytes do not: the first member, line or byte where they part."""

from __future__ import annotations

import hashlib
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import IO, Final

_PIECE: Final = 2**20
_LINE: Final = 120

Members = Iterator[tuple[str, str]]
"""Name of a member -> what there is to say of it: digest, size, mode, date."""


def explain(recorded: Path, again: Path) -> str:
    """Return in half a line where two files differ: "" where they do not."""
    if not recorded.is_file() or not again.is_file():
        return "there is none now" if recorded.is_file() else "there was none before"
    offset = _first_byte(recorded, again)
    if offset < 0:
        return ""
    sizes = f"{recorded.stat().st_size:,} and {again.stat().st_size:,} bytes"
    for members in (_zipped, _tarred):
        if found := _first_member(recorded, again, members):
            return f"{found} ({sizes})"
    return f"{_first_line(recorded, again, offset) or f'from byte {offset:,} on'} ({sizes})"


def _first_byte(one: Path, other: Path) -> int:
    """Return where two files differ first, -1 where they do not."""
    at = 0
    with one.open("rb") as first, other.open("rb") as second:
        while True:
            here, there = first.read(_PIECE), second.read(_PIECE)
            if here != there:
                same = next((i for i, (a, b) in enumerate(zip(here, there, strict=False)) if a != b), None)
                return at + (min(len(here), len(there)) if same is None else same)
            if not here:
                return -1
            at += len(here)


def _first_member(one: Path, other: Path, members: Callable[[Path], Members]) -> str:
    try:
        for here, there in zip_longest(members(one), members(other), fillvalue=("", "")):
            if here[0] != there[0]:
                return f"{here[0] or 'nothing'} stood where {there[0] or 'nothing'} is now"
            if here[1] != there[1]:
                return f"{here[0]} was {here[1]}, is {there[1]}"
    except (zipfile.BadZipFile, tarfile.TarError, OSError, EOFError, NotImplementedError, RuntimeError):
        return ""
    return ""


def _zipped(path: Path) -> Members:
    with zipfile.ZipFile(path) as packed:
        for entry in packed.infolist():
            with packed.open(entry) as stream:
                digest = _digest(stream)
            date = "-".join(f"{part:02}" for part in entry.date_time[:3])
            mode = f"mode {entry.external_attr >> 16:o}"
            yield (
                entry.filename,
                f"{digest}, {entry.file_size:,} bytes ({entry.compress_size:,} packed), {mode}, {date}",
            )


def _tarred(path: Path) -> Members:
    with tarfile.open(path, "r:*") as packed:
        for entry in packed:
            stream = packed.extractfile(entry) if entry.isfile() else None
            digest = _digest(stream) if stream else entry.type.decode()
            said = f"mode {entry.mode:o}, {entry.uid}:{entry.gid}, time {entry.mtime:g}"
            yield entry.name, f"{digest}, {entry.size:,} bytes, {said}{f', to {entry.linkname}' * bool(entry.linkname)}"


def _digest(stream: IO[bytes]) -> str:
    """Return the start of a sha256, enough to tell two members apart for a reader."""
    found = hashlib.sha256()
    while piece := stream.read(_PIECE):
        found.update(piece)
    return found.hexdigest()[:12]


def _first_line(one: Path, other: Path, offset: int) -> str:
    """Return the first line that differs, of two texts."""
    found = []
    for path in (one, other):
        with path.open("rb") as stream:
            before = stream.read(offset)
            start = before.rfind(b"\n") + 1
            line = (before[start:] + stream.read(4 * _LINE)).partition(b"\n")[0]
        if b"\0" in before or b"\0" in line:
            return ""
        found.append((before.count(b"\n") + 1, line.decode(errors="replace")[:_LINE]))
    (number, here), (_, there) = found
    return f"line {number} was {here!r}, is {there!r}"

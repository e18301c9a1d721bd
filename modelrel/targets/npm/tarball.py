"""A tarball as `npm pack` writes it: `package/`, one date, plain modes, its order of names, nobody's user number."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from modelrel import archive
from modelrel.errors import Invalid, Refused

TOP: Final = "package/"
_BLOCK: Final = 512
_LONGEST: Final = 100
_DATED: Final = 499_162_500
"""1985-10-26 08:15:00 UTC: what npm says of every file (pacote, `lib/util/tar-create-options.js`)."""


def write(path: Path, files: Mapping[str, Path]) -> None:
    """Write name -> file; the bytes of the tar inside are those of `npm pack` 11 over the same files.

    Format: POSIX ustar as node-tar writes it with `portable`. Raises `Invalid` for a name that it cannot hold.
    """
    with archive.translated(path):
        stream = io.BytesIO()
        for name in sorted(files, key=_order):
            content = files[name].read_bytes()
            stream.write(_head(f"{TOP}{name}", len(content)))
            stream.write(content + bytes(-len(content) % _BLOCK))
        stream.write(bytes(2 * _BLOCK))
        path.write_bytes(gzip.compress(stream.getvalue(), 9, mtime=0))
        path.chmod(0o644)


def _order(name: str) -> tuple[str, str, str]:
    """Return npm's order: by suffix, then by file name, then by folder (npm-packlist, `lib/index.js`)."""
    pure = PurePosixPath(name)
    return pure.suffix.lower(), pure.name.lower(), name.lower()


def _head(name: str, size: int) -> bytes:
    plain = name.encode()
    if len(plain) > _LONGEST or not name.isascii():
        raise Invalid(
            f"the file name {name!r} has no place in a tarball of npm",
            f"Give templates names of ASCII letters, with at most {_LONGEST} characters.",
        )
    fields = (
        plain.ljust(_LONGEST, b"\0"),
        b"000644 \0",
        bytes(16),  # no user and no group
        b"%010o \0" % size,
        b"%010o \0" % _DATED,
        b" " * 8,  # the sum is taken with spaces in its place
        b"0" + bytes(100) + b"ustar\x0000" + bytes(64),
        b"000000 \0" * 2,
    )
    head = b"".join(fields).ljust(_BLOCK, b"\0")
    return head[:148] + b"%06o \0" % sum(head) + head[156:]


def unpacked(path: Path, into: Path) -> tuple[str, ...]:
    """Unpack a tarball without its `package/`; return the names. Raises `Refused` where it is none of npm's."""
    return tuple(_unpacked(path, into))


def _unpacked(path: Path, into: Path) -> Iterator[str]:
    try:
        with tarfile.open(path, "r:gz") as opened:
            for member in opened:
                stream = opened.extractfile(member) if member.isreg() else None
                if stream is None or not member.name.startswith(TOP):
                    raise Refused(
                        f"{path.name} holds {member.name!r}, which is no file of a package", "Package it again."
                    )
                name = member.name.removeprefix(TOP)
                file = archive.within(into, name)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(stream.read())
                yield name
    except (tarfile.TarError, EOFError, gzip.BadGzipFile) as error:
        raise Refused(f"{path.name} is no tarball: {error}", "Package the model again.") from error

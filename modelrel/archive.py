"""Files on disk: digests, write-then-rename, and zips whose bytes depend on their content alone."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final

from modelrel.errors import Invalid, Unavailable
from modelrel.values import File

UNFINISHED: Final = ".unfinished-"
"""Prefix of every temporary name: whatever starts with it may be deleted when nobody holds the folder."""

_MANY: Final = 64

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the earliest date that a zip entry can carry


def sha256(path: Path) -> str:
    """Return the sha256 (hex) of the file at `path`, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def describe(path: Path, folder: Path) -> File:
    """Return digest and size of `path`, named relative to `folder` with `/`."""
    return File(path=path.relative_to(folder).as_posix(), sha256=sha256(path), size=path.stat().st_size)


def walk(top: Path) -> Iterator[Path]:
    """Yield every regular file below `top`, sorted by its POSIX path; a link is an error.

    Raises `Invalid` for a symbolic link (to a folder, too), a socket or a device: what is released is plain files;
    and for a name that is not UTF-8, which no record can hold.
    """
    for name, regular in sorted(_entries(os.fspath(top), "")):
        if not regular:
            raise Invalid(f"{top / name} is not a regular file", "Replace links and special files by plain files.")
        yield top / name


def _entries(folder: str, above: str) -> Iterator[tuple[str, bool]]:
    """Yield what is below a folder, by its POSIX path, and whether it is a regular file; folders have no entry.

    Wheels are some thousand files, whose names are all that is asked for: a path object for each takes its time.
    """
    try:
        listed = list(os.scandir(folder))
    except OSError:  # as os.walk has it: what is not there is empty
        return
    for entry in listed:
        if not _is_text(entry.name):
            raise Invalid(f"the file name {entry.name!a} is not UTF-8", "Give it another name.")
        # a link to a folder is not followed, and what lies behind it would be missing without a word
        if entry.is_dir(follow_symlinks=False):
            yield from _entries(entry.path, f"{above}{entry.name}/")
        else:
            yield f"{above}{entry.name}", entry.is_file(follow_symlinks=False)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def describe_tree(top: Path, folder: Path) -> tuple[File, ...]:
    """Return digest and size of every file below `top`, named relative to `folder`, sorted."""
    return tuple(describe(path, folder) for path in walk(top))


def within(folder: Path, name: str) -> Path:
    """Return `folder / name`, having made sure that it cannot be outside `folder`.

    Raises `Invalid` for an absolute path, a drive, a `..` part, or a control character.
    """
    pure = PurePosixPath(name.replace("\\", "/"))
    unsafe = pure.is_absolute() or ".." in pure.parts or ":" in (pure.parts or ("",))[0]
    if unsafe or not pure.parts or any(ord(char) < 32 for char in name):
        raise Invalid(
            f"the file name {name!r} leads outside its folder",
            "The model was logged with an unsafe artifact name; log it again without it.",
        )
    path = folder.joinpath(*pure.parts)
    # A name without ".." can still leave through a link that stands on the way.
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise Invalid(f"the file name {name!r} leads outside its folder through a link", "Remove the link.")
    return path


def disk_error(error: OSError, path: object = "") -> Unavailable | None:
    """Return what an error of the file system means in one sentence, or None where it is none of a disk."""
    where = path or error.filename or "the folder for temporary files"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Unavailable(
            f"the disk that holds {where} is full",
            "Make room there, or choose another folder with --dist; then run the command again.",
        )
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ENAMETOOLONG):
        return Unavailable(
            f"{error.filename or path} cannot be written: {error.strerror}",
            "Choose a folder that you can write to with --dist.",
        )
    return None


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn a full disk, a read-only one, or missing rights at `path` into one sentence (`Unavailable`)."""
    try:
        yield
    except OSError as error:
        if found := disk_error(error, path):
            raise found from error
        raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(path: Path, content: bytes) -> None:
    """Write a file so that a crash at any moment leaves the old content or the new, never a part.

    Raises `Unavailable` where the disk is full or not writable.
    """
    with translated(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=UNFINISHED, dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            # mkstemp makes private files; what is released is readable like any other file.
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        _sync(path.parent)


@contextmanager
def fresh_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder that takes the place of `path` when the block ends without an error.

    What stood at `path` stays until then. Raises `Unavailable` where the disk is full or not writable.
    """
    with translated(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=path.parent))
        try:
            work.chmod(0o755)
            yield work
            files = list(walk(work))
            if len(files) > _MANY:
                os.sync()  # one flush of everything takes a fiftieth of the time of a thousand small ones
            else:
                for file in files:
                    _sync(file)
            if path.exists():
                # rename(2) cannot replace a folder that is not empty: the old one steps aside first.
                old = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=path.parent))
                path.replace(old / "old")
                work.replace(path)
                shutil.rmtree(old, ignore_errors=True)
            else:
                work.replace(path)
            _sync(path.parent)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Delete what killed runs left behind: everything below `folder` with an unfinished name."""
    for top, folders, names in os.walk(folder):
        for name in [name for name in folders if name.startswith(UNFINISHED)]:
            folders.remove(name)
            shutil.rmtree(Path(top, name), ignore_errors=True)
        for name in names:
            if name.startswith(UNFINISHED):
                Path(top, name).unlink(missing_ok=True)


def write_zip(path: Path, files: Iterable[tuple[str, Path]]) -> None:
    """Write a zip of `(name inside, file)` pairs whose bytes depend on names and contents alone.

    Entries are sorted, dated 1980-01-01, with mode 0644 (0755 where the owner may execute), deflate level 6
    (level 9 takes thrice the time for half a percent; format: PKWARE APPNOTE 6.3). The bytes also depend on the
    zlib in use.
    """
    with translated(path), zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, file in sorted(files):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # Unix, so that the mode below is honoured
            executable = file.stat().st_mode & stat.S_IXUSR
            info.external_attr = (stat.S_IFREG | (0o755 if executable else 0o644)) << 16
            archive.writestr(info, file.read_bytes(), compresslevel=6)

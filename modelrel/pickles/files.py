"""The files of a model, looked through for what runs when they are loaded: pickles wherever they hide, other code."""

from __future__ import annotations

import ast
import json
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Final

from modelrel.pickles.machine import Broken, Machine, Name, Seen
from modelrel.pickles.names import ORDER, Verdict, judged, reaches
from modelrel.pickles.opcodes import STEPS
from modelrel.pickles.packing import IN_MEMORY, PACKED, PIECE, TooLarge, end, spooled

_PICKLES: Final = (
    ".pkl", ".pickle", ".p", ".joblib", ".jbl", ".dill", ".cloudpickle", ".sav", ".pt", ".pth", ".bin", ".ckpt", ".dat",
    ".data", ".model", ".npy", ".z", ".gz", ".bz2", ".xz", ".lzma",
)  # fmt: skip
"""Endings of files that somebody unpickles, so that what is no pickle from the first byte on is odd there."""

_CODE: Final = (".py", ".pyc", ".pyd", ".so", ".pth.py")
_DEEPEST: Final = 6
_MOST_MEMBERS: Final = 100_000
_SEVERAL: Final = 1000
"""Pickles one after another in one file."""

_SHOWN: Final = 100
_WORDS: Final = 8
CODE: Final = "code that is imported"
"""Why a file of Python code has the verdict that it has."""

ASKS: Final = "asks for "
"""How a reason begins that names what a pickle imports: that is in `Finding.dangerous`, too."""

_NAMED: Final = re.compile(rb"c([A-Za-z_][\w.]{0,99})\n([A-Za-z_][\w.]{0,99})\n")
_GRAPHS: Final = (b"EagerPyFunc", b"PyFunc", b"PyFuncStateless", b"ReadFile", b"WriteFile")
"""TensorFlow operators that run Python, or read and write files (tensorflow/core/ops)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A file that runs something when it is loaded: the names that its pickles ask for, and why the verdict."""

    path: str
    verdict: Verdict
    names: tuple[str, ...] = ()
    why: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    dangerous: tuple[str, ...] = ()

    @property
    def worst_names(self) -> tuple[str, ...]:
        """The names that make the verdict what it is."""
        return self.dangerous or self.unknown


def worst(findings: Iterable[Finding]) -> Verdict:
    """Return the worst verdict, `none` of no findings."""
    return max((one.verdict for one in findings), key=ORDER.index, default="none")


def examine(files: Mapping[str, Path]) -> tuple[Finding, ...]:
    """Return what in files (name -> path) runs when it is loaded, sorted by name; nothing is loaded, or unpickled."""
    return tuple(found for name in sorted(files) if (found := _examined(name, files[name])) is not None)


class _Book:
    """What was found in one file."""

    def __init__(self) -> None:
        self.verdict: Verdict = "none"
        self.names: dict[str, Verdict] = {}
        self.why: dict[str, None] = {}

    def note(self, verdict: Verdict, why: str = "") -> None:
        self.verdict = max(self.verdict, verdict, key=ORDER.index)
        if why:
            self.why[why] = None

    def saw(self, seen: Seen) -> None:
        for name in seen.names:
            self.named(name)
        for alarm in seen.alarms:
            self.note("dangerous", alarm)
        self.reached(seen.words)

    def reached(self, words: Collection[str]) -> None:
        if words:
            self.note("unknown", f"code in it names {', '.join(sorted(words)[:_WORDS])}")

    def named(self, name: Name, *, least: Verdict = "none") -> None:
        verdict = judged(name.module, name.name)
        if ORDER.index(verdict) < ORDER.index(least):
            return
        shown = f"{name.module}.{name.name}".encode("ascii", "backslashreplace").decode()[:200]
        self.names[shown] = verdict
        self.note(verdict, f"{ASKS}{shown}" if verdict == "dangerous" else "")


def _examined(name: str, path: Path) -> Finding | None:
    book = _Book()
    with path.open("rb") as stream:
        _look(PurePosixPath(name), stream, path.stat().st_size, book, 0)
    if book.verdict == "none":
        return None
    # the worst first, for a long list is cut
    listed = sorted(book.names, key=lambda one: (-ORDER.index(book.names[one]), one))
    unknown, dangerous = (
        tuple(sorted(one for one, said in book.names.items() if said == verdict)) for verdict in ORDER[2:]
    )
    return Finding(
        path=name, verdict=book.verdict, names=tuple(sorted(listed[:_SHOWN])), why=tuple(book.why),
        unknown=unknown, dangerous=dangerous,
    )  # fmt: skip


def _look(name: PurePosixPath, stream: IO[bytes], size: int, book: _Book, depth: int) -> None:
    """Look through one file or member; it is everything at once that some reader could take it for."""
    if depth > _DEEPEST:
        book.note("unknown", "archives in archives, too deep to look into")
        return
    ending = name.suffix.lower()
    if ending in _CODE:
        _source(stream, book, read=ending == ".py")
    head = stream.read(262)
    stream.seek(0)
    for begins, unpacked in PACKED.items():
        if head.startswith(begins):
            _unpacked(name, stream, unpacked, book, depth)
    if head.startswith(b"\x04\x22\x4d\x18"):
        book.note("unknown", "packed by LZ4, which is not looked into")
    if head.startswith(b"PK") or zipfile.is_zipfile(stream):
        _zip(stream, book, depth)
    if head[257:262] == b"ustar":
        _tar(stream, book, depth)
    if head.startswith(b"\x93NUMPY"):
        _npy(stream, size, book)
    elif ending not in _CODE:
        _pickles(stream, size, book, expected=ending in _PICKLES)
    if ending in (".keras", ".h5", ".hdf5", ".json", ".yaml", ".yml", ".pb") or head.startswith(b"\x89HDF"):
        _described(name, stream, book)


def _source(stream: IO[bytes], book: _Book, *, read: bool) -> None:
    """Look at the names in Python source, as at those of code in a pickle; what is compiled is not `read`."""
    book.note("unknown", CODE)
    try:
        nodes = list(ast.walk(ast.parse(stream.read(IN_MEMORY) if read else b"")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        book.note("unknown", "code that cannot be read")
        return
    finally:
        stream.seek(0)
    book.reached({word for node in nodes for word in _words(node) if reaches(word)})


def _words(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Name(id=word) | ast.Attribute(attr=word):
            yield word
        case ast.alias(name=word) | ast.ImportFrom(module=str(word)):
            yield from word.split(".")


def _pickles(stream: IO[bytes], size: int, book: _Book, *, expected: bool, at: int = 0) -> None:
    """Read pickles one after another, as joblib writes them and as plain ones."""
    stream.seek(0)
    if stream.read(4) == b"PK\x03\x04":  # a pickle that begins with an id, which only readers of zips would know
        for name in _run(stream, 0, size, arrays=False)[0].names:
            book.named(name, least="dangerous")
        return
    for _ in range(_SEVERAL):
        stream.seek(at)
        said = stream.read(1) == b"\x80"
        seen, broken = _run(stream, at, size, arrays=True)
        # Any bytes may look like a step or two of protocol 0, which has no mark of its own.
        if not (said or seen.calls or (seen.ended and seen.names)):
            if expected and at == 0 and seen.names:
                book.note("unknown", f"no whole pickle: {broken}")
            return
        if at and not said:  # numbers that follow a pickle, as PyTorch once wrote them, may look like steps too
            for name in seen.names:
                book.named(name, least="dangerous")
            return
        book.note("known")
        book.saw(seen)
        if seen.arrays:  # who reads it as a plain pickle takes the bytes of its arrays for steps
            for name in _run(stream, at, size, arrays=False)[0].names:
                book.named(name, least="dangerous")
        if broken or not seen.ended:
            book.note("unknown", f"a pickle that cannot be read to its end: {broken}")
            _rest(stream, at, book)
            return
        at = seen.at
        expected = False
        if at >= size:
            return
    book.note("unknown", f"more than {_SEVERAL} pickles one after another")


def _run(stream: IO[bytes], at: int, size: int, *, arrays: bool) -> tuple[Seen, str]:
    seen = Seen()
    stream.seek(at)
    try:
        Machine(stream, size, seen, arrays=arrays).run(STEPS)
    except Broken as stop:
        return seen, str(stop)
    except RecursionError:
        return seen, "it is nested too deep"
    seen.at = stream.tell()
    return seen, ""


def _rest(stream: IO[bytes], at: int, book: _Book) -> None:
    """Look at what follows where a pickle could not be read: a reader may be less strict than we are."""
    stream.seek(at)
    kept = b""
    while piece := stream.read(PIECE):
        for module, name in _NAMED.findall(kept + piece):
            book.named(Name(module.decode(), name.decode()), least="dangerous")
        kept = piece[-256:]


def _zip(stream: IO[bytes], book: _Book, depth: int) -> None:
    try:
        with zipfile.ZipFile(stream) as packed:
            members = packed.infolist()
            if len(members) > _MOST_MEMBERS:
                book.note("unknown", f"a zip of {len(members):,} entries")
                return
            script = any(PurePosixPath(member.filename).name == "constants.pkl" for member in members)
            for member in members:
                with packed.open(member) as content, spooled(content) as whole:
                    if script and _script(PurePosixPath(member.filename), whole, book):
                        continue
                    _look(PurePosixPath(member.filename), whole, end(whole), book, depth + 1)
    except TooLarge:
        book.note("unknown", "a zip that unpacks to too much to look through")
    except Exception as error:  # noqa: BLE001 - zlib and zipfile raise many kinds for hostile files
        book.note("unknown", f"a zip that is damaged, which some readers do not mind: {error}"[:200])


def _script(name: PurePosixPath, stream: IO[bytes], book: _Book) -> bool:
    """Look at a member of a TorchScript archive; return whether it is read by its own rules, and not by Python.

    PyTorch's own reader takes the pickles of such an archive, and the code beside them is TorchScript (torch/csrc/jit/
    serialization/unpickler.cpp, which knows types of the archive and a few names, and nothing that runs).
    """
    if "code" in name.parts:
        return True
    if name.suffix != ".pkl":
        return False
    book.note("known")
    for asked in _run(stream, 0, end(stream), arrays=False)[0].names:
        book.named(asked)
    return True


def _tar(stream: IO[bytes], book: _Book, depth: int) -> None:
    stream.seek(0)
    try:
        with tarfile.open(fileobj=stream, mode="r:") as packed:
            for count, member in enumerate(packed):
                content = packed.extractfile(member) if member.isfile() else None
                if content is None or count > _MOST_MEMBERS:
                    continue
                with spooled(content) as whole:
                    _look(PurePosixPath(member.name), whole, end(whole), book, depth + 1)
    except TooLarge:
        book.note("unknown", "a tar with too much to look through")
    except Exception as error:  # noqa: BLE001 - as above
        book.note("unknown", f"a tar that is damaged: {error}"[:200])


def _npy(stream: IO[bytes], size: int, book: _Book) -> None:
    """Look at the pickle that an array of objects is kept as."""
    stream.seek(6)
    version = stream.read(2)[:1]
    width = 2 if version == b"\x01" else 4
    length = int.from_bytes(stream.read(width), "little")
    head = stream.read(min(length, PIECE))
    if re.search(rb"O", re.sub(rb"'(descr|fortran_order|shape)'", b"", head)):
        book.note("unknown" if len(head) < length else "known")
        _pickles(stream, size, book, expected=True, at=8 + width + length)


def _described(name: PurePosixPath, stream: IO[bytes], book: _Book) -> None:
    """Look for what descriptions of networks and of estimators have run by name."""
    stream.seek(0)
    content = stream.read(IN_MEMORY)
    if re.search(rb'"class_name": *"(Lambda|__lambda__)"|"__lambda__"', content):
        book.note("unknown", "a Keras Lambda layer, which is code")
    if name.suffix.lower() == ".pb":
        for operator in _GRAPHS:
            if re.search(rb"[\n\x12].?" + operator + rb"[^A-Za-z0-9]", content):
                book.note("unknown", f"the TensorFlow operator {operator.decode()}")
    if name.name == "schema.json":  # skops: classes by name, which its loader asks leave for
        _skops(content, book)


def _skops(content: bytes, book: _Book) -> None:
    try:
        waiting = [json.loads(content)]
    except (ValueError, RecursionError):
        return
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            module, kind = node.get("__module__"), node.get("__class__")
            if isinstance(module, str) and isinstance(kind, str):
                book.note("known")
                book.named(Name(module, kind))
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


def _unpacked(
    name: PurePosixPath, stream: IO[bytes], opened: Callable[[IO[bytes]], IO[bytes]], book: _Book, depth: int
) -> None:
    stream.seek(0)
    try:
        with opened(stream) as content, spooled(content) as whole:
            inner = PurePosixPath(name.stem) if name.suffix in (".gz", ".bz2", ".xz", ".lzma", ".z") else name
            _look(inner, whole, end(whole), book, depth + 1)
    except TooLarge:
        book.note("unknown", "it unpacks to too much to look through")
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError):
        if name.suffix.lower() in _PICKLES:
            book.note("unknown", "packed, and damaged")
    finally:
        stream.seek(0)

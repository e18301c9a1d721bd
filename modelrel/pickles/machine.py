"""The pickle machine (CPython, Lib/pickletools.py) without what it would do: it keeps the books, and runs nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, Final

import numpy as np

from modelrel.pickles import names

_LINE: Final = 2**28  # bytes of an array are one line in protocol 0
_TEXT: Final = 2**12
"""Characters of a text that is remembered; no name is longer."""

_KEYS: Final = 64
_NESTED: Final = 20
_WRAPPER: Final = "NumpyArrayWrapper"
_CODE_NAMES: Final = 8
"""Where the names stand among what a code object is made of (types.CodeType, since Python 3.8)."""


class Broken(Exception):
    """The stream is no pickle from here on; the message says why."""


@dataclass(frozen=True, slots=True)
class Name:
    """A global, by module and name."""

    module: str
    name: str


@dataclass(slots=True, eq=False)
class Made:
    """What a call gives: of what, with which arguments, and the state it was given after."""

    of: object
    args: object
    state: object = None


class _Any:
    """A value that nobody needs to know."""


ANY: Final = _Any()


@dataclass(slots=True)
class Seen:
    """What a stream did: names it asked for, what no library writes (`alarms`), calls; whether it ended, and where.

    `words` are the names in code that it brings which reach programs, files or other code.
    """

    names: dict[Name, None] = field(default_factory=dict)
    alarms: dict[str, None] = field(default_factory=dict)
    words: dict[str, None] = field(default_factory=dict)
    calls: int = 0
    arrays: int = 0
    ended: bool = False
    at: int = 0


class Machine:
    """One pickle in a stream; `arrays` reads the bytes of arrays that joblib puts between the opcodes."""

    def __init__(self, stream: IO[bytes], size: int, seen: Seen, *, arrays: bool, depth: int = 0) -> None:
        """Take a stream at the first opcode; `size` is where it ends."""
        self._stream, self._size, self._seen, self._arrays, self._depth = stream, size, seen, arrays, depth
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._steps: Mapping[bytes, Callable[[Machine], None]] = {}

    def run(self, steps: Mapping[bytes, Callable[[Machine], None]]) -> None:
        """Read to the end of the pickle, by opcode -> step; raises `Broken` where it stops making sense before."""
        self._steps = steps
        while True:
            code = self.exactly(1)
            if code == b".":
                self.pop()
                self._seen.ended = True
                return
            step = steps.get(code)
            if step is None:
                raise Broken(f"byte {code[0]:#04x} is no opcode")
            step(self)

    # what stands in the stream

    def exactly(self, count: int) -> bytes:
        """Return the next bytes."""
        found = self._stream.read(count)
        if len(found) != count:
            raise Broken("it stops short")
        return found

    def number(self, count: int) -> int:
        """Return the next little-endian number without a sign."""
        return int.from_bytes(self.exactly(count), "little")

    def skip(self, count: int) -> None:
        """Pass over bytes that are nobody's business."""
        at = self._stream.tell()
        if count < 0 or at + count > self._size:
            raise Broken("it stops short")
        self._stream.seek(at + count)

    def line(self) -> str:
        """Return the text up to the next end of line."""
        found = self._stream.readline(_LINE)
        if not found.endswith(b"\n"):
            raise Broken("a line does not end")
        return found[:-1].decode("utf-8", "surrogateescape")

    def text(self, count: int) -> None:
        """Push a text of so many bytes."""
        if count > _TEXT:
            self.skip(count)
            self.push(ANY)
        else:
            self.push(self.exactly(count).decode("utf-8", "surrogateescape"))

    def old_text(self) -> None:
        """Push a text as protocol 0 writes it: in quotes, with escapes."""
        found = self.line().strip()
        if len(found) < 2 or found[0] != found[-1] or found[0] not in "'\"":
            raise Broken("a text has no quotes")
        self.push(unescaped(found[1:-1]))

    def whole(self) -> None:
        """Push a whole number that is written in a line."""
        found = self.line().strip().rstrip("L")
        self.push(int(found) if re.fullmatch(r"[+-]?\d{1,18}", found) else ANY)

    # the stack

    def push(self, value: object) -> None:
        """Put a value on the stack."""
        self._stack.append(value)

    def pop(self) -> Any:
        """Take the last value."""
        if not self._stack:
            raise Broken("it takes from an empty stack")
        return self._stack.pop()

    def top(self) -> Any:
        """Return the last value."""
        if not self._stack:
            raise Broken("it looks at an empty stack")
        return self._stack[-1]

    def mark(self) -> None:
        """Begin a group."""
        self._marks.append(self._stack)
        self._stack = []

    def group(self) -> list[Any]:
        """Take the values since the last mark."""
        if not self._marks:
            raise Broken("it ends a group that was not begun")
        found, self._stack = self._stack, self._marks.pop()
        return found

    def drop(self) -> None:
        """Forget the last value, or the group that it began."""
        if self._stack:
            self._stack.pop()
        else:
            self.group()

    def forget(self) -> None:
        """Forget a group."""
        self.group()

    def ends(self) -> None:
        """Forget a group that goes into what stands before it."""
        self.group()
        self.top()

    def as_tuple(self, count: int = -1) -> None:
        """Push a tuple of the last `count` values, or of a group."""
        values = self.group() if count < 0 else [self.pop() for _ in range(count)][::-1]
        self.push(tuple(values))

    def as_dict(self) -> None:
        """Push a dictionary of a group."""
        found = self.group()
        self.push({})
        self._stored(found)

    def items(self, count: int = -1) -> None:
        """Put keys and values into a dictionary."""
        self._stored(self.group() if count < 0 else [self.pop() for _ in range(count)][::-1])

    def _stored(self, flat: list[Any]) -> None:
        into = self.top()
        if isinstance(into, dict):
            for key, value in zip(flat[::2], flat[1::2], strict=False):
                if isinstance(key, str) and len(into) < _KEYS:
                    into[key] = value

    def persistent(self) -> None:
        """Push what goes by an id: of PyTorch's, ("module", class, ...) is the class."""
        said = self.pop()
        found = said[1] if isinstance(said, tuple) and len(said) > 1 and said[0] == "module" else ANY
        self.push(found if isinstance(found, Name) else ANY)

    def put(self, place: int = -1) -> None:
        """Remember the last value."""
        self._memo[len(self._memo) if place < 0 else place] = self.top()

    def get(self, place: int) -> None:
        """Push a remembered value."""
        if place not in self._memo:
            raise Broken("it recalls what it did not remember")
        self.push(self._memo[place])

    def place(self) -> int:
        """Return a number in the memo that is written in a line."""
        found = self.line().strip()
        if not re.fullmatch(r"\d{1,18}", found):
            raise Broken("a place in its memory is no number")
        return int(found)

    # what it would do

    def name(self, module: object, name: object) -> None:
        """Push a global."""
        if not isinstance(module, str) or not isinstance(name, str):
            self._alarm("asks for a name that it computes")
            self.push(Made(ANY, ()))
            return
        found = Name(module, name)
        self._seen.names[found] = None
        self.push(found)

    def named(self) -> None:
        """Push a global whose module and name are on the stack."""
        name, module = self.pop(), self.pop()
        self.name(module, name)

    def extension(self, count: int) -> None:
        """Push a global that goes by a number (copyreg.add_extension)."""
        self.name("copyreg", f"extension {self.number(count)}")

    def reduce(self) -> None:
        """Call."""
        args, of = self.pop(), self.pop()
        self._call(of, args)

    def instance(self) -> None:
        """Call a class that stands in the stream with a group."""
        args = tuple(self.group())
        self.name(self.line(), self.line())
        self._call(self.pop(), args)

    def as_object(self) -> None:
        """Call the first of a group with the others."""
        group = self.group()
        if not group:
            raise Broken("it makes an object of nothing")
        self._call(group[0], tuple(group[1:]))

    def new(self, *, keywords: bool = False) -> None:
        """Make an object of a class."""
        if keywords:
            self.pop()
        self.reduce()

    def _call(self, of: Any, args: Any) -> None:
        self._seen.calls += 1
        given = args if isinstance(args, tuple) else ()
        if any(isinstance(one, Name) and one.name == "getattr" for one in given):
            self._alarm("hands getattr on to another call")
        if isinstance(of, Name) and of.name == "getattr" and of.module in ("builtins", "__builtin__"):
            self._attribute(given)
            return
        if _own_code(of):
            self._code(args)
        elif isinstance(of, Name) and names.imports(of.module, of.name):
            self.name(given[0] if given else None, "*")
            self.pop()
        elif not isinstance(of, Name):
            self._alarm("calls what it has computed")
        self.push(Made(of, args))

    def _code(self, args: Any) -> None:
        """Look at the names in code that the pickle brings: those of a code object stand in tuples of texts."""
        given = args if isinstance(args, tuple) else (ANY,)
        if len(given) > _CODE_NAMES + 4 and not isinstance(given[_CODE_NAMES], tuple):
            given = (ANY,)  # not where CPython has them (Objects/codeobject.c)
        for one in given:
            said = one if isinstance(one, tuple) else ()
            if (one is ANY and len(given) == 1) or (said and any(word is ANY for word in said) and _texts(said)):
                self._seen.words["names that cannot be read"] = None
            if _texts(said):
                self._seen.words.update(dict.fromkeys(word for word in said if names.reaches(word)))

    def _attribute(self, given: tuple[Any, ...]) -> None:
        of, name = given[:2] if len(given) in (2, 3) else (None, None)
        if not isinstance(name, str) or name.startswith("_"):
            self._alarm("asks for an attribute that is not public, or that it computes")
        if isinstance(of, Name) and isinstance(name, str):
            self.name(of.module, f"{of.name}.{name}")
        else:
            self.push(Made(ANY, given))

    def build(self) -> None:
        """Give an object its state."""
        state, of = self.pop(), self.top()
        self._seen.calls += 1
        if isinstance(of, Name):
            self._alarm(f"changes {of.module}.{of.name} itself")
        if isinstance(of, Made):
            of.state = state
            wraps = isinstance(of.of, Name) and of.of.name == _WRAPPER and of.of.module.startswith("joblib.")
            if wraps and self._arrays:
                self._array(state if isinstance(state, dict) else {})

    def _array(self, state: dict[str, Any]) -> None:
        """Pass over the array that follows, which joblib has written as it is in memory."""
        self._seen.arrays += 1
        shape, dtype = state.get("shape"), state.get("dtype")
        said = dtype.args[0] if isinstance(dtype, Made) and isinstance(dtype.args, tuple) and dtype.args else None
        if not isinstance(said, str) or not re.fullmatch(r"[|<>=]?[?a-zA-Z]\d{0,9}", said):
            raise Broken("an array of unknown elements follows")
        if not isinstance(shape, tuple) or not all(isinstance(one, int) and 0 <= one < 2**48 for one in shape):
            raise Broken("an array of unknown shape follows")
        kept = dtype.state[-1] if isinstance(dtype.state, tuple) and dtype.state else 0  # type: ignore[union-attr]
        objects = said.lstrip("|<>=").startswith("O") or (isinstance(kept, int) and bool(kept & 1))
        if objects:
            if self._depth > _NESTED:
                raise Broken("arrays in arrays without end")
            ended = self._seen.ended
            Machine(self._stream, self._size, self._seen, arrays=True, depth=self._depth + 1).run(self._steps)
            self._seen.ended = ended
            return
        if state.get("numpy_array_alignment_bytes") is not None:
            self.skip(self.number(1))
        try:
            each = np.dtype(said).itemsize
        except (TypeError, ValueError) as error:
            raise Broken("an array of unknown elements follows") from error
        count = 1
        for one in shape:
            count *= one
        self.skip(count * each)

    def _alarm(self, said: str) -> None:
        self._seen.alarms[said] = None


def _texts(values: tuple[Any, ...]) -> bool:
    return all(isinstance(one, str) or one is ANY for one in values)


def _own_code(of: Any) -> bool:
    """Return whether something was made by what makes code of the pickle itself, which is no secret then."""
    made = of
    while isinstance(made, Made):
        made = made.of
    return (
        isinstance(made, Name)
        and names.makes_code(made.module, made.name)
        and not names.imports(made.module, made.name)
    )


def unescaped(text: str) -> str:
    """Return a text whose escapes stand for what they say; raises `Broken` where they say nothing."""
    try:
        return text.encode("latin-1", "backslashreplace").decode("unicode_escape")
    except UnicodeDecodeError as error:
        raise Broken("a text has wrong escapes") from error

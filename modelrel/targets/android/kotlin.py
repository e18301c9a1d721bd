"""A model's inputs and outputs as Kotlin knows them: identifiers, types and literals."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from modelrel import archive
from modelrel.errors import Refused
from modelrel.measured import Units
from modelrel.targets.identifiers import identifiers
from modelrel.values import ParityReport, TensorSpec

_WORDS: Final = """
as break class continue do else false for fun if in interface is null object package return super this throw
true try typealias typeof val var when while by catch constructor delegate dynamic field file finally get import
init param property receiver set setparam value where equals hashCode toString copy rows row model predict close
session environment interpreter shape load labels component1 abstract assert boolean byte case char const default
double enum extends final float goto implements instanceof int long native new private protected public short
static strictfp switch synchronized throws transient void volatile
"""
KEYWORDS: Final = frozenset(_WORDS.split())
"""Words that mean something to Kotlin, to the wrapper, or (as parts of a package) to Java."""

MOST_SLOTS: Final = 240
"""Slots of a constructor's parameters, of which the JVM has 255; a Long or a Double takes two."""

_TYPES: Final = {
    "BYTES": "String", "FP32": "Float", "FP64": "Double", "INT64": "Long", "INT32": "Int", "INT16": "Short",
    "INT8": "Byte", "UINT8": "Byte", "BOOL": "Boolean",
}  # fmt: skip
"""Datatype -> Kotlin's type; a UINT8 is handed over in a Byte, bit by bit, as both runtimes do."""

_MOST_VALUES: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """An input or an output: `name` is the file's, `word` and `shape_word` are Kotlin's."""

    name: str
    word: str
    shape_word: str
    datatype: str
    shape: tuple[int, ...]
    required: bool = True
    unit: Units | None = None

    @property
    def literal(self) -> str:
        """The name as a Kotlin string."""
        return text(self.name)

    @property
    def type(self) -> str:
        """The type of one value."""
        return _TYPES[self.datatype]

    @property
    def array(self) -> str:
        """The type of many."""
        return "Array<String>" if self.datatype == "BYTES" else f"{self.type}Array"

    @property
    def dims(self) -> str:
        """The shape as arguments; at most one is -1."""
        return ", ".join(str(size) for size in self.shape)

    @property
    def open(self) -> bool:
        """Whether the shape cannot be told from the number of values."""
        return sum(size < 0 for size in self.shape) > 1 or 0 in self.shape

    @property
    def gap(self) -> str:
        """What a row has that does not say it, or "" where it must."""
        return f"{self.type}.NaN" if not self.required and self.datatype in ("FP32", "FP64") else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """The golden rows in Kotlin: the arguments of each row (or of `predict`), and what is expected, by word."""

    rows: tuple[str, ...]
    arguments: str
    expected: Mapping[str, str]


def text(value: str) -> str:
    r"""Return a Kotlin string literal in ASCII.

    >>> print(text('a "b" $c\n'))
    "a \"b\" \$c\u000a"
    """
    found = []
    for unit in np.frombuffer(value.encode("utf-16-le", "surrogatepass"), "<u2").tolist():
        char = chr(unit)
        plain = 32 <= unit < 127
        found.append(("\\" + char if char in '\\"$' else char) if plain else f"\\u{unit:04x}")
    return '"' + "".join(found) + '"'


def fields(parity: ParityReport, specs: Sequence[TensorSpec], taken: frozenset[str] = frozenset()) -> tuple[Field, ...]:
    """Return specs with their identifiers; raises `Refused` for a datatype that the runtimes' Java API has not."""
    units = {one.name: one for one in parity.converted.units}
    names = [spec.name for spec in specs]
    words = identifiers(names, "camel", KEYWORDS | taken)
    shapes = identifiers([f"{word} shape" for word in words.values()], "camel", KEYWORDS | taken | set(words.values()))
    for spec in specs:
        if spec.datatype not in _TYPES:
            raise Refused(
                f"{spec.name} is {spec.datatype}, which the Java API of the runtimes does not take",
                "Log the model with a signature of int64, float32 or text there.",
            )
    return tuple(
        Field(
            name=spec.name,
            word=words[spec.name],
            shape_word=shapes[f"{words[spec.name]} shape"],
            datatype=spec.datatype,
            shape=spec.shape,
            required=spec.required,
            unit=units.get(spec.name),
        )
        for spec in specs
    )


def slots(inputs: Sequence[Field]) -> int:
    """Return how many slots the parameters of a row take."""
    return sum(2 if one.type in ("Long", "Double") else 1 for one in inputs)


def example(parity: ParityReport, inputs: Sequence[Field], outputs: Sequence[Field]) -> Example | None:
    """Return the golden rows as Kotlin source; None where they are too many values to read."""
    content = json.loads(archive.within(parity.source.folder, parity.golden.path).read_bytes())
    given, answers = content["inputs"], content["outputs"]
    flat = {one.name: _flat((given if one in inputs else answers)[one.name]) for one in (*inputs, *outputs)}
    if sum(len(values) for values in flat.values()) > _MOST_VALUES:
        return None
    if parity.converted.signature.kind == "columns":
        count = len(next(iter(flat.values())))
        rows = tuple(
            ", ".join(f"{one.word} = {value(flat[one.name][row], one.datatype)}" for one in inputs)
            for row in range(count)
        )
        said = ""
    else:
        rows = ()
        said = ", ".join(f"{one.word} = {array(flat[one.name], one)}" for one in inputs)
        said += "".join(f", {one.shape_word} = {_sizes(given[one.name])}" for one in inputs if one.open)
    return Example(rows=rows, arguments=said, expected={one.word: array(flat[one.name], one) for one in outputs})


def array(values: Sequence[object], field: Field) -> str:
    """Return values as a Kotlin array."""
    maker = "arrayOf" if field.datatype == "BYTES" else f"{field.type.lower()}ArrayOf"
    return f"{maker}({', '.join(value(one, field.datatype) for one in values)})"


def value(one: object, datatype: str) -> str:
    """Return a value of JSON as a Kotlin literal of a datatype; None is NaN."""
    kind = _TYPES[datatype]
    if datatype == "BYTES":
        return text("" if one is None else str(one))
    if datatype == "BOOL":
        return "true" if one else "false"
    if kind in ("Float", "Double"):
        number = math.nan if one is None else float(one)  # type: ignore[arg-type]
        if not math.isfinite(number):
            return f"{kind}.NaN"
        return f"{np.float32(number)!s}f" if kind == "Float" else repr(number)
    whole = int(one)  # type: ignore[call-overload]
    if kind == "Long":
        return "Long.MIN_VALUE" if whole == -(2**63) else f"{whole}L"
    if datatype == "UINT8":
        return str(whole - 256 if whole > 127 else whole)
    return str(whole) if whole != -(2**31) else "Int.MIN_VALUE"


def _flat(values: object) -> list[object]:
    return [item for one in values for item in _flat(one)] if isinstance(values, list) else [values]


def _sizes(values: object) -> str:
    sizes = []
    while isinstance(values, list):
        sizes.append(len(values))
        values = values[0] if values else None
    return f"longArrayOf({', '.join(map(str, sizes))})"

"""Swift for a signature: names, literals, types, and the lines that take a tensor across the edge of the graph."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import dataclass
from typing import Final

from modelrel.targets.identifiers import identifiers
from modelrel.targets.ios.edges import Edge
from modelrel.values import Scalar

_KEYWORDS: Final = (
    "associatedtype class deinit enum extension fileprivate func import init inout internal let open operator private "
    "precedencegroup protocol public rethrows static struct subscript typealias var break case catch continue default "
    "defer do else fallthrough for guard if in repeat return throw switch where while any as await false is nil self "
    "super throws true try async actor some each macro type"
)
"""The Swift Programming Language, Lexical Structure; contextual ones too, so that nobody has to know where."""

WORDS: Final = frozenset(f"{_KEYWORDS} outputs row rows run".split())
"""What no input or output is called: `predict` has these names already."""

_CASES: Final = frozenset(f"{_KEYWORDS} allcases hash hashvalue none of rawvalue".split())
"""What no case of an enum is called."""

_MODULES: Final = frozenset({"swift", "foundation", "xctest", "onnxruntime", "onnxruntimebindings"})
_TYPES: Final = frozenset({"model", "row", "answer", "label", "inputs", "outputs", "tensor", "modelerror"})

_ELEMENTS: Final = {
    "BOOL": "Bool",
    "UINT8": "UInt8",
    "UINT16": "UInt16",
    "UINT32": "UInt32",
    "UINT64": "UInt64",
    "INT8": "Int8",
    "INT16": "Int16",
    "INT32": "Int32",
    "INT64": "Int64",
    "FP16": "Float",
    "FP32": "Float",
    "FP64": "Double",
    "BYTES": "String",
}
"""Datatype -> the Swift type of an element; half precision is no type of every Mac."""

_BINDINGS: Final = {
    "FP32": "float",
    "INT8": "int8",
    "UINT8": "uInt8",
    "INT32": "int32",
    "UINT32": "uInt32",
    "INT64": "int64",
    "UINT64": "uInt64",
}
"""Datatype -> the case of ORTTensorElementDataType, as Swift imports it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """An input or output as the templates write it; `literal` is its name, `enters` to `compared` are code."""

    literal: str
    plain_name: str
    identifier: str
    told: str
    datatype: str
    shape: tuple[int, ...]
    element: str
    cell: str
    answer: str
    gaps: bool
    optional: bool
    enters: str
    leaves: str
    taken: str
    read: str
    compared: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A class, as a case of an enum."""

    identifier: str
    literal: str


def module(name: str) -> str:
    """Return the name of the module of a model."""
    return identifiers([name], "pascal", WORDS | _MODULES | _TYPES)[name]


def literal(text: str) -> str:
    """Return a string literal; what cannot be seen in a text is escaped."""
    return '"' + "".join(_escaped(char) for char in text) + '"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    # a mark that joins the one before would change it, and be another letter to Swift's eyes
    seen = char.isprintable() and not unicodedata.combining(char)
    return char if seen else f"\\u{{{ord(char):x}}}"


def cases(classes: tuple[Scalar, ...]) -> tuple[Case, ...]:
    """Return the cases of an enum over classes of text or whole numbers."""
    texts = [one if isinstance(one, str) else f"class {one}".replace("-", "minus ") for one in classes]
    named = identifiers(texts, "camel", _CASES)
    values = [literal(one) if isinstance(one, str) else json.dumps(one) for one in classes]
    return tuple(Case(identifier=named[text], literal=value) for text, value in zip(texts, values, strict=True))


def ports(edges: tuple[Edge, ...], names: tuple[str, ...], label: str) -> tuple[Port, ...]:
    """Return inputs or outputs, whose served names are `names`; `label` is the one that is a class."""
    known = identifiers(names, "camel", WORDS)
    return tuple(
        _port(edge, name, known[name], is_label=name == label) for edge, name in zip(edges, names, strict=True)
    )


def _port(edge: Edge, name: str, identifier: str, *, is_label: bool) -> Port:
    spec = edge.spec
    element = _ELEMENTS[spec.datatype]
    gaps = spec.datatype.startswith("FP")
    single = len(spec.shape) == 1
    taken = f"{identifier}[row][0]" if single else f"{identifier}[row]"
    return Port(
        literal=literal(name),
        plain_name=_seen(name),
        identifier=identifier,
        told=f"{_seen(name)}: {spec.datatype} {list(spec.shape)}",
        datatype=spec.datatype,
        shape=spec.shape,
        element=element,
        cell=f"{element}?" if gaps else element,
        answer="Label" if is_label else element if single else f"[{element}]",
        gaps=gaps,
        optional=gaps and not spec.required,
        enters=_enters(edge, identifier),
        leaves=_leaves(edge),
        taken=f"try Label.of({taken})" if is_label else taken,
        read=_read(spec.datatype),
        compared=_compared(spec.datatype, literal(name)),
    )


def _enters(edge: Edge, identifier: str) -> str:
    names = [literal(one) for one in edge.names]
    given = f"inputs.{identifier}"
    if edge.spec.datatype == "BYTES":
        return f"try {given}.enter(&feeds, as: {names[0]})"
    if edge.spec.datatype == "FP64":
        return f"try {given}.enter(&feeds, significand: {names[0]}, exponent: {names[1]})"
    change = {"BOOL": "$0 ? UInt8(1) : 0", "INT16": "Int32($0)", "UINT16": "UInt32($0)"}.get(edge.spec.datatype)
    changed = f"{given}.map {{ {change} }}" if change else given
    return f"feeds[{names[0]}] = try {changed}.value(.{_BINDINGS[edge.held]})"


def _leaves(edge: Edge) -> str:
    names = [literal(one) for one in edge.names]
    if edge.spec.datatype == "BYTES":
        return f"texts(found, {names[0]})"
    if edge.spec.datatype == "FP64":
        return f"doubles(found, high: {names[0]}, low: {names[1]})"
    held = _ELEMENTS[edge.held]
    change = {"BOOL": " { $0 != 0 }", "INT16": " { Int16($0) }", "UINT16": " { UInt16($0) }"}.get(edge.spec.datatype)
    read = f"tensor(found, {names[0]}, of: {held}.self)"
    return f"{read}.map{change}" if change else read


def _read(datatype: str) -> str:
    if datatype == "BYTES":
        return "try XCTUnwrap($0 as? String)"
    if datatype.startswith("FP"):
        return f"try number($0).{'double' if datatype == 'FP64' else 'float'}Value"
    return f"try number($0).{datatype.lower()}Value"


def _compared(datatype: str, name: str) -> str:
    if datatype.startswith("FP"):
        return f"try near(Double(one), expected, {name})"
    if datatype == "BYTES":
        return f"XCTAssertEqual(one, expected as? String, {name})"
    return f"XCTAssertEqual(one, try number(expected).{datatype.lower()}Value, {name})"


def _seen(name: str) -> str:
    """Return a name for a comment, or a table of Markdown."""
    return literal(name)[1:-1].replace("`", "'").replace("|", "\\|")

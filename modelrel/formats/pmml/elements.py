"""PMML elements: the few kinds that this writer uses, and `parsed`, which refuses what it and sklearn2pmml do not.

Element and attribute names follow the PMML 4.4 schema of the Data Mining Group (dmg.org/pmml/v4-4-1).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Final
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape

from modelrel.errors import Refused
from modelrel.serving.runtimes import pmml_scorer

NAMESPACE: Final = pmml_scorer.NAMESPACE
_UNHOLY: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 has no way to write."""

_DEEPEST: Final = 40
"""Spaces before an element at most."""

Expression = Element | str | float
"""An element, the name of a field, or a number."""


def element(tag: str, *inside: Element, **said: str) -> Element:
    """Return an element with attributes and children; raises `Refused` for text that XML cannot hold."""
    found = Element(tag, {name: held(text) for name, text in said.items()})
    found.extend(inside)
    return found


def held(text: str) -> str:
    """Return a text as it is; raises `Refused` where it has a character that XML 1.0 cannot hold."""
    if bad := _UNHOLY.search(text):
        raise Refused(
            f"the name or category {text[:60]!r} has the character U+{ord(bad.group()):04X}, which XML cannot hold",
            "Rename it before training, or convert the model to onnx.",
        )
    return text


def number(value: float) -> str:
    """Return a finite float64 so that it is read back as the same one; raises `Refused` for another."""
    value = float(value)
    if not math.isfinite(value):
        raise Refused(f"the model holds the number {value}, which PMML has no place for", "Train the model again.")
    return repr(value)


def expression(said: Expression) -> Element:
    """Return a field's name as a FieldRef, and a number as a Constant."""
    if isinstance(said, Element):
        return said
    if isinstance(said, str):
        return element("FieldRef", field=said)
    found = element("Constant", dataType="double")
    found.text = number(said)
    return found


def apply(function: str, *arguments: Expression) -> Element:
    """Return a call of one of PMML's built-in functions."""
    assert function in pmml_scorer.FUNCTIONS, function
    return element("Apply", *map(expression, arguments), function=function)


def chained(function: str, terms: Sequence[Expression]) -> Element:
    """Return a function of two arguments over several terms, from the left to the right."""
    found = expression(terms[0])
    for term in terms[1:]:
        found = apply(function, found, term)
    return found


def serialized(root: Element) -> bytes:
    """Return an element as UTF-8, one element a line; the same bytes for the same element.

    Python's own writer goes down by recursion, and a tree of a model may be deeper than that.
    """
    lines = ['<?xml version="1.0" encoding="UTF-8"?>']
    open_: list[tuple[Element | None, int, str]] = [(root, 0, "")]
    while open_:
        one, depth, end = open_.pop()
        if one is None:
            lines.append(end)
            continue
        start = one.tag + "".join(f" {name}={_quoted(value)}" for name, value in one.attrib.items())
        space = " " * min(depth, _DEEPEST)
        if len(one):
            lines.append(f"{space}<{start}>")
            open_.append((None, 0, f"{space}</{one.tag}>"))
            open_ += [(child, depth + 1, "") for child in reversed(one)]
        elif one.text:
            lines.append(f"{space}<{start}>{escape(one.text)}</{one.tag}>")
        else:
            lines.append(f"{space}<{start}/>")
    return ("\n".join(lines) + "\n").encode()


def _quoted(text: str) -> str:
    """Return an attribute's value; without the entities a reader would turn its tabs and newlines into spaces."""
    return '"' + escape(text, {'"': "&quot;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}) + '"'


def parsed(content: bytes) -> Element:
    """Return the root of a PMML file as `pmml_scorer.parsed` does; raises `Refused` where it raises `BadFile`."""
    try:
        return pmml_scorer.parsed(content)
    except pmml_scorer.BadFile as error:
        raise Refused(str(error), "Convert the model again.") from error

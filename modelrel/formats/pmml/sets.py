"""What splits ask: float32 comparisons as float64 ones, and sets of categories as spans of numbers or as words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from xml.etree.ElementTree import Element

import numpy as np

from modelrel.formats.pmml.elements import element, number
from modelrel.trees import Floats, at_most

_BEYOND: Final = 2.0**128 - 2.0**103
"""The least float64 that float32 rounds to infinity: half a step above its largest number, which is odd."""

_LARGEST: Final = float(np.finfo(np.float64).max)

Span = tuple[float, bool, float, bool]
"""Numbers from one to another, and whether each end is one of them."""


def rounded_at_most(threshold: Any, mode: Any) -> Floats:
    """Return the float64 m for which `x <= m` is what a split asks of a float64 x that is rounded to float32 first.

    `threshold` (n,) float64 and `mode` (n,) LEQ or LT. Rounding is to the nearest, and to the even one of two.
    """
    last = np.ascontiguousarray(at_most(threshold, mode))  # the largest float32 that goes left
    with np.errstate(over="ignore", invalid="ignore"):
        after = np.nextafter(last, np.float32(np.inf))
        middle = (last.astype(np.float64) + after.astype(np.float64)) / 2  # exact in float64
    found = np.where((last.view(np.uint32) & 1) == 0, middle, np.nextafter(middle, -np.inf))
    found = np.where(np.isposinf(after), np.nextafter(_BEYOND, 0), found)
    found = np.where(np.isneginf(last), -_BEYOND, found)
    return np.asarray(np.where(np.isposinf(last), np.inf, found), np.float64)


def compared(field: str, limit: float, *, above: bool) -> Element:
    """Return whether a number is at most `limit`, or above it; never for a gap. Limits may be infinite."""
    if limit == np.inf:
        # Nothing is above infinity; everything but a gap is at most that.
        return element("False") if above else _asked(field, "isNotMissing")
    if limit == -np.inf:
        return _asked(field, "greaterOrEqual" if above else "lessThan", number(-_LARGEST))
    return _asked(field, "greaterThan" if above else "lessOrEqual", number(limit))


def _asked(field: str, operator: str, value: str = "") -> Element:
    more = {"value": value} if value else {}
    return element("SimplePredicate", field=field, operator=operator, **more)


def joined(function: str, asked: Sequence[Element]) -> Element:
    """Return several predicates as one; none at all is true for "and", and false for "or"."""
    if not asked:
        return element("True" if function == "and" else "False")
    return asked[0] if len(asked) == 1 else element("CompoundPredicate", *asked, booleanOperator=function)


def among(field: str, spans: Sequence[Span], *, inside: bool) -> Element:
    """Return whether a number is in one of the spans, or in none of them; never for a gap."""
    if not inside and not spans:
        return _asked(field, "isNotMissing")
    parts = []
    for low, with_low, high, with_high in spans:
        if low == high:
            parts.append(_asked(field, "equal" if inside else "notEqual", number(low)))
            continue
        names = ("greaterOrEqual", "greaterThan", "lessOrEqual", "lessThan")
        if not inside:
            names = ("lessThan", "lessOrEqual", "greaterThan", "greaterOrEqual")
        ends = [
            _asked(field, names[not with_low], number(low)),
            _asked(field, names[2 + (not with_high)], number(high)),
        ]
        parts.append(joined("and" if inside else "or", ends))
    return joined("or" if inside else "and", parts)


def spelled_among(field: str, words: Sequence[str], *, inside: bool) -> Element:
    """Return whether a text is one of these, or none of them; never for a gap."""
    if not inside and not words:
        return _asked(field, "isNotMissing")
    parts = [
        element("SimplePredicate", field=field, operator="equal" if inside else "notEqual", value=word)
        for word in words
    ]
    return joined("or" if inside else "and", parts)


def spans(members: Floats, *, single: bool, cut: bool) -> list[Span]:
    """Return the numbers that count as one of these whole numbers (at least 0), those side by side as one span.

    `cut`: towards 0, so that -0.5 is 0; else down. `single`: after they are rounded to float32.
    """
    whole = np.unique(members)
    breaks = np.flatnonzero(np.diff(whole) != 1) + 1
    found: list[Span] = []
    for part in np.split(whole, breaks) if len(whole) else []:
        first, end = float(part[0]), float(part[-1]) + 1
        with_low, with_high = True, False
        if cut and first == 0:
            first, with_low = -1.0, False
        elif single:
            first = _least(first)
        if single:
            end = _least(end)
        found.append((first, with_low, end, with_high))
    return found


def _least(whole: float) -> float:
    """Return the least float64 that float32 rounds to this whole number or above."""
    from modelrel.trees import Mode

    below = rounded_at_most(np.array([whole]), np.array([Mode.LT], np.uint8))
    return float(np.nextafter(below, np.inf)[0])

"""Sizes and spans of time as people write them: 300MB, 14d."""

from __future__ import annotations

import re
from typing import Final

from modelrel.errors import Invalid

_SIZES: Final = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_SPANS: Final = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}

SIZE: Final = r"^\s*[0-9]+(\.[0-9]+)?\s*([kKmMgG][iI]?[bB]|[bB])?\s*$"
"""A size as a regular expression that JSON Schema takes (ECMA-262)."""

SPAN: Final = r"^\s*[0-9]+(\.[0-9]+)?\s*(s|min|h|d|w)\s*$"
"""A span of time, as `SIZE`."""


def size(text: str, where: str) -> int:
    """Return a number of bytes; raises `Invalid`, naming `where` it stands.

    >>> size("2GB", "x"), size("512 MiB", "x"), size("1000", "x")
    (2000000000, 536870912, 1000)
    """
    return int(_read(text, SIZE, _SIZES, f"{where} is {text!r}, not a size", "Write for example 4GB or 512MiB."))


def span(text: str, where: str) -> float:
    """Return a number of seconds; raises `Invalid`, naming `where` it stands.

    >>> span("14d", "x"), span("1.5 h", "x"), span("30min", "x")
    (1209600.0, 5400.0, 1800.0)
    """
    return _read(text, SPAN, _SPANS, f"{where} is {text!r}, not a span of time", "Write for example 14d, 12h or 30min.")


def _read(text: str, form: str, units: dict[str, int], wrong: str, hint: str) -> float:
    if len(text) > 40 or not re.match(form, text, re.ASCII):
        raise Invalid(wrong, hint)
    number, unit = re.fullmatch(r"([0-9.]+)\s*([a-z]*)", text.strip().lower()).groups()  # type: ignore[union-attr]
    return float(number) * units[unit]


def shown_span(seconds: float) -> str:
    """Return a span of time for people.

    >>> shown_span(1209600), shown_span(5400), shown_span(42)
    ('14 d', '1.5 h', '42 s')
    """
    for unit in ("d", "h", "min"):
        if seconds >= _SPANS[unit]:
            return f"{seconds / _SPANS[unit]:.3g} {unit}"
    return f"{seconds:.0f} s"

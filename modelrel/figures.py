"""How figures are written for people: sizes, times, numbers and what they changed by."""

from __future__ import annotations

import math
import re
from typing import Final

NONE: Final = "–"
"""What stands where there is no figure."""

_LONG: Final = 60
_MANY: Final = 20
_MINUS: Final = "\N{MINUS SIGN}"


def megabytes(size: float) -> str:
    """Return a size for people.

    >>> megabytes(512), megabytes(35_000), megabytes(39_600_000)
    ('512 B', '35 kB', '39.6 MB')
    """
    if size < 1000:
        return f"{size:.0f} B"
    if size < 1_000_000:
        return f"{size / 1000:.0f} kB"
    return f"{size / 1_000_000:.1f} MB"


def seconds(value: float) -> str:
    """Return a time for people.

    >>> seconds(0.00042), seconds(0.0051), seconds(0.48), seconds(12)
    ('420 µs', '5.1 ms', '480 ms', '12 s')
    """
    for most, unit in ((0.001, "µs"), (1.0, "ms")):
        if value < most:
            return f"{value / most * 1000:.3g} {unit}"
    return f"{value:.3g} s"


def number(value: float) -> str:
    """Return a number with six digits at most, and thousands apart.

    >>> number(10688), number(0.97333333), number(4.8e-07)
    ('10,688', '0.973333', '4.8e-07')
    """
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def text(value: str | float | None, unit: str = "") -> str:
    """Return a value in its unit ("bytes", "ms", "s" or none).

    >>> text(1500, "bytes"), text(5.1, "ms"), text("abc"), text(None)
    ('2 kB', '5.1 ms', 'abc', '–')
    """
    if value is None:
        return NONE
    if isinstance(value, str):
        return value
    if unit == "bytes":
        return megabytes(value)
    if unit in ("ms", "s"):
        return seconds(value / 1000 if unit == "ms" else value)
    return number(value)


def change(before: object, delta: float | None, unit: str = "") -> str:
    """Return what something changed by, with its sign, and in percent where that tells more.

    >>> change(0.94, 0.033333), change(2000, 500, "bytes"), change(3, None)
    ('+0.0333333', '+500 B (+25%)', '')
    """
    if delta is None:
        return ""
    sign = "+" if delta > 0 else _MINUS if delta < 0 else "±"
    size = abs(delta)
    whole = isinstance(before, int) and not unit and size == int(size)
    said = f"{sign}{text(int(size) if whole else size, unit)}"
    if not unit or not isinstance(before, int | float) or not before or not math.isfinite(before):
        return said
    share = delta / before
    return f"{said} ({'+' if share > 0 else _MINUS}{abs(share):.0%})" if abs(share) >= 0.005 else said


def brief(value: object, most: int = 6) -> str:
    """Return JSON data as text of bounded length: numbers in four digits, of long lists the first few.

    >>> brief({"age": 41.333333, "plan": "pro"}), brief([0.1] * 9, 2)
    ('age 41.33, plan pro', '[0.1, 0.1, … 7 more]')
    """
    if isinstance(value, dict):
        shown = [f"{key} {brief(one, most)}" for key, one in list(value.items())[:_MANY]]
        return ", ".join(shown + ([f"… {len(value) - _MANY} more"] if len(value) > _MANY else []))
    if isinstance(value, list | tuple):
        shown = [brief(one, most) for one in value[:most]]
        return f"[{', '.join(shown + ([f'… {len(value) - most} more'] if len(value) > most else []))}]"
    if value is None:
        return NONE
    said = f"{value:.4g}" if isinstance(value, float) else str(value)
    return said if len(said) <= _LONG else said[:_LONG] + "…"


def hexadecimal(text: str) -> str:
    """Return a digest or id cut to what people compare.

    >>> hexadecimal("c0ffee" * 8), hexadecimal("a plain text")
    ('c0ffeec0ffee…', 'a plain text')
    """
    return f"{found[1]}…" if (found := re.fullmatch(r"((?:sha256:|m-)?[0-9a-f]{12})[0-9a-f]{20,}", text)) else text

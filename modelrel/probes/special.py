"""Values that models and converters treat in their own way: zeros, extremes, whole numbers, texts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

_ZERO_WINDOW: Final = (1e-36, 1e-35, float(np.float32(1e-35)))
"""LightGBM's kZeroThreshold is 1e-35 as a float32: with zero_as_missing all within it is missing."""

CODES: Final = (-999.0, -9999.0, -1.0, 999.0)
"""Numbers that people write for "missing": XGBoost's `missing=`, imputers' `missing_values=`."""

_EDGES: Final = (2**24, 2**31, 2**53)
"""Whole numbers beyond which float32, int32 and float64 are no longer exact."""

_SEPARATORS: Final = (" ", "  ", "-", "_", "'", "’", ".", ",", "/", "\t", "\n", "\r\n", "\u00a0", "\u3000", "")
_PLAIN: Final = (
    "", " ", "\t\n", "a", "a b c", "I a", "it's don't o'clock", "well-known", "snake_case_word", "__", "naïve café",
    "NAÏVE CAFÉ", "Straße STRASSE ẞ", "İstanbul ı", "e\u0301te\u0301", "北京大学", "私は 学生", "한국어", "пример",
    "١٢٣", "123 4567 8", "3.14 1,000", "a1 b2", "x²", "😀 word", "word😀word", "\u200bword\u200b",
    "http://a.b/c?d=e&f", "#tag @you", "ΟΔΟΣ οδός ς", "ﬁne ﬀ Ⅳ ½",
    "one\x00two", "می\u200cخواهم", "क्षि नमस्ते", "👩\u200d👩\u200d👧 ok",
    "a\u00adb", "x\u0085y\u2028z", "Å Å A\u030a", "ǅ ǆ Ǆ", "K k", "ａｂｃ ＡＢＣ", "a\x1cb", "..."
)  # fmt: skip


def around(value: float, dtype: np.dtype[Any]) -> list[Any]:
    """Return the values of `dtype` just below, at (or nearest to), and just above a float64 number.

    A float64 input gets the float32 values on both sides too: many models round what they read to float32.
    """
    if dtype.kind in "iu":
        near = np.floor(value) + np.array([-1, 0, 1])
        limits = np.iinfo(dtype)
        return list(np.clip(near, limits.min, min(limits.max, 2**62)).astype(dtype))
    steps = []
    for kind in (dtype, np.dtype(np.float32))[: 2 if dtype == np.float64 else 1]:
        with np.errstate(over="ignore"):  # CatBoost splits gaps off at the largest float
            middle = kind.type(value)
            steps += [np.nextafter(middle, kind.type(-np.inf)), middle, np.nextafter(middle, kind.type(np.inf))]
    return [one for one in steps if np.isfinite(one)]


def small(dtype: np.dtype[Any]) -> list[Any]:
    """Return both zeros, the smallest denormal and normal numbers, and LightGBM's window; for whole numbers 0."""
    if dtype.kind in "iu":
        return [0]
    kinds = (dtype, np.dtype(np.float32)) if dtype == np.float64 else (dtype,)
    tiny = [float(size) for kind in kinds for size in (np.finfo(kind).smallest_subnormal, np.finfo(kind).tiny)]
    window = [float(near) for size in _ZERO_WINDOW for near in around(size, dtype)]
    sizes = np.array(list(dict.fromkeys([0.0, *tiny, *window])), dtype)
    return [*sizes.tolist(), *(-sizes).tolist()]


def extremes(dtype: np.dtype[Any]) -> dict[str, Any]:
    """Return infinities and the largest finite numbers, or whole numbers where other dtypes end, name -> value."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        near = [sign * edge + step for edge in _EDGES for sign in (1, -1) for step in (-1, 0, 1, 3)]
        listed = [*near, int(limits.min), int(limits.max)]
        return {str(value): value for value in listed if limits.min <= value <= limits.max}
    kinds = {np.dtype(np.float32), dtype} if dtype == np.float64 else {dtype}
    sizes = [np.inf, *sorted(float(np.finfo(kind).max) for kind in kinds)]
    return {f"{sign * size:g}": sign * size for size in sizes for sign in (1, -1)}


def texts(vocabulary: Sequence[str]) -> list[str]:
    """Return texts that cut a vocabulary's words apart in every way that tokenisers differ about."""
    words = [word for word in vocabulary if word][:60]
    found = list(_PLAIN)
    for separator, at in zip(_SEPARATORS, itertools.cycle(range(0, max(len(words), 1), 3)), strict=False):
        found.append(separator.join(words[at : at + 4]))
    for word in words[:12]:
        found += [
            word, word.upper(), word.title(), f"{word}'s", f"({word})", f"é{word}", f"{word}é", f"{word}\u0301",
            f"{word}_x", f"{word}7", f"x {word}", f"{word} {word} {word}", word[:-1], word[:1],
        ]  # fmt: skip
    if words:
        found.append(" ".join((words * 5000)[:5000]))
    return list(dict.fromkeys(found))

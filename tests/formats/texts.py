"""Texts on which tokenisers differ, and small models of them."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd

from modelrel.probes import special

SAID: Final = [
    "good film, it's great", "bad bad movie", "I don't like it", "naïve café İstanbul", "great_one x y straße",
    "Ünïcode été à la mer",
    "北京 大学 film", "well-known 3.14 fact", "ΟΔΟΣ οδός good", "the movie is what you said it is",
]  # fmt: skip
WORDS: Final = sorted({word for text in SAID for word in text.lower().replace(",", " ").split()})

HARD: Final = list(
    dict.fromkeys(
        [
            *special.texts(WORDS),
            *(f"{first}{between}{second}" for first, second in zip(WORDS, WORDS[::-1], strict=True)
              for between in ("'", "\u200d", "_", "\r\n", "\x00")),
            "\ufeffgood", "ẞtraße", "ß ẞ ss", "i\u0307 İ ı I", "Σσς ΑΣ ΑΣ.", "ﬃ ﬀ ǅ", "a\u0300 à",
            "\ud7a3 \u1100\u1161",
            "½ ² ٣ ५ ७", "x\u00a0y", "\x1c\x1d\x85", "e" * 3000, "👨‍👩‍👧 👍🏽", "\U0001f468 \U00020000", "🇩🇪", "K Å Ω",
        ]
    )
)  # fmt: skip
"""More than 200 texts."""


def said(times: int = 6) -> Any:
    return np.array(SAID * times, object)


def classes(times: int = 6) -> Any:
    return np.array([1, 0, 0, 2, 1, 2, 0, 1, 2, 0] * times)


def frame(times: int = 6) -> Any:
    """Return text beside words, whole and real numbers."""
    count = len(SAID) * times
    return pd.DataFrame({
        "text": SAID * times,
        "plan": (["basic", "pro", "é c"] * count)[:count],
        "n": np.arange(count) % 17,
        "x": np.linspace(-1.0, 1.0, count),
    })  # fmt: skip


def hard_frame() -> Any:
    count = len(HARD)
    return pd.DataFrame({
        "text": HARD,
        "plan": (["basic", "never seen", "é c", "pro", "Pro"] * count)[:count],
        "n": np.arange(count) % 19,
        "x": np.linspace(-2.0, 2.0, count),
    })  # fmt: skip

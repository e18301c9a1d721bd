"""Names of columns and tensors, which may be anything, as identifiers of a programming language."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable
from typing import Final, Literal

Style = Literal["camel", "pascal", "snake"]
"""`petalLength`, `PetalLength`, `petal_length`."""

LONGEST: Final = 60
"""Characters that an identifier has at most, besides the number that may follow."""


def identifiers(names: Iterable[str], style: Style, keywords: Collection[str] = ()) -> dict[str, str]:
    """Return name -> identifier: ASCII letters, digits and (`snake`) underscores, a letter first.

    All differ, even without regard to case, and none is one of `keywords`. The same names give the same identifiers;
    a name that needs no change keeps its own, whatever stands before it. Unknown scripts are left out, accents fall
    off.

    >>> identifiers(["petal length (cm)", "class", "größe", "1st", "a b", "aB", "日本"], "camel", {"class"})
    {'petal length (cm)': 'petalLengthCm', 'class': 'class2', 'größe': 'grosse', '1st': 'value1st', 'a b': 'aB2', \
'aB': 'aB', '日本': 'value'}
    """
    order = list(dict.fromkeys(names))
    wished = {name: _plain(name, style) for name in order}
    taken = {word.lower() for word in keywords}
    found: dict[str, str] = {}
    for name in sorted(order, key=lambda name: wished[name] != name):
        word, number = wished[name], 1
        while word.lower() in taken:
            number += 1
            # a digit before it would make another number of it
            apart = "_" if wished[name][-1].isdigit() else ""
            word = f"{wished[name]}{apart}{number}"
        taken.add(word.lower())
        found[name] = word
    return {name: found[name] for name in order}


def _plain(name: str, style: Style) -> str:
    """Return the identifier that a name would have alone."""
    # NFKD parts letters from their accents; what has no parts, such as ß, is told apart by hand
    text = unicodedata.normalize("NFKD", name.replace("ß", "ss").replace("ẞ", "SS"))
    ascii_only = "".join(char for char in text if not unicodedata.combining(char))
    words = re.findall(r"[A-Za-z0-9]+", ascii_only)
    if not words or words[0][0].isdigit():
        words = ["value", *words]
    if style == "snake":
        return "_".join(word.lower() for word in words)[:LONGEST].rstrip("_")
    first, *rest = words
    start = _small(first) if style == "camel" else first[0].upper() + first[1:]
    # between two digits a capital letter is missing
    joined = start
    for word in rest:
        joined += ("_" if joined[-1].isdigit() and word[0].isdigit() else "") + word[0].upper() + word[1:]
    return joined[:LONGEST].rstrip("_")


def _small(word: str) -> str:
    """Return a word with a small start: `ID` is `id`, `MedInc` is `medInc`."""
    return word.lower() if word.isupper() else word[0].lower() + word[1:]

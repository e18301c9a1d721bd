"""Texts as the numbers that a model's graph takes: words counted and weighed as scikit-learn does, and categories.

What is done is data (`adapter.json`); the code is Python's own `re`, `unicodedata` and `str.lower`, because an
exact copy of Python's word classes and lower case does not fit in a graph. Which letters there are is what the
Unicode tables of the running Python say. The adapter does everything up to the rows of the (sparse) matrix that a
vectorizer gives, weights included, in the vectorizer's own dtype; the graph begins with that matrix.
"""

from __future__ import annotations

import re
import unicodedata
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from .faults import BadInput, BrokenAdapter
from .murmur import hashed
from .patterns import Unsafe, compiled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    Analyzer = Callable[[str], Iterable[str]]

Array = np.ndarray[Any, np.dtype[Any]]

_SPACES: Final = re.compile(r"\s\s+")
_MOST_REMEMBERED: Final = 200_000
"""Hashes that are remembered: a few dozen MB at most, whatever texts come."""

_DATATYPES: Final[dict[str, np.dtype[Any]]] = {"FP64": np.dtype(np.float64), "FP32": np.dtype(np.float32)}


REQUIRES: Final = ()


def step(said: Mapping[str, Any]) -> Callable[[Sequence[Array]], Sequence[Array]]:
    """Return what turns columns of texts, (N,) or (N, columns) of `str`, into numbers.

    `said`: `parts`, each a vectorizer (`do` "count") or a column of an encoder ("code"), with the number `of` the
    array that it reads, and the `place` of its column there; `kept`, the numbers of arrays that the graph wants as
    well. Gives two arrays for each that counts (see `_Counted`), one for each that codes, and then those kept.
    """
    parts = [(int(part["of"]), int(part["place"]), _PARTS[part["do"]](part)) for part in said["parts"]]
    kept = [int(number) for number in said["kept"]]
    if not parts:
        raise BrokenAdapter("it has no parts")

    def run(given: Sequence[Array]) -> Sequence[Array]:
        columns = [array.reshape(len(array), -1) if array.size else array.reshape(len(array), 1) for array in given]
        found = [array for number, place, part in parts for array in part(columns[number][:, place].tolist())]
        return found + [given[number] for number in kept]

    return run


class _Counted:
    """A vectorizer: texts in, the cells of a sparse matrix (N, width) out.

    Gives the column of each cell of a row, int64 (N, most), and what is in it, (N, most). Rows with fewer cells than
    the most are filled up with cells of column 0 that say 0, to be added.
    """

    def __init__(self, said: Mapping[str, Any]) -> None:
        self._cell = _DATATYPES[said["cell"]]
        self._width = int(said["width"])
        self._tokens = analyzer(said)
        self._column = _columns(said, self._width)
        self._signs = bool(said["signs"])
        self._dtype = np.dtype(str(said["dtype"]))
        self._stages = [partial(_STAGES[stage["do"]], **_stage(stage, self._width)) for stage in said["stages"]]

    def __call__(self, texts: Sequence[Any]) -> list[Array]:
        row, column, values = self._cells(texts)
        for stage in self._stages:
            values = stage(values, row, column)
        counts = np.bincount(row, minlength=len(texts))
        shape = (len(texts), max(int(counts.max(initial=0)), 1))
        first = np.cumsum(counts) - counts
        place = np.arange(len(row)) - first[row]
        columns, cells = np.zeros(shape, np.int64), np.zeros(shape, self._cell)
        columns[row, place] = column
        cells[row, place] = values
        return [columns, cells]

    def _cells(self, texts: Sequence[Any]) -> tuple[Array, Array, Array]:
        """Return row, column and value of each cell that a text fills, sorted by row and then column."""
        ids: list[int] = []
        ends = np.empty(len(texts), np.int64)
        for number, text in enumerate(texts):
            if not isinstance(text, str):
                raise BadInput(f"row {number} has no text")
            ids += self._column(self._tokens(text))
            ends[number] = len(ids)
        found = np.array(ids, np.int64)
        row = np.repeat(np.arange(len(texts)), np.diff(ends, prepend=0))
        if not self._signs:
            cell, counts = np.unique(row * self._width + found, return_counts=True)
            return *np.divmod(cell, self._width), counts.astype(self._dtype)
        sign = np.where(found >= 0, 1.0, -1.0)
        place = row * self._width + (np.where(found >= 0, found, ~found) >> 1)
        cell, which = np.unique(place, return_inverse=True)
        return *np.divmod(cell, self._width), np.bincount(which, sign, len(cell)).astype(self._dtype)


class _Coded:
    """A column of words in, the place of each among the known ones out, (N, 1): -1 for a stranger.

    A missing word, for which "" stands as well, is looked up as `missing`.
    """

    def __init__(self, said: Mapping[str, Any]) -> None:
        self._missing = str(said["missing"])
        self._known = {str(word): place for place, word in enumerate(said["categories"])}

    def __call__(self, words: Sequence[Any]) -> list[Array]:
        known, missing = self._known, self._missing
        places = [known.get(word if word and isinstance(word, str) else missing, -1) for word in words]
        return [np.array(places, np.int64).reshape(-1, 1)]


_PARTS: Final[dict[str, Callable[[Mapping[str, Any]], Callable[[Sequence[Any]], list[Array]]]]] = {
    "count": _Counted,
    "code": _Coded,
}


def analyzer(said: Mapping[str, Any]) -> Analyzer:
    """Return what cuts a text into terms, by scikit-learn's rules for its analyzers (user guide, 7.2.3).

    `said` has `analyzer` (word, char or char_wb), `lowercase`, `accents` (null, ascii or unicode), `ngrams` (least,
    most), and for words `pattern` and `stop_words`. Raises BrokenAdapter for a pattern that is not to be run.
    """
    least, most = (int(number) for number in said["ngrams"])
    if not 1 <= least <= most:
        raise BrokenAdapter(f"terms cannot be of {least} to {most} parts")
    prepared = _prepared(lower=bool(said["lowercase"]), accents=said["accents"])
    kind = said["analyzer"]
    if kind == "word":
        return _words(prepared, said, least, most)
    if kind not in ("char", "char_wb"):
        raise BrokenAdapter(f"there is no analyzer {kind!r}")
    return partial(_letters if kind == "char" else _letters_of_words, prepared=prepared, least=least, most=most)


def _cut(pattern: str) -> Callable[[str], list[str]]:
    try:
        return compiled(pattern).findall
    except Unsafe as error:
        raise BrokenAdapter(f"the pattern {pattern[:100]!r} {error}") from error


def _prepared(*, lower: bool, accents: str | None) -> Callable[[str], str]:
    strip = {None: None, "ascii": _ascii, "unicode": _unaccented}[accents]
    if strip is None:
        return str.lower if lower else str
    return (lambda text: strip(text.lower())) if lower else strip


def _ascii(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")


def _unaccented(text: str) -> str:
    if text.isascii():
        return text
    return "".join([letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter)])


def _words(prepared: Callable[[str], str], said: Mapping[str, Any], least: int, most: int) -> Analyzer:
    cut = _cut(str(said["pattern"]))
    stopped = frozenset(said["stop_words"] or ())

    def words(text: str) -> list[str]:
        found = cut(prepared(text))
        if stopped:
            found = [word for word in found if word not in stopped]
        if most == 1:
            return found
        terms = list(found) if least == 1 else []
        for size in range(max(least, 2), min(most, len(found)) + 1):
            terms += map(" ".join, zip(*(found[at:] for at in range(size))))  # noqa: B905 - the shortest ends it
        return terms

    return words


def _letters(text: str, prepared: Callable[[str], str], least: int, most: int) -> list[str]:
    text = _SPACES.sub(" ", prepared(text))
    found: list[str] = []
    for size in range(least, min(most, len(text)) + 1):
        found += [text[at : at + size] for at in range(len(text) - size + 1)]
    return found


def _letters_of_words(text: str, prepared: Callable[[str], str], least: int, most: int) -> list[str]:
    """Return pieces within words, each with a space before and behind; a word shorter than a piece is one, once."""
    found: list[str] = []
    for word in prepared(text).split():
        spaced = f" {word} "
        for size in range(least, most + 1):
            found += [spaced[at : at + size] for at in range(max(len(spaced) - size, 0) + 1)]
            if size >= len(spaced):
                break
    return found


def _columns(said: Mapping[str, Any], width: int) -> Callable[[Iterable[str]], Iterable[int]]:
    """Return what gives the columns of terms: by a vocabulary, or by MurmurHash3."""
    if said["vocabulary"] is None:
        return _Hashes(width, signs=bool(said["signs"]))
    places = {str(term): place for place, term in enumerate(said["vocabulary"])}
    if len(places) != width:
        raise BrokenAdapter(f"the vocabulary has {len(places)} terms, and the matrix {width} columns")
    return partial(_known, places=places)


def _known(terms: Iterable[str], places: Mapping[str, int]) -> list[int]:
    return [place for place in map(places.get, terms) if place is not None]


class _Hashes:
    """MurmurHash3 of terms as columns; with signs, 2 * column + 1, or its complement where the term counts -1."""

    def __init__(self, width: int, *, signs: bool) -> None:
        self._width, self._signs = width, signs
        self._remembered: dict[str, int] = {}

    def __call__(self, terms: Iterable[str]) -> list[int]:
        remembered = self._remembered
        found = []
        for term in terms:
            code = remembered.get(term)
            if code is None:
                code = self._code(term)
                if len(remembered) >= _MOST_REMEMBERED:
                    remembered.clear()
                remembered[term] = code
            found.append(code)
        return found

    def _code(self, term: str) -> int:
        try:
            place, positive = hashed(term.encode(), self._width)
        except UnicodeEncodeError as error:  # as scikit-learn does
            raise BadInput(f"a text has half of a surrogate pair, which has no bytes: {error.reason}") from error
        if not self._signs:
            return place
        return 2 * place + 1 if positive else ~(2 * place + 1)


def _stage(said: Mapping[str, Any], width: int) -> dict[str, Any]:
    """Return the arguments of a stage, checked."""
    if said["do"] == "norm":
        if said["norm"] not in ("l1", "l2"):
            raise BrokenAdapter(f"there is no norm {said['norm']!r}")
        return {"norm": said["norm"]}
    if said["do"] == "idf":
        idf = np.array(said["idf"], np.float64)
        if idf.shape != (width,):
            raise BrokenAdapter(f"there are {idf.size} weights for {width} columns")
        return {"idf": idf}
    return {}


def _ones(values: Array, row: Array, column: Array) -> Array:
    del row, column
    return np.ones_like(values)


def _logarithms(values: Array, row: Array, column: Array) -> Array:
    del row, column
    with np.errstate(divide="ignore", invalid="ignore"):  # a hash can count 0 or less
        found: Array = np.log(values) + values.dtype.type(1)
    return found


def _frequencies(values: Array, row: Array, column: Array, idf: Array) -> Array:
    del row
    weighed: Array = values * idf[column]
    return weighed.astype(values.dtype)


def _normalised(values: Array, row: Array, column: Array, norm: str) -> Array:
    """Return each row divided by its norm, which is summed in order and in float64, as scikit-learn does."""
    del column
    size = np.abs(values) if norm == "l1" else values * values
    total = np.bincount(row, size)
    total = total if norm == "l1" else np.sqrt(total)
    total[total == 0] = 1.0
    return (values / total[row]).astype(values.dtype)


def _real(values: Array, row: Array, column: Array) -> Array:
    del row, column
    return values.astype(np.float64)


_STAGES: Final[dict[str, Callable[..., Array]]] = {
    "ones": _ones,
    "real": _real,
    "log": _logarithms,
    "idf": _frequencies,
    "norm": _normalised,
}
"""What is done to the counts of the cells, in turn: see TfidfTransformer and `normalize` of scikit-learn."""

"""The text adapter: what it does alone, and what it does not run."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer
from sklearn.utils import murmurhash3_32

from modelrel.serving import adapters
from modelrel.serving.adapters import murmur, patterns

if TYPE_CHECKING:
    from pathlib import Path

COUNT = {
    "do": "count", "of": 0, "place": 0, "analyzer": "word", "lowercase": True, "accents": None, "ngrams": [1, 1],
    "pattern": r"(?u)\b\w\w+\b", "stop_words": [], "dtype": "float64", "width": 3, "cell": "FP64",
    "vocabulary": ["bad", "film", "good"], "signs": False, "stages": [],
}  # fmt: skip
GIVES = [
    {"name": "columns", "datatype": "INT64", "shape": [-1, -1]},
    {"name": "values", "datatype": "FP64", "shape": [-1, -1]},
]


def loaded(folder: Path, rows: int = 512, **changes: Any) -> adapters.Adapter:
    step = {"kind": "text", "takes": ["text"], "gives": ["columns", "values"], "kept": [], "parts": [COUNT | changes]}
    path = folder / adapters.FILE
    path.write_text(json.dumps({"schema": 1, "rows": rows, "steps": [step], "gives": GIVES}))
    return adapters.load(path)


def matrix(found: dict[str, Any], width: int) -> Any:
    """Return the matrix whose cells an adapter gives."""
    made = np.zeros((len(found["columns"]), width))
    np.add.at(made, (np.arange(len(made))[:, None], found["columns"]), found["values"])
    return made


def texts(*said: Any) -> dict[str, Any]:
    return {"text": np.array([*said, None], object)[:-1].reshape(-1, 1)}


def test_cells_are_counts_and_short_rows_are_filled_up_with_nothing(tmp_path: Path) -> None:
    found = loaded(tmp_path)(texts("good GOOD film", "", "bad"))
    np.testing.assert_array_equal(found["columns"], [[1, 2], [0, 0], [0, 0]])
    np.testing.assert_array_equal(found["values"], [[1, 2], [0, 0], [1, 0]])


def test_no_rows_are_no_rows(tmp_path: Path) -> None:
    assert loaded(tmp_path)(texts())["values"].shape == (0, 1)


def test_hashes_are_murmurhash3() -> None:
    chance = random.Random(0)
    for size in range(40):
        data = chance.randbytes(size)
        assert murmur.murmur3(data) == murmurhash3_32(data, 0, positive=True)


@pytest.mark.parametrize("width", [7, 2**20])
def test_words_have_the_columns_and_signs_of_scikit_learn(width: int, tmp_path: Path) -> None:
    words = [f"w{number}é" for number in range(500)]
    hashes = HashingVectorizer(n_features=width, norm=None, dtype=np.float64)
    found = loaded(tmp_path, width=width, vocabulary=None, signs=True)(texts(*words))
    expected = hashes.transform(words).tocsr()
    expected.eliminate_zeros()
    np.testing.assert_array_equal(found["columns"][:, 0], expected.indices)
    np.testing.assert_array_equal(found["values"][:, 0], expected.data)


@pytest.mark.parametrize("item", [None, float("nan"), 7])
def test_a_row_without_text_is_refused(item: object, tmp_path: Path) -> None:
    with pytest.raises(adapters.BadInput, match="row 1 has no text"):
        loaded(tmp_path)(texts("good", item))


def test_half_a_surrogate_pair_has_no_hash(tmp_path: Path) -> None:
    with pytest.raises(adapters.BadInput, match="surrogate"):
        loaded(tmp_path, vocabulary=None, pattern=r"\S+")(texts("\ud800x good"))


GOOD = [
    r"(?u)\b\w\w+\b", "[a-zA-Z0-9]+", r"\w+(?:['’-]\w+)*", r"(?ui)\b\w*[a-z]+\w*\b", r"\S+", r"(?u)\b[^\W\d_]+\b",
    r"[a-z]+(?:\.[a-z]+)+", r"\b[a-zA-Z][a-zA-Z0-9]*(?:[_-][a-zA-Z0-9]+)*\b", r"\d+(?:,\d{3})*(?:\.\d+)?",
    r"(?:[A-Za-z]+\.)+[a-z]+", r"#(\w+)", ".", "(?:a|b)+", "(?:ab|cd)*x", r"(?:\d{3}){2,}", r"(?:(?:https?|ftp)://\S+)|\w+",
]  # fmt: skip
BAD = {
    r"(a+)+$": "repeats a repetition", r"(?:a|ab)*c": "repeats a repetition", r"(?:\w+\s*)+!": "repeats a repetition",
    r"(.*)*": "repeats a repetition", r"(?:[a-z]+[0-9]*)*!": "repeats a repetition", r"(\w)\1": "refers back",
    "(a)(b)": "has 2 groups", "(": "does not compile", r"(?:-\w*\w*)*x": "repeats a repetition",
    "(?:a?){30}a{30}": "repeats a repetition", "(?=(?:x+x+)+y)z": "repeats a repetition",
    "(?:a{1,10}){1,10}b": "repeats a repetition", "a" * 10_001: "has 10,001 letters",
}  # fmt: skip


@pytest.mark.parametrize("pattern", GOOD)
def test_usual_patterns_are_run(pattern: str, tmp_path: Path) -> None:
    said = ["good film, it's a.b.c x-ray http://a.b #tag 1,000.5 123456", ""]
    words = CountVectorizer(token_pattern=pattern).fit(said)
    terms = words.get_feature_names_out().tolist()
    found = loaded(tmp_path, pattern=pattern, vocabulary=terms, width=len(terms))(texts(*said))
    np.testing.assert_array_equal(matrix(found, len(terms)), words.transform(said).toarray())


@pytest.mark.parametrize("pattern", BAD)
def test_patterns_that_a_text_keeps_busy_are_not(pattern: str, tmp_path: Path) -> None:
    with pytest.raises(patterns.Unsafe, match=BAD[pattern]):
        patterns.compiled(pattern)
    with pytest.raises(adapters.BrokenAdapter):
        loaded(tmp_path, pattern=pattern)


@pytest.mark.parametrize(
    "changes",
    [
        {"vocabulary": ["bad", "film"]}, {"vocabulary": ["bad", "bad", "film"]}, {"ngrams": [0, 1]}, {"ngrams": [2, 1]},
        {"analyzer": "code"}, {"stages": [{"do": "norm", "norm": "l3"}]}, {"stages": [{"do": "idf", "idf": [1.0]}]},
        {"stages": [{"do": "eval"}]}, {"dtype": "no"}, {"cell": "BYTES"}, {"do": "exec"}, {"accents": "all"},
    ],
)  # fmt: skip
def test_a_file_that_says_something_else_is_no_adapter(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(adapters.BrokenAdapter, match=r"adapter\.json is no adapter"):
        loaded(tmp_path, **changes)

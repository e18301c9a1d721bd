"""What models are trained on besides plain arrays: data frames of every dtype, frames between steps, sparse matrices.

Each is logged by MLflow, converted and verified equal, or refused in one sentence.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import TruncatedSVD
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, OneHotEncoder, StandardScaler

from modelrel.errors import Invalid, Refused
from modelrel.probes import rows
from modelrel.steps.convert import convert
from modelrel.steps.verify import verify
from modelrel.values import ConvertOptions, ParityReport, Signature, TensorSpec, VerifyOptions
from tests.models import logged, people, prepared

FRAME, CLASSES, _ = people()
SPARSE = sparse.random(300, 20, density=0.2, format="csr", random_state=0)
KINDS = SPARSE[:, [0]].toarray().ravel() > 0.3
WIDE = np.random.default_rng(0).normal(size=(300, 4)) * [1, 1e6, 1e-6, 1] + [0, 1e9, 0, 0]


def dense() -> ColumnTransformer:
    """`people`'s preparation without sparse parts, which data frames cannot hold."""
    found = prepared()
    found.transformers[1] = ("words", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["plan"])
    return found


def typed(**dtypes: str) -> tuple[Any, Any]:
    frame = FRAME.astype(dtypes)
    return make_pipeline(prepared(), LogisticRegression()).fit(frame, CLASSES), frame


def gapped() -> tuple[Any, Any]:
    frame = FRAME.astype({"the age": "Int64"})
    frame.loc[10::9, "the age"] = pd.NA
    return make_pipeline(prepared(), LogisticRegression()).fit(frame, CLASSES), frame


EQUAL: dict[str, Callable[[], tuple[Any, Any]]] = {
    "frames between steps": lambda: (
        make_pipeline(dense(), StandardScaler(), LogisticRegression()).set_output(transform="pandas").fit(
            FRAME, CLASSES), FRAME),
    "frames before a forest": lambda: (
        make_pipeline(dense(), RandomForestClassifier(5, random_state=0)).set_output(transform="pandas").fit(
            FRAME, CLASSES), FRAME),
    "a frame as the answer": lambda: (dense().set_output(transform="pandas").fit(FRAME), FRAME),
    "str": lambda: typed(plan="str"),
    "string": lambda: typed(plan="string"),
    "category": lambda: typed(plan="category"),
    "nullable": lambda: typed(**{"the age": "Int64", "flag": "boolean", "in.come (k)": "Float64"}),
    "nullable with gaps": gapped,
    "sparse rows": lambda: (LogisticRegression().fit(SPARSE, KINDS), SPARSE),
    "sparse columns": lambda: (LogisticRegression().fit(SPARSE.tocsc(), KINDS), SPARSE.tocsc()),
    "sparse rows, forest": lambda: (RandomForestClassifier(5, random_state=0).fit(SPARSE, KINDS), SPARSE),
    "sparse rows, steps": lambda: (
        make_pipeline(MaxAbsScaler(), TruncatedSVD(4, random_state=0), LogisticRegression()).fit(SPARSE, KINDS),
        SPARSE),
    "sparse between steps": lambda: (
        make_pipeline(ColumnTransformer([("words", OneHotEncoder(handle_unknown="ignore"), ["plan"])],
                                        remainder="passthrough", sparse_threshold=1.0),
                      RandomForestClassifier(5, random_state=0)).fit(FRAME[["plan", "the age"]], CLASSES),
        FRAME[["plan", "the age"]]),
    "wide numbers": lambda: (make_pipeline(StandardScaler(), LinearRegression()).fit(WIDE, WIDE @ [1, 2, 3, 4]), WIDE),
    "wide numbers, float32 signature": lambda: (
        LinearRegression().fit(WIDE, WIDE @ [1, 2, 3, 4]), WIDE.astype(np.float32)),
    "small whole numbers": lambda: (
        RandomForestClassifier(4, random_state=0).fit(FRAME[["the age"]].astype("int8"), CLASSES),
        FRAME[["the age"]].astype("int8")),
}  # fmt: skip


def proven(made: tuple[Any, Any], folder: Path) -> ParityReport:
    model, data = made
    return verify(convert(logged(model, data, folder), "onnx", ConvertOptions()), VerifyOptions(rows=200, budget=1))


@pytest.mark.parametrize("name", EQUAL)
def test_it_is_converted_and_equal(name: str, tmp_path: Path) -> None:
    report = proven(EQUAL[name](), tmp_path)
    assert [parity.disagreements for parity in report.outputs] == [0] * len(report.outputs)
    assert report.rows >= 200
    assert report.sources["example"] == 5


def test_a_gap_in_an_example_of_whole_numbers_is_said(tmp_path: Path) -> None:
    model, frame = gapped()
    report = proven((model, frame[10:15]), tmp_path)
    said = "the input example is not used: input_example.json, row 0: 'the age' is None, and the signature says INT64"
    assert said in report.findings


def frames_by_name() -> tuple[Any, Any]:
    first = ColumnTransformer([("kept", "passthrough", ["n2", "the age"])], verbose_feature_names_out=False)
    second = ColumnTransformer([("scaled", StandardScaler(), ["n2"])], remainder="passthrough")
    steps = make_pipeline(first.set_output(transform="pandas"), second, LogisticRegression())
    return steps.fit(FRAME, CLASSES), FRAME


def split_by_code() -> tuple[Any, Any]:
    texts = pd.DataFrame({"text": ["a b", "c d", "a c"] * 20})
    words = ColumnTransformer([("split", CountVectorizer(tokenizer=str.split, token_pattern=None), "text")])
    return make_pipeline(words, LogisticRegression()).fit(texts, [0, 1, 1] * 20), texts


def sparse_frame() -> tuple[Any, Any]:
    frame = pd.DataFrame.sparse.from_spmatrix(SPARSE, columns=[f"c{place}" for place in range(20)])
    return LogisticRegression().fit(frame, KINDS), frame


def dates() -> tuple[Any, Any]:
    frame = pd.DataFrame({"day": pd.date_range("2020", periods=300), "n2": FRAME["n2"]})
    days = ColumnTransformer([("n2", "passthrough", ["n2"])])
    return make_pipeline(days, LogisticRegression()).fit(frame, CLASSES), frame


REFUSED: dict[str, tuple[Callable[[], tuple[Any, Any]], str]] = {
    "columns of a frame between steps": (
        frames_by_name,
        "the ColumnTransformer 'columntransformer-2' picks columns of what 'columntransformer-1' gives, which",
    ),
    "words split by code": (
        split_by_code,
        "CountVectorizer has the tokenizer str.split, which is code of the model's own",
    ),
    "a frame of sparse columns": (sparse_frame, "nothing says what goes into churn/7: its signature cannot be used"),
    "dates": (dates, "its signature cannot be used: the column day has the type datetime, which no target takes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    made, said = REFUSED[name]
    with pytest.raises(Refused) as stop:
        proven(made(), tmp_path)
    assert said in stop.value.message
    assert "\n" not in stop.value.message
    assert stop.value.hint


SPEC = Signature(kind="tensor", inputs=(TensorSpec(name="input", datatype="FP64", shape=(-1, 3)),))
PARTS = '{"data": [1.5, 2.5, null], "indices": [2, 0, 1], "indptr": %s, "shape": %s}'


def test_a_sparse_example_is_read_by_rows_and_by_columns(tmp_path: Path) -> None:
    path = tmp_path / "example.json"
    path.write_text(PARTS % ([0, 1, 3], [2, 3]))
    np.testing.assert_array_equal(rows.read(path, SPEC)["input"], [[0, 0, 1.5], [2.5, np.nan, 0]])
    path.write_text(PARTS % ([0, 1, 3, 3], [4, 3]))
    np.testing.assert_array_equal(rows.read(path, SPEC)["input"], [[0, 2.5, 0], [0, np.nan, 0], [1.5, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize(
    ("ends", "shape"),
    [([0, 1, 3], [2, 2]), ([0, 1, 3], [2, 10**9]), ([0, 1], [2, 3]), ([0, 2, 1], [2, 3]), ([0, 1, 3], [2]), ([], [])],
    ids=["outside", "huge", "short", "backwards", "flat", "empty"],
)
def test_a_sparse_example_that_is_none_is_invalid(ends: list[int], shape: list[int], tmp_path: Path) -> None:
    path = tmp_path / "example.json"
    path.write_text(PARTS % (ends, shape))
    with pytest.raises(Invalid, match=r"example\.json"):
        rows.read(path, SPEC)

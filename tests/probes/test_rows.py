"""Rows from files: every form that MLflow and people write, and what is wrong with the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelrel.errors import Invalid
from modelrel.probes import rows
from modelrel.values import Signature, TensorSpec

FRAME = Signature(
    kind="columns",
    inputs=(
        TensorSpec(name="age", datatype="INT64", shape=(-1, 1)),
        TensorSpec(name="plan", datatype="BYTES", shape=(-1, 1)),
        TensorSpec(name="income", datatype="FP64", shape=(-1, 1)),
    ),
)
TENSOR = Signature(kind="tensor", inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 2)),))
SPLIT = {"columns": ["age", "plan", "income"], "data": [[30, "pro", 1.5], [40, None, None]]}
RECORDS = [{"age": 30, "plan": "pro", "income": 1.5}, {"age": 40, "plan": None, "income": None}]


@pytest.mark.parametrize(
    "content",
    [
        SPLIT,
        {"dataframe_split": SPLIT},
        {"dataframe_records": RECORDS},
        RECORDS,
        {"inputs": {"age": [30, 40], "plan": ["pro", None], "income": [1.5, None]}},
        {"instances": RECORDS},
        [[30, "pro", 1.5], [40, None, None]],
    ],
    ids=["split", "dataframe_split", "dataframe_records", "records", "inputs", "instances", "lists"],
)
def test_every_json_form_gives_the_same_rows(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps(content))
    found = rows.read(path, FRAME)
    assert found["age"].tolist() == [[30], [40]]
    assert found["plan"].tolist() == [["pro"], [None]]
    assert found["income"].dtype == np.float64
    assert np.isnan(found["income"][1, 0])


@pytest.mark.parametrize(
    "content", [[[1, 2]], {"inputs": [[1, 2]]}, {"instances": [[1, 2]]}, {"inputs": {"x": [[1, 2]]}}]
)
def test_every_json_form_of_a_tensor_gives_the_same_rows(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps(content))
    found = rows.read(path, TENSOR)["x"]
    assert (found.dtype, found.tolist()) == (np.float32, [[1.0, 2.0]])


def test_arrays_are_read_from_npy_and_npz(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((3, 2)))
    np.savez(tmp_path / "a.npz", x=np.ones((3, 2)))
    assert rows.read(tmp_path / "a.npy", TENSOR)["x"].shape == (3, 2)
    assert rows.read(tmp_path / "a.npz", TENSOR)["x"].shape == (3, 2)


def test_a_number_in_a_text_column_of_a_csv_file_stays_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("age,plan,income\n30,007,1\n")
    assert rows.read(tmp_path / "a.csv", FRAME)["plan"].tolist() == [["007"]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("age,plan\n1,a\n", "lacks the column 'income'"),
        ("age,plan,income\n1.5,a,1\n", "'age' is 1.5"),
        ("age,plan,income\nx,a,1\n", "'age' is 'x'"),
        ("age,plan,income\n", "holds no rows"),
        ("", "cannot be read"),
    ],
)
def test_what_is_wrong_with_a_csv_file_is_named(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(Invalid, match=said):
        rows.read(tmp_path / "a.csv", FRAME)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.json", "{"), ("a.json", "3"), ("a.txt", "x"), ("a.npy", "x"), ("a.parquet", "x"), ("a.json", "[[1, 2, 3]]")],
)
def test_a_file_that_holds_no_rows_of_the_signature_is_invalid(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(Invalid):
        rows.read(tmp_path / name, TENSOR)


def test_a_missing_file_is_invalid(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="no file"):
        rows.read(tmp_path / "none.csv", FRAME)


def test_a_pickle_in_an_npy_file_is_not_run(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(Invalid):
        rows.read(tmp_path / "a.npy", TENSOR)

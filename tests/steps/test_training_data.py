"""Verify asks rows of the data sets that the run logged: read as data from files of this machine, or said why not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from mlflow.entities import Dataset as Logged

from modelrel.errors import Refused
from modelrel.measured import Coverage
from modelrel.probes import training
from modelrel.registry import Registry
from modelrel.registry.datasets import described
from modelrel.registry.reference import parse
from modelrel.steps.convert import convert
from modelrel.steps.pull import locate, pull
from modelrel.steps.verify import verify
from modelrel.values import ConvertedModel, ConvertOptions, ParityReport, SourceModel, VerifyOptions
from tests import registered_data
from tests.conftest import Run
from tests.steps.test_verify_probes import misread

ROWS = registered_data.table()
PICKED = np.unique(np.linspace(0, 2499, 2000).astype(int)) * 2  # every second of 5,000, and 2,000 of these


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("data")
    found = f"sqlite:///{folder}/mlflow.db"
    subprocess.run([sys.executable, "-m", registered_data.__name__, found, str(folder)], check=True,
                   cwd=Path(__file__).parents[2])  # fmt: skip
    return found


def source(uri: str, version: str, folder: Path) -> SourceModel:
    registry = Registry(uri)
    number = registered_data.VERSIONS.index(version) + 1
    return pull(locate(parse(f"plans/{number}"), registry), registry, folder / version)


@pytest.fixture(scope="module")
def converted(uri: str, tmp_path_factory: pytest.TempPathFactory) -> ConvertedModel:
    return convert(source(uri, "csv", tmp_path_factory.mktemp("dist")), "onnx", ConvertOptions())


@pytest.fixture(scope="module")
def report(converted: ConvertedModel) -> ParityReport:
    return verify(converted, VerifyOptions())


def covered(report: ParityReport) -> Coverage:
    return next(one for one in report.coverage if one.source == training.SOURCE)


def test_rows_of_a_csv_are_asked_and_the_report_says_how_many(report: ParityReport) -> None:
    said = covered(report)
    assert (said.asked, said.of, said.unit) == (2000, 2000, "rows")
    assert said.left_out == "train.csv has 5,000 rows, of which 2,000 are picked evenly"
    assert report.sources[training.SOURCE] == 2000
    assert report.complete


def test_a_copy_that_is_wrong_on_one_training_row_alone_is_refused_with_that_row(converted: ConvertedModel) -> None:
    row = int(PICKED[777])
    wrong = misread(converted, [("Equal", float(ROWS["a"][row]))], 1e3)
    assert onnx.load(wrong.path).graph.input[0].name == "a"
    with pytest.raises(Refused, match=rf"worst row \d+ \(training data\) .*{ROWS['a'][row]!s}"):
        verify(wrong, VerifyOptions())


def test_the_same_copy_passes_where_no_data_set_was_logged(uri: str, tmp_path: Path) -> None:
    plain = convert(source(uri, "none", tmp_path), "onnx", ConvertOptions())
    report = verify(misread(plain, [("Equal", float(ROWS["a"][int(PICKED[777])]))], 1e3), VerifyOptions())
    assert covered(report) == Coverage(
        source=training.SOURCE, asked=0, of=0, left_out="the run logged no data set"
    )  # fmt: skip


def test_no_training_row_gets_into_the_golden_rows_which_every_image_carries(
    converted: ConvertedModel, report: ParityReport
) -> None:
    golden = json.loads((converted.folder / report.golden.path).read_text())["inputs"]["a"]
    example = json.loads((converted.source.model_dir / "input_example.json").read_text())["data"]
    known = {row[0] for row in example}
    assert not {value for row in golden for value in row} & (set(ROWS["a"]) - known)


def test_a_budget_of_nothing_still_asks_a_hundred_rows(converted: ConvertedModel) -> None:
    said = covered(verify(converted, VerifyOptions(budget=0)))
    assert (said.asked, said.of) == (100, 2000)


REASONS = {
    "code": "code: only the script that made it was logged, and scripts are not run for rows",
    "relative": "here: its path is relative to the folder in which the training ran",
    "other columns": "other.csv: other.csv lacks the column 'a'",
    "gone": "gone.csv: gone.csv is not where it was logged",
    "pickle": "train.pkl: it is not .csv or .parquet",
    "damaged": "damaged.parquet: damaged.parquet cannot be read: ",
}


@pytest.mark.parametrize("version", REASONS)
def test_what_cannot_be_asked_is_said_in_one_sentence(version: str, uri: str, tmp_path: Path) -> None:
    found = training.logged(source(uri, version, tmp_path))
    assert found.queue.of == 0
    assert found.left_out.startswith(REASONS[version])


def test_a_parquet_file_gives_the_same_rows_as_a_csv(uri: str, tmp_path: Path) -> None:
    csv, parquet = (training.logged(source(uri, name, tmp_path)).queue for name in ("csv", "parquet"))
    for one, other in zip(csv.groups, parquet.groups, strict=True):
        for name in ("a", "b", "plan"):
            np.testing.assert_array_equal(one.rows[name], other.rows[name])


def test_several_data_sets_share_the_rows_and_the_unreadable_one_is_said(uri: str, tmp_path: Path) -> None:
    found = training.logged(source(uri, "several", tmp_path))
    assert found.queue.of == 2 * (2000 // 3)
    assert "other.csv lacks the column 'a'" in found.left_out


def test_a_pipe_or_a_large_file_is_not_read(uri: str, tmp_path: Path) -> None:
    model = source(uri, "gone", tmp_path)
    path = Path(model.datasets[0].path)
    try:
        os.mkfifo(path)
        assert "gone.csv is not a file" in training.logged(model).left_out
        path.unlink()
        with path.open("wb") as stream:
            stream.truncate(2**28 + 1)
        assert "more than the 268,435,456 that are read" in training.logged(model).left_out
    finally:
        path.unlink(missing_ok=True)


def test_what_was_left_out_is_shown(run: Run, uri: str) -> None:
    number = registered_data.VERSIONS.index("code") + 1
    done = run("convert", f"plans/{number}", "--registry", uri)
    assert done.code == 0
    assert "training data: code: only the script that made it was logged" in " ".join((done.out + done.err).split())


LOCAL = "sqlite:////srv/mlflow.db"


def logged(kind: str, uri: str) -> Logged:
    return Logged("sales", "0123", kind, json.dumps({"url" if kind == "http" else "uri": uri}))


def test_a_registry_on_another_machine_cannot_name_a_file_of_this_one() -> None:
    for registry in ("http://mlflow:5000", "https://127.0.0.1", "postgresql://mlflow", "databricks"):
        found = described(logged("local", "/home/me/accounts.csv"), "training", registry)
        assert found.path == ""
        assert "another machine" in found.unread
    assert described(logged("local", "file:///srv/a%20b.csv"), "", LOCAL).path == "/srv/a b.csv"


@pytest.mark.parametrize(
    ("kind", "uri"),
    [
        ("http", "https://me:hush@example.com/a.csv?token=hush"), ("s3", "s3://hush/a.csv"),
        ("local", "smb://hush/a.csv"), ("local", "file://hush/a.csv"), ("local", "hush/a.csv"), ("hush\x1b[31m", ""),
    ],
)  # fmt: skip
def test_an_address_is_neither_followed_nor_kept(kind: str, uri: str) -> None:
    found = described(logged(kind, uri), "training", LOCAL)
    assert found.path == ""
    assert "hush" not in found.unread.replace("hush31m", "")
    assert found.unread.isprintable()

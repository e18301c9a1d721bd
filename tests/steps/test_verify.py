"""Verify: a right copy passes with its evidence, a wrong one is refused with the row that shows it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import numpy_helper
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier

from modelrel import archive, records
from modelrel.errors import Invalid, Refused
from modelrel.formats import FORMATS
from modelrel.measured import Tolerance
from modelrel.probes import budget
from modelrel.steps.convert import convert
from modelrel.steps.verify import verify
from modelrel.values import ConvertedModel, ConvertOptions, ParityReport, VerifyOptions
from tests.models import logged, people, prepared

DATA, TARGET = load_breast_cancer(return_X_y=True)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> ConvertedModel:
    frame, classes, _ = people()
    model = make_pipeline(prepared(), RandomForestClassifier(5, random_state=0)).fit(frame, classes)
    return convert(logged(model, frame, tmp_path_factory.mktemp("people")), "onnx", ConvertOptions())


@pytest.fixture(scope="module")
def report(converted: ConvertedModel) -> ParityReport:
    return verify(converted, VerifyOptions())


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> ConvertedModel:
    model = DecisionTreeClassifier(max_depth=3, random_state=0).fit(DATA, TARGET)
    return convert(logged(model, DATA, tmp_path_factory.mktemp("tree")), "onnx", ConvertOptions())


def edited(converted: ConvertedModel, relative: float) -> ConvertedModel:
    """Return a copy with its first threshold moved, recorded as if a converter had written it."""
    model = onnx.load(converted.path)
    node = next(node for node in model.graph.node if node.op_type == "TreeEnsemble")
    splits = next(entry for entry in node.attribute if entry.name == "nodes_splits")
    values = numpy_helper.to_array(splits.t).copy()
    values[0] *= 1 + relative
    splits.t.CopyFrom(numpy_helper.from_array(values, splits.t.name))
    path = converted.path.with_name("wrong.onnx")
    path.write_bytes(model.SerializeToString())
    return dataclasses.replace(converted, file=archive.describe(path, converted.folder))


def test_a_right_copy_passes_on_at_least_a_thousand_generated_rows(report: ParityReport) -> None:
    assert report.rows - report.sources["example"] >= 1000
    assert {"example", "permuted", "jittered", "ranged", "thresholds", "missing", "unseen"} <= set(report.sources)
    assert [(parity.name, parity.disagreements) for parity in report.outputs] == [("label", 0), ("probabilities", 0)]


def test_the_report_says_how_long_a_row_takes(report: ParityReport) -> None:
    assert 0 < report.copy_us_per_row < 1e5
    assert 0 < report.original_us_per_row < 1e5


def test_the_refusal_says_where_the_original_itself_rounds(tmp_path: Path) -> None:
    rows = DATA.astype(np.float32)
    converted = convert(logged(GaussianNB().fit(rows, TARGET), rows, tmp_path), "onnx", ConvertOptions())
    with pytest.raises(Refused, match="probabilities differs on") as stop:
        verify(converted, VerifyOptions())
    assert "the original itself differs from its own float64 answers by up to 0.0" in stop.value.message
    assert "the conversion is wrong" not in stop.value.message
    assert "float64 rows" in stop.value.hint
    assert "--force" not in stop.value.hint  # nobody handed it in


def test_a_wrong_copy_of_a_float32_model_is_not_excused(tmp_path: Path) -> None:
    rows = DATA.astype(np.float32)
    model = DecisionTreeClassifier(max_depth=3, random_state=0).fit(rows, TARGET)
    wrong = edited(convert(logged(model, rows, tmp_path), "onnx", ConvertOptions()), 0.01)
    with pytest.raises(Refused) as stop:
        verify(wrong, VerifyOptions())
    assert "the conversion is wrong on label" in stop.value.message
    assert "itself" not in stop.value.message


def test_single_rows_are_compared_with_the_batch(report: ParityReport) -> None:
    assert report.batch_sizes == (1, 2, 7, 31, 257, report.rows)
    assert report.batch_max_abs_error < 1e-6


def test_the_report_can_be_recorded_and_read_back(report: ParityReport, tmp_path: Path) -> None:
    records.write(report, tmp_path / "r.json", "key")
    assert records.read(ParityReport, tmp_path / "r.json", "key", converted=report.converted) == report


def test_the_golden_rows_are_answered_by_the_copy(report: ParityReport) -> None:
    golden = json.loads((report.converted.folder / report.golden.path).read_text())
    predict = FORMATS["onnx"].load(report.converted.path)
    inputs = {
        spec.name: np.array(golden["inputs"][spec.name], object if spec.datatype == "BYTES" else None)
        for spec in report.converted.inputs
    }
    inputs["n2"] = inputs["n2"].astype(np.float32)
    inputs["in.come (k)"] = inputs["in.come (k)"].astype(np.float64)
    answers = predict(inputs)
    assert len(golden["outputs"]["label"]) == 8
    assert answers["label"].tolist() == golden["outputs"]["label"]
    assert np.allclose(answers["probabilities"], golden["outputs"]["probabilities"])


def test_the_manifest_says_what_a_server_needs(report: ParityReport) -> None:
    said = json.loads((report.converted.folder / report.manifest.path).read_text())
    assert (said["schema"], said["format"], said["file"], said["kind"]) == (1, "onnx", "model.onnx", "columns")
    assert said["inputs"][0] == {"name": "the age", "datatype": "INT64", "shape": [-1, 1], "required": True}
    assert (said["predict"], said["classes"], said["golden"]) == ("label", ["churns", "stays"], "golden.json")
    assert said["metadata"]["model_sha256"] == report.converted.file.sha256


@pytest.mark.parametrize("part", [1, 4, 10**9], ids=["a quick machine", "as it is", "a slow machine"])
def test_verifying_again_gives_the_same_evidence(
    part: int, report: ParityReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "_SLICE", part)  # how much is asked at once, by how quick the answers come
    again = verify(report.converted, VerifyOptions())
    assert (again.golden, again.manifest, again.rows, again.outputs) == (
        report.golden,
        report.manifest,
        report.rows,
        report.outputs,
    )


def test_another_seed_asks_other_rows(report: ParityReport) -> None:
    other = verify(report.converted, VerifyOptions(seed=1, rows=1100))
    assert other.rows > report.rows


def test_a_copy_that_differs_is_refused_with_its_worst_row(tree: ConvertedModel) -> None:
    wrong = edited(tree, 0.2)
    with pytest.raises(Refused, match="label differs on") as stop:
        verify(wrong, VerifyOptions())
    assert stop.value.exit_code == 4
    said = json.loads((wrong.folder / "onnx" / "ParityReport.refused.json").read_text())
    label = next(parity for parity in said["outputs"] if parity["name"] == "label")
    assert label["disagreements"] > 0
    assert len(label["worst_input"]["input"]) == DATA.shape[1]
    assert label["worst_original"] != label["worst_copy"]
    assert f"worst row {label['worst_row']}" in stop.value.message


def test_a_threshold_that_is_off_by_one_rounding_is_found(tree: ConvertedModel) -> None:
    with pytest.raises(Refused, match="thresholds"):
        verify(edited(tree, 2e-7), VerifyOptions())


def test_a_copy_that_was_changed_after_it_was_recorded_is_refused(tree: ConvertedModel) -> None:
    stale = dataclasses.replace(tree, file=dataclasses.replace(tree.file, sha256="0" * 64))
    with pytest.raises(Refused, match="not what ConvertedModel was recorded for"):
        verify(stale, VerifyOptions())


def test_a_tolerance_of_nothing_refuses_a_rounding_error(tmp_path: Path) -> None:
    from sklearn.linear_model import LinearRegression

    model = LinearRegression().fit(DATA, TARGET)
    converted = convert(logged(model, DATA, tmp_path), "onnx", ConvertOptions())
    with pytest.raises(Refused, match="prediction differs"):
        verify(converted, VerifyOptions(tolerance=Tolerance(rtol=0, atol=0)))
    assert verify(converted, VerifyOptions()).outputs[0].max_abs_error < 1e-9


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".json"])
def test_the_users_data_is_asked_too(suffix: str, converted: ConvertedModel, tmp_path: Path) -> None:
    frame, classes, _ = people(60)
    frame = frame.assign(target=classes)  # a label that the model does not take
    path = tmp_path / f"data{suffix}"
    if suffix == ".csv":
        frame.to_csv(path, index=False)
    elif suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records")
    found = verify(converted, VerifyOptions(data=path))
    assert found.sources["data"] == 60
    assert found.data_sha256 == archive.sha256(path)


def test_data_without_a_column_is_invalid_and_names_it(converted: ConvertedModel, tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    pd.DataFrame({"the age": [1], "plan": ["pro"]}).to_csv(path, index=False)
    with pytest.raises(Invalid, match="lacks the columns 'flag', 'n2'"):
        verify(converted, VerifyOptions(data=path))


def test_rows_on_which_the_original_raises_are_left_out_and_counted(tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=5000).fit(DATA[:, :4], TARGET)
    converted = convert(logged(model, DATA[:, :4], tmp_path), "onnx", ConvertOptions())
    found = verify(converted, VerifyOptions())
    assert "missing" not in found.sources
    assert any("raises on 4 of the missing rows" in sentence for sentence in found.findings)

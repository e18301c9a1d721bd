"""Smaller copies are held against a budget on real rows, with the figures; exact copies get none."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import numpy_helper
from sklearn.datasets import load_diabetes, load_digits, load_wine
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error, r2_score
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from modelrel import archive, records, show
from modelrel.errors import Invalid, Refused
from modelrel.formats import FORMATS
from modelrel.probes import loss
from modelrel.probes.interview import Answered
from modelrel.steps.convert import convert
from modelrel.steps.package import package
from modelrel.steps.smoke import smoke
from modelrel.steps.verify import verify
from modelrel.values import (
    ConvertedModel,
    ConvertOptions,
    Dataset,
    PackageOptions,
    ParityReport,
    SourceModel,
    VerifyOptions,
)
from tests.models import logged

DIGITS, DIGIT = load_digits(return_X_y=True)
KNOWN = 1200


def fitted(model: Any, data: Any, target: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(data, target)


def file_of(data: Any, target: Any, path: Path, label: str = "digit") -> Path:
    frame = pd.DataFrame(data)
    frame[label] = target
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return file_of(DIGITS[KNOWN:], DIGIT[KNOWN:], tmp_path_factory.mktemp("rows") / "digits.csv")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> SourceModel:
    model = make_pipeline(MinMaxScaler(), MLPClassifier((64,), max_iter=100, random_state=0))
    return logged(fitted(model, DIGITS[:KNOWN], DIGIT[:KNOWN]), DIGITS, tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def converted(source: SourceModel, rows: Path) -> ConvertedModel:
    return convert(source, "onnx", ConvertOptions(quantize="int8", data=rows, label="digit"))


@pytest.fixture(scope="module")
def report(converted: ConvertedModel, rows: Path) -> ParityReport:
    return verify(converted, VerifyOptions(data=rows, label="digit"))


def elsewhere(source: SourceModel, folder: Path) -> SourceModel:
    """Return the same model in another folder, for another copy."""
    shutil.copytree(source.folder / "source", folder / "source")
    return dataclasses.replace(source, folder=folder)


def damaged(converted: ConvertedModel, times: float) -> ConvertedModel:
    """Return a copy whose second layer has other weights, recorded as if a converter had written it."""
    model = onnx.load(converted.path)
    layers = [node for node in model.graph.node if node.op_type == "MatMul"]
    widened = next(node for node in model.graph.node if node.output[0] == layers[1].input[1])
    scale = next(one for one in model.graph.initializer if one.name == widened.input[1])
    values = numpy_helper.to_array(scale).copy()
    values[3] *= times
    scale.CopyFrom(numpy_helper.from_array(values, scale.name))
    path = converted.path.with_name("wrong.onnx")
    path.write_bytes(model.SerializeToString())
    return dataclasses.replace(converted, file=archive.describe(path, converted.folder))


def test_the_report_has_agreement_errors_and_sizes(report: ParityReport) -> None:
    found = report.loss
    assert found is not None
    assert (found.mode, found.rows, found.sources) == ("int8", 602, {"example": 5, "data": 597})
    assert found.agreement is not None
    assert 0.99 <= found.agreement <= 1
    assert found.size == report.converted.file.size == report.converted.path.stat().st_size
    assert found.size < 0.3 * found.exact_size
    (probabilities,) = found.outputs
    assert 0 < probabilities.mean_error < probabilities.max_error < 0.5
    assert {output.rows for output in report.outputs} == {602}
    assert report.rows > 1000 + found.rows  # the others are asked too


def test_the_metrics_are_those_that_scikit_learn_computes(report: ParityReport) -> None:
    import pickle

    assert report.loss is not None
    said = {one.name: one for one in report.loss.metrics}
    original = pickle.loads((report.source.model_dir / "model.pkl").read_bytes()).predict(DIGITS[KNOWN:])
    copy = FORMATS["onnx"].load(report.converted.path)({"input": DIGITS[KNOWN:]})["label"]
    for answered, side in ((original, "original"), (copy, "copy")):
        assert math.isclose(getattr(said["accuracy"], side), accuracy_score(DIGIT[KNOWN:], answered))
        assert math.isclose(getattr(said["F1"], side), f1_score(DIGIT[KNOWN:], answered, average="macro"))
    assert said["accuracy"].rows == 597


def test_what_is_shown_has_every_figure_with_its_budget(report: ParityReport) -> None:
    text = "\n".join(str(one) for one in show.parity(report))
    assert "bytes, " in text
    assert "judged on 602 rows (5 example, 597 data)" in text
    assert "(at least 99.00%)" in text
    assert "accuracy 0.9" in text
    assert "calibrated on 500 rows of digits.csv" in text


def test_the_report_can_be_recorded_and_read_back(report: ParityReport, tmp_path: Path) -> None:
    records.write(report.converted, tmp_path / "c.json", "key")
    assert records.read(ConvertedModel, tmp_path / "c.json", "key", source=report.source) == report.converted
    records.write(report, tmp_path / "r.json", "key")
    assert records.read(ParityReport, tmp_path / "r.json", "key", converted=report.converted) == report


def test_a_damaged_copy_is_refused_with_every_figure(converted: ConvertedModel, rows: Path) -> None:
    with pytest.raises(Refused, match=r"int8 onnx copy of churn/7 .* loses more than it may") as stop:
        verify(damaged(converted, 3.0), VerifyOptions(data=rows, label="digit"))
    for figure in ("have the original's label (budget: at least 99.00%)", "accuracy falls from 0.9", "F1 falls from",
                   "probabilities is off by", "of label, worst row", "of probabilities, worst row"):  # fmt: skip
        assert figure in stop.value.message
    said = json.loads((converted.folder / "onnx" / "ParityReport.refused.json").read_text())
    assert said["loss"]["agreement"] < 0.99
    assert said["loss"]["budget"]["agreement"] == 0.99


def test_a_budget_can_be_wider_or_tighter(converted: ConvertedModel, rows: Path) -> None:
    wide = {"agreement": 0.5, "max_error": 1.0, "mean_error": 1.0, "drop": 1.0}
    found = verify(damaged(converted, 3.0), VerifyOptions(data=rows, label="digit", loss=wide)).loss
    assert found is not None
    assert found.budget.agreement == 0.5
    with pytest.raises(Refused, match=r"on average .* \(budget: 0\)"):
        verify(converted, VerifyOptions(data=rows, label="digit", loss={"mean_error": 0.0}))


def test_an_exact_copy_gets_no_budget(converted: ConvertedModel, rows: Path) -> None:
    exact = dataclasses.replace(converted, quantize="")
    with pytest.raises(
        Refused, match=r"the onnx copy of churn/7 .* differs from the original: .*probabilities differs"
    ):
        verify(exact, VerifyOptions(data=rows, label="digit", loss={"max_error": 1.0, "mean_error": 1.0}))


def test_inputs_of_very_different_sizes_are_refused_for_int8(tmp_path: Path) -> None:
    data, target = load_wine(return_X_y=True)
    wide = data * np.where(np.arange(13) == 12, 1000.0, 1.0)  # without a scaler, one column has all of the 256 steps
    scaler = StandardScaler().fit(wide)
    inside = fitted(MLPClassifier((32,), max_iter=300, random_state=0), scaler.transform(wide), target)
    inside.coefs_[0] /= scaler.scale_[:, None]
    inside.intercepts_[0] -= (scaler.mean_[:, None] * inside.coefs_[0]).sum(axis=0)
    given = file_of(wide, target, tmp_path / "wine.csv", "kind")
    options = ConvertOptions(quantize="int8", data=given, label="kind")
    with pytest.raises(Refused, match=r"[1-8]\d\.\d\d% of 183 rows .* have the original's label") as stop:
        verify(convert(logged(inside, wide, tmp_path), "onnx", options), VerifyOptions(data=given, label="kind"))
    assert "accuracy falls from 1.0000 to 0." in stop.value.message
    assert "Scale the model's inputs" in stop.value.hint


def test_a_regressor_is_judged_by_its_spread_and_by_r2(tmp_path: Path) -> None:
    data, target = load_diabetes(return_X_y=True)
    model = make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(64,), max_iter=300, random_state=0))
    given = file_of(data, target, tmp_path / "rows.csv", "y")
    options = ConvertOptions(quantize="int8", data=given, label="y")
    source = logged(fitted(model, data, target), data, tmp_path)
    found = verify(convert(source, "onnx", options), VerifyOptions(data=given, label="y")).loss
    assert found is not None
    assert (found.agreement, found.outputs[0].unit > 20, found.outputs[0].mean_error < 0.02) == (None, True, True)
    said = {one.name: one.original for one in found.metrics}
    assert math.isclose(said["R²"], r2_score(target, model.predict(data)), rel_tol=1e-9)
    assert math.isclose(said["MAE"], mean_absolute_error(target, model.predict(data)), rel_tol=1e-9)


def test_int8_without_rows_is_refused_with_what_to_give(source: SourceModel) -> None:
    with pytest.raises(Refused, match="at least 100 rows, and the input example of churn/7 holds 5") as stop:
        convert(source, "onnx", ConvertOptions(quantize="int8"))
    assert "--data FILE" in stop.value.hint


def test_int8_is_calibrated_on_the_logged_data_where_no_file_is_given(
    source: SourceModel, rows: Path, tmp_path: Path
) -> None:
    source = elsewhere(source, tmp_path)
    there = dataclasses.replace(source, datasets=(Dataset(name="train", digest="d", path=str(rows)),))
    # the signature is one tensor, which a file with a label more does not fit
    with pytest.raises(Refused, match="at least 100 rows"):
        convert(there, "onnx", ConvertOptions(quantize="int8"))
    plain = rows.with_name("plain.csv")
    pd.DataFrame(DIGITS[:KNOWN]).to_csv(plain, index=False)
    there = dataclasses.replace(source, datasets=(Dataset(name="train", digest="d", path=str(plain)),))
    found = convert(there, "onnx", ConvertOptions(quantize="int8"))
    assert "made smaller by int8, calibrated on 500 rows of the input example and the logged data" in found.notes


def test_a_weight_of_16_bits_needs_no_rows(source: SourceModel, tmp_path: Path) -> None:
    found = verify(
        convert(elsewhere(source, tmp_path), "onnx", ConvertOptions(quantize="float16")), VerifyOptions()
    ).loss
    assert found is not None
    assert (found.mode, found.metrics, found.generated_agreement) == ("float16", (), None)
    assert set(found.sources) == {"example", "permuted", "jittered", "ranged"}


def test_right_answers_that_the_model_never_gives_are_an_error(converted: ConvertedModel, tmp_path: Path) -> None:
    words = file_of(DIGITS[:150], [f"digit {one}" for one in DIGIT[:150]], tmp_path / "words.csv")
    with pytest.raises(Invalid, match=r"the right answers are 'digit 0', .* none of them is one that the model knows"):
        verify(converted, VerifyOptions(data=words, label="digit"))
    with pytest.raises(Invalid, match=r"words\.csv has no column 'number'"):
        verify(converted, VerifyOptions(data=words, label="number"))
    with pytest.raises(Invalid, match="no data with a column 'digit'"):
        verify(converted, VerifyOptions(label="digit"))


def test_an_answer_that_is_no_number_is_found_on_any_row(converted: ConvertedModel) -> None:
    outputs = {"label": np.zeros(3, np.int64), "probabilities": np.ones((3, 10))}
    lost = {**outputs, "probabilities": np.where(np.arange(3)[:, None] == 1, np.nan, 1.0) * np.ones(10)}
    answered = Answered({"input": np.zeros((3, 64))}, ("data", "extremes", "data"), outputs, 0.0, ())
    assert loss.infinite(answered, lost, converted.outputs) == (
        "probabilities of the copy is no finite number on 1 rows where the original gives one (1 extremes)",
    )
    assert loss.infinite(answered, outputs, converted.outputs) == ()


def test_a_number_that_is_missing_is_beyond_any_budget(converted: ConvertedModel) -> None:
    outputs = {"label": np.zeros(3, np.int64), "probabilities": np.ones((3, 10))}
    lost = {**outputs, "probabilities": np.where(np.arange(3)[:, None] == 1, np.nan, 1.0) * np.ones(10)}
    answered = Answered({"input": np.zeros((3, 64))}, ("data",) * 3, outputs, 0.0, ())
    wide = VerifyOptions(loss={"max_error": 1e9, "mean_error": 1e9})
    said = loss.sentences(loss.judged(converted, answered, lost, wide).loss)
    assert [one.split(" of 3 rows")[0] for one in said] == [
        "probabilities is off by up to inf",
        "probabilities is off by inf on average",
    ]


@pytest.mark.slow
def test_an_int8_file_goes_to_phones_with_its_units(source: SourceModel, rows: Path) -> None:
    converted = convert(source, "tflite", ConvertOptions(quantize="int8", data=rows, label="digit"))
    assert {unit.name: unit.datatype for unit in converted.units} == {"input": "INT8", "probabilities": "INT8"}
    assert {spec.datatype for spec in converted.inputs} == {"FP32"}  # rows and answers are real numbers
    report = verify(converted, VerifyOptions(data=rows, label="digit"))
    done = package(report, "tflite", PackageOptions())
    assert smoke(done).rows > 200
    folder = (done.folder / done.artifact).parent
    manifest = json.loads((folder / "modelrel.json").read_text())
    (unit,) = [unit for unit in converted.units if unit.name == "input"]
    assert manifest["inputs"][0]["file"] == {"datatype": "INT8", "scale": unit.scale, "zero_point": -128}
    assert manifest["metadata"]["quantize"] == "int8"
    text = (folder / "README.md").read_text()
    assert f"| `input` | INT8 | {unit.scale} | -128 |" in text
    assert "602 rows within its budget" in text
    tried = subprocess.run([sys.executable, folder / "try_model.py"], capture_output=True, text=True, check=False)
    assert tried.stdout.startswith("8 golden rows: right"), tried.stderr
    (folder / "rows.json").write_text(json.dumps({"inputs": {"input": [[None, *DIGITS[0, 1:]]]}}))
    gap = subprocess.run(
        [sys.executable, folder / "try_model.py", folder / "rows.json"], capture_output=True, text=True, check=False
    )
    assert "input has a gap, and the model takes none: INT8 holds no NaN" in gap.stderr


def held_against(converted: ConvertedModel, original: Any, copy: Any, right: Any) -> dict[str, tuple[float, float]]:
    """Return the metrics of a model of one output `prediction`, which answers as given."""
    there = dataclasses.replace(converted, predict="prediction", classes=())
    reply = SimpleNamespace(value={"kept": list(range(len(right)))}, arrays={"prediction": np.asarray(original)})
    data = {"input": np.zeros((len(right), 64))}
    found = loss.metrics(
        lambda *_, **__: reply, there, lambda _: {"prediction": np.asarray(copy)}, data, np.asarray(right)
    )
    return {one.name: (one.original, one.copy) for one in found}


def test_what_a_network_says_is_told_by_its_numbers_and_the_right_answers(converted: ConvertedModel) -> None:
    scores = [[3.0, -1.0], [-2.0, 5.0], [0.0, 1.0], [4.0, 1.0]]  # of two classes, before a softmax
    assert held_against(converted, scores, np.fliplr(scores), [0, 1, 1, 1])["accuracy"] == (0.75, 0.25)
    chance = [[0.9], [0.1], [0.7], [0.2]]
    assert held_against(converted, chance, [[0.9], [0.6], [0.7], [0.2]], [1, 0, 1, 0])["accuracy"] == (1.0, 0.75)
    numbers = [[10.0], [20.0], [30.0], [40.0]]
    found = held_against(converted, numbers, [[10.0], [20.0], [30.0], [44.0]], [10, 20, 30, 40])
    assert (found["R²"][0], found["MAE"]) == (1.0, (0.0, 1.0))
    words = np.array(["a", "b", "b"], object)
    assert held_against(converted, words, words[[0, 1, 0]], words)["accuracy"] == (1.0, 2 / 3)
    with pytest.raises(Invalid, match="the right answers are no numbers, and prediction of churn/7 is one"):
        held_against(converted, numbers, numbers, np.array(["a", "b", "c", "d"], object))
    with pytest.raises(Invalid, match="prediction of churn/7 is 2 values a row"):
        held_against(converted, scores, scores, [0.5, 1.5, 2.5, 3.5])


def test_every_output_that_is_no_real_number_is_a_label(converted: ConvertedModel) -> None:
    clusters = {"prediction": np.arange(200, dtype=np.int32) % 7, "distance": np.ones(200)}
    moved = {**clusters, "prediction": np.where(np.arange(200) < 3, 9, clusters["prediction"]).astype(np.int32)}
    answered = Answered({"input": np.zeros((200, 64))}, ("data",) * 200, clusters, 0.0, ())
    assert loss.judged(converted, answered, moved, VerifyOptions()).loss.agreement == 0.985
    strange = dataclasses.replace(answered, origin=("extremes",) * 200)
    with pytest.raises(Refused, match="no usual row of churn/7 on which its smaller copy could be judged"):
        loss.judged(converted, strange, moved, VerifyOptions())


def test_a_small_target_beside_a_large_one_is_judged_by_its_own_spread(converted: ConvertedModel) -> None:
    random = np.random.default_rng(0)
    both = {"prediction": random.normal(size=(200, 2)) * [1e6, 1.0]}
    off = {"prediction": both["prediction"] + [0.0, 0.5]}
    answered = Answered({"input": np.zeros((200, 64))}, ("data",) * 200, both, 0.0, ())
    (found,) = loss.judged(converted, answered, off, VerifyOptions()).loss.outputs
    assert found.unit > 1e5
    assert 0.4 < found.mean_error < 0.6

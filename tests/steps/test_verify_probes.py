"""Verify: a copy that is wrong only where one kind of probe looks is caught by that kind."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from modelrel import archive
from modelrel.errors import Refused
from modelrel.steps.convert import convert
from modelrel.steps.verify import verify
from modelrel.values import ConvertedModel, ConvertOptions, VerifyOptions
from tests.models import logged

DATA, TARGET = load_breast_cancer(return_X_y=True)
DATA = DATA[:, :4]
TEXTS = np.array(["good film", "bad movie", "good cafe", "bad one"] * 9, object)


def rewritten(converted: ConvertedModel, model: onnx.ModelProto) -> ConvertedModel:
    """Return a copy recorded as if a converter had written it."""
    path = converted.path.with_name("wrong.onnx")
    path.write_bytes(model.SerializeToString())
    return dataclasses.replace(converted, file=archive.describe(path, converted.folder))


def misread(converted: ConvertedModel, condition: list[tuple[str, Any]], other: Any) -> ConvertedModel:
    """Return a copy that reads `other` wherever its input fulfils all of `condition`: operators and constants."""
    model = onnx.load(converted.path)
    graph = model.graph
    name, kind = graph.input[0].name, graph.input[0].type.tensor_type.elem_type
    for node in graph.node:
        node.input[:] = ["misread" if entry == name else entry for entry in node.input]
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    nodes, parts = [], []
    for number, (operator, value) in enumerate(condition):
        given = [name]
        if operator.startswith("Abs"):
            nodes.append(helper.make_node("Abs", [name], [f"abs{number}"]))
            given = [f"abs{number}"]
        if value is not None:
            graph.initializer.append(numpy_helper.from_array(np.array([value], dtype), f"limit{number}"))
            given.append(f"limit{number}")
        nodes.append(helper.make_node(operator.removeprefix("Abs"), given, [f"part{number}"]))
        parts.append(f"part{number}")
    if len(parts) == 2:
        nodes.append(helper.make_node("And", parts, ["both"]))
    graph.initializer.append(numpy_helper.from_array(np.array([other], dtype), "other"))
    nodes.append(helper.make_node("Where", ["both" if len(parts) == 2 else parts[0], "other", name], ["misread"]))
    for node in reversed(nodes):
        graph.node.insert(0, node)
    return rewritten(converted, model)


def caught(wrong: ConvertedModel) -> set[str]:
    """Return the sources of the rows on which the outputs are the most wrong."""
    with pytest.raises(Refused):
        verify(wrong, VerifyOptions())
    said = json.loads((wrong.folder / "onnx" / "ParityReport.refused.json").read_text())
    return {output["worst_source"] for output in said["outputs"] if output["disagreements"]}


def made(model: Any, data: Any, folder: Path) -> ConvertedModel:
    return convert(logged(model, data, folder), "onnx", ConvertOptions())


@pytest.fixture(scope="module")
def boosted(tmp_path_factory: pytest.TempPathFactory) -> ConvertedModel:
    model = HistGradientBoostingClassifier(max_iter=5, random_state=0).fit(DATA, TARGET)
    return made(model, DATA, tmp_path_factory.mktemp("boosted"))


@pytest.mark.parametrize(
    ("condition", "source"),
    [
        ([("AbsLess", 1e-37), ("AbsGreater", 0.0)], "zeros"),
        ([("Equal", -999.0)], "missing value"),
        ([("AbsGreater", 1e37)], "extremes"),
        ([("IsNaN", None)], "missing"),
    ],
)
def test_a_copy_that_misreads_one_kind_of_number_is_caught(
    condition: list[tuple[str, Any]], source: str, boosted: ConvertedModel
) -> None:
    assert caught(misread(boosted, condition, 12.3)) == {source}


def test_a_copy_that_leaps_at_a_knot_is_caught(tmp_path: Path) -> None:
    model = IsotonicRegression(out_of_bounds="clip").fit(DATA[:, :1], 1 - TARGET)
    knot = float(model.X_thresholds_[len(model.X_thresholds_) // 2])
    assert caught(misread(made(model, DATA[:5, :1] + 0.01, tmp_path), [("Equal", knot)], 1e3)) == {"knots"}


def stepped(model: Any, data: Any, folder: Path) -> tuple[ConvertedModel, ConvertedModel, Any]:
    """Return the copy of a calibrated model, a wrong one whose steepest step is late by its width, and the curve."""
    converted = made(model, data, folder)
    curve = getattr(model, "steps", [[0, model]])[-1][1].calibrated_classifiers_[0].calibrators[0]
    knots = np.asarray(curve.X_thresholds_, np.float64)
    graph = onnx.load(converted.path)
    edges = [entry for entry in graph.graph.initializer if entry.data_type == TensorProto.DOUBLE
             and np.array_equal(numpy_helper.to_array(entry).ravel(), knots)]  # fmt: skip
    assert edges
    late = int(np.argmin(np.where(np.diff(curve.y_thresholds_) > 0.2, np.diff(knots), np.inf)))
    for entry in edges:
        moved = numpy_helper.to_array(entry).copy()
        moved.flat[late] = np.nextafter(moved.flat[late + 1], -np.inf)
        entry.CopyFrom(numpy_helper.from_array(moved, entry.name))
    return converted, rewritten(converted, graph), curve


def beside() -> tuple[Any, Any]:
    """Return rows, and two kinds that part between two rows which are 1e-6 apart."""
    rows = np.random.default_rng(0).normal(size=(300, 3))
    rows[7], rows[8] = 0.0, [1e-6, 0.0, 0.0]
    return rows, (rows @ [1.0, 0.5, -0.25] > 5e-7).astype(int)


@pytest.mark.parametrize("kind", ["logistic", "pipeline", "frame", "fitted before"])
def test_a_copy_that_steps_late_between_two_inner_scores_is_caught_at_their_knots(kind: str, tmp_path: Path) -> None:
    data, target = beside()
    given = pd.DataFrame(data, columns=["a", "b", "c"]) if kind == "frame" else data
    model = CalibratedClassifierCV(LogisticRegression(C=100), method="isotonic", ensemble=False)
    if kind == "fitted before":
        model = CalibratedClassifierCV(FrozenEstimator(LogisticRegression(C=100).fit(given, target)), method="isotonic")
    if kind == "pipeline":
        model = make_pipeline(StandardScaler(), CalibratedClassifierCV(LogisticRegression(), method="isotonic", cv=3))
    converted, wrong, _ = stepped(model.fit(given, target), given, tmp_path)
    report = verify(converted, VerifyOptions())
    knots = next(one for one in report.coverage if one.source == "calibration knots")
    assert knots.asked == knots.of > 0
    assert knots.left_out == ""
    assert caught(wrong) == {"calibration knots"}


def test_knots_that_no_row_reaches_are_said(tmp_path: Path) -> None:
    inner = RandomForestClassifier(5, max_depth=3, random_state=0)
    model = CalibratedClassifierCV(inner, method="isotonic", cv=2).fit(DATA, TARGET)
    report = verify(made(model, DATA, tmp_path), VerifyOptions())
    knots = next(one for one in report.coverage if one.source == "calibration knots")
    assert knots.asked == knots.of
    assert "more are scores that no row between those asked has" in knots.left_out


def test_knots_where_the_rounding_of_the_original_decides_are_left_alone_and_said(tmp_path: Path) -> None:
    rows = load_breast_cancer().data.astype(np.float32)
    model = CalibratedClassifierCV(LogisticRegression(max_iter=2000), method="isotonic", cv=3).fit(rows, TARGET)
    report = verify(made(model, rows, tmp_path), VerifyOptions())
    knots = next(one for one in report.coverage if one.source == "calibration knots")
    assert "so steep that the last bits of a score decide" in knots.left_out


def test_a_model_without_inner_curves_says_nothing_of_knots(boosted: ConvertedModel) -> None:
    assert "calibration knots" not in {one.source for one in verify(boosted, VerifyOptions()).coverage}


def test_a_copy_that_loses_large_whole_numbers_is_caught(tmp_path: Path) -> None:
    whole = (DATA * 1000).astype(np.int64)
    model = DecisionTreeClassifier(max_depth=3, random_state=0).fit(whole, TARGET)
    assert caught(misread(made(model, whole, tmp_path), [("Greater", 2**31)], 0)) == {"extremes"}


def test_a_copy_that_cuts_a_word_elsewhere_is_caught(tmp_path: Path) -> None:
    model = make_pipeline(CountVectorizer(), LogisticRegression()).fit(TEXTS, [1, 0, 1, 0] * 9)
    converted = made(model, TEXTS, tmp_path)
    verify(converted, VerifyOptions())
    path = converted.adapter_path
    assert path is not None
    said = json.loads(path.read_text())
    said["steps"][0]["parts"][0]["pattern"] = r"\b\w[\w']+\b"
    path.write_text(json.dumps(said))
    assert caught(dataclasses.replace(converted, adapter=archive.describe(path, converted.folder))) == {"text"}


def test_a_copy_that_decides_a_tie_for_the_other_class_is_caught_and_the_ties_are_counted(tmp_path: Path) -> None:
    converted = made(RandomForestClassifier(2, random_state=0).fit(DATA, TARGET), DATA, tmp_path)
    report = verify(converted, VerifyOptions())
    assert report.ties > 0
    model = onnx.load(converted.path)
    label = next(node for node in model.graph.node if "label" in node.output)
    label.output[:] = ["decided" if name == "label" else name for name in label.output]
    one = numpy_helper.from_array(np.array(1, np.int64), "one")
    zero = numpy_helper.from_array(np.array([0], np.int64), "first")
    model.graph.initializer.extend([one, zero, numpy_helper.from_array(np.array([0.5]), "half")])
    model.graph.node.extend(
        [
            helper.make_node("Gather", ["probabilities", "first"], ["p0"], axis=1),
            helper.make_node("Cast", ["p0"], ["p0d"], to=TensorProto.DOUBLE),
            helper.make_node("Squeeze", ["p0d", "axis"], ["flat"]),
            helper.make_node("Equal", ["flat", "half"], ["tied"]),
            helper.make_node("Where", ["tied", "one", "decided"], ["label"]),
        ]
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "axis"))
    wrong = rewritten(converted, model)
    with pytest.raises(Refused, match="label differs"):
        verify(wrong, VerifyOptions())
    said = json.loads((wrong.folder / "onnx" / "ParityReport.refused.json").read_text())
    assert said["labels_alone"] == said["ties"] == report.ties


@pytest.mark.parametrize("size", [7, 31, 257])
def test_a_copy_that_answers_otherwise_in_a_batch_of_one_size_is_caught(size: int, boosted: ConvertedModel) -> None:
    model = onnx.load(boosted.path)
    graph = model.graph
    name = graph.input[0].name
    for node in graph.node:
        node.input[:] = ["misread" if entry == name else entry for entry in node.input]
    graph.initializer.append(numpy_helper.from_array(np.array([size], np.int64), "size"))
    graph.initializer.append(numpy_helper.from_array(np.array([1e3]), "other"))
    added = [
        helper.make_node("Shape", [name], ["rows"], start=0, end=1),
        helper.make_node("Equal", ["rows", "size"], ["so many"]),
        helper.make_node("Where", ["so many", "other", name], ["misread"]),
    ]
    for node in reversed(added):
        graph.node.insert(0, node)
    with pytest.raises(Refused, match=f"in a batch of {size} than in one of"):
        verify(rewritten(boosted, model), VerifyOptions())


def test_a_small_budget_covers_less_and_says_so(tmp_path: Path) -> None:
    model = RandomForestClassifier(60, random_state=0).fit(DATA, np.random.default_rng(0).permutation(TARGET))
    converted = made(model, DATA, tmp_path)
    report = verify(converted, VerifyOptions(budget=0))
    splits = next(one for one in report.coverage if one.source == "thresholds")
    assert (splits.unit, splits.of > 500, 0 < splits.asked < 100) == ("splits", True, True)
    assert not report.complete
    longer = verify(converted, VerifyOptions(budget=120))
    more = next(one for one in longer.coverage if one.source == "thresholds")
    assert splits.asked < more.asked == more.of == splits.of


def test_a_small_model_is_asked_everything_and_does_not_use_up_the_time(boosted: ConvertedModel) -> None:
    report = verify(boosted, VerifyOptions(budget=1000))
    assert report.complete
    assert {one.source for one in report.coverage} >= {"example", "thresholds", "missing", "zeros", "extremes"}

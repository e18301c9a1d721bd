"""sklearn2pmml writes PMML copies where the user asks for it, and they are proven as ours are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.linear_model import LinearRegression
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC

from modelrel.errors import Invalid, Refused, Unavailable
from modelrel.formats import FORMATS
from modelrel.formats.pmml import document, elements
from modelrel.measured import Tolerance
from modelrel.steps.convert import convert
from modelrel.steps.verify import verify
from modelrel.values import ConvertOptions, VerifyOptions
from tests.conftest import Run
from tests.formats.pmml import java, valid
from tests.models import compared, logged

ROWS, CLASSES = load_iris(return_X_y=True)
FRAME = pd.DataFrame(ROWS, columns=["sepal length", "sepal width", "petal <length>", "petal width"])
NAMES = np.array(["setosa", "versicolor", "iris virginica"])[CLASSES]
ASKED = ConvertOptions(tool="sklearn2pmml")


def perceptron() -> MLPClassifier:
    # Behind sigmoids the last layer's numbers are bounded: PMML4S's softmax overflows beyond 709.
    model = MLPClassifier((6,), activation="logistic", solver="lbfgs", tol=0.1, max_iter=500, random_state=0)
    return model.fit(FRAME, NAMES)


@java
def test_a_perceptron_is_written_with_the_names_of_its_columns_and_passes_verify(tmp_path: Path) -> None:
    source = logged(perceptron(), FRAME, tmp_path)
    with pytest.raises(Refused, match="MLPClassifier has no form in PMML"):
        convert(source, "pmml", ConvertOptions())
    made = convert(source, "pmml", ASKED)
    content = made.path.read_bytes()
    valid(content)
    said = document.interface(elements.parsed(content))
    assert [one["fields"] for one in said["inputs"]] == [[name] for name in FRAME.columns]
    assert (made.tool, made.classes) == ("sklearn2pmml", ("iris virginica", "setosa", "versicolor"))
    assert made.notes[0].startswith("written by sklearn2pmml ")
    assert b"<Timestamp" not in content
    report = verify(made, VerifyOptions(tolerance=Tolerance(rtol=1e-9, atol=1e-9), rows=60, budget=1))
    assert {one.name: one.disagreements for one in report.outputs} == {"label": 0, "probabilities": 0}


@java
def test_a_support_vector_machine_is_equal_but_for_the_scores_that_it_does_not_give(tmp_path: Path) -> None:
    found = compared(SVC().fit(ROWS, CLASSES > 0), ROWS, tmp_path, count=60, to="pmml", tool="sklearn2pmml")
    valid(found.content)
    assert (found.labels, found.notes[1]) == (0, "the copy does not give scores of the original")


@java
def test_a_forest_with_gaps_that_it_gets_wrong_is_refused_by_verify(tmp_path: Path) -> None:
    gaps = np.where(np.random.default_rng(0).random(ROWS.shape) < 0.15, np.nan, ROWS)
    made = convert(logged(RandomForestClassifier(5, random_state=0).fit(gaps, CLASSES), gaps, tmp_path), "pmml", ASKED)
    assert made.tool == "sklearn2pmml"  # although our own writer takes it
    with pytest.raises(Refused, match="None, which is none of the model's"):
        verify(made, VerifyOptions(rows=60, budget=1))


@java
def test_what_it_does_not_convert_is_one_sentence(tmp_path: Path) -> None:
    model = GaussianProcessRegressor().fit(ROWS, ROWS[:, 0])
    with pytest.raises(
        Refused, match=r"sklearn2pmml [\d.]+ \(AGPL-3.0\) does not convert Gauss\w+: .*Gaussian"
    ) as stop:
        compared(model, ROWS, tmp_path, to="pmml", tool="sklearn2pmml")
    assert "\n" not in stop.value.message


def test_a_missing_library_is_one_sentence_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn2pmml", None)
    with pytest.raises(Unavailable, match="sklearn2pmml is not installed") as stop:
        compared(perceptron(), FRAME, tmp_path, to="pmml", tool="sklearn2pmml")
    assert 'pip install "modelrel[sklearn2pmml]"' in stop.value.hint


def test_a_missing_java_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="sklearn2pmml needs Java, and there is no java on the PATH"):
        compared(perceptron(), FRAME, tmp_path, to="pmml", tool="sklearn2pmml")


def test_it_is_for_models_of_scikit_learn_and_for_pmml_alone(tmp_path: Path) -> None:
    from lightgbm import LGBMRegressor

    model = LGBMRegressor(n_estimators=2, verbose=-1).fit(ROWS, CLASSES)
    with pytest.raises(Refused, match="converts models of the flavor sklearn, and LGBMRegressor is lightgbm"):
        compared(model, ROWS, tmp_path, "lightgbm", to="pmml", tool="sklearn2pmml")
    with pytest.raises(Invalid, match="sklearn2pmml writes pmml, and not onnx"):
        convert(logged(model, ROWS, tmp_path, flavor="lightgbm"), "onnx", ASKED)


def test_an_unknown_tool_is_named(run: Run) -> None:
    done = run("convert", "./model", "--to", "pmml", "--with", "jpmml", "--json")
    assert (done.code, done.json["error"]["message"]) == (2, "modelrel converts with no tool 'jpmml'")


@java
def test_the_command_keeps_a_copy_by_the_tool_until_that_is_taken_back(run: Run) -> None:
    source = logged(LinearRegression().fit(FRAME, ROWS[:, 0] + CLASSES), FRAME, Path.cwd())
    given = ("convert", str(source.model_dir), "--to", "pmml", "--json")
    tools = []
    for more in (("--with", "sklearn2pmml"), (), ("--with", "none")):
        done = run(*given, *more)
        assert done.code == 0, done.out
        tools.append(done.json["converted"]["tool"])
    assert tools == ["sklearn2pmml", "sklearn2pmml", ""]


def test_a_copy_with_an_attribute_that_no_schema_knows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pmml"
    path.write_text('<PMML xmlns="http://www.dmg.org/PMML-4_4" version="4.4" x-mathContext="float"/>')
    with pytest.raises(Refused, match="the attribute x-mathContext"):
        FORMATS["pmml"].check(path)

"""TFLite copies of models of trees: the leaves and labels of the original, in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from modelrel.errors import Refused
from modelrel.flavors import FLAVORS
from modelrel.formats import FORMATS, Order
from modelrel.values import Signature, TensorSpec
from tests.formats.test_tree_agreement import LIBRARIES, trained
from tests.models import compared

ROWS = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)


@settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=40)
@given(library=some.sampled_from(LIBRARIES), seed=some.integers(0, 2**32 - 1))
def test_random_ensembles_answer_as_the_original(library: str, seed: int, tmp_path_factory: Any) -> None:
    model, data = trained(library, seed)
    flavor: Any = "sklearn" if library == "hist" else library
    found = compared(model, data, tmp_path_factory.mktemp("copy"), flavor, count=90, to="tflite")
    assert (found.labels, found.numbers < 1e-6) == (0, True)


@pytest.mark.parametrize("labels", ["text", "numbers"])
def test_a_forest_gives_labels_and_probabilities_for_any_number_of_rows(labels: str, tmp_path: Path) -> None:
    target = (ROWS[:, 0] > 0).astype(int) + 2 * (ROWS[:, 1] > 0.5)
    if labels == "text":
        target = np.array(["never", "größer", "b c", "d"])[target]
    model = RandomForestClassifier(20, random_state=0).fit(ROWS, target)
    found = compared(model, ROWS, tmp_path, to="tflite")
    assert (found.labels, found.numbers < 5e-7) == (0, True)
    run = FORMATS["tflite"].load(tmp_path / "model.tflite")
    for size in (1, 7, 5000):
        rows = np.resize(ROWS, (size, 4))
        assert run({"input": rows})["label"].tolist() == model.predict(rows).tolist()


def test_even_votes_are_a_tie_and_the_first_class_wins(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    target = random.integers(0, 3, len(ROWS))
    model = RandomForestClassifier(6, max_depth=2, random_state=0).fit(ROWS, target)
    for tree in model.estimators_:
        value = tree.tree_.value  # one vote of each tree, so that many rows are tied
        value[:] = np.eye(3)[value.argmax(axis=2)]
    votes = model.predict_proba(ROWS)
    top = np.sort(votes, axis=1)
    assert (top[:, -1] == top[:, -2]).sum() > 20
    assert compared(model, ROWS, tmp_path, to="tflite").labels == 0


def test_an_isolation_forest_says_who_is_outside(tmp_path: Path) -> None:
    model = IsolationForest(n_estimators=30, random_state=0, contamination=0.2).fit(ROWS)
    found = compared(model, ROWS, tmp_path, to="tflite")
    assert (found.labels, found.numbers < 1e-6) == (0, True)


def test_equal_models_give_equal_bytes(tmp_path: Path) -> None:
    model = RandomForestClassifier(5, random_state=0).fit(ROWS, ROWS[:, 0] > 0)
    first, second = (compared(model, ROWS, tmp_path, to="tflite").content for _ in range(2))
    assert first == second


def test_doubles_are_rounded_and_it_is_said(tmp_path: Path) -> None:
    model = RandomForestClassifier(5, random_state=0).fit(ROWS, ROWS[:, 0] > 0)
    found = compared(model, ROWS.astype(np.float64), tmp_path, to="tflite")
    assert found.description["inputs"][0]["datatype"] == "FP32"
    assert found.notes == ("takes float32: numbers of 64 bits are rounded before they go in",)


def test_columns_keep_their_names(tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame({"the age": np.arange(300), "größe (m)": ROWS[:, 0], "flag": ROWS[:, 1] > 0})
    model = RandomForestClassifier(5, random_state=0).fit(frame, ROWS[:, 0] > 0)
    found = compared(model, frame, tmp_path, to="tflite")
    assert [spec["name"] for spec in found.description["inputs"]] == ["the age", "größe (m)", "flag"]
    assert [spec["datatype"] for spec in found.description["inputs"]] == ["INT64", "FP32", "BOOL"]
    assert found.labels == 0


def test_a_pipeline_of_numbers_computes_in_float32_and_says_so(tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS, ROWS[:, 0] > 0)
    found = compared(model, ROWS, tmp_path, to="tflite")
    assert (found.labels, found.numbers < 1e-5) == (0, True)
    assert found.notes == ("computes in float32",)


def test_what_has_no_form_is_refused_by_name(tmp_path: Path) -> None:
    model = GaussianProcessRegressor().fit(ROWS[:40], ROWS[:40, 0])
    with pytest.raises(Refused, match=r"GaussianProcessRegressor has no converter to TFLite: it needs Scan"):
        compared(model, ROWS, tmp_path, to="tflite")


@pytest.mark.parametrize("kernel", ["linear", "poly", "rbf", "sigmoid"])
@pytest.mark.parametrize("shape", ["ovr", "ovo"])
def test_support_vectors_vote_one_against_one(kernel: Any, shape: Any, tmp_path: Path) -> None:
    names = np.array(["a", "b", "c", "d"])[(ROWS[:, 0] > 0) + 2 * (ROWS[:, 1] > 0.3)]
    found = compared(
        SVC(kernel=kernel, decision_function_shape=shape).fit(ROWS, names), ROWS, tmp_path, to="tflite", count=60
    )
    assert found.labels == 0
    assert found.numbers < 1e-4


def test_a_support_vector_machine_with_probabilities_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="probability=True has no form in TFLite"):
        compared(SVC(probability=True).fit(ROWS, ROWS[:, 0] > 0), ROWS, tmp_path, to="tflite")


def test_pandas_categories_of_xgboost_are_refused(tmp_path: Path) -> None:
    import pandas as pd
    import xgboost

    frame = pd.DataFrame({"plan": pd.Categorical(np.where(ROWS[:, 0] > 0, 3, 5)), "x": ROWS[:, 1]})
    model = xgboost.XGBClassifier(n_estimators=2, enable_categorical=True).fit(frame, ROWS[:, 0] > 0)
    signature = Signature(
        kind="columns",
        inputs=tuple(TensorSpec(name=name, datatype="FP32", shape=(-1, 1)) for name in ("plan", "x")),
    )
    answers = FLAVORS["xgboost"].answers(model, tmp_path)
    order = Order(flavor="xgboost", signature=signature, answers=answers)
    for name in ("onnx", "tflite"):
        with pytest.raises(Refused, match="was trained on pandas categories"):
            FORMATS[name].convert(model, order, tmp_path / "model")


def test_text_is_refused(tmp_path: Path) -> None:
    import pandas as pd
    from sklearn.ensemble import HistGradientBoostingClassifier

    frame = pd.DataFrame({"plan": pd.Categorical(np.where(ROWS[:, 0] > 0, "pro", "basic")), "x": ROWS[:, 1]})
    model = HistGradientBoostingClassifier(max_iter=3, categorical_features=["plan"]).fit(frame, ROWS[:, 0] > 0)
    with pytest.raises(Refused, match="the input plan is text"):
        compared(model, frame.astype({"plan": str}), tmp_path, to="tflite")

"""scikit-learn's histogram gradient boosting as ONNX: exact at thresholds, in gaps, and on categories never seen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import datasets
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder, StandardScaler

from modelrel.errors import Refused
from tests.models import compared, people, prepared

IRIS = datasets.load_iris()
CANCER = datasets.load_breast_cancer()
DIABETES = datasets.load_diabetes()


def gapped(data: Any) -> Any:
    return np.where(np.random.default_rng(0).random(data.shape) < 0.2, np.nan, data)


def coded(kind: str = "float64") -> tuple[Any, Any]:
    """Return rows with two columns of category numbers (not 0, 1, 2, …; some of them missing), and a class."""
    random = np.random.default_rng(0)
    data = np.c_[CANCER.data[:, 0], random.choice([-7, 3, 4.5, 90, 300], 569), CANCER.data[:, 1]]
    data = np.c_[data, random.integers(0, 60, 569)].astype(kind)
    data[::11, 1] = np.nan
    return data, np.isin(data[:, 1], [3, 300]) ^ (data[:, 3] % 7 < 3) ^ (random.random(569) < 0.05)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("gaps", [True, False])
def test_a_classifier_is_exact_at_its_thresholds_and_in_gaps(gaps: bool, dtype: str, tmp_path: Path) -> None:
    data = (gapped(CANCER.data) if gaps else CANCER.data).astype(dtype)
    found = compared(HistGradientBoostingClassifier(max_iter=20).fit(data, CANCER.target), data, tmp_path)
    assert (found.labels, found.numbers < 1e-14) == (0, True)
    assert {"thresholds", "missing"} <= found.sources


def test_a_classifier_of_three_text_labels_is_exact(tmp_path: Path) -> None:
    model = HistGradientBoostingClassifier(max_iter=8).fit(IRIS.data, np.array(["a", "b", "c"])[IRIS.target])
    found = compared(model, IRIS.data, tmp_path)
    assert (found.labels, found.numbers < 1e-14) == (0, True)


@pytest.mark.parametrize("labels", [np.array([False, True]), np.array([2.0, -1.0]), np.array([7, -3])], ids=str)
def test_labels_keep_their_values(labels: Any, tmp_path: Path) -> None:
    model = HistGradientBoostingClassifier(max_iter=3).fit(IRIS.data, labels[(IRIS.target == 1).astype(int)])
    assert compared(model, IRIS.data, tmp_path).labels == 0


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "poisson", "gamma", "quantile"])
def test_a_regressor_is_exact(loss: str, tmp_path: Path) -> None:
    quantile = 0.7 if loss == "quantile" else None
    model = HistGradientBoostingRegressor(max_iter=10, loss=loss, quantile=quantile)
    assert compared(model.fit(gapped(DIABETES.data), DIABETES.target), DIABETES.data, tmp_path).numbers < 1e-14


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("framed", [True, False], ids=["columns", "tensor"])
def test_number_categories_are_exact_for_unseen_missing_and_fractional_ones(
    framed: bool, dtype: str, tmp_path: Path
) -> None:
    data, target = coded(dtype)
    model = HistGradientBoostingClassifier(max_iter=15, categorical_features=[1, 3], min_samples_leaf=2)
    given = pd.DataFrame(data, columns=list("abcd")) if framed else data
    found = compared(model.fit(given, target), given, tmp_path)
    assert any(nodes["is_categorical"].any() for nodes in _nodes(model))
    assert (found.labels, found.numbers < 1e-14) == (0, True)
    assert {"missing", "unseen"} <= found.sources


def _nodes(model: Any) -> list[Any]:
    return [single.nodes for round_ in model._predictors for single in round_]


def test_text_categories_are_exact(tmp_path: Path) -> None:
    frame, classes, _ = people()
    frame.loc[::9, "plan"] = np.nan
    model = HistGradientBoostingClassifier(max_iter=8, categorical_features=["plan", "flag"], min_samples_leaf=2)
    found = compared(model.fit(frame, classes), frame, tmp_path)
    assert (found.labels, found.numbers < 1e-14) == (0, True)
    assert {"missing", "unseen"} <= found.sources


def test_categories_of_a_data_frame_s_own_kind_are_exact_on_plain_texts(tmp_path: Path) -> None:
    frame, classes, _ = people()
    frame["the age"] //= 5
    trained = frame.astype({"plan": "category", "the age": "category"})
    model = HistGradientBoostingClassifier(max_iter=8, categorical_features="from_dtype", min_samples_leaf=2)
    assert compared(model.fit(trained, classes), frame, tmp_path).labels == 0


def test_an_empty_text_among_the_categories_is_refused(tmp_path: Path) -> None:
    frame, classes, _ = people()
    frame["plan"] = np.array(["", "x", "pro"], object)[np.arange(len(frame)) % 3]
    model = HistGradientBoostingClassifier(max_iter=2, categorical_features=["plan"]).fit(frame, classes)
    with pytest.raises(Refused, match="empty text"):
        compared(model, frame, tmp_path)


def test_a_category_that_float64_cannot_hold_is_refused(tmp_path: Path) -> None:
    data = np.array([[2**53, 1], [2**53 + 1, 2]] * 40)
    model = HistGradientBoostingClassifier(max_iter=2, categorical_features=[0]).fit(data, [0, 1] * 40)
    with pytest.raises(Refused, match="2\\*\\*53"):
        compared(model, data, tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_scaler_in_front_is_exact(dtype: str, tmp_path: Path) -> None:
    data = CANCER.data.astype(dtype)
    model = make_pipeline(StandardScaler(), HistGradientBoostingClassifier(max_iter=8)).fit(data, CANCER.target)
    found = compared(model, data, tmp_path)
    assert (found.labels, found.numbers < 1e-14) == (0, True)


def test_prepared_text_and_number_columns_in_front_are_exact(tmp_path: Path) -> None:
    frame, classes, _ = people()
    words = prepared().set_params(sparse_threshold=0)
    found = compared(
        make_pipeline(words, HistGradientBoostingClassifier(max_iter=8)).fit(frame, classes), frame, tmp_path
    )
    assert (found.labels, found.numbers < 1e-14) == (0, True)


def test_categories_that_an_encoder_in_front_made_are_exact(tmp_path: Path) -> None:
    frame, classes, _ = people()
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
    columns = ColumnTransformer([("plan", codes, ["plan"])], remainder="passthrough")
    model = make_pipeline(columns, HistGradientBoostingClassifier(max_iter=8, categorical_features=[0]))
    found = compared(model.fit(frame, classes), frame, tmp_path)
    assert (found.labels, found.numbers < 1e-14) == (0, True)


def test_hints_name_thresholds_and_categories(tmp_path: Path) -> None:
    data, target = coded()
    model = HistGradientBoostingClassifier(max_iter=5, categorical_features=[1, 3]).fit(data, target)
    said: Any = compared(model, data, tmp_path).description["hints"]
    assert said["features"][1]["categories"] == [-7, 3, 4.5, 90, 300]
    assert said["features"][0]["thresholds"]


def test_the_bytes_depend_on_the_model_alone_and_not_on_the_process(tmp_path: Path) -> None:
    script = (
        "import sys, hashlib; from pathlib import Path; from tests.formats import test_tree_agreement as trees; "
        "from tests.models import compared; model, data = trees.trained('hist', 1); "
        "print(hashlib.sha256(compared(model, data, Path(sys.argv[1]), count=10).content).hexdigest())"
    )
    found = set()
    for seed in "12":
        run = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script, str(tmp_path)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(run.stdout.strip())
    assert len(found) == 1, found

"""XGBoost and LightGBM models as ONNX: labels equal, LightGBM exact to the last bits, the rest refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn import datasets

from modelrel.errors import Refused
from modelrel.flavors import FLAVORS
from modelrel.formats import FORMATS, Order
from tests.models import compared, signature_of

IRIS = datasets.load_iris(as_frame=True)
CANCER = datasets.load_breast_cancer()
DIABETES = datasets.load_diabetes()
QUIET: dict[str, Any] = {"n_estimators": 10, "verbose": -1}


def gapped(data: Any) -> Any:
    return np.where(np.random.default_rng(0).random(data.shape) < 0.1, np.nan, data)


# ------------------------------------------------------------------ XGBoost


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_binary_xgboost_classifier_with_gaps_gives_equal_labels(dtype: str, tmp_path: Path) -> None:
    data = gapped(CANCER.data).astype(dtype)
    found = compared(xgboost.XGBClassifier(n_estimators=10).fit(data, CANCER.target), data, tmp_path, "xgboost")
    assert (found.labels, found.numbers < 1e-6) == (0, True)
    assert {"thresholds", "missing"} <= found.sources


def test_columns_of_an_xgboost_classifier_keep_their_names(tmp_path: Path) -> None:
    model = xgboost.XGBClassifier(n_estimators=5).fit(IRIS.data, IRIS.target)
    found = compared(model, IRIS.data, tmp_path, "xgboost")
    assert found.labels == 0
    assert [spec["name"] for spec in found.description["inputs"]] == list(IRIS.data.columns)


def test_xgboost_labels_are_right_where_all_leaves_are_positive(tmp_path: Path) -> None:
    model = xgboost.XGBClassifier(n_estimators=3, base_score=0.5).fit(CANCER.data, CANCER.target)
    assert compared(model, CANCER.data, tmp_path, "xgboost").labels == 0


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"booster": "dart", "rate_drop": 0.5},
        {"objective": "count:poisson"},
        {"objective": "reg:gamma"},
        {"objective": "reg:tweedie"},
        {"objective": "reg:absoluteerror"},
        {"objective": "reg:pseudohubererror"},
        {"objective": "reg:quantileerror", "quantile_alpha": 0.5},
        {"num_parallel_tree": 3, "subsample": 0.5},
        {"missing": -999.0},
    ],
    ids=str,
)
def test_xgboost_regressors_are_within_tolerance(options: Any, tmp_path: Path) -> None:
    data = np.where(np.random.default_rng(0).random(DIABETES.data.shape) < 0.1, -999.0, DIABETES.data)
    model = xgboost.XGBRegressor(n_estimators=8, **options).fit(data, DIABETES.target)
    assert compared(model, data, tmp_path, "xgboost").numbers < 1e-5


def test_several_targets_of_xgboost_each_have_their_trees(tmp_path: Path) -> None:
    both = np.c_[DIABETES.target, -DIABETES.target]
    model = xgboost.XGBRegressor(n_estimators=4).fit(DIABETES.data, both)
    assert compared(model, DIABETES.data, tmp_path, "xgboost").numbers < 1e-5


def test_early_stopping_keeps_the_best_rounds_only(tmp_path: Path) -> None:
    model = xgboost.XGBClassifier(n_estimators=60, early_stopping_rounds=2, learning_rate=0.9)
    model.fit(CANCER.data[::2], CANCER.target[::2], eval_set=[(CANCER.data[1::2], CANCER.target[1::2])], verbose=False)
    assert model.best_iteration < len(model.get_booster().get_dump()) - 1
    assert compared(model, CANCER.data, tmp_path, "xgboost").numbers < 1e-6


@pytest.mark.parametrize(
    "objective",
    ["binary:logistic", "binary:logitraw", "reg:squarederror", "multi:softprob", "multi:softmax", "rank:pairwise"],
)
def test_a_booster_answers_what_booster_predict_returns(objective: str, tmp_path: Path) -> None:
    several = "multi" in objective
    data = xgboost.DMatrix(IRIS.data, label=IRIS.target if several else IRIS.target == 1)
    if "rank" in objective:
        data.set_group([50, 50, 50])
    booster = xgboost.train({"objective": objective, **({"num_class": 3} if several else {})}, data, 5)
    found = compared(booster, IRIS.data, tmp_path, "xgboost")
    assert found.numbers < 1e-5
    assert found.description["outputs"][0]["name"] == "prediction"


def refused(model: Any, data: Any, folder: Path, flavor: Any) -> str:
    with pytest.raises(Refused) as stop:
        compared(model, data, folder, flavor)
    assert stop.value.hint
    return stop.value.message


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_linear_xgboost_models_are_equal_gaps_included(dtype: str, tmp_path: Path) -> None:
    data = gapped(CANCER.data.astype(dtype))
    model = xgboost.XGBClassifier(n_estimators=3, booster="gblinear").fit(data, CANCER.target)
    found = compared(model, data, tmp_path, "xgboost")
    assert (found.labels, found.numbers < 1e-5) == (0, True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_trees_of_vector_leaves_are_exact(dtype: str, tmp_path: Path) -> None:
    data = gapped(DIABETES.data).astype(dtype)
    target = np.c_[DIABETES.target, -DIABETES.target, data[:, 0] > 0]
    model = xgboost.XGBRegressor(n_estimators=6, multi_strategy="multi_output_tree").fit(data, target)
    assert compared(model, data, tmp_path, "xgboost").numbers < 1e-6


def test_classes_of_vector_leaves_are_exact(tmp_path: Path) -> None:
    model = xgboost.XGBClassifier(n_estimators=6, multi_strategy="multi_output_tree").fit(IRIS.data, IRIS.target)
    found = compared(model, IRIS.data, tmp_path, "xgboost")
    assert (found.labels, found.numbers < 1e-6) == (0, True)


def test_xgboost_on_pandas_categories_is_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": pd.Categorical([10, 20, 30, 10] * 30), "b": np.arange(120.0)})
    booster = xgboost.train({}, xgboost.DMatrix(frame, label=[0, 1, 0, 0] * 30, enable_categorical=True), 2)
    order = Order(
        flavor="xgboost",
        signature=signature_of(frame.astype(float)),
        answers=FLAVORS["xgboost"].answers(booster, tmp_path),
        shapes={},
    )
    with pytest.raises(Refused, match="pandas categories"):
        FORMATS["onnx"].convert(booster, order, tmp_path / "model.onnx")


def test_an_unknown_xgboost_objective_is_refused_by_name(tmp_path: Path) -> None:
    data = xgboost.DMatrix(IRIS.data, label=IRIS.target == 1)
    booster = xgboost.train({"objective": "binary:hinge"}, data, 2)
    assert "binary:hinge" in refused(booster, IRIS.data, tmp_path, "xgboost")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("one_hot", [1, 100])
def test_xgboost_categories_are_exact_for_unseen_missing_negative_and_fractional_codes(
    one_hot: int, dtype: str, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    data = np.c_[CANCER.data[:, :2], random.integers(0, 90, 569), random.integers(0, 5, 569)].astype(dtype)
    data[::9, 3] = np.nan
    target = (data[:, 2] % 7 < 3) ^ (data[:, 3] == 2)
    options: dict[str, Any] = {"max_cat_to_onehot": one_hot, "feature_types": ["q", "q", "c", "c"]}
    model = xgboost.XGBClassifier(n_estimators=8, enable_categorical=True, **options).fit(data, target)
    found = compared(model, data, tmp_path, "xgboost")
    assert any(any(tree["split_type"]) for tree in _trees(model.get_booster()))
    assert (found.labels, found.numbers < 1e-6) == (0, True)
    assert {"missing", "unseen"} <= found.sources


def _trees(booster: Any) -> Any:
    return json.loads(bytes(booster.save_raw("json")))["learner"]["gradient_booster"]["model"]["trees"]


# ----------------------------------------------------------------- LightGBM


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_lightgbm_classifier_with_gaps_is_exact(dtype: str, tmp_path: Path) -> None:
    data = gapped(CANCER.data).astype(dtype)
    found = compared(lightgbm.LGBMClassifier(**QUIET).fit(data, CANCER.target), data, tmp_path, "lightgbm")
    assert (found.labels, found.numbers < 1e-14) == (0, True)
    assert {"thresholds", "missing"} <= found.sources


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"objective": "multiclassova"},
        {"boosting_type": "rf", "subsample": 0.7, "subsample_freq": 1},
        {"boosting_type": "dart"},
        {"use_missing": False},
    ],
    ids=str,
)
def test_lightgbm_classifiers_of_three_text_labels_are_exact(options: Any, tmp_path: Path) -> None:
    model = lightgbm.LGBMClassifier(**QUIET, **options).fit(IRIS.data, np.array(["a", "b", "c"])[IRIS.target])
    found = compared(model, IRIS.data, tmp_path, "lightgbm")
    assert (found.labels, found.numbers < 1e-14) == (0, True)


@pytest.mark.parametrize(
    "objective",
    ["regression", "regression_l1", "huber", "fair", "quantile", "mape", "poisson", "gamma", "tweedie"],
)
def test_lightgbm_regressors_are_exact(objective: str, tmp_path: Path) -> None:
    # "fair" splits at LightGBM's zero bound, where its predictor drops what is not beyond it.
    model = lightgbm.LGBMRegressor(objective=objective, n_estimators=15, verbose=-1)
    found = compared(model.fit(DIABETES.data, DIABETES.target), DIABETES.data, tmp_path, "lightgbm")
    assert found.numbers < 1e-12


def test_a_lightgbm_square_root_regressor_is_exact(tmp_path: Path) -> None:
    model = lightgbm.LGBMRegressor(reg_sqrt=True, **QUIET).fit(DIABETES.data, DIABETES.target - 150)
    assert compared(model, DIABETES.data, tmp_path, "lightgbm").numbers < 1e-12


@pytest.mark.parametrize("framed", [True, False], ids=["columns", "tensor"])
def test_lightgbm_categories_are_exact_for_unseen_missing_negative_and_fractional_codes(
    framed: bool, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    data = np.c_[CANCER.data[:, :2], random.integers(0, 200, 569), random.integers(-1, 5, 569)].astype(float)
    data[::9, 3] = np.nan
    target = ((data[:, 2] % 7 < 3) ^ (random.random(569) < 0.1)).astype(int)
    options = {"objective": "binary", "verbose": -1, "min_data_per_group": 5}
    booster = lightgbm.train(options, lightgbm.Dataset(data, target, categorical_feature=[2, 3]), 10)
    given = pd.DataFrame(data, columns=list("abcd")) if framed else data
    found = compared(booster, given, tmp_path, "lightgbm")
    assert found.numbers < 1e-14
    assert {"missing", "unseen"} <= found.sources


def test_whole_number_tensors_are_read_in_float32_as_lightgbm_does(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 2**27, (300, 2))
    model = lightgbm.LGBMRegressor(**QUIET).fit(data, data[:, 0] % 1000)
    assert compared(model, data, tmp_path, "lightgbm").numbers < 1e-12


def test_a_lightgbm_model_that_never_splits_answers_its_constant(tmp_path: Path) -> None:
    model = lightgbm.LGBMRegressor(**QUIET).fit(DIABETES.data[:5], DIABETES.target[:5])
    assert compared(model, DIABETES.data, tmp_path, "lightgbm").numbers == 0


@pytest.mark.parametrize("operators", ["v5", "v3", "core"])
@pytest.mark.parametrize("option", ["linear_tree", "zero_as_missing"])
def test_linear_trees_and_zero_as_missing_of_lightgbm_are_exact(option: str, operators: Any, tmp_path: Path) -> None:
    data = gapped(np.where(np.random.default_rng(1).random(DIABETES.data.shape) < 0.2, 0, DIABETES.data))
    model = lightgbm.LGBMRegressor(**QUIET, **{option: True}).fit(data, DIABETES.target)
    assert compared(model, data, tmp_path, "lightgbm", operators=operators).numbers < 1e-12


def test_zero_as_missing_in_some_trees_only_is_refused_by_name(tmp_path: Path) -> None:
    rows = lightgbm.Dataset(DIABETES.data, DIABETES.target, free_raw_data=False)
    first = lightgbm.train({"verbose": -1, "zero_as_missing": True}, rows, 2)
    again = lightgbm.Dataset(DIABETES.data, DIABETES.target)
    model = lightgbm.train({"verbose": -1}, again, 2, init_model=first)
    assert "in some trees only" in refused(model, DIABETES.data, tmp_path, "lightgbm")


def test_lightgbm_on_pandas_categories_is_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": pd.Categorical(["x", "y", "z", "x"] * 30), "b": np.arange(120.0)})
    model = lightgbm.LGBMClassifier(**QUIET).fit(frame, [0, 1, 0, 0] * 30)
    plain = pd.DataFrame({"a": np.zeros(120), "b": np.arange(120.0)})
    with pytest.raises((Refused, ValueError), match="categor"):
        compared(model, plain, tmp_path, "lightgbm")


@pytest.mark.parametrize("scale", [1.0, 1e-9], ids=["usual", "tiny"])
def test_a_lightgbm_intensity_is_exact(scale: float, tmp_path: Path) -> None:
    share = (DIABETES.target - 25) / 322 * scale
    options = {"objective": "cross_entropy_lambda", "verbose": -1}
    booster = lightgbm.train(options, lightgbm.Dataset(DIABETES.data, share), 3)
    assert compared(booster, DIABETES.data, tmp_path, "lightgbm").numbers < 1e-14


@pytest.mark.filterwarnings("ignore:Cannot compute class probabilities")
def test_a_lightgbm_classifier_with_an_objective_of_its_own_is_refused_by_name(tmp_path: Path) -> None:
    def own(wanted: Any, said: Any) -> tuple[Any, Any]:
        return said - wanted, np.ones_like(said)

    model = lightgbm.LGBMClassifier(objective=own, **QUIET).fit(CANCER.data, CANCER.target)
    order = Order(
        flavor="lightgbm",
        signature=signature_of(CANCER.data),
        answers=FLAVORS["lightgbm"].answers(model, tmp_path),
        shapes={},
    )
    with pytest.raises(Refused, match="of its own"):
        FORMATS["onnx"].convert(model, order, tmp_path / "model.onnx")

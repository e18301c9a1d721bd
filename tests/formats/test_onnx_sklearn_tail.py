"""Estimators of our own converters with other arguments than in the sweep, and in pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import (
    base,
    calibration,
    cluster,
    compose,
    datasets,
    dummy,
    ensemble,
    feature_selection,
    impute,
    isotonic,
    kernel_approximation,
    kernel_ridge,
    linear_model,
    model_selection,
    multiclass,
    naive_bayes,
    neighbors,
    preprocessing,
    semi_supervised,
    svm,
    tree,
)
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline, make_union

from tests.formats import estimators, sweep
from tests.models import compared

LINE = linear_model.LogisticRegression(max_iter=1000)
RIDGE = linear_model.Ridge()
FOREST = ensemble.RandomForestClassifier(5, random_state=0)
BAYES = naive_bayes.GaussianNB()
MEANS = cluster.KMeans(3, n_init=1, random_state=0)


def bins(**said: Any) -> Any:
    return preprocessing.KBinsDiscretizer(4, quantile_method="averaged_inverted_cdf", **said)


EQUAL = [
    *(bins(encode=encode) for encode in ("onehot", "onehot-dense", "ordinal")),
    bins(strategy="uniform"),
    *(preprocessing.SplineTransformer(extrapolation=beyond) for beyond in ("linear", "continue", "periodic", "error")),
    preprocessing.SplineTransformer(knots="quantile", n_knots=8, include_bias=False),
    preprocessing.QuantileTransformer(n_quantiles=50),
    preprocessing.QuantileTransformer(n_quantiles=150, output_distribution="normal"),
    preprocessing.OneHotEncoder(handle_unknown="ignore", drop="first"),
    preprocessing.OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=20),
    preprocessing.OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=20, drop="first"),
    preprocessing.PowerTransformer("box-cox"),
    preprocessing.Binarizer(threshold=1.5),
    preprocessing.LabelBinarizer(neg_label=-1),
    neighbors.KNeighborsClassifier(weights="distance", metric="chebyshev"),
    neighbors.KNeighborsClassifier(weights="distance", p=3),
    neighbors.KNeighborsClassifier(metric="manhattan"),
    neighbors.KNeighborsRegressor(algorithm="brute", weights="distance"),
    neighbors.RadiusNeighborsClassifier(2.0, outlier_label="most_frequent"),
    neighbors.RadiusNeighborsTransformer(mode="connectivity"),
    neighbors.NearestCentroid(metric="manhattan"),
    neighbors.NearestCentroid(priors=[0.2, 0.3, 0.5]),
    semi_supervised.LabelSpreading(kernel="knn"),
    impute.KNNImputer(keep_empty_features=True),
    impute.SimpleImputer(add_indicator=True),
    impute.MissingIndicator(features="all"),
    kernel_ridge.KernelRidge(kernel="laplacian"),
    kernel_approximation.AdditiveChi2Sampler(sample_steps=3),
    *(isotonic.IsotonicRegression(out_of_bounds=beyond) for beyond in ("clip", "nan")),
    calibration.CalibratedClassifierCV(BAYES, method="isotonic", cv=2),
    calibration.CalibratedClassifierCV(LINE, cv=2),
    calibration.CalibratedClassifierCV(FOREST, cv=2),
    dummy.DummyClassifier(strategy="constant", constant=1),
    dummy.DummyRegressor(strategy="median"),
    compose.TransformedTargetRegressor(RIDGE, transformer=preprocessing.StandardScaler()),
    compose.TransformedTargetRegressor(RIDGE, func=np.sqrt, inverse_func=np.square),
    compose.TransformedTargetRegressor(make_pipeline(preprocessing.StandardScaler(), RIDGE)),
    model_selection.FixedThresholdClassifier(svm.LinearSVC(), threshold=0.2),
    model_selection.FixedThresholdClassifier(FOREST, threshold=0.2, pos_label=False),
    model_selection.FixedThresholdClassifier(LINE, response_method="decision_function", pos_label=False),
    multiclass.OneVsRestClassifier(svm.SVC()),
    multiclass.OneVsRestClassifier(BAYES),
    multiclass.OneVsRestClassifier(make_pipeline(preprocessing.StandardScaler(), LINE)),
    multiclass.OutputCodeClassifier(BAYES, random_state=0),
    make_pipeline(feature_selection.RFE(LINE), LINE),
    make_pipeline(MEANS, LINE),
    make_pipeline(cluster.Birch(n_clusters=3), LINE),
    make_pipeline(make_union(MEANS, preprocessing.StandardScaler()), LINE),
    make_pipeline(preprocessing.QuantileTransformer(n_quantiles=20), FOREST),
    make_pipeline(preprocessing.StandardScaler(), semi_supervised.SelfTrainingClassifier(LINE)),
    make_pipeline(kernel_approximation.Nystroem(n_components=10, random_state=0), svm.LinearSVC()),
    compose.ColumnTransformer([("means", MEANS, [0, 1]), ("curves", preprocessing.SplineTransformer(), [2])]),
    ensemble.VotingClassifier([("near", neighbors.NearestCentroid()), ("line", LINE)]),
    ensemble.BaggingClassifier(neighbors.KNeighborsClassifier(), n_estimators=4),
    ensemble.BaggingClassifier(n_estimators=5, max_features=2),
    ensemble.BaggingClassifier(LINE, n_estimators=3, max_features=3),
    ensemble.AdaBoostClassifier(tree.DecisionTreeClassifier(max_depth=3), n_estimators=8),
]


def said(model: Any) -> str:
    return " ".join(repr(model).split())[:60]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("model", EQUAL, ids=said)
def test_an_argument_changes_the_copy_as_it_changes_the_original(model: Any, dtype: Any, tmp_path: Path) -> None:
    found = sweep.outcome(*estimators.fit(model, dtype), tmp_path)
    assert (found.kind, found.said) == ("equal", "")


@pytest.mark.parametrize("method", ["isotonic", "sigmoid"])
@pytest.mark.parametrize("inner", [FOREST, LINE, BAYES, make_pipeline(preprocessing.StandardScaler(), LINE)], ids=said)
def test_a_classifier_that_was_fitted_before_it_was_calibrated_is_equal(
    inner: Any, method: str, tmp_path: Path
) -> None:
    rows, kinds = datasets.load_iris(return_X_y=True)
    frozen = FrozenEstimator(base.clone(inner).fit(rows, kinds))
    found = compared(calibration.CalibratedClassifierCV(frozen, method=method).fit(rows, kinds), rows, tmp_path)
    assert (found.labels, found.numbers < 1e-12) == (0, True)
    assert ("thresholds" in found.sources) == (inner is FOREST)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("model", "words"),
    [
        (dummy.DummyClassifier(strategy="uniform"), "at random"),
        (calibration.CalibratedClassifierCV(BAYES, method="temperature", cv=2), "temperature"),
        (calibration.CalibratedClassifierCV(svm.SVC(), cv=2), "decision_function of SVC"),
        (compose.TransformedTargetRegressor(RIDGE, func=np.cbrt, inverse_func=np.positive), "inverse_func positive"),
        (preprocessing.SplineTransformer(degree=0), "degree=0"),
        (neighbors.KNeighborsClassifier(weights=np.exp), "a function"),
        (kernel_ridge.KernelRidge(kernel="poly"), "float32 rows"),
    ],
    ids=said,
)
def test_what_has_no_exact_copy_is_refused_with_the_reason(model: Any, words: str, tmp_path: Path) -> None:
    found = sweep.outcome(*estimators.fit(model, np.float32), tmp_path)
    assert (found.kind, words in found.said) == ("refused", True), found

"""scikit-learn models as ONNX: exact on rows a person would think of, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost
from sklearn import datasets, ensemble, linear_model, naive_bayes, neighbors, neural_network, svm, tree
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.manifold import Isomap
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, OrdinalEncoder, StandardScaler

from modelrel.errors import Refused
from tests.models import compared, people, prepared

IRIS = datasets.load_iris()
CANCER = datasets.load_breast_cancer()
DIABETES = datasets.load_diabetes()


def gapped(data: Any) -> Any:
    holes = np.random.default_rng(0).random(data.shape) < 0.2
    return np.where(holes, np.nan, data)


CLASSIFIERS = [
    linear_model.LogisticRegression(max_iter=2000),
    ensemble.RandomForestClassifier(10, random_state=0),
    ensemble.ExtraTreesClassifier(10, random_state=0),
    ensemble.GradientBoostingClassifier(n_estimators=10, random_state=0),
    tree.DecisionTreeClassifier(random_state=0),
    svm.SVC(),
    svm.LinearSVC(),
    neighbors.KNeighborsClassifier(),
    neural_network.MLPClassifier((8,), max_iter=30, random_state=0),
    naive_bayes.GaussianNB(),
    ensemble.AdaBoostClassifier(n_estimators=4, random_state=0),
    make_pipeline(StandardScaler(), ensemble.RandomForestClassifier(10, random_state=0)),
    make_pipeline(MinMaxScaler(), linear_model.LogisticRegression()),
    linear_model.RidgeClassifier(),
    GridSearchCV(tree.DecisionTreeClassifier(random_state=0), {"max_depth": [2, 3]}, cv=2),
]
REGRESSORS = [
    ensemble.RandomForestRegressor(10, random_state=0),
    ensemble.GradientBoostingRegressor(n_estimators=10, random_state=0),
    ensemble.ExtraTreesRegressor(5, random_state=0),
    tree.DecisionTreeRegressor(random_state=0),
    linear_model.LinearRegression(),
    neighbors.KNeighborsRegressor(),
    svm.SVR(),
    make_pipeline(PCA(3), linear_model.Lasso()),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model", CLASSIFIERS, ids=lambda model: type(model).__name__)
def test_a_classifier_of_float64_rows_gives_the_labels_of_the_original(model: Any, tmp_path: Path) -> None:
    found = compared(model.fit(IRIS.data, IRIS.target), IRIS.data, tmp_path)
    assert (found.labels, found.numbers < 1e-6) == (0, True)


@pytest.mark.parametrize("model", [svm.SVC(), make_pipeline(PCA(5), svm.NuSVC(nu=0.2))], ids=["alone", "pipeline"])
def test_the_scores_of_a_support_vector_machine_of_two_classes_are_one_column(model: Any, tmp_path: Path) -> None:
    data = CANCER.data / CANCER.data.std(axis=0)
    found = compared(model.fit(data, CANCER.target), data, tmp_path)
    assert (found.labels, found.numbers < 1e-4) == (0, True)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model", REGRESSORS, ids=lambda model: type(model).__name__)
def test_a_regressor_of_float64_rows_is_within_tolerance(model: Any, tmp_path: Path) -> None:
    assert compared(model.fit(DIABETES.data, DIABETES.target), DIABETES.data, tmp_path).numbers < 1e-5


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model", [CLASSIFIERS[0], CLASSIFIERS[1], CLASSIFIERS[3]], ids=lambda m: type(m).__name__)
def test_a_classifier_of_float32_rows_gives_the_labels_of_the_original(model: Any, tmp_path: Path) -> None:
    data = CANCER.data.astype(np.float32)
    found = compared(model.fit(data, CANCER.target), data, tmp_path)
    assert (found.labels, found.numbers < 1e-5) == (0, True)


@pytest.mark.parametrize(
    "model",
    [
        linear_model.LogisticRegression(max_iter=1000),
        ensemble.RandomForestClassifier(10, random_state=0),
        ensemble.GradientBoostingClassifier(n_estimators=10, random_state=0),
        ensemble.HistGradientBoostingClassifier(max_iter=5, random_state=0),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_pipeline_over_text_and_number_columns_is_exact(model: Any, tmp_path: Path) -> None:
    frame, classes, _ = people()
    found = compared(make_pipeline(prepared(), model).fit(frame, classes), frame, tmp_path)
    assert (found.labels, found.numbers < 1e-8, found.notes) == (0, True, ())
    assert {"missing", "unseen"} <= found.sources


@pytest.mark.parametrize("columns", [["in.come (k)"], ["n2"], ["n2", "in.come (k)"], ["the age", "n2"]], ids=str)
@pytest.mark.parametrize("strategy", ["median", "mean", "constant"])
def test_gaps_are_filled_with_the_very_number_of_the_original(
    columns: list[str], strategy: str, tmp_path: Path
) -> None:
    frame, _, _ = people()
    frame.loc[3::5, "n2"] = np.nan
    imputer = SimpleImputer(strategy=strategy, fill_value=0.1 if strategy == "constant" else None)
    model = ColumnTransformer([("filled", imputer, columns)]).fit(frame)
    found = compared(model, frame, tmp_path)
    assert found.numbers == 0
    assert "missing" in found.sources


def test_a_number_that_stands_for_missing_is_filled(tmp_path: Path) -> None:
    rows = np.where(IRIS.data < 2, -1.0, IRIS.data)
    assert compared(SimpleImputer(missing_values=-1).fit(rows), rows, tmp_path).numbers == 0


@pytest.mark.parametrize("kind", [ensemble.RandomForestRegressor, linear_model.Ridge], ids=lambda kind: kind.__name__)
def test_a_regression_pipeline_over_text_and_number_columns_is_exact(kind: Any, tmp_path: Path) -> None:
    frame, _, number = people()
    assert compared(make_pipeline(prepared(), kind()).fit(frame, number), frame, tmp_path).numbers < 1e-6


@pytest.mark.parametrize(
    "kind", [tree.DecisionTreeClassifier, ensemble.RandomForestClassifier, ensemble.ExtraTreesClassifier]
)
def test_trees_trained_with_gaps_send_a_gap_the_right_way(kind: Any, tmp_path: Path) -> None:
    data = gapped(CANCER.data)
    found = compared(kind(random_state=0).fit(data, CANCER.target), data, tmp_path)
    assert (found.labels, found.numbers) == (0, 0.0)
    assert "missing" in found.sources


def test_thresholds_behind_a_scaler_are_asked_about_in_the_units_of_the_input(tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), tree.DecisionTreeClassifier(max_depth=2, random_state=0))
    found = compared(model.fit(IRIS.data, IRIS.target), IRIS.data, tmp_path)
    asked = [value for said in found.description["hints"]["features"] for value in said.get("thresholds", ())]
    assert asked
    assert all(0 < value < 8 for value in asked)


def test_boosting_from_zero_has_the_labels_that_onnxruntime_gets_wrong(tmp_path: Path) -> None:
    model = ensemble.GradientBoostingClassifier(init="zero", n_estimators=3, random_state=0)
    assert compared(model.fit(CANCER.data, CANCER.target), CANCER.data, tmp_path).labels == 0


@pytest.mark.parametrize("kind", ["bool", "float", "text"])
def test_labels_keep_their_type(kind: str, tmp_path: Path) -> None:
    values = {"bool": IRIS.target == 1, "float": IRIS.target * 1.0, "text": np.array(["a", "bb", "c"])[IRIS.target]}
    found = compared(linear_model.LogisticRegression(max_iter=2000).fit(IRIS.data, values[kind]), IRIS.data, tmp_path)
    label = next(spec for spec in found.description["outputs"] if spec["name"] == "label")
    assert (found.labels, label["datatype"]) == (0, {"bool": "BOOL", "float": "FP64", "text": "BYTES"}[kind])


def test_a_missing_text_is_the_category_that_it_was_in_training(tmp_path: Path) -> None:
    frame, classes, _ = people()
    frame.loc[::5, "plan"] = None
    model = make_pipeline(
        ColumnTransformer([("plan", OneHotEncoder(handle_unknown="ignore"), ["plan"])]),
        linear_model.LogisticRegression(),
    )
    assert compared(model.fit(frame, classes), frame, tmp_path).labels == 0


def test_a_missing_text_is_imputed(tmp_path: Path) -> None:
    frame, classes, _ = people()
    frame.loc[::5, "plan"] = None
    words = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    model = make_pipeline(ColumnTransformer([("plan", words, ["plan"])]), linear_model.LogisticRegression())
    assert compared(model.fit(frame, classes), frame, tmp_path).labels == 0


def test_ordinal_codes_of_text_reach_a_forest(tmp_path: Path) -> None:
    frame, classes, _ = people()
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    model = make_pipeline(
        ColumnTransformer([("plan", codes, ["plan"])], remainder="drop"),
        ensemble.RandomForestClassifier(5, random_state=0),
    )
    assert compared(model.fit(frame, classes), frame, tmp_path).labels == 0


def test_an_encoder_of_whole_numbers_is_exact(tmp_path: Path) -> None:
    frame, classes, _ = people()
    model = make_pipeline(
        ColumnTransformer([("age", OneHotEncoder(handle_unknown="ignore"), ["the age"])]),
        linear_model.LogisticRegression(),
    )
    assert compared(model.fit(frame, classes), frame, tmp_path).labels == 0


MEMBERS = [
    ("forest", ensemble.RandomForestClassifier(5, random_state=0)),
    ("line", linear_model.LogisticRegression(max_iter=1000)),
]


@pytest.mark.parametrize(
    "model",
    [ensemble.VotingClassifier(MEMBERS, voting="soft"), ensemble.StackingClassifier(MEMBERS, cv=2)],
    ids=lambda model: type(model).__name__,
)
def test_models_of_models_are_exact(model: Any, tmp_path: Path) -> None:
    found = compared(model.fit(IRIS.data, IRIS.target), IRIS.data, tmp_path)
    assert (found.labels, found.numbers < 1e-6) == (0, True)


def test_clusters_come_with_their_distances(tmp_path: Path) -> None:
    found = compared(KMeans(3, random_state=0, n_init=1).fit(IRIS.data), IRIS.data, tmp_path)
    assert [spec["name"] for spec in found.description["outputs"]] == ["label", "scores"]
    assert (found.labels, found.numbers < 1e-9) == (0, True)


def test_a_transformer_gives_transformed_rows(tmp_path: Path) -> None:
    found = compared(PCA(2).fit(IRIS.data), IRIS.data, tmp_path)
    assert found.description["predict"] == "transformed"
    assert found.numbers < 1e-9


def refusal(model: Any, data: Any, folder: Path) -> Refused:
    with pytest.raises(Refused) as stop:
        compared(model, data, folder)
    assert stop.value.hint
    return stop.value


def test_an_estimator_without_converter_is_refused_by_name_and_step(tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), Isomap()).fit(IRIS.data, IRIS.target)
    message = refusal(model, IRIS.data, tmp_path).message
    assert "Isomap inside Pipeline step 'isomap'" in message


def test_several_targets_are_refused(tmp_path: Path) -> None:
    model = ensemble.RandomForestRegressor(2).fit(IRIS.data, np.c_[IRIS.target, IRIS.target])
    assert "several targets" in refusal(model, IRIS.data, tmp_path).message


def test_an_encoder_that_knows_empty_and_missing_texts_is_refused(tmp_path: Path) -> None:
    frame, classes, _ = people()
    frame["plan"] = np.array(["", None, "pro"], object)[np.arange(len(frame)) % 3]
    model = make_pipeline(
        ColumnTransformer([("plan", OneHotEncoder(handle_unknown="ignore"), ["plan"])]),
        linear_model.LogisticRegression(),
    )
    assert "empty and a missing text" in refusal(model.fit(frame, classes), frame, tmp_path).message


@pytest.mark.parametrize("contamination", ["auto", 0.1])
def test_an_isolation_forest_finds_the_same_outliers_gaps_included(contamination: Any, tmp_path: Path) -> None:
    model = ensemble.IsolationForest(n_estimators=20, random_state=0, max_features=0.8, contamination=contamination)
    found = compared(model.fit(IRIS.data), IRIS.data, tmp_path)
    assert (found.labels, found.numbers < 1e-12) == (0, True)
    assert "missing" in found.sources


def test_a_scaler_of_float32_rows_rounds_as_the_original_does_in_front_of_trees(tmp_path: Path) -> None:
    data = CANCER.data.astype(np.float32)
    model = make_pipeline(StandardScaler(), ensemble.RandomForestClassifier(20, random_state=0))
    found = compared(model.fit(data, CANCER.target), data, tmp_path)
    assert (found.labels, found.numbers) == (0, 0.0)


BOOSTERS = [
    xgboost.XGBClassifier(n_estimators=5),
    lightgbm.LGBMClassifier(n_estimators=5, verbose=-1),
]


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize("model", BOOSTERS, ids=lambda model: type(model).__name__)
def test_a_booster_at_the_end_of_a_pipeline_is_exact(model: Any, tmp_path: Path) -> None:
    frame, classes, _ = people()
    found = compared(make_pipeline(prepared(), model).fit(frame, classes == "stays"), frame, tmp_path)
    assert (found.labels, found.numbers < 1e-6) == (0, True)


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize("model", BOOSTERS, ids=lambda model: type(model).__name__)
def test_a_booster_behind_sparse_one_hot_columns_takes_zeros_as_the_original_does(model: Any, tmp_path: Path) -> None:
    frame, classes, _ = people()
    frame["plan"] = [f"p{number % 40}" for number in range(len(frame))]
    words = ColumnTransformer(
        [
            ("plan", OneHotEncoder(handle_unknown="ignore"), ["plan"]),
            ("age", StandardScaler(), ["the age"]),
        ]
    )
    model = make_pipeline(words, model).fit(frame, classes == "stays")
    assert words.fit(frame).sparse_output_
    assert compared(model, frame, tmp_path).labels == 0

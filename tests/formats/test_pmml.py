"""PMML copies give what their originals give, in both scorers, gaps and rows around thresholds included."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from sklearn import ensemble, linear_model, naive_bayes, preprocessing, tree
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from modelrel.errors import Refused, Unavailable
from modelrel.formats import FORMATS
from modelrel.formats.pmml import elements, scorers
from modelrel.formats.pmml.sets import rounded_at_most, spans
from modelrel.trees import Mode
from tests.formats.pmml import java, twice
from tests.models import logged, people, prepared, runtimes

ROWS, CLASSES = load_iris(return_X_y=True)
RANDOM = np.random.default_rng(0)
GAPS = np.where(RANDOM.random(ROWS.shape) < 0.15, np.nan, ROWS)
NUMBERS = ROWS[:, 0] * 2.1 + ROWS[:, 3]
CODES = np.column_stack([GAPS, RANDOM.integers(0, 12, len(ROWS))])
CODES[::9, 4] = np.nan
ODD = np.nan_to_num(CODES[:, 4]) % 3 == 0
EXACT = 1e-9


def lightgbm(**options: Any) -> Any:
    from lightgbm import LGBMClassifier

    return LGBMClassifier(n_estimators=8, verbose=-1, min_child_samples=3, n_jobs=1, **options)


def xgboost(kind: str = "XGBClassifier", **options: Any) -> Any:
    import xgboost as library

    return getattr(library, kind)(n_estimators=8, n_jobs=1, **options)


def catboost(**options: Any) -> Any:
    from catboost import CatBoostClassifier

    return CatBoostClassifier(iterations=8, depth=4, verbose=0, allow_writing_files=False, thread_count=1, **options)


TREES = {
    "forest with gaps": lambda: (ensemble.RandomForestClassifier(8, random_state=0).fit(GAPS, CLASSES), GAPS),
    "forest of numbers with gaps": lambda: (ensemble.RandomForestRegressor(5, random_state=0).fit(GAPS, NUMBERS), GAPS),
    "boosting of three classes": lambda: (ensemble.GradientBoostingClassifier(n_estimators=5).fit(ROWS, CLASSES), ROWS),
    "boosting of two classes": lambda: (
        ensemble.GradientBoostingClassifier(n_estimators=5).fit(ROWS, CLASSES > 0),
        ROWS,
    ),
    "histogram boosting with categories": lambda: (
        ensemble.HistGradientBoostingClassifier(max_iter=5, categorical_features=[4], min_samples_leaf=3).fit(
            CODES, ODD
        ),
        CODES,
    ),
    "isolation forest": lambda: (ensemble.IsolationForest(n_estimators=5, random_state=0).fit(ROWS), ROWS),
}


@java
@pytest.mark.parametrize("name", TREES)
def test_trees_of_scikit_learn_are_equal_in_both_scorers(name: str, tmp_path: Path) -> None:
    model, data = TREES[name]()
    found = twice(model, data, tmp_path)
    assert (found.labels, found.numbers < EXACT) == (0, True)


@java
@pytest.mark.parametrize("zero", [False, True], ids=["zero is a number", "zero is missing"])
def test_lightgbm_with_categories_is_equal_in_both_scorers(zero: bool, tmp_path: Path) -> None:
    model = lightgbm(zero_as_missing=zero, min_data_per_group=2, cat_smooth=1)
    found = twice(model.fit(CODES, ODD, categorical_feature=[4]), CODES, tmp_path, "lightgbm")
    assert (found.labels, found.numbers < EXACT) == (0, True)


@java
def test_xgboost_with_categories_is_equal_as_far_as_its_float32_sums_go(tmp_path: Path) -> None:
    model = xgboost(enable_categorical=True, feature_types=["q"] * 4 + ["c"], max_cat_to_onehot=1)
    found = twice(model.fit(CODES, ODD), CODES, tmp_path, "xgboost")
    assert (found.labels, found.numbers < 1e-6) == (0, True)


@java
@pytest.mark.parametrize("options", [{"missing": -1.0}, {"booster": "gblinear"}], ids=["a number is a gap", "gblinear"])
def test_xgboost_regressors_are_equal_in_both_scorers(options: Any, tmp_path: Path) -> None:
    found = twice(xgboost("XGBRegressor", **options).fit(ROWS, NUMBERS), ROWS, tmp_path, "xgboost")
    assert found.numbers < 1e-5


@java
@pytest.mark.parametrize("classes", [3, 2])
def test_catboost_with_gaps_is_equal_in_both_scorers(classes: int, tmp_path: Path) -> None:
    found = twice(catboost().fit(GAPS, CLASSES % classes), GAPS, tmp_path, "catboost")
    assert (found.labels, found.numbers < EXACT) == (0, True)


def softmax_booster() -> Any:
    import xgboost as library

    options = {"objective": "multi:softmax", "num_class": 3, "nthread": 1}
    return library.train(options, library.DMatrix(ROWS, CLASSES), 5)


def moved_threshold() -> Any:
    model = catboost().fit(ROWS, CLASSES > 0)
    model.set_probability_threshold(0.3)
    return model


LINKS = {
    "the number of the largest score": (softmax_booster, "xgboost"),
    "a probability threshold": (moved_threshold, "catboost"),
    "one sigmoid for each class": (lambda: lightgbm(objective="multiclassova").fit(ROWS, CLASSES), "lightgbm"),
    "several numbers": (
        lambda: xgboost("XGBRegressor", multi_strategy="multi_output_tree").fit(ROWS, np.stack([NUMBERS, -NUMBERS], 1)),
        "xgboost",
    ),
}


@java
@pytest.mark.parametrize("name", LINKS)
def test_what_is_made_of_scores_is_what_the_library_makes(name: str, tmp_path: Path) -> None:
    made, flavor = LINKS[name]
    found = twice(made(), ROWS, tmp_path, flavor)
    assert (found.labels, found.numbers < 1e-6) == (0, True)


@java
def test_even_votes_are_a_tie_and_the_first_class_wins(tmp_path: Path) -> None:
    model = ensemble.RandomForestClassifier(6, max_depth=2, random_state=0).fit(ROWS, RANDOM.integers(0, 3, len(ROWS)))
    for one in model.estimators_:
        value = one.tree_.value  # one vote of each tree, so that many rows are tied
        value[:] = np.eye(3)[value.argmax(axis=2)]
    top = np.sort(model.predict_proba(ROWS), axis=1)
    assert (top[:, -1] == top[:, -2]).sum() > 10
    assert twice(model, ROWS, tmp_path).labels == 0


LINES = {
    "linear_model": linear_model.LinearRegression(),
    "two targets": linear_model.Ridge(),
    "poisson": linear_model.PoissonRegressor(),
    "logistic": linear_model.LogisticRegression(max_iter=1000),
    "two classes": linear_model.LogisticRegression(),
    "support vectors": LinearSVC(),
    "gaussian": naive_bayes.GaussianNB(),
    "bernoulli": naive_bayes.BernoulliNB(binarize=2.0),
    "k-means": KMeans(3, random_state=0, n_init=1),
}


@java
@pytest.mark.parametrize("name", LINES)
def test_linear_models_bayes_and_k_means_are_equal_in_both_scorers(name: str, tmp_path: Path) -> None:
    target = {"two targets": np.stack([NUMBERS, ROWS[:, 1]], axis=1), "two classes": CLASSES > 0}
    plain = NUMBERS if name in ("linear_model", "poisson") else CLASSES
    found = twice(LINES[name].fit(ROWS, target.get(name, plain)), ROWS, tmp_path)
    assert (found.labels, found.numbers < EXACT) == (0, True)


STEPS = [
    preprocessing.StandardScaler(), preprocessing.MinMaxScaler(clip=True), preprocessing.MaxAbsScaler(),
    preprocessing.RobustScaler(), SimpleImputer(strategy="median", add_indicator=True),
]  # fmt: skip


@java
@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
def test_a_step_gives_its_own_numbers_and_keeps_gaps(step: Any, tmp_path: Path) -> None:
    found = twice(make_pipeline(step).fit(GAPS), GAPS, tmp_path)
    assert found.numbers < EXACT
    assert "missing" in found.sources


@java
def test_a_frame_of_text_numbers_and_gaps_is_equal_in_both_scorers(tmp_path: Path) -> None:
    frame, classes, _ = people()
    found = twice(make_pipeline(prepared(), linear_model.LogisticRegression()).fit(frame, classes), frame, tmp_path)
    assert (found.labels, found.numbers < EXACT) == (0, True)
    assert {"missing", "unseen"} <= found.sources


@java
def test_a_forest_behind_preparation_takes_the_same_leaves(tmp_path: Path) -> None:
    frame, classes, _ = people()
    forest = ensemble.RandomForestClassifier(5, max_depth=5, random_state=0)
    found = twice(make_pipeline(prepared(), forest).fit(frame, classes), frame, tmp_path)
    assert (found.labels, found.numbers) == (0, 0.0)


@java
def test_missing_text_is_filled_or_has_its_own_code(tmp_path: Path) -> None:
    frame, classes, _ = people()
    frame["plan"] = frame["plan"].where(np.arange(len(frame)) % 5 > 0, None)
    words = make_pipeline(SimpleImputer(strategy="most_frequent"), preprocessing.OneHotEncoder(handle_unknown="ignore"))
    codes = preprocessing.OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
    parts = ColumnTransformer([("w", words, ["plan"]), ("c", codes, ["plan"]), ("n", "passthrough", ["the age"])])
    model = make_pipeline(parts, tree.DecisionTreeClassifier(max_depth=4, random_state=0)).fit(frame, classes)
    found = twice(model, frame, tmp_path)
    assert (found.labels, found.numbers, {"missing", "unseen"} <= found.sources) == (0, 0.0, True)


@java
def test_hostile_names_and_categories_are_data(tmp_path: Path) -> None:
    import pandas as pd

    names = ['a "q" <b> & c', "tab\there", "new\nline", " lead ", "INF", "label", "class", "]]>"]
    words = ["pro", '"', "\\", "<x>", " sp ", "tab\tx", "é中😀", "NaN", "1", "null", 'a"b\\c', "n\nl", "&amp;"]
    frame = pd.DataFrame({name: RANDOM.normal(size=200) for name in names[:4]})
    for name in names[4:]:
        frame[name] = RANDOM.choice(words, 200)
    classes = np.where((frame[names[0]] > 0) ^ frame["label"].isin(words[:5]), 'y "é\\<&>\n\tz', "no")
    parts = ColumnTransformer([
        ("n", preprocessing.StandardScaler(), names[:4]),
        ("w", preprocessing.OneHotEncoder(handle_unknown="ignore"), names[4:]),
    ])  # fmt: skip
    model = make_pipeline(parts, linear_model.LogisticRegression()).fit(frame, classes)
    found = twice(model, frame, tmp_path)
    assert (found.labels, found.numbers < EXACT) == (0, True)


@java
def test_infinities_go_in_and_come_out(tmp_path: Path) -> None:
    model = ensemble.HistGradientBoostingRegressor(max_iter=3, loss="poisson").fit(GAPS, NUMBERS)
    found = twice(model, ROWS, tmp_path)
    assert found.numbers < EXACT
    rows = np.array([[np.inf, -np.inf, 1.0, np.nan], [1.7e308, -1.7e308, np.inf, 0.0]])
    line = linear_model.PoissonRegressor().fit(ROWS, NUMBERS)
    for run in runtimes(FORMATS["pmml"], tmp_path / "model.pmml", None):
        assert np.allclose(run({"input": rows})["prediction"], model.predict(rows), rtol=EXACT)
    twice(line, ROWS, tmp_path)
    with np.errstate(over="ignore"):
        expected = line.predict(ROWS[:2] * 1e6)
    assert np.isinf(expected).all()
    for run in runtimes(FORMATS["pmml"], tmp_path / "model.pmml", None):
        assert np.array_equal(run({"input": ROWS[:2] * 1e6})["prediction"], expected)


@java
def test_a_tree_of_a_thousand_levels_is_written_and_answered(tmp_path: Path) -> None:
    rows = np.arange(1000.0)[:, None]
    model = tree.DecisionTreeRegressor().fit(rows, 2.0 ** np.arange(1000))
    assert model.get_depth() > 900
    found = twice(model, rows, tmp_path)
    assert found.numbers == 0


@java
def test_a_release_says_that_both_scorers_answered_every_row(tmp_path: Path) -> None:
    from modelrel.steps.convert import convert
    from modelrel.steps.verify import verify
    from modelrel.values import ConvertOptions, VerifyOptions

    model = linear_model.LogisticRegression().fit(ROWS, CLASSES > 0)
    converted = convert(logged(model, ROWS, tmp_path), "pmml", ConvertOptions())
    report = verify(converted, VerifyOptions(rows=50, budget=1.0))
    assert any(said.startswith("jpmml-evaluator ") and "like the original" in said for said in report.findings)
    assert max(parity.max_abs_error for parity in report.outputs) < EXACT
    assert {"pypmml", "jpmml-evaluator"} <= set(report.tools)
    text = converted.path.read_text(encoding="utf-8")
    assert f'<Extension name="modelrel.source_digest" value="{converted.source.digest}"/>' in text


@java
def test_java_ends_with_the_process_that_started_it_and_prints_nothing(tmp_path: Path) -> None:
    twice(linear_model.LinearRegression().fit(ROWS, NUMBERS), ROWS, tmp_path)
    code = (
        "import json, sys, psutil, pathlib\n"
        "from modelrel.formats import pmml\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "pmml.load(path), pmml.reference(path)\n"
        "print(json.dumps([one.pid for one in psutil.Process().children(recursive=True)]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "model.pmml"],
        capture_output=True, check=True, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    started = json.loads(done.stdout)
    assert len(started) == 2
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in started if psutil.pid_exists(pid)], timeout=10)
    assert not alive


def test_a_missing_java_is_one_sentence_with_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="need Java") as stop:
        scorers._gateway.__wrapped__("pypmml", ("jars",))
    assert "default-jre-headless" in stop.value.hint


@pytest.mark.parametrize("mode", [Mode.LEQ, Mode.LT])
def test_a_float32_comparison_is_one_of_float64(mode: Mode) -> None:
    single = np.concatenate(
        [RANDOM.normal(size=300).astype(np.float32), np.float32([0, 1, 2**24, 3.4028235e38, 1e-45])]
    )
    single = np.concatenate([single, -single])
    limit = np.concatenate([single.astype(np.float64), RANDOM.normal(size=300)])
    found = rounded_at_most(limit, np.full(len(limit), mode, np.uint8))
    near = limit.astype(np.float32)
    with np.errstate(over="ignore"):
        sides = [np.nextafter(near, np.float32(end)).astype(np.float64) for end in (-np.inf, np.inf)]
        middles = [(near + side) / 2 for side in sides]
        for middle in (*middles, *sides, limit, found, near.astype(np.float64)):
            for x in (middle, np.nextafter(middle, -np.inf), np.nextafter(middle, np.inf)):
                rounded = x.astype(np.float32).astype(np.float64)
                expected = rounded < limit if mode == Mode.LT else rounded <= limit
                assert np.array_equal(x <= found, expected)


@pytest.mark.parametrize("cut", [True, False])
def test_a_set_of_whole_numbers_is_the_numbers_that_are_cut_to_them(cut: bool) -> None:
    known = {0.0, 1.0, 2.0, 5.0, 7.0}
    found = spans(np.array(sorted(known)), single=not cut, cut=cut)
    assert len(found) == 3
    whole = np.arange(-2.0, 10.0)
    for shift in (0.0, 0.5, 1e-9, 1 - 1e-9, *np.nextafter([0.0, 1.0], [-1.0, 0.0])):
        for x in whole + shift:
            seen = np.trunc(x) if cut else np.floor(np.float32(x))
            inside = any(
                (low <= x if with_low else low < x) and (x <= high if with_high else x < high)
                for low, with_low, high, with_high in found
            )
            assert inside == (float(seen) in known), x


def test_a_name_that_xml_cannot_hold_is_refused(tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame({"a\x01b": ROWS[:, 0]})
    with pytest.raises(Refused, match=r"U\+0001, which XML cannot hold"):
        twice(linear_model.LinearRegression().fit(frame, NUMBERS), frame, tmp_path)


def test_a_forest_behind_float32_arithmetic_is_refused(tmp_path: Path) -> None:
    single = ROWS.astype(np.float32)
    parts = ColumnTransformer([("scaled", preprocessing.StandardScaler(), [0, 1])])
    model = make_pipeline(parts, tree.DecisionTreeClassifier(random_state=0)).fit(single, CLASSES)
    with pytest.raises(Refused, match="computes in float32, and PMML in float64"):
        twice(model, single, tmp_path)


def test_a_class_that_ends_with_a_space_is_refused(tmp_path: Path) -> None:
    model = tree.DecisionTreeClassifier().fit(ROWS, np.where(CLASSES > 0, "yes ", "no"))
    with pytest.raises(Refused, match="begins or ends with a space"):
        twice(model, ROWS, tmp_path)


_ROOT = '<PMML xmlns="http://www.dmg.org/PMML-4_4" version="4.4">'
HOSTILE = {
    "a document type": f'<!DOCTYPE PMML [<!ENTITY a "{"x" * 9}">]>{_ROOT}<Header description="&a;"/></PMML>',
    "the element TableLocator": f"{_ROOT}<TableLocator/></PMML>",
    "the function 'java.lang.Runtime'": f'{_ROOT}<Apply function="java.lang.Runtime"/></PMML>',
    "a processing instruction": f"{_ROOT}<?xml-stylesheet href='x'?></PMML>",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_file_with_more_than_this_writer_writes_is_refused(what: str) -> None:
    with pytest.raises(Refused, match="which modelrel does not read") as stop:
        elements.parsed(HOSTILE[what].encode())
    assert what in stop.value.message

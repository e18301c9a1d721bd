"""Models whose copies by skl2onnx or onnxmltools are silently wrong: small, quick to train, and rows that show it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from tests.models import Flavor


@dataclass(frozen=True)
class Case:
    """One model, the rows it is asked about, how it is converted outside, and the least rows that come out wrong."""

    model: Any
    rows: Any
    least: int
    flavor: Flavor = "sklearn"
    options: dict[str, Any] | None = field(default_factory=lambda: {"zipmap": False})
    text: bool = False

    def asked(self) -> dict[str, Any]:
        """Return what `outside` converts."""
        inputs = [("text", "text", 1)] if self.text else [("X", "float", self.rows.shape[1])]
        tool = {"sklearn": "skl2onnx", "catboost": "catboost"}.get(self.flavor, "onnxmltools")
        return {"tool": tool, "model": self.model, "inputs": inputs, "flavor": self.flavor, "options": self.options}


def wrong(case: Case, path: Path) -> int:
    """Return how many of the case's rows the copy answers wrongly: another label, or a number that is off by 1e-4."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    fed = case.rows.to_numpy(object) if case.text else case.rows.astype(np.float32)
    found = session.run(None, {session.get_inputs()[0].name: fed})
    bad = np.zeros(len(case.rows), bool)
    for answer, right in zip(found, originals(case), strict=False):
        copy = np.asarray(answer).reshape(np.shape(right))
        off = np.abs(copy - right) > 1e-4 + 1e-4 * np.abs(right) if right.dtype.kind == "f" else copy != right
        bad |= off.reshape(len(bad), -1).any(axis=1)
    return int(bad.sum())


def originals(case: Case) -> list[Any]:
    """Return the original's answers: label and probabilities, or numbers."""
    methods = ("predict", "predict_proba") if hasattr(case.model, "predict_proba") else ("predict",)
    methods = methods if hasattr(case.model, "predict") else ("transform",)
    found = [getattr(case.model, name)(case.rows) for name in methods]
    return [np.asarray(answer.todense() if hasattr(answer, "todense") else answer) for answer in found]


def _cancer() -> tuple[Any, Any]:
    from sklearn.datasets import load_breast_cancer

    rows, kinds = load_breast_cancer(return_X_y=True)
    return rows.astype(np.float32).astype(np.float64), kinds


def _gaps(rows: Any, share: float = 0.1) -> Any:
    gone = rows.copy()
    gone[np.random.default_rng(0).random(rows.shape) < share] = np.nan
    return gone


def _codes(count: int = 600) -> tuple[Any, Any]:
    """Return rows with a category of 12 codes and a number, and a class that rests on the category."""
    random = np.random.default_rng(1)
    rows = np.stack([random.integers(0, 12, count), random.normal(size=count)], axis=1).astype(np.float64)
    return rows, (np.isin(rows[:, 0], [0, 3, 4, 8, 11]) ^ (rows[:, 1] > 1)).astype(int)


def hist_float32() -> Case:
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import HistGradientBoostingClassifier

    rows, kinds = load_breast_cancer(return_X_y=True)
    # trained on float64, asked in float32: a value that is a threshold is rounded to either side of it
    return Case(HistGradientBoostingClassifier(max_iter=20, random_state=0).fit(rows, kinds), _cancer()[0], 10)


def hist_categories() -> Case:
    from sklearn.ensemble import HistGradientBoostingClassifier

    rows, kinds = _codes()
    model = HistGradientBoostingClassifier(max_iter=10, categorical_features=[0], random_state=0)
    return Case(model.fit(rows, kinds), rows, 100)


def tree_missing() -> Case:
    from sklearn.tree import DecisionTreeClassifier

    rows, kinds = _cancer()
    rows = _gaps(rows)
    return Case(DecisionTreeClassifier(random_state=0).fit(rows, kinds), rows, 50)


def forest_missing() -> Case:
    from sklearn.ensemble import RandomForestClassifier

    rows, kinds = _cancer()
    rows = _gaps(rows)
    return Case(RandomForestClassifier(10, random_state=0).fit(rows, kinds), rows, 20)


def extra_missing() -> Case:
    from sklearn.ensemble import ExtraTreesClassifier

    rows, kinds = _cancer()
    rows = _gaps(rows)
    return Case(ExtraTreesClassifier(10, random_state=0).fit(rows, kinds), rows, 10)


def _positive() -> tuple[Any, Any]:
    """Return rows whose log-odds stay above zero in every leaf of a few trees: all of them are mostly of class 1."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(400, 3)).astype(np.float32).astype(np.float64)
    return rows, (random.random(400) < 0.75 + 0.2 * (rows[:, 0] > 0)).astype(int)


def boosting_zero() -> Case:
    from sklearn.ensemble import GradientBoostingClassifier

    rows, kinds = _positive()
    model = GradientBoostingClassifier(init="zero", n_estimators=3, max_depth=2, learning_rate=0.1, random_state=0,
                                       min_samples_leaf=60)  # fmt: skip
    return Case(model.fit(rows, kinds), rows, 100)


def xgboost_positive() -> Case:
    from xgboost import XGBClassifier

    rows, kinds = _positive()
    model = XGBClassifier(base_score=0.5, n_estimators=3, max_depth=2, learning_rate=0.1, n_jobs=1)
    return Case(model.fit(rows, kinds), rows, 100, "xgboost")


def words() -> Case:
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    said = [
        "it's a don't day",
        "naïve café",
        "x_y z",
        "well-known fact",
        "a b c dog",
        "snake_case word",
        "été à la mer",
    ]
    rows = pd.DataFrame({"text": said * 8})
    model = make_pipeline(ColumnTransformer([("words", TfidfVectorizer(), "text")]), LogisticRegression(C=100))
    return Case(model.fit(rows, np.tile([0, 1, 1, 0, 1, 0, 0], 8)), rows, 8, text=True)


def scaled_forest() -> Case:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    random = np.random.default_rng(0)
    rows = random.normal(1000.0, 1.0, size=(3000, 3))
    kinds = random.integers(0, 2, len(rows))
    model = make_pipeline(StandardScaler(), RandomForestClassifier(10, random_state=0))
    return Case(model.fit(rows, kinds), rows, 1)


def neighbours_distance() -> Case:
    from sklearn.neighbors import KNeighborsClassifier

    rows, kinds = _cancer()
    rows = np.concatenate([rows, rows[:100]])
    model = KNeighborsClassifier(5, weights="distance").fit(rows, np.concatenate([kinds, 1 - kinds[:100]]))
    return Case(model, rows, 1)


def xgboost_outputs() -> Case:
    from xgboost import XGBRegressor

    rows, _ = _cancer()
    rows = rows[:, :5]
    model = XGBRegressor(n_estimators=5, max_depth=3, n_jobs=1).fit(rows, rows[:, :2] @ [[1, 2], [3, -4]])
    return Case(model, rows, 500, "xgboost")


def _lightgbm(rows: Any, answers: Any, least: int, kind: str = "Classifier", **options: Any) -> Case:
    import lightgbm

    fit = {"categorical_feature": options.pop("categorical_feature")} if "categorical_feature" in options else {}
    options = {"n_estimators": 10, "verbose": -1, "n_jobs": 1, "random_state": 0, **options}
    return Case(getattr(lightgbm, f"LGBM{kind}")(**options).fit(rows, answers, **fit), rows, least, "lightgbm")


def lightgbm_rf() -> Case:
    rows, kinds = _cancer()
    return _lightgbm(rows, kinds, 100, boosting_type="rf", subsample=0.7, subsample_freq=1)


def lightgbm_linear() -> Case:
    rows, _ = _cancer()
    return _lightgbm(rows[:, 1:], rows[:, 0], 100, "Regressor", linear_tree=True)


def lightgbm_zero() -> Case:
    rows, kinds = _cancer()
    rows = np.where(_gaps(rows, 0.3) == rows, rows, 0.0)
    return _lightgbm(rows, kinds, 50, zero_as_missing=True)


def lightgbm_ova() -> Case:
    from sklearn.datasets import load_iris

    rows, kinds = load_iris(return_X_y=True)
    return _lightgbm(rows.astype(np.float32).astype(np.float64), kinds, 50, objective="multiclassova")


def lightgbm_fractions() -> Case:
    rows, kinds = _codes()
    case = _lightgbm(rows, kinds, 50, categorical_feature=[0])
    return Case(case.model, rows + np.array([0.5, 0.0]), 50, "lightgbm")


def _catboost(rows: Any, answers: Any, least: int, kind: str = "Regressor", **options: Any) -> Case:
    import catboost

    quiet = {"iterations": 10, "depth": 3, "verbose": 0, "thread_count": 1, "allow_writing_files": False}
    model = getattr(catboost, f"CatBoost{kind}")(random_seed=0, **quiet, **options).fit(rows, answers)
    return Case(model, rows, least, "catboost")


def _counts() -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    rows = random.normal(size=(400, 3)).astype(np.float32).astype(np.float64)
    return rows, random.poisson(np.exp(rows[:, 0])).astype(np.float64)


def catboost_poisson() -> Case:
    return _catboost(*_counts(), 400, loss_function="Poisson")


def catboost_tweedie() -> Case:
    return _catboost(*_counts(), 400, loss_function="Tweedie:variance_power=1.5")


def catboost_ova() -> Case:
    rows, counts = _counts()
    return _catboost(rows, np.minimum(counts, 2).astype(int), 300, "Classifier", loss_function="MultiClassOneVsAll")


def catboost_threshold() -> Case:
    rows, counts = _counts()
    case = _catboost(rows, (counts > 1).astype(int), 50, "Classifier")
    case.model.set_probability_threshold(0.2)
    return case


def catboost_outputs() -> Case:
    rows, counts = _counts()
    return _catboost(rows, np.stack([counts, rows[:, 0]], axis=1), 0, loss_function="MultiRMSE")


CASES: Final[dict[str, Callable[[], Case]]] = {
    made.__name__: made
    for made in (
        hist_float32, hist_categories, tree_missing, forest_missing, extra_missing, boosting_zero, xgboost_positive,
        words, scaled_forest, neighbours_distance, xgboost_outputs, lightgbm_rf, lightgbm_linear, lightgbm_zero,
        lightgbm_ova, lightgbm_fractions, catboost_poisson, catboost_tweedie, catboost_ova, catboost_threshold,
    )
}  # fmt: skip
"""Name -> how to make it; a silent error of another tool is one more line."""


LOUD: Final[dict[str, Callable[[], Case]]] = {"catboost_outputs": catboost_outputs}
"""Models whose copies by other tools do not even load."""


def cases() -> dict[str, Case]:
    """Train all of them."""
    return {name: made() for name, made in CASES.items()}

"""Scalers folded into trees: the same leaf for every float32 number, beside each threshold too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, PolynomialFeatures, RobustScaler, StandardScaler

from modelrel import trees
from tests.models import compared

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal([5, 0.001, 3e4], [2, 1e-4, 1e3], (400, 3)).astype(np.float32)
LABELS = (ROWS[:, 0] > 5).astype(int) + (ROWS[:, 2] > 3e4)

SCALERS: dict[str, Any] = {
    "standard": [StandardScaler()],
    "without mean": [StandardScaler(with_mean=False)],
    "range": [MinMaxScaler((-1, 1))],
    "clipped": [MinMaxScaler(clip=True)],
    "largest": [MaxAbsScaler()],
    "robust": [RobustScaler()],
    "imputed and scaled": [SimpleImputer(strategy="median"), StandardScaler()],
    "two": [StandardScaler(), MinMaxScaler()],
}
MODELS: dict[str, Any] = {
    "forest": RandomForestClassifier(15, random_state=0),
    "boosting": GradientBoostingClassifier(n_estimators=8, random_state=0),
    "histogram": HistGradientBoostingRegressor(max_iter=10),
    "xgboost": xgboost.XGBClassifier(n_estimators=8),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("model", sorted(MODELS))
@pytest.mark.parametrize("scaler", sorted(SCALERS))
def test_each_number_beside_a_threshold_takes_its_leaf(scaler: str, model: str, dtype: Any) -> None:
    rows = ROWS.astype(dtype)
    if "imputed" in scaler:
        rows[::9, 0] = np.nan
    native = make_pipeline(*SCALERS[scaler], MODELS[model]).fit(rows, LABELS)
    found = trees.folded(native, [np.dtype(dtype)] * 3)
    assert found is not None
    assert found.forest is not None
    splits = np.flatnonzero(found.forest.mode != trees.Mode.LEAF)
    asked = np.repeat(ROWS[RANDOM.integers(0, 400, len(splits))], 3, axis=0)
    with np.errstate(over="ignore"):
        middle = found.forest.threshold[splits].astype(np.float32)
        near = [middle, np.nextafter(middle, np.float32(np.inf)), np.nextafter(middle, np.float32(-np.inf))]
    asked[np.arange(len(asked)), np.repeat(found.forest.feature[splits], 3)] = np.stack(near, axis=1).ravel()
    asked = asked[np.isfinite(asked).all(axis=1) & (np.abs(asked) < 1e30).all(axis=1)]
    assert len(asked) > 50
    if "imputed" in scaler:
        asked[::5, 1] = np.nan
    label, numbers = trees.answers(found, asked)
    given = asked.astype(dtype)
    if hasattr(native, "predict_proba"):
        assert (label == native.predict(given)).all()
        assert np.allclose(numbers, native.predict_proba(given), rtol=1e-6)
    else:
        assert np.allclose(numbers.ravel(), native.predict(given), rtol=1e-12)


def test_other_steps_are_not_folded() -> None:
    native = make_pipeline(PolynomialFeatures(2), RandomForestClassifier(2)).fit(ROWS, LABELS)
    assert trees.folded(native, [np.dtype(np.float32)] * 3) is None
    native = make_pipeline(SimpleImputer(missing_values=-1.0), RandomForestClassifier(2)).fit(ROWS, LABELS)
    assert trees.folded(native, [np.dtype(np.float32)] * 3) is None
    native = make_pipeline(StandardScaler(), lightgbm.LGBMClassifier(n_estimators=2, verbose=-1)).fit(
        ROWS - ROWS.mean(axis=0), LABELS
    )
    found = trees.folded(native, [np.dtype(np.float32)] * 3)
    assert found is None or found.entry.zeros is None


def test_a_forest_behind_a_scaler_becomes_tflite_with_the_labels_of_the_original(tmp_path: Path) -> None:
    native = make_pipeline(StandardScaler(), RandomForestClassifier(20, random_state=0)).fit(ROWS, LABELS)
    for dtype in (np.float32, np.float64):
        found = compared(native, ROWS.astype(dtype), tmp_path, to="tflite")
        assert (found.labels, found.numbers < 5e-7) == (0, True)

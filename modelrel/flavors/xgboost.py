"""XGBoost: the scikit-learn API and Booster, logged as ubj, json or the old binary format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from modelrel.errors import Invalid
from modelrel.flavors import boosters, frames, mlmodel
from modelrel.tensors import Array, Tensors
from modelrel.values import Signature

_CLASSES = ("XGBClassifier", "XGBRegressor", "XGBRanker", "XGBRFClassifier", "XGBRFRegressor", "Booster")


def load(folder: Path) -> object:
    """Return the model logged in `folder`: an instance of the class that MLmodel names."""
    said = mlmodel.configuration(folder, "xgboost")
    path = mlmodel.inside(folder, str(said.get("data", "model.xgb")))
    name = str(said.get("model_class", "xgboost.core.Booster")).rpartition(".")[2]
    if name not in _CLASSES:
        raise Invalid(f"MLmodel names the class {name!r}, which is not one of XGBoost's models", "Log the model again.")

    def read() -> object:
        import xgboost

        model = getattr(xgboost, name)()
        model.load_model(path)
        return model

    return mlmodel.opened(read, path)


answers = boosters.answers
curves = boosters.curves


def predict(native: Any, tensors: Tensors, signature: Signature) -> dict[str, Array]:
    """Return every output for N rows, exactly as the model's own predict gives it."""
    data = frames.given(tensors, signature)
    if hasattr(native, "predict_proba"):
        return {"label": np.asarray(native.predict(data)), "probabilities": np.asarray(native.predict_proba(data))}
    if type(native).__name__ == "Booster":
        import xgboost

        return {"prediction": np.asarray(native.predict(xgboost.DMatrix(data)))}
    return {"prediction": np.asarray(native.predict(data))}

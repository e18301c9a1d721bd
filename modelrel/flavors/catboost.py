"""CatBoost: its own classes, logged as cbm or json."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from modelrel.errors import Invalid
from modelrel.flavors import boosters, frames, mlmodel
from modelrel.tensors import Array, Tensors
from modelrel.values import Signature

_CLASSES: Final = ("CatBoost", "CatBoostClassifier", "CatBoostRegressor", "CatBoostRanker")
_FORMATS: Final = ("cbm", "json")


def load(folder: Path) -> object:
    """Return the model logged in `folder`: an instance of the class that MLmodel names."""
    said = mlmodel.configuration(folder, "catboost")
    path = mlmodel.inside(folder, str(said.get("data", "model.cb")))
    name, written = str(said.get("model_type", "CatBoost")), str(said.get("save_format", "cbm"))
    if name not in _CLASSES:
        raise Invalid(
            f"MLmodel names the class {name!r}, which is not one of CatBoost's models", "Log the model again."
        )
    if written not in _FORMATS:
        raise Invalid(
            f"the CatBoost model was saved as {written!r}, which CatBoost cannot predict with everywhere",
            "Log the model again in CatBoost's own format, cbm.",
        )

    def read() -> object:
        import catboost

        model = getattr(catboost, name)()
        model.load_model(str(path), format=written)
        return model

    return mlmodel.opened(read, path)


answers = boosters.answers
curves = boosters.curves


def predict(native: Any, tensors: Tensors, signature: Signature) -> dict[str, Array]:
    """Return every output for N rows, as the model's own predict gives it; a label as (N,), not CatBoost's (N, 1)."""
    data = frames.given(tensors, signature)
    if not hasattr(native, "predict_proba"):
        return {"prediction": np.asarray(native.predict(data, thread_count=1))}
    return {
        "label": frames.answered(np.asarray(native.predict(data, thread_count=1)).reshape(-1)),
        "probabilities": np.asarray(native.predict_proba(data, thread_count=1)),
    }

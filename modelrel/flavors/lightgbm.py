"""LightGBM: Booster from its text file, and the scikit-learn API from a pickle or skops file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from modelrel.flavors import boosters, frames, mlmodel
from modelrel.tensors import Array, Tensors
from modelrel.values import Signature


def load(folder: Path) -> object:
    """Return the model logged in `folder`."""
    said = mlmodel.configuration(folder, "lightgbm")
    path = mlmodel.inside(folder, str(said.get("data", "model.lgb")))
    if str(said.get("model_class", "lightgbm.basic.Booster")).endswith(".Booster"):

        def read() -> object:
            import lightgbm

            return lightgbm.Booster(model_file=str(path))

        return mlmodel.opened(read, path)
    return mlmodel.unpickled(
        path, str(said.get("serialization_format", "cloudpickle")), said.get("skops_trusted_types")
    )


answers = boosters.answers
curves = boosters.curves


def predict(native: Any, tensors: Tensors, signature: Signature) -> dict[str, Array]:
    """Return every output for N rows, exactly as the model's own predict gives it."""
    data = frames.given(tensors, signature)
    if not hasattr(native, "predict_proba"):
        return {"prediction": np.asarray(native.predict(data))}
    return {
        "label": frames.answered(native.predict(data)),
        "probabilities": np.asarray(native.predict_proba(data)),
    }

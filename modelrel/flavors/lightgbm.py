"""LightGBM: Booster from its text file, and the scikit-learn API from a pickle or skops file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from modelrel.flavors import frames, mlmodel
from modelrel.tensors import Array, Tensors
from modelrel.values import Answers, Signature


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


def answers(native: Any, _folder: Path) -> Answers:
    """Return the outputs: `label` and `probabilities` of a classifier, `prediction` of anything else."""
    name = type(native).__name__
    if not hasattr(native, "predict_proba"):
        return Answers(outputs=("prediction",), predict="prediction", estimator=name)
    return Answers(
        outputs=("label", "probabilities"),
        predict="label",
        estimator=name,
        classes=tuple(np.asarray(native.classes_).tolist()),
    )


def predict(native: Any, tensors: Tensors, signature: Signature) -> dict[str, Array]:
    """Return every output for N rows, exactly as the model's own predict gives it."""
    data = frames.given(tensors, signature)
    if not hasattr(native, "predict_proba"):
        return {"prediction": np.asarray(native.predict(data))}
    return {
        "label": frames.answered(native.predict(data)),
        "probabilities": np.asarray(native.predict_proba(data)),
    }

"""What the scikit-learn APIs and the Boosters of XGBoost and LightGBM have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from modelrel.flavors.calibrated import Curve
from modelrel.values import Answers, Signature


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


def curves(_native: Any, _signature: Signature) -> list[Curve]:
    """Return none: no booster calibrates itself."""
    return []

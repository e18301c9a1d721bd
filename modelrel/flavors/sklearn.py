"""scikit-learn: estimators and pipelines, logged as pickle, cloudpickle or skops."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from modelrel.errors import Invalid, Refused
from modelrel.flavors import calibrated, frames, mlmodel
from modelrel.tensors import Array, Tensors
from modelrel.values import Answers, Scalar, Signature

_METHODS: Final = {
    "predict_proba": "probabilities",
    "decision_function": "scores",
    "transform": "transformed",
}


curves = calibrated.curves


def load(folder: Path) -> object:
    """Return the estimator logged in `folder`."""
    said = mlmodel.configuration(folder, "sklearn")
    path = mlmodel.inside(folder, str(said.get("pickled_model", "model.pkl")))
    return mlmodel.unpickled(path, str(said.get("serialization_format", "pickle")), said.get("skops_trusted_types"))


def answers(native: Any, folder: Path) -> Answers:
    """Return the outputs: `label` and more for what assigns labels, `prediction`, or `transformed`."""
    outputs = tuple(_calls(native))
    if not outputs:
        raise Refused(f"{named(native)} has no predict and no transform", "Log a fitted estimator or Pipeline instead.")
    predict = _predicts(folder, outputs)
    return Answers(outputs=outputs, predict=predict, estimator=named(native), classes=classes(native, outputs))


def predict(native: Any, tensors: Tensors, signature: Signature) -> dict[str, Array]:
    """Return every output for N rows; probabilities (N, classes), a label (N,).

    One column of text is handed as a series to what begins with a vectorizer, which would take a frame for the names
    of its columns.
    """
    data = frames.given(tensors, signature)
    if [spec.datatype for spec in signature.inputs] == ["BYTES"] and signature.kind == "columns" and _begins(native):
        data = data.iloc[:, 0]
    return {name: frames.answered(getattr(native, method)(data)) for name, method in _calls(native).items()}


def _begins(native: Any) -> bool:
    """Whether what a model does first is to count words."""
    inner = getattr(native, "best_estimator_", native)
    steps = [step for _, step in getattr(inner, "steps", getattr(inner, "transformer_list", ()))]
    if steps:
        return any(_begins(step) for step in (steps if hasattr(inner, "transformer_list") else steps[:1]))
    return any(kind.__name__ in ("CountVectorizer", "HashingVectorizer") for kind in type(inner).__mro__)


def named(native: Any) -> str:
    """Return the class that does the work, through the last steps of pipelines and searches."""
    name = type(native).__name__
    inner = native
    while True:
        if hasattr(inner, "steps"):
            step, inner = inner.steps[-1]
            name = f"{type(inner).__name__} inside {type(native).__name__} step {step!r}"
        elif hasattr(inner, "best_estimator_"):
            inner = inner.best_estimator_
            name = f"{type(inner).__name__} inside {type(native).__name__}"
        else:
            return name


def classes(native: Any, outputs: tuple[str, ...]) -> tuple[Scalar, ...]:
    """Return the class labels as Python values, in the order of the probabilities' columns."""
    found = getattr(native, "classes_", None) if "label" in outputs else None
    if found is None:
        return ()
    if isinstance(found, list):
        raise Refused(
            f"{named(native)} predicts several targets at once",
            "Release one model per target: several label columns have no common form in the formats.",
        )
    return tuple(np.asarray(found).tolist())


def _calls(native: Any) -> dict[str, str]:
    """Return output name -> the method that gives it."""
    from sklearn.base import is_classifier, is_outlier_detector, is_regressor

    if is_regressor(native):
        return {"prediction": "predict"}
    if is_classifier(native) or hasattr(native, "predict_proba"):
        extra = "predict_proba" if hasattr(native, "predict_proba") else "decision_function"
        return {"label": "predict"} | ({_METHODS[extra]: extra} if hasattr(native, extra) else {})
    if is_outlier_detector(native):
        return {"label": "predict", "scores": "decision_function"}
    if _clusters(native) and hasattr(native, "predict"):
        return {"label": "predict"} | ({"scores": "transform"} if hasattr(native, "transform") else {})
    if hasattr(native, "predict"):
        return {"prediction": "predict"}
    return {"transformed": "transform"} if hasattr(native, "transform") else {}


def _clusters(native: Any) -> bool:
    from sklearn import base

    if hasattr(base, "is_clusterer"):
        return bool(base.is_clusterer(native))
    return getattr(native, "_estimator_type", "") == "clusterer"  # before scikit-learn 1.6


def _predicts(folder: Path, outputs: tuple[str, ...]) -> str:
    """Return which output MLflow's pyfunc gives, as chosen when the model was logged."""
    try:
        said = mlmodel.configuration(folder, "python_function")
    except Invalid:
        return outputs[0]  # MLflow writes none for a model without predict: a transformer
    chosen = str(said.get("predict_fn", "predict"))
    name = outputs[0] if chosen == "predict" else _METHODS.get(chosen, chosen)
    if name not in outputs:
        raise Refused(
            f"the model was logged with pyfunc_predict_fn={chosen!r}, which has no output in a converted model",
            "Log it with pyfunc_predict_fn='predict' or 'predict_proba'.",
        )
    return name

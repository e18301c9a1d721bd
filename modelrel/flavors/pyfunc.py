"""pyfunc: a Python model, run by MLflow as it was logged; and the model inside, where it only wraps one.

MLflow is imported here, in the worker alone: the model's class derives from MLflow's, so whoever loads it does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from modelrel.errors import Refused, Unavailable
from modelrel.flavors import frames, mlmodel, wrapped
from modelrel.flavors.calibrated import Curve
from modelrel.flavors.wrapped import Inner
from modelrel.tensors import NUMPY, Array, Tensors, rows
from modelrel.values import Answers, Signature

_ONE = "prediction"


class Pyfunc:
    """A loaded model (`mlflow.pyfunc.PyFuncModel`), its class, what it answers by name, and what it wraps."""

    def __init__(self, model: Any, folder: Path) -> None:
        """Keep the model; what is inside is looked for later, with rows."""
        self.model, self.folder = model, folder
        self.named = wrapped.title(model)
        self.outputs: tuple[str, ...] = (_ONE,)
        self.inner: Inner | None = None
        self.why = "no row that it answers is known"
        self.silent = True


def load(folder: Path) -> object:
    """Return the Python model logged in `folder`.

    Raises `Invalid` where MLmodel names a file outside of it or the model cannot be loaded, `Unavailable` for a
    missing library.
    """
    said = mlmodel.configuration(folder, "python_function")
    found = said.get("artifacts")
    artifacts = found.values() if isinstance(found, dict) else ()
    listed = [*(said.get(name) for name in ("python_model", "data", "code")), *map(_place, artifacts)]
    if script := said.get("model_code_path"):
        listed.append(Path(str(script)).name)  # the path is the training machine's; MLflow reads the copy here
    for name in filter(None, listed):
        mlmodel.inside(folder, str(name))
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "true"}
    try:
        import mlflow.pyfunc
    except ModuleNotFoundError as error:
        raise Unavailable("the library mlflow is not installed here", "Install it: pip install mlflow") from error
    loader = str(said.get("python_model") or said.get("model_code_path") or said.get("data") or "MLmodel")
    model = mlmodel.opened(lambda: mlflow.pyfunc.load_model(str(folder)), folder / Path(loader).name)
    return Pyfunc(model, folder)


def look(native: Any, tensors: Tensors, signature: Signature) -> None:
    """Find out, by asking rows, by which names the model answers, and whether it only wraps another model.

    A model that raises on them stays `silent`.
    """
    try:
        answered = _parted(native.model.predict(_given(tensors, signature)), rows(tensors))
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - a model may raise anything
        said = " ".join(str(error).split())[:200]
        native.why = f"it raises on rows of its signature ({type(error).__name__}: {said})"
        return
    native.outputs, native.silent = tuple(answered), False
    native.inner, native.why = wrapped.inside(native.model, native.folder, answered, (tensors, signature))


def answers(native: Any, _folder: Path) -> Answers:
    """Return the outputs of the model inside, where it only wraps one; else those that its `predict` gives."""
    if native.inner is None:
        named = f"{native.named}, a Python model of its own"
        return Answers(outputs=native.outputs, predict=native.outputs[0], estimator=named)
    inner = native.inner
    return Answers(
        outputs=inner.answers.outputs,
        predict=inner.output,
        estimator=f"{native.named}, a pyfunc wrapper around {inner.flavor} {inner.answers.estimator}",
        classes=inner.answers.classes,
    )


def own(native: Any, answers: Answers) -> Answers:
    """Return what its own `predict` gives, without what else the model inside would give."""
    return answers if native.inner is None else replace(answers, outputs=(native.inner.output,))


def alone(native: Any) -> bool:
    """Whether it is a Python model of its own: whoever has a copy of that may hand it in."""
    return native.inner is None


def unwrapped(native: Any, form: str) -> tuple[str, object]:
    """Return flavor and native model of what is inside; raises `Refused` where it does more than wrap one model."""
    if native.inner is None:
        raise Refused(
            f"{native.named} is a Python model of its own, not a wrapper around a model that can become {form}: "
            f"{native.why}",
            "It can become python (modelrel convert MODEL --to python), which no target delivers yet; or log the model "
            "inside with its own flavor, or hand in a copy that you converted (--copy).",
        )
    return native.inner.flavor, native.inner.native


def predict(native: Any, tensors: Tensors, signature: Signature) -> dict[str, Array]:
    """Return what the model's own `predict` gives for N rows, by name; beside it what else the model inside gives.

    Raises what the model raises, and `Refused` where it does not answer with one entry a row.
    """
    answered = _parted(native.model.predict(_given(tensors, signature)), rows(tensors))
    if native.inner is None:
        return answered
    return wrapped.beside(native.inner, answered, tensors, signature)


def curves(native: Any, signature: Signature) -> list[Curve]:
    """Return the curves of the model inside."""
    return [] if native.inner is None else wrapped.curves(native.inner, signature)


def _place(artifact: Any) -> Any:
    return artifact.get("path") if isinstance(artifact, dict) else artifact


def _given(tensors: Tensors, signature: Signature) -> Any:
    """Return rows as MLflow takes them: a frame, an array, or arrays by name."""
    if signature.kind == "tensor" and len(signature.inputs) > 1:
        return {spec.name: np.asarray(tensors[spec.name], NUMPY[spec.datatype]) for spec in signature.inputs}
    return frames.given(tensors, signature)


def _parted(value: Any, count: int) -> dict[str, Array]:
    """Return what a model answered to `count` rows as arrays by name: columns of a frame, entries of a dictionary.

    Raises `Refused` where it has another number of rows, or holds what is neither a number nor a text.
    """
    import pandas as pd

    if isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value):
        value = pd.DataFrame(value)
    if isinstance(value, pd.DataFrame):
        if all(isinstance(name, str) for name in value.columns):
            value = {name: value[name] for name in value.columns}
        else:
            value = value.to_numpy()
    parts = {str(name): one for name, one in value.items()} if isinstance(value, Mapping) else {_ONE: value}
    found = {name: _array(one) for name, one in parts.items()}
    for name, array in found.items():
        text = array.dtype.kind == "O" and all(item is None or isinstance(item, str) for item in array.ravel())
        if array.shape[:1] != (count,) or not (text or array.dtype.newbyteorder("=") in NUMPY.values()):
            raise Refused(
                f"the model answers {count} rows with {type(value).__name__}, {name} being {array.dtype} of the shape "
                f"{list(array.shape)}",
                "Let predict return a data frame, or an array of numbers or texts, with one entry a row.",
            )
    return found


def _array(value: Any) -> Array:
    return frames.answered(value.to_numpy() if hasattr(value, "to_numpy") else value)

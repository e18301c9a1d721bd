"""The models that the load is made on: a linear one, a forest, a small convolutional net; in each server's form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Array = Any


class Trained(NamedTuple):
    """A model, rows to send, and the numbers that it gives for them (labels, or a score for each class)."""

    name: str
    model: Any
    rows: Array
    expected: Array


def linear() -> Trained:
    """A logistic regression over the 30 numbers of the breast cancer data."""
    from sklearn.linear_model import LogisticRegression

    return _tabular("linear", LogisticRegression(max_iter=10_000))


def forest() -> Trained:
    """A forest of 100 trees over the same."""
    from sklearn.ensemble import RandomForestClassifier

    return _tabular("forest", RandomForestClassifier(100, random_state=0))


def _tabular(name: str, model: Any) -> Trained:
    from sklearn.datasets import load_breast_cancer

    rows, target = load_breast_cancer(return_X_y=True)
    rows = rows.astype(np.float32)
    model.fit(rows, target)
    return Trained(name, model, rows[:100], model.predict(rows[:100]))


def convnet() -> Trained:
    """A small convolutional net over images of 224 x 224 x 3; what it has learned does not matter here."""
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((224, 224, 3), name="image"),
            keras.layers.Conv2D(8, 5, strides=4, activation="relu"),
            keras.layers.Conv2D(16, 3, strides=2, activation="relu"),
            keras.layers.Conv2D(32, 3, strides=2, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(10, name="scores"),
        ]
    )
    rows = (np.random.default_rng(0).integers(0, 256, (4, 224, 224, 3)) / np.float32(255)).astype(np.float32)
    return Trained("convnet", model, rows, model.predict(rows, verbose=0))


def columns(trained: Trained) -> list[str]:
    """Return the names of the columns of a table of the rows."""
    return [f"column {number}" for number in range(trained.rows.shape[1])]


def write(trained: Trained, to: str, folder: Path, kind: str = "tensor") -> Path:
    """Write the folder that modelrel serves, converted as modelrel converts it; of one tensor, or of ``columns``."""
    from modelrel.flavors import FLAVORS
    from modelrel.formats import FORMATS, Order
    from modelrel.values import Signature, TensorSpec

    flavor = "tensorflow" if trained.name == "convnet" else "sklearn"
    name = "image" if flavor == "tensorflow" else "x"
    shape = (-1, *trained.rows.shape[1:])
    inputs = (TensorSpec(name=name, datatype="FP32", shape=shape),)
    if kind == "columns":
        inputs = tuple(TensorSpec(name=one, datatype="FP64", shape=(-1, 1)) for one in columns(trained))
    signature = Signature(kind=kind, inputs=inputs)
    folder.mkdir(parents=True)
    native = trained.model
    if flavor == "tensorflow":
        native = FLAVORS[flavor].load(write_mlflow(trained, folder / "logged"))
    found = FLAVORS[flavor].answers(native, folder / "logged")
    format_ = FORMATS[to]
    path = folder / f"model{format_.SUFFIX}"
    few = {name: trained.rows[:2]}
    if kind == "columns":
        few = {spec.name: trained.rows[:2, at : at + 1].astype(float) for at, spec in enumerate(inputs)}
    said = dict(format_.convert(native, Order(flavor=flavor, signature=signature, answers=found, rows=few), path))
    outputs = said["outputs"]
    manifest = {
        "schema": 1,
        "name": trained.name,
        "version": "1",
        "format": to,
        "file": path.name,
        "kind": kind,
        "inputs": said["inputs"],
        "outputs": outputs,
        "predict": outputs[0]["name"],
        "golden": "golden.json",
        "metadata": {},
    }
    (folder / "modelrel.json").write_text(json.dumps(manifest))
    example = {spec: array[:1].tolist() for spec, array in few.items()}
    if kind == "tensor":
        example = {said["inputs"][0]["name"]: trained.rows[:1].tolist()}
    (folder / "golden.json").write_text(json.dumps({"inputs": example}))
    return folder


def write_mlflow(trained: Trained, folder: Path) -> Path:
    """Write the folder that ``mlflow models serve`` serves."""
    import mlflow
    import pandas as pd
    from mlflow.models import infer_signature

    table = trained.rows[:2]
    if trained.name != "convnet":  # of a data frame, as most tabular models are logged
        table = pd.DataFrame(trained.rows[:2].astype(float), columns=columns(trained))
    signature = infer_signature(table, trained.expected[:2])
    if trained.name == "convnet":
        mlflow.tensorflow.save_model(trained.model, str(folder), signature=signature, pip_requirements=[])
    else:
        mlflow.sklearn.save_model(
            trained.model,
            str(folder),
            signature=signature,
            pip_requirements=[],
            serialization_format="cloudpickle",
        )
    return folder


def write_mlserver(trained: Trained, folder: Path, port: int) -> Path:
    """Write the folder that ``mlserver start`` serves."""
    import joblib

    folder.mkdir(parents=True)
    joblib.dump(trained.model, folder / "model.joblib")
    settings = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": port + 1,
        "metrics_port": port + 2,
        "parallel_workers": 0,
        "debug": False,
        "access_log": False,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    model = {
        "name": trained.name,
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": "./model.joblib", "version": "1"},
    }
    (folder / "model-settings.json").write_text(json.dumps(model))
    return folder


def write_bentoml(trained: Trained, folder: Path, onnx: Path) -> Path:
    """Write the folder that ``bentoml serve`` serves: scikit-learn's model, or of the net its ONNX copy."""
    import joblib

    folder.mkdir(parents=True)
    if trained.name == "convnet":
        load = f"import onnxruntime\n        self.model = onnxruntime.InferenceSession({str(onnx / 'model.onnx')!r})"
        predict = "self.model.run(None, {self.model.get_inputs()[0].name: x})[0]"
    else:
        joblib.dump(trained.model, folder / "model.joblib")
        load = "import joblib\n        self.model = joblib.load('model.joblib')"
        predict = "self.model.predict(x)"
    (folder / "service.py").write_text(
        f"""import bentoml
import numpy as np


@bentoml.service(workers=1)
class Served:
    def __init__(self):
        {load}

    @bentoml.api
    def predict(self, x: np.ndarray) -> np.ndarray:
        return {predict}
""".replace("return self", "x = x.astype(np.float32)\n        return self")
    )
    return folder

"""The model that the benchmarks serve: a forest of 100 trees on the breast cancer data, in each server's form."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd


class Forest(NamedTuple):
    """A trained forest, its training table, and what it predicts for each row of it."""

    model: Any
    table: pd.DataFrame
    labels: list[int]


def train() -> Forest:
    """Train the forest; always the same one."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import RandomForestClassifier

    data = load_breast_cancer(as_frame=True)
    # The data has seven digits at most, so nothing is lost when a server reads it as FP32.
    table = data.data.astype(np.float32).astype(np.float64)
    model = RandomForestClassifier(100, random_state=0).fit(table, data.target)
    return Forest(model, table, model.predict(table).tolist())


def write_onnx(forest: Forest, folder: Path, kind: str) -> Path:
    """Write the folder that modelrel serves: of ``columns`` (30 inputs) or of one ``tensor``."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    names = list(forest.table.columns)
    converted = convert_sklearn(
        forest.model,
        initial_types=[("x", FloatTensorType([None, len(names)]))],
        options={id(forest.model): {"zipmap": False}},
    )
    inputs = [{"name": "x", "datatype": "FP32", "shape": [-1, len(names)]}]
    if kind == "columns":
        _split_input(converted, names)
        inputs = [{"name": name, "datatype": "FP64", "shape": [-1, 1]} for name in names]
    folder.mkdir(parents=True)
    onnx.save(converted, folder / "model.onnx")
    manifest = {
        "schema": 1,
        "name": "forest",
        "version": "1",
        "format": "onnx",
        "file": "model.onnx",
        "kind": kind,
        "inputs": inputs,
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [-1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]},
        ],
        "predict": "label",
        "classes": [0, 1],
        "metadata": {},
    }
    (folder / "modelrel.json").write_text(json.dumps(manifest))
    return folder


def _split_input(model: onnx.ModelProto, names: list[str]) -> None:
    """Replace the one input by a column for each name, as a data frame model has them."""
    graph = model.graph
    inner = graph.input[0].name
    graph.node.insert(0, helper.make_node("Concat", names, ["all columns"], axis=1))
    graph.node.insert(1, helper.make_node("Cast", ["all columns"], [inner], to=TensorProto.FLOAT))
    del graph.input[:]
    for name in names:
        graph.input.append(helper.make_tensor_value_info(name, TensorProto.DOUBLE, [None, 1]))
    onnx.checker.check_model(model)


def write_mlflow(forest: Forest, folder: Path) -> Path:
    """Write the folder that ``mlflow models serve`` serves, with a signature of columns."""
    import mlflow
    from mlflow.models import infer_signature

    mlflow.sklearn.save_model(
        forest.model,
        str(folder),
        signature=infer_signature(forest.table, np.array(forest.labels)),
        pip_requirements=[],
        serialization_format="cloudpickle",
    )
    return folder


def write_mlserver(forest: Forest, folder: Path, port: int) -> Path:
    """Write the folder that ``mlserver start`` serves."""
    import joblib

    folder.mkdir(parents=True)
    joblib.dump(forest.model, folder / "model.joblib")
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
        "name": "forest",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": "./model.joblib", "version": "1"},
    }
    (folder / "model-settings.json").write_text(json.dumps(model))
    return folder


def invocation(forest: Forest, rows: int) -> bytes:
    """Return the body of a request to ``/invocations`` for the first rows."""
    table = forest.table.iloc[:rows]
    return json.dumps({"dataframe_split": {"columns": list(table.columns), "data": table.values.tolist()}}).encode()


def inference(forest: Forest, rows: int) -> bytes:
    """Return the body of an Open Inference request for the first rows."""
    values = forest.table.iloc[:rows].values
    tensor = {"name": "x", "shape": list(values.shape), "datatype": "FP32", "data": values.tolist()}
    return json.dumps({"inputs": [tensor]}).encode()

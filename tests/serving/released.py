"""Model folders as a release leaves them: golden rows with their answers, provenance in the manifest."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from modelrel.serving import load_model
from modelrel.serving.tensors import DTYPES
from tests.serving.conftest import columns_folder, write_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

METADATA = {
    "run_id": "fc5a56be0ed14e9c8e8fd785959259a8",
    "source_digest": "51df" * 16,
    "model_sha256": "55ec" * 16,
    "modelrel_version": "0.1.0",
    "estimator": "XGBClassifier",
    "tools": {"onnx": "1.23.2", "xgboost": "3.2.0"},
    "parity": {"rows": 10688, "max_abs_error": 4.76837158203125e-07, "disagreements": 0},
}


def with_golden(folder: Path, rows: Mapping[str, list[Any]]) -> Path:
    """Write golden rows with the answers that the model gives now, and say so in the manifest."""
    model = load_model(folder)
    feeds = {spec.name: np.array(rows[spec.name], DTYPES[spec.datatype]) for spec in model.inputs}
    outputs = {name: array.tolist() for name, array in model.predict(feeds).items()}
    (folder / "golden.json").write_text(json.dumps({"inputs": dict(rows), "outputs": outputs}))
    manifest = json.loads((folder / "modelrel.json").read_text())
    (folder / "modelrel.json").write_text(json.dumps(manifest | {"golden": "golden.json"}))
    return folder


def digits_folder(folder: Path, **changes: Any) -> Path:
    """Write a model as the demo's: 64 numbers in, a label and ten probabilities out."""
    weights = np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32)
    nodes = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(weights)),
        helper.make_node("MatMul", ["input", "w"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
    ]
    outputs = [("label", "INT64", [-1]), ("probabilities", "FP32", [-1, 10])]
    written = write_folder(
        folder, nodes, [("input", "FP32", [-1, 64])], outputs, **{"name": "digits", "metadata": METADATA} | changes
    )
    rows = np.random.default_rng(1).integers(0, 17, (3, 64)).tolist()
    return with_golden(written, {"input": rows})


def table_folder(folder: Path) -> Path:
    """Write the model of five columns, with golden rows."""
    rows = {"d": [[1.5], [2.5]], "l": [[2], [3]], "s": [["x"], ["it's"]], "b": [[True], [False]], "f": [[0.5], [1.0]]}
    return with_golden(columns_folder(folder), rows)


def image_folder(folder: Path) -> Path:
    """Write a model of an 48 x 48 x 3 image, whose golden row is too long for a page."""
    nodes = [
        helper.make_node("Constant", [], ["axes"], value=helper.make_tensor("", TensorProto.INT64, [3], [1, 2, 3])),
        helper.make_node("ReduceSum", ["image", "axes"], ["sum"], keepdims=0),
    ]
    written = write_folder(
        folder, nodes, [("image", "FP32", [-1, 48, 48, 3])], [("sum", "FP32", [-1])], name="image", version="2"
    )
    row = np.round(np.random.default_rng(2).random((1, 48, 48, 3)), 3).tolist()
    return with_golden(written, {"image": row})

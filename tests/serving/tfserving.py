"""TF Serving's own test model made anew, labels on versions, and a classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnx import TensorProto, helper

from modelrel.serving import load_model
from modelrel.serving.models import Models, Snapshot
from modelrel.serving.routing import Router
from tests.serving.conftest import Specs, write_folder

if TYPE_CHECKING:
    from pathlib import Path

    from modelrel.serving import Model

NAME = "saved_model_half_plus_two_2_versions"
BASE = f"/v1/models/{NAME}"
ROW = {"d": 1.5, "l": 2, "s": "x", "b": True, "f": 0.25}


def half_plus_two(folder: Path, **changes: Any) -> Path:
    def constant(name: str, value: float) -> Any:
        return helper.make_node("Constant", [], [name], value=helper.make_tensor("", TensorProto.FLOAT, [], [value]))

    nodes = [
        constant("half", 0.5),
        constant("two", 2.0),
        helper.make_node("Mul", ["x", "half"], ["x_half"]),
        helper.make_node("Add", ["x_half", "two"], ["y"]),
    ]
    named = {"name": NAME, "version": "123"} | changes
    shape = named.pop("shape", [-1])
    return write_folder(folder, nodes, [("x", "FP32", shape)], [("y", "FP32", shape)], **named)


def labelled(models: Models, **labels: str) -> Models:
    snapshot = models.snapshot
    endpoints = {name: endpoint._replace(labels=labels) for name, endpoint in snapshot.endpoints.items()}
    models.snapshot = Snapshot(endpoints, snapshot.states)
    return models


def half_router(folder: Path) -> Router:
    """Serve y = x / 2 + 2 as version 123, with a label, and 124, a pair a row."""
    loaded = [
        load_model(half_plus_two(folder / "a")),
        load_model(half_plus_two(folder / "b", version="124", shape=[-1, 2])),
    ]
    return Router(labelled(Models.of(*loaded), Version_Label="123"))


def classifier(folder: Path, classes: list[Any], probabilities: bool = True, **changes: Any) -> Model:
    """A model of one column: probabilities x and 1 - x, and a label that is no answer to anything."""
    one = helper.make_node("Constant", [], ["one"], value=helper.make_tensor("", TensorProto.FLOAT, [], [1.0]))
    nodes = [
        one,
        helper.make_node("Sub", ["one", "x"], ["rest"]),
        helper.make_node("Concat", ["x", "rest"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
    ]
    outputs: Specs = [("label", "INT64", [-1])]
    if probabilities:
        outputs.append(("probabilities", "FP32", [-1, 2]))
    inputs: Specs = [("x", "FP32", [-1, 1])]
    return load_model(write_folder(folder, nodes, inputs, outputs, kind="columns", classes=classes, **changes))

"""TF Serving's classify and regress: examples in, labels with scores or numbers out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from onnx import TensorProto, helper

from modelrel.serving import load_model
from tests.serving.conftest import write_folder
from tests.serving.tfserving import BASE, ROW, classifier, half_router

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from modelrel.serving import Model
    from modelrel.serving.routing import Router
    from tests.serving.conftest import Reply


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Router:
    return half_router(tmp_path_factory.mktemp("half"))


def test_classify_gives_each_label_with_its_score(tmp_path: Path, ask: Callable[..., Reply]) -> None:
    model = classifier(tmp_path, ["no", "yes"])
    reply = ask(model, "POST", "/v1/models/churn:classify", {"examples": [{"x": 0.25}, {"x": [1]}]})
    assert reply.answer.body == b'{"results":[[["no",0.25],["yes",0.75]],[["no",1.0],["yes",0.0]]]}'


@pytest.mark.parametrize(("classes", "labels"), [([3, 5], ["3", "5"]), ([False, True], ["false", "true"])])
def test_labels_are_texts(tmp_path: Path, ask: Callable[..., Reply], classes: list[Any], labels: list[str]) -> None:
    reply = ask(classifier(tmp_path, classes), "POST", "/v1/models/churn:classify", {"examples": [{"x": 1}]})
    assert [label for label, _ in reply.json["results"][0]] == labels


def test_what_a_model_is_not_for_is_said_in_tf_serving_s_words(
    tmp_path: Path, columns_model: Model, ask: Callable[..., Reply]
) -> None:
    def refused(model: Model, verb: str) -> str:
        reply = ask(model, "POST", f"/v1/models/churn:{verb}", {"examples": [{"x": 1} | ROW]})
        assert reply.status == 400
        return str(reply.json["error"]).replace("tensorflow/serving/", "")

    labels = classifier(tmp_path / "a", ["no", "yes"])
    nothing = classifier(tmp_path / "b", ["no", "yes"], probabilities=False)
    assert (
        refused(columns_model, "classify")
        == "Expected classification signature method_name to be classify. Was: regress"
    )
    assert refused(labels, "regress") == "Expected regression signature method_name to be regress. Was: classify"
    assert refused(nothing, "classify").endswith("Was: predict")
    assert refused(nothing, "regress").endswith("Was: predict")


def test_the_context_stands_for_what_an_example_leaves_out(columns_model: Model, ask: Callable[..., Reply]) -> None:
    body = {
        "context": {"s": {"b64": "eA=="}, "d": 3.5, "b": False, "unknown": 1},
        "examples": [{"l": 2, "f": 0}, ROW, {"l": [1], "b": 1, "other": ["a"]}],
    }
    reply = ask(columns_model, "POST", "/v1/models/churn:regress", body)
    assert reply.json == {"results": [10203.5, 11201.75, 11104.0]}


def test_a_flat_list_is_laid_out_as_the_model_takes_it(tmp_path: Path, ask: Callable[..., Reply]) -> None:
    nodes = [helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)]
    axes = helper.make_node("Constant", [], ["axes"], value=helper.make_tensor("", TensorProto.INT64, [1], [2]))
    inputs, outputs = [("x", "FP32", [-1, 2, 3])], [("y", "FP32", [-1, 2])]
    head = helper.make_node("Gather", ["y", "zero"], ["first"], axis=1)
    zero = helper.make_node("Constant", [], ["zero"], value=helper.make_tensor("", TensorProto.INT64, [], [0]))
    outputs = [("first", "FP32", [-1]), ("y", "FP32", [-1, 2])]
    model = load_model(write_folder(tmp_path, [axes, zero, *nodes, head], inputs, outputs))
    reply = ask(model, "POST", "/v1/models/churn:regress", {"examples": [{"x": [1, 2, 3, 4, 5, 6]}, {"x": [0] * 6}]})
    assert reply.json == {"results": [6.0, 0.0]}
    assert ask(model, "POST", "/v1/models/churn:regress", {"examples": [{"x": [1, 2]}]}).status == 400


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "The document is empty"),
        ({}, "key 'examples' is expected and was not found"),
        ({"examples": 5}, "Expecting 'examples' value to be an list/array"),
        ({"examples": []}, "'examples' value is an empty array"),
        ({"examples": [5]}, "Example must be JSON object but got JSON Number"),
        ({"examples": [[]]}, "Example must be JSON object but got JSON Array"),
        ({"context": [], "examples": [{}]}, "Example must be JSON object but got JSON Array"),
        ({"examples": [{"x": None}]}, "Feature: x has element with unexpected JSON type: Null"),
        ({"examples": [{"x": [[1]]}]}, "Feature: x has element with unexpected JSON type: Array"),
        ({"examples": [{"x": {"a": 1}}]}, "Feature: x has element with unexpected JSON type: Object"),
        ({"examples": [{"x": "a"}]}, "is not of expected type: float"),
        ({"examples": [{"x": [1, 2]}]}, "Tensor name: x has shape [1,2]"),
        ({"examples": [{"y": 1}]}, "Feature: x (data type: float) is required but could not be found."),
        ({"signature_name": "foo", "examples": [{"x": 1}]}, "not found in signature def"),
    ],
)
def test_what_is_no_example_is_400_with_its_sentence(
    half: Router, ask: Callable[..., Reply], body: Any, sentence: str
) -> None:
    reply = ask(half, "POST", f"{BASE}/versions/123:regress", body)
    assert reply.status == 400
    assert sentence in reply.json["error"]

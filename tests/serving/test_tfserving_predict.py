"""TF Serving's predict: what goes into a tensor, what comes out, and the sentence for what does neither."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from onnx import TensorProto, helper

from modelrel.serving import load_model
from tests.serving.conftest import Specs, write_folder
from tests.serving.tfserving import BASE, ROW, half_router

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from modelrel.serving import Model
    from modelrel.serving.routing import Router
    from tests.serving.conftest import Reply


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Router:
    return half_router(tmp_path_factory.mktemp("half"))


@pytest.fixture(scope="module")
def strings(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Texts as they came, under a name for texts and under one for bytes."""
    nodes = [helper.make_node("Identity", ["text"], [name]) for name in ("said", "said_bytes")]
    outputs: Specs = [("said", "BYTES", [-1]), ("said_bytes", "BYTES", [-1])]
    folder = tmp_path_factory.mktemp("strings") / "model"
    return load_model(write_folder(folder, nodes, [("text", "BYTES", [-1])], outputs))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Two inputs of other types, [-1, 2] numbers and [-1] texts, and both as they came."""
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in ("n", "t")]
    inputs: Specs = [("n", "INT32", [-1, 2]), ("t", "BYTES", [-1])]
    outputs: Specs = [("n_out", "INT32", [-1, 2]), ("t_out", "BYTES", [-1])]
    return load_model(write_folder(tmp_path_factory.mktemp("pair") / "model", nodes, inputs, outputs))


@pytest.fixture
def predict(ask: Callable[..., Reply]) -> Callable[..., Reply]:
    def predict(model: Model, body: Any) -> Reply:
        return ask(model, "POST", f"/v1/models/{model.name}:predict", body)

    return predict


BROKEN = {
    "nothing": (b"", "JSON Parse error: The document is empty"),
    "spaces": (b" \n", "JSON Parse error: The document is empty"),
    "no JSON": (b"instances = [1, 2]", "JSON Parse error: Invalid value. at offset: 0"),
    "no end": (b'{"instances": [1, 2', "JSON Parse error: Missing a comma"),
    "more after it": (b'{"instances": [1]} 2', "must not be followed by other values"),
    "no UTF-8": (b'{"instances": ["\xff"]}', "not UTF-8"),
    "half a surrogate pair": (b'{"instances": ["\\ud800"]}', "not of expected type: float"),
    "nested too deeply": (b'{"instances": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    "too big a number": (b'{"instances": [1e999]}', "Number too big to be stored in double"),
    "a list": ([1], "Is not object"),
    "texts for floats": ({"instances": ["x", "y"]}, "not of expected type: float"),
    "null": ({"instances": [None]}, "JSON Value: null Type: Null is not of expected type: float"),
    "a boolean": ({"instances": [True]}, "JSON Value: true Type: True is not of expected type: float"),
    "an object": ({"instances": [{"x": {"a": 1}}]}, "Type: Object is not of expected type: float"),
    "base64 for a float": ({"instances": [{"b64": "aGVsbG8="}]}, "is not of expected type: float"),
    "a signature that is no text": ({"signature_name": 100}, "'signature_name' key must be a string value."),
    "a signature of no such name": (
        {"signature_name": "foo", "instances": [1]},
        'Serving signature name: "foo" not found in signature def',
    ),
    "both forms": ({"instances": [1], "inputs": [1]}, "expecting only one of 'inputs' or 'instances' keys to exist"),
    "no form": ({"signature_name": "serving_default"}, "Missing 'inputs' or 'instances' key"),
    "instances that are no list": ({"instances": 1}, "Excepting 'instances' to be an list/array"),
    "no instances": ({"instances": []}, "No values in 'instances' array"),
    "an unknown input": ({"instances": [{"z": 1}]}, "JSON object: does not have named input: z"),
    "an object without the input": ({"instances": [{}]}, "must only have keys: x"),
    "a missing input": ({"inputs": {"z": [1]}}, "Missing named input: x in 'inputs' object."),
    "an object after a value": ({"instances": [1, {"x": 1}]}, "Expecting value/list but got object at item 1"),
    "a value after an object": ({"instances": [{"x": 1}, 1]}, "Expecting object but got list at item 1"),
    "other sizes": ({"instances": [[1, 2], [3, 4], [5, 6, 7]]}, "Expecting tensor size: 2 but got: 3"),
    "other shapes": ({"instances": [[1, 2], [3, 4], [[5, 6]]]}, "Expecting shape [2] but got: [1,2]"),
    "a list after a value": ({"instances": [1, [1]]}, "Expecting shape [] but got: [1]"),
    "a list of other sizes inside": ({"instances": [[[1, 2], [3]]]}, "Encountered list at unexpected size: 1"),
    "a value beside a list": ({"instances": [[[1], 2]]}, "found at incorrect level: 2"),
    "a list beside a value": ({"instances": [[1, [2]]]}, "Encountered list at unexpected level: 1"),
    "a shape that the model does not take": ({"instances": [[1, 2]]}, "Tensor name: x has shape [1,2]"),
    "no rows": ({"inputs": []}, "Tensor name: x has shape [0]"),
    "a value for a tensor": ({"inputs": 5}, "Tensor name: x has shape []"),
    "a double beyond a float": ({"instances": [1.7976931348623157e308]}, "to float without loss of precision"),
    "an integer beyond a float's digits": ({"instances": [16777217]}, "to float without loss of precision"),
    "an integer beyond all integers": (b'{"instances": [1' + b"0" * 40 + b"]}", "to float without loss of precision"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_request_is_400_with_its_sentence(half: Router, ask: Callable[..., Reply], case: str) -> None:
    body, sentence = BROKEN[case]
    reply = ask(half, "POST", f"{BASE}/versions/123:predict", body)
    assert reply.status == 400
    assert sentence in reply.json["error"]
    assert len(reply.json["error"]) < 600


def test_floats_take_whole_numbers_and_those_that_are_no_numbers(half: Router, ask: Callable[..., Reply]) -> None:
    body = b'{"instances": [1, 2.0, 5.003, NaN, Infinity, -Infinity, 8388607, 3.4028235e38, 1e-50]}'
    reply = ask(half, "POST", f"{BASE}/versions/123:predict", body)
    said = reply.answer.body.decode()
    assert said == '{"predictions":[2.5,3.0,4.5015,NaN,Infinity,-Infinity,4194305.5,1.7014117e38,2.0]}'


def test_each_output_has_the_digits_of_its_own_datatype(tmp_path: Path, ask: Callable[..., Reply]) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64),
        helper.make_node("Identity", ["x"], ["d"]),
    ]
    outputs: Specs = [("d", "FP64", [-1]), ("f", "FP32", [-1]), ("i", "INT64", [-1])]
    model = load_model(write_folder(tmp_path, nodes, [("x", "FP64", [-1])], outputs))
    reply = ask(model, "POST", "/v1/models/churn:predict", {"inputs": [0.1, 3, 0.10000000149011612]})
    assert reply.answer.body == (b'{"outputs":{"d":[0.1,3.0,0.10000000149011612],"f":[0.1,3.0,0.1],"i":[0,3,0]}}')


@pytest.mark.parametrize(("datatype", "good", "bad"), [
    ("INT32", [1, -2, 3], [1.0, 2**31, "1", True, None]),
    ("INT64", [2**63 - 1, -(2**63), 0], [2**63, 0.5, 1e3]),
    ("UINT8", [0, 255, 7], [256, -1, False]),
    ("UINT64", [2**64 - 1, 0, 1], [2**64, -1, 1.5]),
    ("BOOL", [True, False, True], [0, 1, "true", None]),
    ("BYTES", ["a", "", "é"], [1, None, ["a"], {"b64": "!"}, {"c": "YQ=="}, "\ud800"]),
    ("FP64", [0.1, 2, 2**53 - 1], [2**53 + 1, "1", True, None, {}]),
    ("FP32", [0.1, 2, 2**24 - 1], [2**24 + 1, "1", True, None, 3.5e38]),
])  # fmt: skip
def test_a_tensor_takes_values_of_its_own_datatype_only(
    tmp_path: Path, predict: Callable[..., Reply], datatype: str, good: list[Any], bad: list[Any]
) -> None:
    node = helper.make_node("Identity", ["x"], ["z"])
    model = load_model(write_folder(tmp_path, [node], [("x", datatype, [-1, 3])], [("z", datatype, [-1, 3])]))
    assert predict(model, {"instances": [good]}).json["predictions"] == [good]
    for value in bad:
        for body in ({"instances": [good, [*good[:2], value]]}, {"inputs": {"x": [[value, *good[1:]]]}}):
            assert predict(model, body).status == 400, value


def test_bytes_come_as_base64_and_go_so_where_the_name_says_bytes(
    strings: Model, predict: Callable[..., Reply]
) -> None:
    hello, world = {"b64": "aGVsbG8="}, {"b64": "d29ybGQ"}  # the padding may be left out
    expected = [("hello", "aGVsbG8="), ("world", "d29ybGQ="), ("plain", "cGxhaW4=")]
    reply = predict(strings, {"instances": [hello, world, "plain"]})
    assert reply.json["predictions"] == [{"said": said, "said_bytes": {"b64": packed}} for said, packed in expected]
    reply = predict(strings, {"inputs": {"text": [hello, world, "plain"]}})
    assert reply.json["outputs"]["said_bytes"] == [{"b64": packed} for _, packed in expected]
    assert predict(strings, {"instances": [{"text": hello}]}).json["predictions"][0]["said"] == "hello"


@pytest.mark.parametrize("packed", ["!", "a", "/w==", "aGVsbG8===="])
def test_what_is_no_base64_or_no_text_is_refused(strings: Model, predict: Callable[..., Reply], packed: str) -> None:
    assert predict(strings, {"instances": [{"b64": packed}]}).status == 400


def test_several_inputs_are_objects_row_by_row_or_one_by_one(pair: Model, predict: Callable[..., Reply]) -> None:
    rows = [{"n": [1, 2], "t": "foo"}, {"n": [3, 4], "t": {"b64": "YmFy"}}]
    expected = [{"n_out": [1, 2], "t_out": "foo"}, {"n_out": [3, 4], "t_out": "bar"}]
    assert predict(pair, {"instances": rows}).json == {"predictions": expected}
    whole = {"n": [[1, 2], [3, 4]], "t": ["foo", "bar"]}
    assert predict(pair, {"inputs": whole}).json == {"outputs": {f"{name}_out": whole[name] for name in whole}}


def test_inputs_of_other_lengths_are_allowed_in_columns_and_not_in_rows_of_outputs(
    pair: Model, predict: Callable[..., Reply]
) -> None:
    reply = predict(pair, {"inputs": {"n": [[1, 2], [3, 4]], "t": ["foo"], "ignored": 1}})
    assert reply.json == {"outputs": {"n_out": [[1, 2], [3, 4]], "t_out": ["foo"]}}


@pytest.mark.parametrize(("form", "sentence"), [("instances", "instances is a plain list"), ("inputs", "inputs is a")])
def test_plain_lists_are_for_models_of_one_input(
    pair: Model, predict: Callable[..., Reply], form: str, sentence: str
) -> None:
    reply = predict(pair, {form: [[1, 2]]})
    assert reply.status == 400
    assert sentence in reply.json["error"]


def test_outputs_of_another_length_or_of_none_are_refused_row_by_row(
    tmp_path: Path, predict: Callable[..., Reply]
) -> None:
    nodes = [helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0), helper.make_node("Identity", ["x"], ["y"])]
    outputs: Specs = [("y", "FP32", [-1]), ("sum", "FP32", [])]
    model = load_model(write_folder(tmp_path, nodes, [("x", "FP32", [-1])], outputs))
    assert predict(model, {"inputs": [1, 2]}).json == {"outputs": {"y": [1.0, 2.0], "sum": 3.0}}
    reply = predict(model, {"instances": [1, 2]})
    assert (reply.status, reply.json) == (400, {"error": "Tensor name: sum has no shape information "})


def test_columns_are_values_or_lists_of_one(columns_model: Model, predict: Callable[..., Reply]) -> None:
    expected = [11201.75]
    lists = {name: [value] for name, value in ROW.items()}
    for body in ({"instances": [ROW]}, {"instances": [lists]}, {"instances": [ROW | {"d": [1.5]}]}):
        assert predict(columns_model, body).json["predictions"][0]["score"] == expected
    for body in ({"inputs": lists}, {"inputs": {name: [[value]] for name, value in ROW.items()}}, {"inputs": ROW}):
        assert predict(columns_model, body).json["outputs"]["score"] == [expected]
    two = predict(columns_model, {"instances": [ROW, lists | {"d": 2.5}]}).json["predictions"]
    assert [row["score"] for row in two] == [[11201.75], [11202.75]]


def test_an_optional_column_may_be_left_out(columns_model: Model, predict: Callable[..., Reply]) -> None:
    less = {name: value for name, value in ROW.items() if name != "f"}
    rows = predict(columns_model, {"instances": [less, ROW, less]}).answer.body.decode()
    assert rows.count('"score":[11202.0]') == 2
    assert rows.count('"f_out":[NaN]') == 2
    columns = predict(columns_model, {"inputs": {name: [value, value] for name, value in less.items()}})
    assert b'"f_out":[[NaN],[NaN]]' in columns.answer.body
    assert predict(columns_model, {"instances": [{name: ROW[name] for name in ROW if name != "d"}]}).status == 400
    assert predict(columns_model, {"inputs": {"f": [1]}}).status == 400


def test_columns_must_have_as_many_rows(columns_model: Model, predict: Callable[..., Reply]) -> None:
    reply = predict(columns_model, {"inputs": {name: [value] for name, value in ROW.items()} | {"l": [1, 2]}})
    assert (reply.status, reply.json["error"]) == (400, "Tensor name: l has inconsistent batch size: 2 expecting: 1")


def test_a_model_s_own_failure_is_500_without_a_reason(tmp_path: Path, predict: Callable[..., Reply]) -> None:
    nodes = [helper.make_node("Add", ["a", "b"], ["y"])]
    inputs: Specs = [("a", "FP32", [-1]), ("b", "FP32", [-1])]
    model = load_model(write_folder(tmp_path, nodes, inputs, [("y", "FP32", [-1])]))
    reply = predict(model, {"inputs": {"a": [1, 2, 3], "b": [1, 2]}})
    assert (reply.status, reply.json) == (500, {"error": "the model could not compute this request"})


def test_many_values_of_another_shape_are_not_looked_at(tensor_model: Model, predict: Callable[..., Reply]) -> None:
    for body in (
        {"instances": [[float("nan")] * 20_000]},
        {"inputs": [[float("nan")] * 20_000]},
        {"instances": [[1e9]] * 20_000},
    ):
        reply = predict(tensor_model, body)
        assert reply.status == 400
        assert "where the model takes" in reply.json["error"]
    rows = [[float("nan"), 3e38, 1.0]] * 5_000
    assert predict(tensor_model, {"inputs": rows}).status == 200
    assert predict(tensor_model, {"inputs": [*rows, [1.0, 2.0, 3.5e38]]}).status == 400


@pytest.mark.parametrize("name", ['say "so"', "back\\slash", "two\nlines", "ключ"], ids=ascii)
def test_an_input_may_have_any_name(tmp_path: Path, predict: Callable[..., Reply], name: str) -> None:
    nodes = [helper.make_node("Neg", [name], ["y"])]
    model = load_model(write_folder(tmp_path / "model", nodes, [(name, "FP32", [-1])], [("y", "FP32", [-1])]))
    for body in ({"instances": [{name: 1.5}]}, {"instances": [1.5]}):
        assert predict(model, body).json == {"predictions": [-1.5]}
    assert predict(model, {"inputs": {name: [1.5]}}).json == {"outputs": [-1.5]}

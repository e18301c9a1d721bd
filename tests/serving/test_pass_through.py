"""Pass-through fields come back beside each prediction, byte for byte, and the model never sees them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from modelrel.serving import answer, load_model
from modelrel.serving.models import Models
from modelrel.serving.options import defaults
from modelrel.serving.routing import Router
from tests.serving.conftest import write_folder
from tests.serving.tfserving import ROW

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from modelrel.serving import Model
    from tests.serving.conftest import Reply, Running

PATH = "/v1/models/churn:predict"
FIELDS = ("filename", "sequence_number")
ODD = [
    "1.10", "100000000000000000000000.10", "-0", "1E5", '"\\u00e9\\/"', '{"b": 1, "a": [1.50, null]}', "[ 1,2 ]",
    "null", "true", '"NaN"', "NaN", '[-Infinity, "Infinity"]', '"\\"NaN"',
]  # fmt: skip


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Router:
    """A model of one input x, [-1, 2], with one output y = x."""
    node = helper.make_node("Identity", ["x"], ["y"])
    folder = tmp_path_factory.mktemp("one") / "model"
    model = load_model(write_folder(folder, [node], [("x", "FP32", [-1, 2])], [("y", "FP32", [-1, 2])]))
    return Router(Models.of(model), settings=defaults(pass_through=FIELDS))


@pytest.fixture
def several(tensor_model: Model) -> Router:
    return Router(Models.of(tensor_model), settings=defaults(pass_through=["filename,sequence_number"]))


def post(router: Router, body: str) -> tuple[int, str]:
    reply = answer(router, "POST", PATH, {}, body.encode())
    return reply.status, reply.body.decode()


@pytest.mark.parametrize("value", ODD)
def test_any_value_comes_back_byte_for_byte_row_by_row(one: Router, value: str) -> None:
    body = '{"instances": [{"filename": %s, "x": [1, 2]}, {"x": [3, NaN], "sequence_number":%s}]}'.replace("%s", value)
    expected = '{"predictions":[{"y":[1.0,2.0],"filename":%s},{"y":[3.0,NaN],"sequence_number":%s}]}'.replace(
        "%s", value
    )
    assert post(one, body) == (200, expected)


@pytest.mark.parametrize("value", ODD)
def test_any_value_comes_back_byte_for_byte_beside_outputs(one: Router, value: str) -> None:
    body = '{"inputs": {"x": [[1, 2]], "filename": %s}}'.replace("%s", value)
    assert post(one, body) == (200, '{"outputs":{"y":[[1.0,2.0]],"filename":%s}}'.replace("%s", value))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(JSON, min_size=1, max_size=4), st.sampled_from([{}, {"ensure_ascii": False}, {"indent": 3}]))
def test_every_value_comes_back_as_it_was_written(one: Router, values: list[Any], style: dict[str, Any]) -> None:
    written = [json.dumps(value, **style) for value in values]
    rows = ",".join('{"x": [0, 1], "filename": %s}'.replace("%s", text) for text in written)
    expected = ",".join('{"y":[0.0,1.0],"filename":%s}'.replace("%s", text) for text in written)
    assert post(one, '{"instances": [%s]}'.replace("%s", rows)) == (200, '{"predictions":[%s]}'.replace("%s", expected))


def test_several_outputs_are_an_object_with_the_fields(several: Router) -> None:
    status, said = post(several, '{"instances": [{"x": [1, 2, 3], "filename": "a.png", "sequence_number": 1}]}')
    row = {"y": [2.0, 4.0, 6.0], "z": [1.0, 2.0, 3.0], "filename": "a.png", "sequence_number": 1}
    assert (status, json.loads(said)) == (200, {"predictions": [row]})


def test_a_request_without_fields_is_answered_as_ever(one: Router) -> None:
    assert post(one, '{"instances": [[1, 2]]}') == (200, '{"predictions":[[1.0,2.0]]}')
    assert post(one, '{"instances": [{"x": [1, 2]}]}') == (200, '{"predictions":[[1.0,2.0]]}')
    assert post(one, '{"inputs": [[1, 2]]}') == (200, '{"outputs":[[1.0,2.0]]}')


def test_an_instance_without_the_field_stays_without(one: Router) -> None:
    status, said = post(one, '{"instances": [{"x": [1, 2]}, {"x": [3, 4], "filename": "b"}]}')
    assert (status, json.loads(said)) == (200, {"predictions": [{"y": [1, 2]}, {"y": [3, 4], "filename": "b"}]})


def test_a_field_may_be_written_with_escapes(one: Router) -> None:
    assert post(one, '{"instances": [{"x": [1, 2], "file\\u006eame": 1.0}]}') == (
        200,
        '{"predictions":[{"y":[1.0,2.0],"filename":1.0}]}',
    )


def test_fields_that_are_not_listed_are_refused_as_ever(one: Router) -> None:
    status, said = post(one, '{"instances": [{"x": [1, 2], "filename": 1, "other": 2}]}')
    assert status == 400
    assert "does not have named input: other" in said


def test_what_the_model_takes_itself_is_no_field(columns_model: Model) -> None:
    router = Router(Models.of(columns_model), settings=defaults(pass_through=["s", "filename"]))
    status, said = post(router, json.dumps({"instances": [ROW | {"filename": "a"}, ROW]}))
    first, second = json.loads(said)["predictions"]
    assert (status, first.pop("filename"), first) == (200, "a", second)
    assert second["s_out"] == ["x"]


def test_a_field_with_the_name_of_an_output_is_refused(one: Router, tensor_model: Model) -> None:
    router = Router(Models.of(tensor_model), settings=defaults(pass_through=["z"]))
    status, said = post(router, '{"instances": [{"x": [1, 2, 3], "z": 5}]}')
    assert status == 400
    assert "the output of its name" in said


def test_fields_need_a_prediction_for_each_instance(tmp_path: Path) -> None:
    node = helper.make_node("ReduceSum", ["x"], ["y"], keepdims=1)
    model = load_model(write_folder(tmp_path, [node], [("x", "FP32", [-1])], [("y", "FP32", [-1])]))
    router = Router(Models.of(model), settings=defaults(pass_through=["filename"]))
    assert post(router, '{"instances": [1, 2]}') == (200, '{"predictions":[3.0]}')
    status, said = post(router, '{"instances": [{"x": 1, "filename": 1}, {"x": 2}]}')
    assert status == 400
    assert "1 predictions for 2 instances" in said


@pytest.mark.parametrize(
    "body",
    [
        '{"instances": [{"filename": 1}]}',
        '{"instances": {"filename": 1}}',
        '{"instances": [1], "inputs": {"filename": 1}}',
        '{"filename": 1',
        '["filename"]',
        '"filename"',
    ],
)
def test_what_is_no_request_is_refused_with_fields_too(one: Router, body: str) -> None:
    assert post(one, body)[0] == 400


def test_the_server_takes_the_names_on_its_command_line(tensor_dir: Path, start_server: Callable[..., Running]) -> None:
    running = start_server(tensor_dir, "--pass-through", "filename,sequence_number")
    body = '{"instances": [{"x": [1, 2, 3], "filename": "a", "sequence_number": 12345678901234567890.10}]}'
    reply = httpx.post(f"{running.url}{PATH}", content=body)
    assert reply.text == (
        '{"predictions":[{"y":[2.0,4.0,6.0],"z":[1.0,2.0,3.0],'
        '"filename":"a","sequence_number":12345678901234567890.10}]}'
    )


def test_without_the_option_such_a_key_is_an_unknown_input(tensor_model: Model, ask: Callable[..., Reply]) -> None:
    assert ask(tensor_model, "POST", PATH, {"instances": [{"x": [1, 2, 3], "filename": 1}]}).status == 400

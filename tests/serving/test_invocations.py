"""MLflow's scoring routes, asked without a transport. Whether the answers are MLflow's is the business of
test_same_as_mlflow.py."""

import gzip
import json
import math

import pytest
from onnx import helper

from modelrel.serving import load_model

ROW = [1.5, 2, "x", True, 0.25]
NAMES = ["d", "l", "s", "b", "f"]


def split(*rows, columns=NAMES, **more):
    return {"dataframe_split": {"columns": columns, "data": list(rows)} | more}


@pytest.mark.parametrize("path", ["/ping", "/health"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_ping_and_health_answer_a_newline(tensor_model, ask, method, path):
    reply = ask(tensor_model, method, path)
    assert (reply.status, reply.answer.body) == (200, b"\n")
    assert reply.answer.headers["content-type"] == "application/json"


def test_the_version_is_plain_text(tensor_model, ask):
    answer = ask(tensor_model, "GET", "/version").answer
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.body.count(b".") == 2


@pytest.mark.parametrize(
    "body",
    [
        split(ROW),
        {"dataframe_records": [dict(zip(NAMES, ROW, strict=True))]},
        {"instances": [dict(zip(NAMES, ROW, strict=True))]},
        {"inputs": {name: [value] for name, value in zip(NAMES, ROW, strict=True)}},
        {"inputs": dict(zip(NAMES, ROW, strict=True))},
    ],
)
def test_each_form_of_a_row_gives_the_same_prediction(columns_model, ask, body):
    assert ask(columns_model, "POST", "/invocations", body)[:2] == (200, {"predictions": [[11201.75]]})


def test_a_missing_column_is_refused_and_named(columns_model, ask):
    reply = ask(columns_model, "POST", "/invocations", split([1.5, "x", 0.25], columns=["d", "s", "f"]))
    assert reply.status == 400
    assert "'l', 'b'" in reply.json["error"]


def test_errors_carry_the_fields_of_both_clients(columns_model, ask):
    reply = ask(columns_model, "POST", "/invocations", {})
    assert reply.status == 400
    assert reply.json["error"] == reply.json["message"]
    assert reply.json["error_code"] == "BAD_REQUEST"


def test_other_routes_have_only_an_error(columns_model, ask):
    assert list(ask(columns_model, "GET", "/nothing").json) == ["error"]


@pytest.mark.parametrize("params", [None, {}, []])
def test_empty_params_are_accepted(columns_model, ask, params):
    assert ask(columns_model, "POST", "/invocations", split(ROW) | {"params": params}).status == 200


def test_params_are_refused_as_a_converted_model_has_none(columns_model, ask):
    assert ask(columns_model, "POST", "/invocations", split(ROW) | {"params": {"a": 1}}).status == 400


def test_a_fraction_in_an_integer_column_is_cut_off_as_in_mlflow(columns_model, ask):
    reply = ask(columns_model, "POST", "/invocations", split([1.5, 2.9, "x", True, 0.25]))
    assert reply.json == {"predictions": [[11201.75]]}


@pytest.mark.parametrize("form", ["dataframe_split", "dataframe_records"])
@pytest.mark.parametrize("value", [None, 5, True, ["x"]])
def test_a_string_column_of_a_data_frame_takes_strings_only(columns_model, ask, form, value):
    row = [1.5, 2, value, True, 0.25]
    body = split(row) if form == "dataframe_split" else {form: [dict(zip(NAMES, row, strict=True))]}
    reply = ask(columns_model, "POST", "/invocations", body)
    assert reply.status == 400
    assert "'s'" in reply.json["error"]


def test_null_is_neither_true_nor_false(columns_model, ask):
    assert ask(columns_model, "POST", "/invocations", split([1.5, 2, "x", None, 0.25])).status == 400


@pytest.mark.parametrize("value", [2**63, 1e300, -(2**63) - 1])
def test_an_integer_beyond_its_column_is_refused(columns_model, ask, value):
    assert ask(columns_model, "POST", "/invocations", split([1.5, value, "x", True, 0.25])).status == 400


def test_an_optional_float_column_may_be_left_out(columns_model, ask):
    reply = ask(columns_model, "POST", "/invocations", split(ROW[:4], columns=NAMES[:4]))
    assert reply.json == {"predictions": [[11202.0]]}


def test_an_optional_integer_column_cannot_be_left_out_as_it_has_no_missing_value(make_folder, ask):
    column = ("l", "INT64", [-1, 1])
    copy = helper.make_node("Identity", ["l"], ["y"])
    model = load_model(make_folder([copy], [column], [("y", *column[1:])], kind="columns", optional=("l",)))
    for body in (split([1], columns=["other"]), {"inputs": {"other": [1]}}):
        assert ask(model, "POST", "/invocations", body).status == 400


@pytest.mark.parametrize("body", [split(), {"inputs": {name: [] for name in NAMES}}, {"dataframe_records": []}])
def test_a_request_without_rows_is_refused(columns_model, ask, body):
    assert ask(columns_model, "POST", "/invocations", body).status == 400


def test_nan_in_a_prediction_is_a_bare_literal_as_mlflow_writes_it(columns_model, ask):
    reply = ask(columns_model, "POST", "/invocations", split([None, 2, "x", True, 0.25]))
    assert math.isnan(reply.json["predictions"][0][0])
    assert reply.answer.body == b'{"predictions": [[NaN]]}'


def test_a_label_that_contains_the_word_null_is_not_taken_for_nan(make_tensor_folder, ask):
    model = load_model(make_tensor_folder("BYTES"))
    reply = ask(model, "POST", "/invocations", {"inputs": [["null", "", "a"]]})
    assert reply.json == {"predictions": [["null", "", "a"]]}


def test_the_predictions_are_those_of_the_output_that_the_manifest_names(make_tensor_folder, ask):
    reply = ask(load_model(make_tensor_folder(predict="z")), "POST", "/invocations", {"inputs": [[1, 2, 3]]})
    assert reply.json == {"predictions": [[1.0, 2.0, 3.0]]}


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "text/CSV", "application/json; charset=latin1", "application/json; a=b"]
)
def test_what_is_not_json_in_utf8_is_415_and_the_hint_says_what_is(columns_model, content_type):
    from modelrel.serving import answer

    headers = {} if content_type is None else {"content-type": content_type}
    reply = answer(columns_model, "POST", "/invocations", headers, json.dumps(split(ROW)).encode())
    assert reply.status == 415
    assert "error" in json.loads(reply.body)


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "application/json;charset=UTF-8"])
def test_json_may_say_that_it_is_utf8(columns_model, ask, content_type):
    assert ask(columns_model, "POST", "/invocations", split(ROW), content_type=content_type).status == 200


def test_a_packed_body_is_read(columns_model, ask):
    packed = gzip.compress(json.dumps(split(ROW)).encode())
    assert ask(columns_model, "POST", "/invocations", packed, content_encoding="gzip").status == 200


def test_a_body_packed_in_another_way_is_415(columns_model, ask):
    assert ask(columns_model, "POST", "/invocations", b"\x1f\x8b", content_encoding="br").status == 415


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b"nul", b'{"inputs": {"d": 1,}}'])
def test_a_malformed_body_is_400_and_says_where(columns_model, ask, body):
    reply = ask(columns_model, "POST", "/invocations", body)
    assert reply.status == 400
    assert "byte" in reply.json["error"] or "deep" in reply.json["error"]


def test_half_a_surrogate_pair_is_no_text(columns_model, ask):
    body = b'{"inputs": {"d": 1, "l": 2, "s": "\\ud800", "b": true}}'
    assert ask(columns_model, "POST", "/invocations", body).status == 400

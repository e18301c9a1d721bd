"""The Open Inference Protocol, asked without a transport."""

import json

import numpy as np
import pytest
from onnx import helper

from modelrel.serving import load_model
from tests.serving.conftest import columns_folder


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
def test_the_server_describes_itself_and_its_extensions(tensor_model, ask, path):
    reply = ask(tensor_model, "GET", path)
    assert reply.status == 200
    assert reply.json["name"] == "modelrel"
    assert reply.json["extensions"] == ["binary_tensor_data", "model_repository"]
    assert isinstance(reply.json["version"], str)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True, "live": True}),
        ("/v2/models/churn/ready", {"name": "churn", "ready": True}),
        ("/v2/models/churn/versions/7/ready", {"name": "churn", "ready": True}),
    ],
)
def test_health_routes_answer_json_that_kserve_clients_can_read(tensor_model, ask, path, body):
    assert ask(tensor_model, "GET", path)[:2] == (200, body)


@pytest.mark.parametrize("path", ["/v2/models/churn", "/v2/models/churn/versions/7"])
def test_the_model_is_described_by_its_manifest(tensor_model, ask, path):
    assert ask(tensor_model, "GET", path).json == {
        "name": "churn",
        "versions": ["7"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "z", "datatype": "FP32", "shape": [-1, 3]},
        ],
    }


@pytest.mark.parametrize(
    "path",
    ["/v2/models/other", "/v2/models/other/infer", "/v2/models/churn/versions/8", "/v2/models/churn/versions/8/infer"],
)
def test_an_unknown_model_or_version_is_404_and_named(tensor_model, ask, path):
    reply = ask(tensor_model, "GET", path)
    assert reply.status == 404
    assert ("'other'" in reply.json["error"]) or ("'8'" in reply.json["error"])


@pytest.mark.parametrize("path", ["", "/v2/models", "/v2/models/churn/x", "/nothing", "/v2/models/churn/versions"])
def test_an_unknown_path_is_404_with_an_error(tensor_model, ask, path):
    reply = ask(tensor_model, "GET", path)
    assert reply.status == 404
    assert list(reply.json) == ["error"]


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v2/models/churn/infer", "POST"),
        ("POST", "/v2", "GET, HEAD"),
        ("DELETE", "/v2/models/churn", "GET, HEAD"),
        ("PUT", "/invocations", "POST"),
        ("POST", "/ping", "GET, HEAD"),
    ],
)
def test_the_wrong_verb_is_405_and_says_which_is_right(tensor_model, ask, method, path, allow):
    reply = ask(tensor_model, method, path)
    assert reply.status == 405
    assert reply.answer.headers["allow"] == allow
    assert "error" in reply.json


def test_the_metadata_tells_what_may_be_left_out_and_what_the_classes_are(tmp_path, ask):
    folder = columns_folder(tmp_path / "model")
    manifest = json.loads((folder / "modelrel.json").read_text())
    (folder / "modelrel.json").write_text(json.dumps(manifest | {"classes": ["stays", "leaves"]}))
    described = ask(load_model(folder), "GET", "/v2/models/churn").json
    assert described["properties"] == {"predict": "score", "classes": '["stays","leaves"]'}
    assert [tensor.get("parameters") for tensor in described["inputs"]] == [None] * 4 + [{"required": False}]


def test_an_inference_returns_every_output_in_row_major_order(tensor_model, infer):
    reply = infer(tensor_model, [[1, 2, 3], [4, 5, 6]])
    assert reply.status == 200
    assert reply.json == {
        "model_name": "churn",
        "model_version": "7",
        "outputs": [
            {"name": "y", "shape": [2, 3], "datatype": "FP32", "data": [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]},
            {"name": "z", "shape": [2, 3], "datatype": "FP32", "data": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]},
        ],
    }


def test_flat_data_and_nested_data_are_the_same_request(tensor_model, infer):
    nested = infer(tensor_model, [[1, 2, 3], [4, 5, 6]])
    assert infer(tensor_model, [1, 2, 3, 4, 5, 6], [2, 3]).json == nested.json


def test_a_request_about_no_rows_is_answered_with_none(tensor_model, infer):
    reply = infer(tensor_model, [], [0, 3], outputs=[{"name": "z"}], id="abc")
    assert reply.status == 200
    assert reply.json["id"] == "abc"
    assert reply.json["outputs"] == [{"name": "z", "shape": [0, 3], "datatype": "FP32", "data": []}]
    assert reply.answer.headers["modelrel-model"] == "churn/7"


def test_no_rows_of_another_datatype_are_checked_like_any(tensor_model, infer):
    assert infer(tensor_model, [], [0, 3], "INT64").status == 200
    assert infer(tensor_model, [], [0, 3], "BYTES").status == 400
    assert infer(tensor_model, [], [0, 3], "nothing").status == 400


def test_an_output_that_is_not_by_row_has_no_answer_about_no_rows(make_folder, infer):
    nodes = [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)]
    model = load_model(make_folder(nodes, [("x", "FP32", [-1, 3])], [("y", "FP32", [])]))
    assert infer(model, [[1, 2, 3]]).status == 200
    assert infer(model, [], [0, 3]).status == 400


def test_the_id_of_a_request_comes_back(tensor_model, infer):
    assert infer(tensor_model, [[1, 2, 3]], id="abc").json["id"] == "abc"


def test_a_request_without_an_id_gets_none_back(tensor_model, infer):
    assert "id" not in infer(tensor_model, [[1, 2, 3]]).json


def test_only_the_outputs_asked_for_come_back_in_the_order_asked(tensor_model, infer):
    reply = infer(tensor_model, [[1, 2, 3]], outputs=[{"name": "z"}, {"name": "y"}])
    assert [output["name"] for output in reply.json["outputs"]] == ["z", "y"]


def test_an_empty_list_of_outputs_means_all(tensor_model, infer):
    assert len(infer(tensor_model, [[1, 2, 3]], outputs=[]).json["outputs"]) == 2


@pytest.mark.parametrize("names", [["y", "nope"], ["y", "y"]])
def test_unknown_and_repeated_outputs_are_refused(tensor_model, infer, names):
    reply = infer(tensor_model, [[1, 2, 3]], outputs=[{"name": name} for name in names])
    assert reply.status == 400
    assert "output" in reply.json["error"]


def test_parameters_of_the_three_kinds_are_accepted_everywhere(tensor_model, ask):
    some = {"a": "b", "priority": 1, "binary_data_output": True, "timeout": 1.5}
    body = {
        "parameters": some,
        "inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3], "parameters": some}],
        "outputs": [{"name": "y", "parameters": {"binary_data": False}}],
    }
    assert ask(tensor_model, "POST", "/v2/models/churn/infer", body).status == 200


@pytest.mark.parametrize("value", [None, [], {}])
def test_parameters_of_other_kinds_are_refused(tensor_model, infer, value):
    assert infer(tensor_model, [[1, 2, 3]], parameters={"a": value}).status == 400


def test_optional_fields_may_be_null_as_generated_clients_send_them(tensor_model, infer):
    assert infer(tensor_model, [[1, 2, 3]], id=None, parameters=None, outputs=None).status == 200


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ([1, 2], [1, 2]),
        ([3], [1, 2, 3]),
        ([1, 1, 3], [1, 2, 3]),
        ([], [1]),
        ([0, 3], [1, 2, 3]),
        ([0, 4], []),
        ([0], []),
        ([1, 0], []),
        ([-1, 3], [1, 2, 3]),
        ([2, 3], [1, 2, 3]),
        ([1, 3], [1, 2]),
        ([1, 3], [[1, 2], [3]]),
        ([2, 3], [[1, 2, 3]]),
        ([1, 3], [[[1, 2, 3]]]),
        ([10**15, 3], [1, 2, 3]),
        ([2**62, 3], [1, 2, 3]),
        ([2**70, 3], [1, 2, 3]),
        ([1.0, 3], [1, 2, 3]),
        (["1", 3], [1, 2, 3]),
        ([True, 3], [1, 2, 3]),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(tensor_model, infer, shape, data):
    reply = infer(tensor_model, data, shape)
    assert reply.status == 400
    assert list(reply.json) == ["error"]


@pytest.mark.parametrize("data", [["1", 2, 3], [True, 2, 3], [{}, 2, 3], "abc", 1, None, {"a": 1}, [1e39, 2, 3]])
def test_values_that_are_not_of_the_datatype_are_refused(tensor_model, infer, data):
    assert infer(tensor_model, data, [1, 3]).status == 400


def test_the_largest_fp32_is_accepted_in_the_short_form_that_clients_print(tensor_model, infer):
    reply = infer(tensor_model, [3.4028235e38, 0, 0], [1, 3], outputs=[{"name": "z"}])
    assert np.float32(reply.json["outputs"][0]["data"][0]) == np.finfo(np.float32).max


def test_null_is_nan_on_the_way_in_and_on_the_way_out(tensor_model, infer):
    reply = infer(tensor_model, [[1, None, 3]], outputs=[{"name": "z"}])
    assert reply.json["outputs"][0]["data"] == [1.0, None, 3.0]


@pytest.mark.parametrize(
    ("model_type", "sent_type", "data"),
    [
        ("FP32", "INT64", [1, 2, 3]),
        ("FP32", "UINT8", [1, 2, 3]),
        ("FP32", "FP64", [1.5, 2.5, None]),
        ("FP64", "FP32", [1.5, 2.5, 3.5]),
        ("FP64", "INT64", [1, 2, 2**53]),
        ("INT64", "INT32", [1, 2, 3]),
        ("INT64", "UINT64", [1, 2, 3]),
        ("INT32", "INT64", [1, 2, 3]),
    ],
)
def test_another_datatype_is_accepted_if_no_value_changes(make_tensor_folder, infer, model_type, sent_type, data):
    model = load_model(make_tensor_folder(model_type))
    reply = infer(model, data, [1, 3], sent_type, outputs=[{"name": "z"}])
    assert reply.status == 200
    assert reply.json["outputs"][0]["data"] == data


@pytest.mark.parametrize(
    ("model_type", "sent_type", "data"),
    [
        ("FP32", "FP64", [0.1, 2, 3]),
        ("FP32", "INT64", [2**24 + 1, 2, 3]),
        ("FP64", "INT64", [2**53 + 1, 2, 3]),
        ("INT64", "FP64", [1.0, 2.0, 3.0]),
        ("INT32", "INT64", [2**31, 2, 3]),
        ("INT64", "UINT64", [2**63, 2, 3]),
        ("INT64", "BOOL", [True, False, True]),
        ("FP32", "BYTES", ["1", "2", "3"]),
        ("BYTES", "INT64", [1, 2, 3]),
        ("BOOL", "INT64", [1, 0, 1]),
    ],
)
def test_a_datatype_that_would_change_values_is_refused_and_both_are_named(
    make_tensor_folder, infer, model_type, sent_type, data
):
    reply = infer(load_model(make_tensor_folder(model_type)), data, [1, 3], sent_type)
    assert reply.status == 400
    assert model_type in reply.json["error"]
    assert sent_type in reply.json["error"]


@pytest.mark.parametrize(
    ("datatype", "data"),
    [("UINT8", [256, 0, 0]), ("UINT8", [-1, 0, 0]), ("INT32", [2**31, 0, 0]), ("INT64", [2**63, 0, 0])],
)
def test_an_integer_beyond_its_datatype_is_refused(make_tensor_folder, infer, datatype, data):
    assert infer(load_model(make_tensor_folder(datatype)), data, [1, 3], datatype).status == 400


@pytest.mark.parametrize("data", [[2**64, 0, 0], [-1, 0, 0], [10**400, 0, 0], [1.5, 0, 0], [1.0, 0, 0]])
def test_what_is_no_uint64_is_refused(make_tensor_folder, infer, data):
    assert infer(load_model(make_tensor_folder("INT64")), data, [1, 3], "UINT64").status == 400


@pytest.mark.parametrize(
    ("datatype", "data"), [("BOOL", [True, False, True]), ("BYTES", ["a", "", "zażółć"]), ("INT64", [1, -2, 2**63 - 1])]
)
def test_values_of_each_kind_make_the_round_trip(make_tensor_folder, infer, datatype, data):
    reply = infer(load_model(make_tensor_folder(datatype)), data, [1, 3], datatype, outputs=[{"name": "z"}])
    assert reply.json["outputs"][0]["data"] == data


@pytest.mark.parametrize("datatype", ["FP16", "BF16", "float32", ""])
def test_a_datatype_without_a_json_form_is_refused_and_named(tensor_model, infer, datatype):
    reply = infer(tensor_model, [[1, 2, 3]], datatype=datatype)
    assert reply.status == 400
    assert datatype in reply.json["error"]


def test_an_fp16_output_is_refused_as_json_has_no_form_for_it(make_folder, infer):
    nodes = [helper.make_node("Cast", ["x"], ["half"], to=10), helper.make_node("Identity", ["x"], ["y"])]
    model = load_model(
        make_folder(nodes, [("x", "FP32", [-1, 3])], [("y", "FP32", [-1, 3]), ("half", "FP16", [-1, 3])])
    )
    assert infer(model, [[1, 2, 3]], outputs=[{"name": "y"}]).status == 200
    assert infer(model, [[1, 2, 3]]).status == 400


def columns(rows=1, flat=True, **changes):
    values = {"d": ("FP64", 1.0), "l": ("INT64", 2), "s": ("BYTES", "x"), "b": ("BOOL", True), "f": ("FP32", 0.0)}
    shape = [rows] if flat else [rows, 1]
    inputs = [{"name": n, "shape": shape, "datatype": t, "data": [v] * rows} for n, (t, v) in values.items()]
    return {"inputs": [i | changes.get(i["name"], {}) for i in inputs if changes.get(i["name"], {}) is not None]}


@pytest.mark.parametrize("flat", [True, False])
def test_columns_may_be_sent_with_and_without_the_second_dimension(columns_model, ask, flat):
    reply = ask(columns_model, "POST", "/v2/models/churn/infer", columns(2, flat=flat))
    assert reply.json["outputs"][0] == {
        "name": "score",
        "shape": [2, 1],
        "datatype": "FP64",
        "data": [11201.0, 11201.0],
    }


def test_columns_about_no_rows_are_answered_with_none(columns_model, ask):
    reply = ask(columns_model, "POST", "/v2/models/churn/infer", columns(0))
    assert [(output["shape"], output["data"]) for output in reply.json["outputs"]] == [([0, 1], [])] * 6


def test_some_columns_about_no_rows_and_some_about_one_are_refused(columns_model, ask):
    body = columns(1, l={"shape": [0], "data": []})
    reply = ask(columns_model, "POST", "/v2/models/churn/infer", body)
    assert (reply.status, "but another input has none" in reply.json["error"]) == (400, True)


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("rows", [1, 3])
def test_columns_in_the_model_s_order_and_in_another_are_the_same_request(columns_model, ask, rows, flat):
    body = columns(rows, flat)
    if not flat:
        for sent in body["inputs"]:
            sent["data"] = [[value] for value in sent["data"]]
    straight = ask(columns_model, "POST", "/v2/models/churn/infer", body)
    body["inputs"].reverse()
    assert ask(columns_model, "POST", "/v2/models/churn/infer", body).json == straight.json
    assert straight.json["outputs"][0]["data"] == [11201.0] * rows


@pytest.mark.parametrize(
    ("column", "data", "why"),
    [
        ("l", [1.5], "input 'l'"),
        ("l", [1, 2], "input 'l'"),
        ("l", [[1], [2]], "input 'l'"),
        ("s", [None], "input 's'"),
        ("b", [1], "input 'b'"),
        ("f", [1e39], "input 'f'"),
        ("d", ["1"], "input 'd'"),
        ("d", {"a": [1]}, "input 'd'"),
    ],
)
def test_a_column_that_is_wrong_among_right_ones_is_named(columns_model, ask, column, data, why):
    reply = ask(columns_model, "POST", "/v2/models/churn/infer", columns(1, **{column: {"data": data}}))
    assert reply.status == 400
    assert why in reply.json["error"]


def test_columns_of_different_lengths_are_refused(columns_model, ask):
    body = columns(2, l={"shape": [3], "data": [1, 2, 3]})
    reply = ask(columns_model, "POST", "/v2/models/churn/infer", body)
    assert reply.status == 400
    assert "'l' has 3 rows" in reply.json["error"]


def test_a_missing_required_input_is_refused_and_named(columns_model, ask):
    reply = ask(columns_model, "POST", "/v2/models/churn/infer", columns(s=None))
    assert reply.status == 400
    assert "'s'" in reply.json["error"]


def test_an_optional_float_column_that_is_left_out_is_nan(columns_model, ask):
    reply = ask(columns_model, "POST", "/v2/models/churn/infer", columns(f=None))
    assert reply.json["outputs"][0]["data"] == [11201.5]


@pytest.mark.parametrize("inputs", [[], [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]])
def test_no_inputs_and_unknown_inputs_are_refused(columns_model, ask, inputs):
    assert ask(columns_model, "POST", "/v2/models/churn/infer", {"inputs": inputs}).status == 400


def test_an_input_sent_twice_is_refused(columns_model, ask):
    body = columns()
    body["inputs"].append(body["inputs"][0])
    assert "twice" in ask(columns_model, "POST", "/v2/models/churn/infer", body).json["error"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"inputs": 5}',
        b'{"inputs": [5]}',
        b'{"inputs": [{"name": "x"}]}',
        b'{"inputs": [], "inputs": 1}',
        b'{"inputs": []} {}',
        b'{"id": 5, "inputs": []}',
        b'{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [NaN, 1, 2]}]}',
        b'{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32"}]}',
        b"\xff\xfe",
        b'{"id": "\xff", "inputs": []}',
        b"[" * 100_000,
        b'{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": ' + b"[" * 100_000,
        b'{"other": ' + b'{"a":' * 100_000,
    ],
)
def test_a_malformed_body_is_400_with_an_error(tensor_model, ask, body):
    reply = ask(tensor_model, "POST", "/v2/models/churn/infer", body)
    assert reply.status == 400
    assert list(reply.json) == ["error"]
    assert len(reply.json["error"]) < 300


@pytest.mark.parametrize(
    ("body", "where"), [(b'{"inputs": x}', "byte 11"), (b'{"inputs": [{"name": 1}]}', "$.inputs[0]")]
)
def test_the_error_says_where_the_body_goes_wrong(tensor_model, ask, body, where):
    assert where in ask(tensor_model, "POST", "/v2/models/churn/infer", body).json["error"]


@pytest.mark.parametrize("headers", [{"content_encoding": "br"}, {"content_type": "text/csv"}])
def test_bodies_in_forms_not_understood_are_415(tensor_model, ask, headers):
    assert ask(tensor_model, "POST", "/v2/models/churn/infer", b"{}", **headers).status == 415


@pytest.mark.parametrize("content_type", ["", "application/json; charset=utf-8", "application/octet-stream"])
def test_content_types_that_clients_send_with_json_are_accepted(tensor_model, ask, content_type):
    body = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}
    assert ask(tensor_model, "POST", "/v2/models/churn/infer", body, content_type=content_type).status == 200


def test_a_failed_inference_is_500_and_keeps_the_reason_for_the_log(make_folder, infer, caplog):
    # The rows of x are gathered by a number in it: 9 is out of bounds, which only the runtime can find out.
    nodes = [
        helper.make_node("Cast", ["x"], ["index"], to=7),
        helper.make_node("Gather", ["x", "index"], ["y"], axis=0),
    ]
    model = load_model(make_folder(nodes, [("x", "FP32", [-1])], [("y", "FP32", [-1])]))
    reply = infer(model, [9])
    assert reply.status == 500
    assert reply.json == {"error": "the model could not compute this request"}
    assert "Traceback" in caplog.text
    assert "Gather" in caplog.text


def test_answers_are_strict_json_even_for_infinities(tensor_model, infer):
    reply = infer(tensor_model, [[3e38, 1, 1]], outputs=[{"name": "y"}])
    assert (
        json.loads(reply.answer.body, parse_constant=lambda _: pytest.fail("not JSON"))["outputs"][0]["data"][0] is None
    )

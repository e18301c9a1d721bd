"""TensorFlow Serving's REST API: what it answers to what, and what it says to what it does not answer.

The model of the golden cases is TF Serving's own ``half_plus_two``, made anew: y = x / 2 + 2. The cases are those of
``http_rest_api_handler_test.cc`` and ``json_tensor_test.cc`` of tensorflow/serving.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from onnx import helper

from modelrel.serving import load_model
from modelrel.serving.models import Models, Snapshot, State
from modelrel.serving.options import defaults
from modelrel.serving.routing import Router
from tests.serving.conftest import Specs, write_folder
from tests.serving.tfserving import BASE, NAME, ROW, half_plus_two, half_router, labelled

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from modelrel.serving import Model
    from tests.serving.conftest import Reply


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Router:
    return half_router(tmp_path_factory.mktemp("half"))


GOLDEN = {
    "rows of the latest version": (
        ":predict",
        {"instances": [[1.0, 2.0], [3.0, 4.0]]},
        {"predictions": [[2.5, 3.0], [3.5, 4.0]]},
    ),
    "a version": ("/versions/123:predict", {"instances": [1.0, 2.0]}, {"predictions": [2.5, 3.0]}),
    "a label": ("/labels/Version_Label:predict", {"instances": [1.0, 2.0]}, {"predictions": [2.5, 3.0]}),
    "a signature": (
        "/versions/123:predict",
        {"signature_name": "serving_default", "instances": [3.0, 4.0]},
        {"predictions": [3.5, 4.0]},
    ),
    "columns": (
        "/versions/123:predict",
        {"signature_name": "serving_default", "inputs": [3.0, 4.0]},
        {"outputs": [3.5, 4.0]},
    ),
    "columns by name": ("/versions/123:predict", {"inputs": {"x": [3.0, 4.0]}}, {"outputs": [3.5, 4.0]}),
    "rows by name": ("/versions/123:predict", {"instances": [{"x": 3}, {"x": 4.5}]}, {"predictions": [3.5, 4.25]}),
    "paths of any case": ("/VERSIONS/123:Predict", {"instances": [1.0, 2.0]}, {"predictions": [2.5, 3.0]}),
    "regress": ("/versions/123:regress", {"examples": [{"x": 80.0}]}, {"results": [42.0]}),
    "regress by TF Serving's own example": (
        "/labels/Version_Label:regress",
        {"signature_name": "tensorflow/serving/regress", "examples": [{"x": 1.0}, {"x": 2}]},
        {"results": [2.5, 3.0]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", GOLDEN)
def test_the_golden_cases_are_answered_as_tf_serving_does(half: Router, ask: Callable[..., Reply], case: str) -> None:
    path, body, expected = GOLDEN[case]
    reply = ask(half, "POST", BASE + path, body)
    assert (reply.status, reply.json) == (200, expected)
    assert reply.answer.headers["content-type"] == "application/json"


UNSUPPORTED = [
    ("GET", "/v1/foo", "Malformed request"),
    ("POST", "/v1/foo", "Malformed request"),
    ("GET", "/v1/models", "Missing model name"),
    ("GET", "/v1/models/debug/model_name", "Malformed request"),
    ("POST", "/v1/models", "Malformed request"),
    ("GET", "/v1/models/foo:predict", "Malformed request"),
    ("GET", f"{BASE}:predict", "Malformed request"),
    ("GET", "/v1/models/foo/version/50:predict", "Malformed request"),
    ("POST", "/v1/models/foo/version/50:regress", "Malformed request"),
    ("POST", "/v1/models/foo/versions/HELLO:regress", "Malformed request"),
    ("POST", f"{BASE}/versions/HELLO:regress", "Malformed request"),
    ("POST", f"/v1/models/foo/versions/{2**64 - 1}:regress", "Failed to convert version"),
    ("POST", f"{BASE}/versions/{2**64 - 1}:regress", "Failed to convert version"),
    ("POST", "/v1/models/foo/metadata", "Malformed request"),
    ("POST", f"{BASE}/metadata", "Malformed request"),
    ("POST", "/v1/models/foo/label/some_label:regress", "Malformed request"),
    ("POST", "/v1/models/foo/versions/50/labels/some_label:regress", "Malformed request"),
    ("POST", f"{BASE}/versions/123/labels/Version_Label:regress", "Malformed request"),
    ("POST", f"{BASE}:explain", "Malformed request"),
    ("PUT", f"{BASE}:predict", "Malformed request"),
    ("DELETE", BASE, "Malformed request"),
    ("POST", f"{BASE}/labels/Version_Nonexistent:predict", "Unrecognized servable version label"),
]


@pytest.mark.parametrize(("method", "path", "sentence"), UNSUPPORTED)
def test_what_is_no_call_is_400_with_its_sentence(
    half: Router, ask: Callable[..., Reply], method: str, path: str, sentence: str
) -> None:
    reply = ask(half, method, path, {"instances": [1]} if method == "POST" else b"")
    assert reply.status == 400
    assert sentence in reply.json["error"]
    assert reply.answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("method", "path", "sentence"),
    [
        ("POST", "/v1/models/foo:predict", "Servable not found for request: Latest(foo)"),
        ("POST", "/v1/models/foo/versions/50:predict", "Servable not found for request: Specific(foo, 50)"),
        ("POST", f"{BASE}99:predict", f"Servable not found for request: Latest({NAME}99)"),
        ("POST", f"{BASE}/versions/99:predict", f"Servable not found for request: Specific({NAME}, 99)"),
        ("GET", f"{BASE}/versions/99", f"Could not find version 99 of model {NAME}"),
        ("GET", "/v1/models/foo", "Could not find any versions of model foo"),
        ("GET", "/v1/models/foo/metadata", "Servable not found for request: Latest(foo)"),
    ],
)
def test_a_model_or_version_that_is_not_there_is_404(
    half: Router, ask: Callable[..., Reply], method: str, path: str, sentence: str
) -> None:
    reply = ask(half, method, path, {"instances": [1]} if method == "POST" else b"")
    assert (reply.status, reply.json) == (404, {"error": sentence})


def test_names_with_reserved_characters_are_served(tmp_path: Path, ask: Callable[..., Reply]) -> None:
    name = "modelname!#$%&'()*+,/:;=?@[]"
    router = Router(labelled(Models.of(load_model(half_plus_two(tmp_path, name=name))), **{"latest!#$%&*?": "123"}))
    for path in (f"/v1/models/{name}", f"/V1/MODELS/{name}/labels/latest!#$%&*?"):
        assert ask(router, "POST", f"{path}:predict", {"instances": [2]}).json == {"predictions": [3.0]}
        assert ask(router, "GET", path).json["model_version_status"][0]["version"] == "123"
        assert ask(router, "GET", f"{path}/metadata").json["model_spec"]["name"] == name


AVAILABLE = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}


def test_the_status_is_that_of_all_versions_or_of_one(half: Router, ask: Callable[..., Reply]) -> None:
    first, second = ({"version": version} | AVAILABLE for version in ("123", "124"))
    assert ask(half, "GET", BASE).json == {"model_version_status": [first, second]}
    for path in ("/versions/123", "/labels/Version_Label", "/Versions/123"):
        assert ask(half, "GET", BASE + path).json == {"model_version_status": [first]}


def test_the_status_of_what_is_not_loaded_names_no_path_of_the_machine(ask: Callable[..., Reply], half: Router) -> None:
    models = Models()
    broken = State("broken", "1", "UNAVAILABLE", "/secret/place cannot be read")
    models.snapshot = Snapshot({}, (broken, State("gone", "2", "UNAVAILABLE", "unloaded")))
    router = Router(models)
    said = ask(router, "GET", "/v1/models/broken/versions/1").json["model_version_status"]
    assert [one["state"] for one in said] == ["END"]
    assert said[0]["status"] == {"error_code": "UNKNOWN", "error_message": "the model could not be loaded"}
    gone = {"version": "2", "state": "END", "status": AVAILABLE["status"]}
    assert ask(router, "GET", "/v1/models/gone").json == {"model_version_status": [gone]}
    assert ask(router, "POST", "/v1/models/gone:predict", {"instances": [1]}).status == 404


def test_the_metadata_has_protobuf_s_json_form(half: Router, ask: Callable[..., Reply]) -> None:
    def tensor(name: str) -> dict[str, Any]:
        shape = {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
        return {name: {"dtype": "DT_FLOAT", "tensor_shape": shape, "name": f"{name}:0"}}

    assert ask(half, "GET", f"{BASE}/labels/Version_Label/metadata").json == {
        "model_spec": {"name": NAME, "signature_name": "", "version": "123"},
        "metadata": {
            "signature_def": {
                "signature_def": {
                    "serving_default": {
                        "inputs": tensor("x"),
                        "outputs": tensor("y"),
                        "method_name": "tensorflow/serving/predict",
                        "defaults": {},
                    }
                }
            }
        },
    }


@pytest.mark.parametrize("content_type", ["", "text/csv", "application/x-www-form-urlencoded", "nonsense"])
def test_the_content_type_of_a_request_does_not_matter(
    half: Router, ask: Callable[..., Reply], content_type: str
) -> None:
    reply = ask(half, "POST", f"{BASE}/versions/123:predict", {"instances": [1]}, content_type=content_type)
    assert reply.json == {"predictions": [2.5]}


def test_options_is_for_web_pages(half: Router, ask: Callable[..., Reply]) -> None:
    assert ask(half, "OPTIONS", f"{BASE}:predict", origin="https://example.org").status == 200
    assert ask(half, "OPTIONS", "/v1/models/x", origin="http://example.org").status == 200
    assert ask(half, "OPTIONS", f"{BASE}:predict").status == 400
    assert ask(half, "OPTIONS", f"{BASE}:predict", origin="file://x").status == 400


@pytest.fixture
def kserve(columns_model: Model) -> Router:
    return Router(Models.of(columns_model), settings=defaults(v1="kserve"))


def test_kserve_s_own_form_is_on_a_switch(kserve: Router, ask: Callable[..., Reply]) -> None:
    assert ask(kserve, "GET", "/v1/models").json == {"models": ["churn"]}
    assert ask(kserve, "GET", "/v1/models/churn").json == {"name": "churn", "ready": True}
    assert ask(kserve, "GET", "/v1/models/other").status == 404
    predictions = ask(kserve, "POST", "/v1/models/churn:predict", {"instances": [ROW]}).json["predictions"]
    assert predictions[0]["score"] == [11201.75]
    reply = ask(kserve, "POST", "/v1/models/churn:explain", {"instances": [ROW]})
    assert (reply.status, list(reply.json)) == (501, ["error"])


def test_a_model_that_is_not_loaded_is_503_in_kserve_s_form(ask: Callable[..., Reply]) -> None:
    models = Models()
    models.snapshot = Snapshot({}, (State("broken", "1", "UNAVAILABLE", "why"),))
    reply = ask(Router(models, settings=defaults(v1="kserve")), "GET", "/v1/models/broken")
    assert (reply.status, reply.json) == (503, {"name": "broken", "ready": False})


def test_a_model_whose_process_is_being_started_is_503_in_kserve_s_form(
    tmp_path: Path, ask: Callable[..., Reply], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(half_plus_two(tmp_path))
    router = Router(Models.of(model), settings=defaults(v1="kserve"))
    assert ask(router, "GET", BASE).json == {"name": NAME, "ready": True}
    monkeypatch.setattr(model._loaded, "ready", False)
    assert (ask(router, "GET", BASE).status, ask(router, "GET", BASE).json) == (503, {"name": NAME, "ready": False})


def test_rows_of_a_table_may_be_lists_in_kserve_s_form(
    kserve: Router, columns_model: Model, tmp_path: Path, ask: Callable[..., Reply]
) -> None:
    listed, path = list(ROW.values()), "/v1/models/churn:predict"
    for rows in ([listed, listed], [listed, ROW], [[[value] for value in listed]]):
        predictions = ask(kserve, "POST", path, {"instances": rows}).json["predictions"]
        assert [row["score"] for row in predictions] == [[11201.75]] * len(rows)
    assert ask(kserve, "POST", path, {"instances": [listed[:4]]}).status == 400
    assert ask(columns_model, "POST", path, {"instances": [listed]}).status == 400
    node = helper.make_node("Sub", ["a", "b"], ["y"])
    specs: Specs = [("a", "FP64", [-1, 1]), ("b", "FP64", [-1, 1])]
    model = load_model(write_folder(tmp_path, [node], specs, [("y", "FP64", [-1, 1])], kind="columns"))
    router = Router(Models.of(model), settings=defaults(v1="kserve"))
    for rows in ([[5, 3], [4.5, 1]], [[5, 3], {"a": 4.5, "b": 1}], [{"b": 3, "a": 5}, {"a": 4.5, "b": 1}]):
        assert ask(router, "POST", path, {"instances": rows}).json == {"predictions": [[2.0], [3.5]]}
    for rows in ([[5]], [[5, 3], [4]], [[5, 3, 1]], [5], [["5", 3]], [[]]):
        assert ask(router, "POST", path, {"instances": rows}).status == 400

"""The model repository: what could be served, loading and unloading, asked without a transport."""

import json
import shutil

import pytest

from modelrel.serving.models import Models
from modelrel.serving.routing import Router
from tests.serving.conftest import columns_folder, tensor_folder

INFER = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}


@pytest.fixture
def folder(tmp_path):
    """A folder of three models, one of which is broken: fraud/1, fraud/2 (broken), churn/7."""
    tensor_folder(tmp_path / "models" / "a", name="fraud", version="1")
    broken = tensor_folder(tmp_path / "models" / "b", name="fraud", version="2")
    (broken / "model.onnx").write_bytes(b"no model")
    columns_folder(tmp_path / "models" / "c")
    return tmp_path / "models"


@pytest.fixture
def router(folder):
    models = Models([folder])
    models.load_all()
    yield Router(models)
    models.close()


def index(router, ask, body=b""):
    reply = ask(router, "POST", "/v2/repository/index", body)
    assert reply.status == 200
    return {(line["name"], line["version"]): (line["state"], line["reason"]) for line in reply.json}


@pytest.mark.parametrize("body", [b"", b" ", {}, {"ready": False}, {"other": 1}])
def test_the_index_names_every_version_and_its_state(router, ask, body):
    states = index(router, ask, body)
    assert {key: state for key, (state, _) in states.items()} == {
        ("fraud", "1"): "READY",
        ("fraud", "2"): "UNAVAILABLE",
        ("churn", "7"): "READY",
    }
    assert states["fraud", "1"][1] == ""


def test_only_what_is_ready_is_in_the_index_if_that_is_asked_for(router, ask):
    assert set(index(router, ask, {"ready": True})) == {("fraud", "1"), ("churn", "7")}


@pytest.mark.parametrize("body", [{"ready": "yes"}, [], b"x"])
def test_an_index_request_that_is_none_is_refused(router, ask, body):
    assert ask(router, "POST", "/v2/repository/index", body).status == 400


def test_what_cannot_be_loaded_says_why_without_a_path_of_the_machine(router, ask, folder):
    state, reason = index(router, ask)["fraud", "2"]
    assert state == "UNAVAILABLE"
    assert "model.onnx cannot be loaded" in reason
    reply = ask(router, "POST", "/v2/repository/models/fraud/load")
    assert reply.status == 400
    assert reason in reply.json["error"]
    answers = [reply.answer.body, json.dumps(index(router, ask)[("fraud", "2")]).encode()]
    answers += [ask(router, "GET", f"/v2/models/fraud/versions/2{end}").answer.body for end in ("", "/ready")]
    assert all(str(folder.parent).encode() not in body for body in answers)


def test_a_version_that_is_not_ready_is_503_and_the_other_versions_answer(router, ask):
    assert ask(router, "GET", "/v2/models/fraud/versions/2/ready")[:2][0] == 503
    assert ask(router, "GET", "/v2/models/fraud/versions/2/ready").json["ready"] is False
    assert ask(router, "GET", "/v2/models/fraud/versions/2").status == 503
    assert ask(router, "POST", "/v2/models/fraud/versions/2/infer", INFER).status == 503
    assert ask(router, "POST", "/v2/models/fraud/versions/1/infer", INFER).status == 200
    assert ask(router, "POST", "/v2/models/fraud/infer", INFER).json["model_version"] == "1"


def test_a_version_that_was_mended_is_loaded_and_is_then_the_newest(router, ask, folder):
    shutil.copy(folder / "a" / "model.onnx", folder / "b" / "model.onnx")
    assert ask(router, "POST", "/v2/repository/models/fraud/load").status == 200
    assert ask(router, "POST", "/v2/models/fraud/infer", INFER).json["model_version"] == "2"


def test_a_model_that_was_added_since_the_start_is_loaded_by_its_name(router, ask, folder):
    tensor_folder(folder / "d", name="new")
    assert ask(router, "GET", "/v2/models/new").status == 404
    assert ask(router, "POST", "/v2/repository/models/new/load", {}).status == 200
    assert ask(router, "POST", "/v2/models/new/infer", INFER).status == 200


def test_a_model_that_is_unloaded_is_in_the_index_and_answers_503_until_it_is_loaded(router, ask):
    assert ask(router, "POST", "/v2/repository/models/churn/unload").status == 200
    assert index(router, ask)["churn", "7"] == ("UNAVAILABLE", "unloaded")
    assert ask(router, "GET", "/v2/models/churn/ready").status == 503
    assert ask(router, "POST", "/v2/repository/models/churn/load").status == 200
    assert ask(router, "GET", "/v2/models/churn/ready").status == 200


@pytest.mark.parametrize("action", ["load", "unload"])
@pytest.mark.parametrize("name", ["other", "a", "../models/c", "..", "/etc", "a/../c", "\x00", "x" * 5000])
def test_a_name_that_no_manifest_has_is_404_whatever_it_names_on_disk(router, ask, folder, action, name):
    reply = ask(router, "POST", f"/v2/repository/models/{name}/{action}")
    assert reply.status == 404
    assert str(folder) not in reply.json["error"]
    assert len(reply.answer.body) < 500


@pytest.mark.parametrize("path", ["/v2/repository/models/churn", "/v2/repository/models//load", "/v2/repository"])
def test_other_paths_of_the_repository_are_404(router, ask, path):
    assert ask(router, "POST", path).status == 404


@pytest.mark.parametrize("path", ["/v2/repository/index", "/v2/repository/models/churn/unload"])
def test_a_get_changes_nothing(router, ask, path):
    reply = ask(router, "GET", path)
    assert (reply.status, reply.answer.headers["allow"]) == (405, "POST")
    assert index(router, ask)["churn", "7"] == ("READY", "")


@pytest.mark.parametrize("body", [{"parameters": {"config": "{}"}}, {"parameters": {"file:1/model.onnx": "AAAA"}}])
def test_a_client_cannot_bring_a_model_of_its_own(router, ask, body):
    reply = ask(router, "POST", "/v2/repository/models/churn/load", body)
    assert reply.status == 400
    assert "as they lie in their folders" in reply.json["error"]


def test_a_change_of_models_is_never_made_on_the_event_loop(router):
    for action in ("load", "unload"):
        assert router.route("POST", f"/v2/repository/models/churn/{action}").inline_bytes == -1

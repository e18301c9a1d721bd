"""The OpenAPI document says what there is: every path, in schemas that requests and answers fit."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import unquote

import httpx
import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from modelrel.serving import answer, load_model
from modelrel.serving.models import Endpoint, Models, Snapshot, State
from modelrel.serving.openapi import document, undescribed
from modelrel.serving.options import defaults
from modelrel.serving.routing import Router
from tests.serving.conftest import start, tensor_folder
from tests.serving.released import digits_folder, image_folder, table_folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("released")
    digits_folder(top / "digits", version="1")
    digits_folder(top / "digits-2", version="2")
    table_folder(top / "table")
    image_folder(top / "image")
    tensor_folder(top / "odd", name="{odd} näme/<b>", version="1.0-β")
    return top


@pytest.fixture(scope="module")
def models(folders: Path) -> Models:
    found = Models([folders])
    found.load_all()
    return found


@pytest.fixture(scope="module")
def made(models: Models) -> dict:
    router = Router(models)
    reply = answer(router, "GET", "/openapi.json", {}, b"")
    assert reply.status == 200
    return json.loads(reply.body)


def routes(models: Models) -> dict:
    router = Router(models)
    return router._listed(models.snapshot)


def test_the_document_has_exactly_the_paths_of_the_router(models: Models, made: dict) -> None:
    there = routes(models)
    # by name: a path without a description is one to describe in modelrel/serving/openapi/
    assert undescribed(there, models.snapshot) == []
    shown = {unquote(path): set(item) for path, item in made["paths"].items()}
    # loading and unloading are no routes of their own: which names there are, the folders say at that moment
    listed = {path: verbs for path, verbs in shown.items() if not path.startswith("/v2/repository/models/")}
    assert listed == {path: {route.verb.lower()} for path, route in there.items() if path.startswith("/")}


def test_labels_variants_and_models_that_are_gone_are_described_as_well(models: Models) -> None:
    before = models.snapshot
    digits = before.endpoints["digits"]
    both = tuple((model, 1.0) for model in digits.versions.values())
    end = Endpoint("digits", digits.versions, digits.default, {"best": "1"}, both)
    snapshot = Snapshot({**before.endpoints, "digits": end}, (*before.states, State("gone", "1", "UNAVAILABLE", "why")))
    changed = Models()
    changed.snapshot = snapshot
    there = Router(changed)._listed(snapshot)
    assert undescribed(there, snapshot) == []
    schema = document(there, snapshot)["paths"]["/v2/models/digits/infer"]["post"]["responses"]["200"]
    assert len(schema["content"]["application/json"]["schema"]["anyOf"]) == 2


def test_the_document_is_valid_openapi(made: dict) -> None:
    assert made["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(made).validate()


@pytest.mark.parametrize("given", [{"api_key": "secret"}, {"api_key_file": "keys"}])
def test_where_keys_are_needed_the_document_says_so_and_does_not_name_them(models: Models, given: dict) -> None:
    router = Router(models, settings=defaults(**given))
    body = answer(router, "GET", "/openapi.json", {}, b"").body
    found = json.loads(body)
    OpenAPIV31SpecValidator(found).validate()
    assert found["security"] == [{"bearer": []}, {"header": []}]
    assert all("401" in operation["responses"] for item in found["paths"].values() for operation in item.values())
    free = {path for path, item in found["paths"].items() if any("security" in one for one in item.values())}
    assert free == {"/ping", "/health", "/v2/health/live", "/v2/health/ready"}
    assert b"secret" not in body


def test_without_keys_nothing_is_said_of_them(made: dict) -> None:
    assert "security" not in made
    assert not any("401" in one["responses"] for item in made["paths"].values() for one in item.values())


def test_it_follows_what_is_loaded(folders: Path) -> None:
    models = Models([folders])
    models.load_all()
    router = Router(models)
    before = json.loads(answer(router, "GET", "/openapi.json", {}, b"").body)["paths"]
    models.unload("image")
    after = json.loads(answer(router, "GET", "/openapi.json", {}, b"").body)["paths"]
    asks = [paths.get("/v2/models/image/infer", {}).get("post", {}).get("summary") for paths in (before, after)]
    assert asks[0] == "Ask image"
    assert asks[1] != "Ask image"
    assert "/examples/image/versions/2/v2" not in after
    assert after["/v2/models/digits/infer"] == before["/v2/models/digits/infer"]


def resolved(made: dict, schema: dict) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({**schema, "components": made["components"]})


def examples(made: dict) -> list[tuple[str, dict, dict]]:
    found = []
    for path, item in made["paths"].items():
        for operation in item.values():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            found += [(path, operation, one["value"]) for one in content.get("examples", {}).values()]
    return found


def test_every_example_fits_its_schema_and_is_answered_in_the_schema_of_the_answer(models: Models, made: dict) -> None:
    router = Router(models)
    asked = examples(made)
    assert {"/v2/models/digits/infer", "/v2/models/churn/infer", "/invocations"} <= {path for path, *_ in asked}
    for path, operation, value in asked:
        resolved(made, operation["requestBody"]["content"]["application/json"]["schema"]).validate(value)
        reply = answer(router, "POST", unquote(path), {"content-type": "application/json"}, json.dumps(value).encode())
        assert reply.status == 200, (path, reply.body)
        resolved(made, operation["responses"]["200"]["content"]["application/json"]["schema"]).validate(
            json.loads(reply.body)
        )


def test_every_get_without_side_effects_is_answered_in_its_schema(models: Models, made: dict) -> None:
    router = Router(models)
    for path, item in made["paths"].items():
        content = item["get"]["responses"]["200"]["content"] if "get" in item else {}
        reply = answer(router, "GET", unquote(path), {"accept": "application/json"}, b"") if content else None
        if reply is None or not reply.body.strip():
            continue
        assert reply.status == 200, (path, reply.body)
        mime = reply.headers["content-type"].partition(";")[0]
        assert mime in content, path
        if mime == "application/json" and "schema" in content[mime]:
            resolved(made, content[mime]["schema"]).validate(json.loads(reply.body))


def test_every_path_refuses_another_verb_in_json(models: Models, made: dict) -> None:
    router = Router(models)
    for path in made["paths"]:
        for verb in ("PATCH", "TRACE"):
            reply = answer(router, verb, unquote(path), {}, b"{}")
            assert reply.status == (400 if path.startswith("/v1/") else 405), path  # as TensorFlow Serving
            assert "error" in json.loads(reply.body)


WRONG = [
    {},
    {"inputs": []},
    {"inputs": [{"name": "other", "shape": [1, 64], "datatype": "FP32", "data": [0] * 64}]},
    {"inputs": [{"name": "input", "shape": [1, 63], "datatype": "FP32", "data": [0] * 63}]},
    {"inputs": [{"name": "input", "shape": [64], "datatype": "FP32", "data": [0] * 64}]},
    {"inputs": [{"name": "input", "shape": [1, 64], "datatype": "BYTES", "data": ["a"] * 64}]},
    {"inputs": [{"name": "input", "shape": [1, 64], "datatype": "FP32", "data": ["a"] * 64}]},
    {"inputs": [{"name": "input", "shape": [1, 64], "datatype": "FP32"}]},
    {"inputs": [{"name": "input", "shape": [1, 64], "datatype": "FP32", "data": [0] * 64}], "outputs": [{"name": "x"}]},
    {"inputs": [{"name": "input", "shape": [1, 64], "datatype": "FP32", "data": [0] * 64}], "id": 7},
]


@pytest.mark.parametrize("body", WRONG, ids=range(len(WRONG)))
def test_what_the_schema_of_a_request_rules_out_is_refused_by_the_server(
    models: Models, made: dict, body: dict
) -> None:
    operation = made["paths"]["/v2/models/digits/infer"]["post"]
    schema = resolved(made, operation["requestBody"]["content"]["application/json"]["schema"])
    assert not schema.is_valid(body)
    reply = answer(
        Router(models),
        "POST",
        "/v2/models/digits/infer",
        {"content-type": "application/json"},
        json.dumps(body).encode(),
    )
    assert reply.status == 400


GOOD = [
    {"name": "input", "shape": [2, 64], "datatype": "FP32", "data": [[0.5] * 64] * 2},
    {"name": "input", "shape": [2, 64], "datatype": "INT8", "data": [1] * 128},
    {"name": "input", "shape": [1, 64], "datatype": "FP64", "data": [None] * 64},
]


@pytest.mark.parametrize("tensor", GOOD, ids=range(len(GOOD)))
def test_what_the_server_takes_fits_the_schema(models: Models, made: dict, tensor: dict) -> None:
    body = {"inputs": [tensor], "outputs": [{"name": "label"}], "id": "a", "parameters": {"x": 1}}
    reply = answer(
        Router(models),
        "POST",
        "/v2/models/digits/infer",
        {"content-type": "application/json"},
        json.dumps(body).encode(),
    )
    assert reply.status == 200, reply.body
    operation = made["paths"]["/v2/models/digits/infer"]["post"]
    resolved(made, operation["requestBody"]["content"]["application/json"]["schema"]).validate(body)
    resolved(made, operation["responses"]["200"]["content"]["application/json"]["schema"]).validate(
        json.loads(reply.body)
    )


def test_golden_rows_are_handed_out_as_requests_that_give_the_golden_answers(models: Models) -> None:
    router = Router(models)
    asked = [path for path in routes(models) if path.startswith("/examples/")]
    assert {path.rpartition("/")[2] for path in asked} >= {"v2", "mlflow"}
    for path in asked:
        _, _, name, _, version, protocol = path.split("/")
        model = models.snapshot.endpoints[name].versions[version]
        sent = answer(router, "GET", path, {}, b"")
        assert sent.status == 200
        places = {
            "v2": f"/v2/models/{name}/versions/{version}/infer",
            "mlflow": "/invocations",
            "tfserving": f"/v1/models/{name}/versions/{version}:predict",
        }
        reply = answer(router, "POST", places[protocol], {"content-type": "application/json"}, sent.body)
        assert reply.status == 200, (path, reply.body)
        if protocol == "v2":
            golden = model.golden()
            assert golden is not None
            for output in json.loads(reply.body)["outputs"]:
                first = golden.outputs[output["name"]][0]  # type: ignore[index]
                assert output["data"] == (first if isinstance(first, list) else [first])


def test_a_model_without_golden_rows_is_served_without_examples(tmp_path: Path) -> None:
    router = Router(Models.of(load_model(tensor_folder(tmp_path / "plain"))))
    found = json.loads(answer(router, "GET", "/openapi.json", {}, b"").body)
    assert not any("examples" in path for path in found["paths"])
    assert examples(found) == []


def test_the_document_is_there_over_the_wire(tensor_dir: Path) -> None:
    running = start(tensor_dir)
    try:
        reply = httpx.get(running.url + "/openapi.json")
        assert reply.headers["content-type"] == "application/json"
        assert reply.json()["info"]["title"] == "modelrel"
    finally:
        running.process.kill()
        running.process.communicate()

"""The zip, called as AWS calls it: the handler's own behaviour, the template, the limits."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import pytest

from modelrel import wheels
from modelrel.delivered import Package
from modelrel.errors import Invalid
from modelrel.steps.package import checked
from modelrel.targets import aws_lambda, events, function, runtime_api
from modelrel.targets.delivery import Running
from modelrel.targets.questions import Golden
from modelrel.values import PackageOptions
from tests.targets import tiny

JSON = {"content-type": "application/json"}
CALL = """
import json, sys
sys.path.insert(0, sys.argv[1])
from handler import handler
results = []
for event in json.load(sys.stdin):
    try:
        results.append({"result": handler(event, None)})
    except Exception as error:
        results.append({"error": type(error).__name__, "message": str(error)})
print(json.dumps(results, allow_nan=False))
"""


@cache
def package() -> Package:
    return tiny.delivered("lambda", python=tiny.lambda_python())


@cache
def unpacked() -> Path:
    folder = tiny.place() / "function"
    with zipfile.ZipFile(package().folder / package().artifact) as packed:
        packed.extractall(folder)
    return folder


def called(*sent: object, script: str = CALL, **variables: str) -> list[Any]:
    """Call the handler itself in the function's Python; return results and errors."""
    python = function.interpreters.find(package().python)
    done = subprocess.run(
        [str(python), "-S", "-s", "-c", script, str(unpacked())],
        input=json.dumps(sent), capture_output=True, text=True, check=False, env={"PATH": os.defpath, **variables},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results: list[Any] = json.loads(done.stdout)
    return results


@contextlib.contextmanager
def running() -> Iterator[Running]:
    with function.launch(package(), lambda _: None) as started:
        yield started


def golden() -> Golden:
    return Golden.of(package().parity)


def ping(**changed: object) -> dict[str, Any]:
    return events.http_api("GET", "/ping", {}, b"") | changed


def test_it_unpacks_to_below_100_mb() -> None:
    with zipfile.ZipFile(package().folder / package().artifact) as packed:
        assert sum(entry.file_size for entry in packed.infolist()) < 100_000_000


def test_its_libraries_are_for_the_architecture_in_its_name() -> None:
    assert package().artifact.endswith(f"-{aws_lambda.ARCHITECTURES[package().platform]}.zip")
    wheels.check_machine(unpacked(), package().platform)


@pytest.mark.parametrize("python", aws_lambda.PYTHONS)
@pytest.mark.parametrize("platform", sorted(aws_lambda.ARCHITECTURES))
def test_there_are_wheels_for_every_runtime(python: str, platform: str) -> None:
    choices = (("onnxruntime", "numpy", "msgspec"),)
    found = wheels.fetch(choices, python, platform)
    assert any(f"-{python.replace('.', '')}-" in path.name for path in found.folder.rglob("*.so"))


def test_a_python_that_lambda_has_not_is_an_error_of_the_command() -> None:
    with pytest.raises(Invalid, match=r"no Python 3\.11") as caught:
        aws_lambda.options(PackageOptions(python="3.11"))
    assert caught.value.hint == "Choose --python 3.12|3.13|3.14."


def test_a_base_image_makes_no_sense_for_a_zip() -> None:
    with pytest.raises(Invalid, match="--base-image"):
        checked("lambda", PackageOptions(base_image="python:3.13-slim"))


pytestmark = pytest.mark.lambda_runtime


def test_a_stage_before_the_path_is_cut_off() -> None:
    staged = ping(rawPath="/prod/ping")
    staged["requestContext"]["stage"] = "prod"
    assert called(staged)[0]["result"]["statusCode"] == 200


def test_a_path_arrives_percent_decoded() -> None:
    path = "/v2/models/ch%75rn"
    sent = [events.http_api("GET", path, {}, b""), events.load_balancer("GET", path, {}, b"")]
    assert [one["result"]["statusCode"] for one in called(*sent)] == [200, 200]


def test_headers_that_are_null_are_none() -> None:
    event = events.rest_api("GET", "/ping", {}, b"") | {"headers": None, "multiValueHeaders": None, "body": None}
    assert called(event)[0]["result"]["statusCode"] == 200


def test_a_load_balancer_gets_its_answer_in_its_own_form() -> None:
    single, multi = called(
        events.load_balancer("GET", "/ping", {}, b""), events.load_balancer_multi("GET", "/ping", {}, b"")
    )
    assert single["result"]["headers"]["content-type"] == "application/json"
    assert single["result"]["statusDescription"] == "200 OK"
    assert multi["result"]["multiValueHeaders"]["content-type"] == ["application/json"]
    assert "headers" not in multi["result"]


def test_a_body_that_is_not_base64_is_400() -> None:
    event = events.http_api_base64("POST", golden().path, JSON, b"{}") | {"body": "{not base64}"}
    result = called(event)[0]["result"]
    assert (result["statusCode"], json.loads(result["body"])) == (400, {"error": "the body is not base64"})


def test_an_answer_to_head_has_no_body() -> None:
    result = called(events.http_api("HEAD", "/ping", {}, b""))[0]["result"]
    assert (result["statusCode"], result["body"]) == (200, "")


def test_an_answer_beyond_what_lambda_passes_on_is_413() -> None:
    many = golden().take([1] * 160_000)
    result = called(events.http_api(*many.infer()))[0]["result"]
    assert result["statusCode"] == 413
    assert "larger than AWS Lambda passes on" in json.loads(result["body"])["error"]


def test_a_direct_answer_beyond_what_lambda_passes_on_is_an_error_of_the_function() -> None:
    (found,) = called(json.loads(golden().take([1] * 160_000).infer().body))
    assert found["error"] == "AnswerTooLarge"
    assert "larger than AWS Lambda passes on" in found["message"]


def test_an_answer_is_measured_as_it_will_be_sent() -> None:
    # 3 MB of text in which each character becomes six where all that is not ASCII is escaped
    script = CALL.replace("from handler import handler", "import handler as module\nfrom handler import handler")
    script = script.replace(
        "handler(event, None)", "module.http_response({'requestContext': {}}, 200, {}, event.encode())"
    )
    few, many = ("ü" * 1_000_000, "ü" * 1_100_000)
    found = called(few, many, script=script)
    assert [one["result"]["statusCode"] for one in found] == [200, 413]


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/v2/models/churn/infer", None),
        ("/invocations", "dataframe_split"),
        ("/v1/models/churn:predict", "instances"),
    ],
)
def test_nan_and_infinity_are_null_whatever_the_protocol(path: str, form: str | None, tmp_path: Path) -> None:
    rows = [["pro", -1.0, 0.0], ["free", 0.0, 1.0]]
    if form is None:
        event: dict[str, Any] = {
            "inputs": [
                {"name": spec.name, "datatype": spec.datatype, "shape": [2, 1], "data": [row[at] for row in rows]}
                for at, spec in enumerate(tiny.INPUTS)
            ]
        }
    elif form == "instances":
        event = {"instances": [dict(zip(("plan", "calls", "bill"), row, strict=True)) for row in rows]}
    else:
        event = {form: {"columns": ["plan", "calls", "bill"], "data": rows}}
    http = events.http_api("POST", path, JSON, json.dumps(event).encode())
    sent = [http] if form == "instances" else [http, event]
    for one in called(*sent, MODELREL_MODEL_DIR=str(undefined(tmp_path))):
        result = one["result"]
        text = result["body"] if "statusCode" in result else json.dumps(result)
        assert "error" not in text
        assert None in numbers(json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON")))


def numbers(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return [value] if inner is None else [leaf for one in inner for leaf in numbers(one)]


def undefined(folder: Path) -> Path:
    """Return a model folder whose probabilities are log(calls) and 1 / bill: NaN, -inf, inf."""
    model = onnx.parser.parse_model("""
        <ir_version: 9, opset_import: ["" : 18]>
        g (string[N, 1] plan, float[N, 1] calls, double[N, 1] bill) => (string[N] label, float[N, 2] probabilities)
        <int64[1] flat = {-1}>
        { label = Reshape(plan, flat) a = Log(calls) b = Cast<to = 1>(bill) c = Reciprocal(b)
          probabilities = Concat<axis = 1>(a, c) }""")
    onnx.save(model, str(folder / "model.onnx"))
    known = json.loads((unpacked() / "model" / "modelrel.json").read_text())
    said = {**known, "predict": "probabilities", "classes": []}
    (folder / "modelrel.json").write_text(json.dumps(said))
    shutil.copy(unpacked() / "model" / "golden.json", folder)
    return folder


def test_an_event_beyond_what_lambda_takes_is_413_and_never_reaches_the_function() -> None:
    large = json.dumps({"inputs": "a" * 6_300_000}).encode()
    with running() as started:
        assert started.send("POST", golden().path, JSON, large).status == 413
        assert started.shapes["direct invocation"]("POST", golden().path, JSON, large).status == 413
        assert started.send("GET", "/ping", {}, b"").status == 200


def test_a_result_that_lambda_would_not_pass_on_is_an_error_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_api, "LIMIT", 20)
    with running() as started:
        answer = started.send("GET", "/v2/health/ready", {}, b"")
    assert (answer.status, b"ResponseSizeTooLarge" in answer.body) == (502, True)


def test_after_a_restore_from_a_snapshot_it_draws_other_numbers() -> None:
    script = """
import json, random, sys, types
hooks = {"before": [], "after": []}
sys.modules["snapshot_restore_py"] = types.SimpleNamespace(
    register_before_snapshot=hooks["before"].append, register_after_restore=hooks["after"].append)
sys.path.insert(0, sys.argv[1])
import handler
for hook in hooks["before"]:
    hook()
kept, drawn = random.getstate(), []
for environment in range(2):
    random.setstate(kept)
    for hook in hooks["after"]:
        hook()
    drawn.append(random.random())
print(json.dumps([len(hooks["before"]), len(hooks["after"]), *drawn]))
"""
    before, after, first, second = called(script=script)
    assert (before, after) == (1, 1)
    assert first != second


def test_the_runtime_client_answers_after_a_restore_from_a_snapshot() -> None:
    with running() as started:
        assert [check.name for check in started.examined()] == ["after a restore from a snapshot"]


def test_a_direct_invocation_takes_mlflows_forms() -> None:
    event = json.loads(golden().invocation().body)
    assert called(event)[0]["result"] == {"predictions": golden().outputs["label"].tolist()}


def test_a_direct_invocation_that_is_wrong_is_an_error_of_the_function() -> None:
    found = called({"inputs": []}, {}, [], None, "text", 1)
    assert {one.get("error") for one in found} == {"BadRequest"}
    assert all(one["message"] for one in found)


def test_missing_values_come_and_go_as_null() -> None:
    assert b"null" in golden().infer().body
    assert called(json.loads(golden().infer().body))[0]["result"]["model_name"] == "churn"


def test_the_handler_imports_no_server() -> None:
    check = "import handler, sys; print(sorted({'uvicorn', 'asyncio', 'http.server'} & set(sys.modules)))"
    python = function.interpreters.find(package().python)
    done = subprocess.run(
        [str(python), "-S", "-s", "-c", f"import sys; sys.path.insert(0, {str(unpacked())!r}); {check}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


def test_many_threads_may_call_the_handler() -> None:
    script = CALL.replace("handler(event, None)", "list(pool.map(lambda _: handler(event, None), range(200)))[-1]")
    script = script.replace(
        "results = []", "from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(8)\nresults = []"
    )
    python = function.interpreters.find(package().python)
    done = subprocess.run(
        [str(python), "-S", "-s", "-c", script, str(unpacked())],
        input=json.dumps([events.http_api(*golden().infer())]), capture_output=True, text=True, check=True,
    )  # fmt: skip
    result = json.loads(done.stdout)[0]["result"]
    golden().judge_infer(events.response(json.dumps(result).encode()))


def test_the_runtime_client_serves_one_event_after_another() -> None:
    with running() as started:
        assert [started.send("GET", "/ping", {}, b"").status for _ in range(3)] == [200, 200, 200]


def test_events_may_wait_for_each_other() -> None:
    with running() as started, ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: started.send(*golden().infer()), range(12)))
    assert [golden().judge_infer(answer) for answer in answers] == [0.0] * 12


def test_credentials_of_this_machine_do_not_reach_the_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-for-models")
    with running() as started:
        started.send("GET", "/ping", {}, b"")
        environments = b"".join(
            path.read_bytes() for path in Path("/proc").glob("[0-9]*/environ")
            if path.parent.name != str(os.getpid()) and b"awslambdaric" in path.with_name("cmdline").read_bytes()
        )  # fmt: skip
    assert b"AWS_LAMBDA_RUNTIME_API" in environments
    assert b"not-for-models" not in environments


def test_a_python_that_is_not_here_says_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    monkeypatch.setattr(function.interpreters, "install", lambda *_: None)
    monkeypatch.setattr(
        function.interpreters, "find", lambda python: None if python == "3.14" else Path(sys.executable)
    )
    with (
        pytest.raises(function.Unavailable, match=r"no Python 3\.14") as caught,
        function.launch(replace(package(), python="3.14"), lambda _: None),
    ):
        pass
    assert "no container engine answers" in caught.value.message
    assert "--python 3.13" in caught.value.hint
    assert "python:3.14-slim" in caught.value.hint
    assert "uv python install 3.14" in caught.value.hint


def test_base64_is_what_function_urls_send() -> None:
    event = events.function_url(*golden().infer())
    assert event["isBase64Encoded"]
    assert base64.b64decode(event["body"]) == golden().infer().body

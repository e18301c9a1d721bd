"""The server as SageMaker, Vertex AI and Cloud Run start it: as a process, with the variables that they set."""

import csv
import shutil
import signal
import subprocess
import sys

import httpx
import pytest

from modelrel.serving import options
from modelrel.serving.models import Models
from modelrel.serving.platforms import execution_parameters, provider
from modelrel.serving.routing import Router, answer
from tests.serving.conftest import columns_folder, tensor_folder

ROW = {"d": 1.5, "l": 2, "s": "x", "b": True, "f": 0.25}


@pytest.fixture
def start(bare_environment):
    """Start an image's command with some variables, and return a client for where it listens, and the process."""
    started = []

    def start_one(*words, **variables):
        command = [sys.executable, "-m", "modelrel.serving", *map(str, words)]
        environment = bare_environment | {name: str(value) for name, value in variables.items()}
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        line = process.stderr.readline()
        started.append((process, httpx.Client(base_url=line.split()[-1], timeout=30)))
        assert " on http://" in line, line + process.stderr.read()
        return started[-1][1], process

    yield start_one
    for process, client in started:
        client.close()
        process.kill()
        process.communicate()


@pytest.fixture
def sagemaker(tmp_path, columns_dir, start):
    """An endpoint to which SageMaker gave a model; the image has another one."""
    shutil.copytree(columns_dir, tmp_path / "ml" / "model")
    image = tensor_folder(tmp_path / "image", name="of-the-image")
    variables = {"SAGEMAKER_BASE_DIR": tmp_path / "ml", "MODELREL_MODEL_DIR": image, "SAGEMAKER_BIND_TO_PORT": 0}
    return start("serve", **variables, SAGEMAKER_SAFE_PORT_RANGE="20000-20999", SAGEMAKER_BATCH="true")


def test_sagemaker_finds_the_model_it_gave_on_the_port_it_chose_and_may_stop_it(sagemaker):
    client, process = sagemaker
    assert client.base_url.port != 8080
    ping = client.get("/ping")
    assert (ping.status_code, ping.content.strip()) == (200, b"")
    headers = {"X-Amzn-SageMaker-Custom-Attributes": "trace=1", "X-Amzn-SageMaker-Target-Model": "a.tar.gz"}
    reply = client.post("/invocations", json={"instances": [ROW]}, headers=headers)
    assert reply.json() == {"predictions": [[11201.75]]}
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0


def test_sagemaker_s_batch_transform_gets_a_line_for_each_line(sagemaker):
    client, _ = sagemaker
    said = client.get("/execution-parameters").json()
    assert (said["BatchStrategy"], said["MaxPayloadInMB"]) == ("MULTI_RECORD", 6)
    headers = {"content-type": "text/csv; header=absent", "accept": "text/csv"}
    reply = client.post("/invocations", content=b"1.5,2,x,True,0.25\n2,3,y,false,\n", headers=headers)
    assert reply.headers["content-type"].startswith("text/csv")
    assert list(csv.reader(reply.text.splitlines())) == [["11201.75"], ["302.5"]]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"MaxPayloadInMB": 6}),
        ({"max_body": 3 * options.MIB}, {"MaxPayloadInMB": 3}),
        ({"max_body": 1}, {"MaxPayloadInMB": 1}),
        ({"max_in_flight": 1}, {"MaxConcurrentTransforms": 1}),
    ],
)
def test_a_batch_is_never_more_than_sagemaker_or_the_server_takes(changes, expected):
    said = execution_parameters(options.defaults(**changes))
    assert expected.items() <= said.items()
    assert 1 <= said["MaxConcurrentTransforms"] * said["MaxPayloadInMB"] <= 100


def test_a_mounted_folder_without_a_model_of_ours_is_not_served(tmp_path):
    (tmp_path / "model").mkdir()
    environment = {"SAGEMAKER_BASE_DIR": str(tmp_path), "MODELREL_MODEL_DIR": "image"}
    assert options.read([], environment).folders == ("image",)


def test_a_folder_on_the_command_line_comes_before_the_mounted_one(tmp_path):
    columns_folder(tmp_path / "model")
    environment = {"SAGEMAKER_BASE_DIR": str(tmp_path), "MODELREL_MODEL_DIR": "image"}
    assert options.read(["mine"], environment).folders == ("mine",)
    assert options.read([], environment).folders == (str(tmp_path / "model"),)


@pytest.mark.parametrize(("port", "fits"), [("20000", True), ("20999", True), ("21000", False), ("8081", False)])
def test_another_port_must_be_in_the_range_that_sagemaker_leaves_free(port, fits, capsys):
    environment = {"SAGEMAKER_SAFE_PORT_RANGE": "20000-20999"}
    if fits:
        assert options.read(["dir", "--grpc-port", port], environment).grpc_port == int(port)
        return
    with pytest.raises(SystemExit) as stopped:
        options.read(["dir", "--grpc-port", port], environment)
    assert stopped.value.code == 2
    assert "SAGEMAKER_SAFE_PORT_RANGE" in capsys.readouterr().err


VERTEX = {
    "AIP_HTTP_PORT": 0,
    "AIP_HEALTH_ROUTE": "/v1/endpoints/12/deployedModels/34",
    "AIP_PREDICT_ROUTE": "/v1/endpoints/12/deployedModels/34:predict",
    "AIP_MODE": "PREDICTION",
    "AIP_FRAMEWORK": "CUSTOM_CONTAINER",
    "AIP_STORAGE_URI": "",
    "AIP_PROJECT_NUMBER": "1",
}


@pytest.mark.parametrize("instance", [ROW, list(ROW.values()), [1.5, 2.0, "x", True, 0.25]])
def test_vertex_ai_asks_where_it_said_it_would(columns_dir, start, instance):
    client, _ = start(MODELREL_MODEL_DIR=columns_dir, **VERTEX)
    assert client.base_url.port != 8080
    assert client.get(VERTEX["AIP_HEALTH_ROUTE"]).status_code == 200
    body = {"instances": [instance, instance]}
    reply = client.post(VERTEX["AIP_PREDICT_ROUTE"], json=body)
    assert reply.json() == {"predictions": [[11201.75], [11201.75]]}
    assert client.post("/invocations", json={"inputs": ROW}).status_code == 200


@pytest.fixture
def vertex(columns_model, tensor_model):
    """Ask Vertex AI's route of a model, without a process."""
    settings = options.defaults(predict_route="/predict", health_route="/health")

    def ask(body, kind="columns"):
        models = Models.of(columns_model if kind == "columns" else tensor_model)
        return answer(Router(models, provider(settings)), "POST", "/predict", {}, body)

    return ask


@pytest.mark.parametrize(
    ("body", "predictions"),
    [
        (b'{"instances": [[1, 2, 3], [4, 5, 6]]}', b"[[2.0,4.0,6.0],[8.0,10.0,12.0]]"),
        (b'{"instances": [{"x": [1, 2, 3]}], "parameters": null}', b"[[2.0,4.0,6.0]]"),
        (b'{"instances": [[1, 2, null]], "parameters": {}}', b"[[2.0,4.0,null]]"),
    ],
)
def test_vertex_ai_gets_a_prediction_for_each_instance_of_a_tensor_in_json_without_nan(vertex, body, predictions):
    reply = vertex(body, "tensor")
    assert (reply.status, reply.body) == (200, b'{"predictions":%s}' % predictions)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{}", b"[]", b'{"instances": []}', b'{"instances": {}}', b'{"instances": null}', b'{"instances": [1]}'),
        *(
            b'{"instances": [[1, 2]]}',
            b'{"instances": [[1.5, 2, "x", true, 0.25], {"d": 1}]}',
            b'{"instances": ["\xff"]}',
        ),
        b'{"instances": [[1.5, 2, "x", true, 0.25]], "parameters": {"a": 1}}',
        b'{"instances": [[1.5, 2, "x", true, 0.25], [1]]}',
        b'{"instances": ' + b"[" * 100_000,
    ],
)
def test_vertex_ai_is_told_what_is_wrong(vertex, body):
    reply = vertex(body)
    assert reply.status == 400
    assert reply.body.startswith(b'{"error":')
    assert reply.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("path", "body"), [("/invocations", {"inputs": [[1, 2, 3]]}), ("/v2/models/churn/infer", None)]
)
def test_a_path_that_the_server_has_keeps_its_meaning_for_raw_predictions(tensor_dir, start, path, body):
    client, _ = start(tensor_dir, AIP_HTTP_PORT=0, AIP_HEALTH_ROUTE="/v2/health/ready", AIP_PREDICT_ROUTE=path)
    tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
    reply = client.post(path, json=body or {"inputs": [tensor]})
    assert reply.status_code == 200
    assert ("predictions" in reply.json()) == (path == "/invocations")
    assert client.get("/v2/health/ready").json()["live"] is True


def test_health_is_503_for_vertex_ai_and_404_for_mlflow_once_no_model_is_left(tensor_dir):
    models = Models([tensor_dir])
    models.load_all()
    router = Router(models, provider(options.defaults(health_route="/ready-for-vertex", predict_route="/predict")))
    assert answer(router, "GET", "/ready-for-vertex", {}, b"").status == 200
    assert answer(router, "GET", "/ping", {}, b"").status == 200
    models.unload("churn")
    assert answer(router, "GET", "/ready-for-vertex", {}, b"").status == 503
    assert answer(router, "GET", "/ping", {}, b"").status == 404
    assert answer(router, "POST", "/predict", {}, b"{}").status == 404


def test_a_route_that_is_no_path_is_refused_at_the_start(capsys):
    with pytest.raises(SystemExit):
        options.read(["dir"], {"AIP_PREDICT_ROUTE": "predict"})
    assert "AIP_PREDICT_ROUTE" in capsys.readouterr().err


def test_cloud_run_and_knative_get_an_answer_on_their_port_from_every_address(tensor_dir, start):
    # The image sets the address; the platform the rest.
    variables = {"PORT": 0, "K_SERVICE": "churn", "K_REVISION": "churn-1", "K_CONFIGURATION": "churn"}
    client, _ = start(MODELREL_MODEL_DIR=tensor_dir, MODELREL_HOST="0.0.0.0", **variables)
    port = client.base_url.port
    assert port != 8080
    reply = httpx.post(f"http://127.0.0.1:{port}/invocations", json={"inputs": [[1, 2, 3]]})
    assert reply.json() == {"predictions": [[2.0, 4.0, 6.0]]}
    probe = subprocess.run(
        [sys.executable, "-m", "modelrel.serving", "healthcheck", "--port", str(port)], check=False, timeout=30
    )
    assert probe.returncode == 0

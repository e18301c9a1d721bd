"""Who may call over gRPC, and what is recorded of it: the rules are HTTP's."""

import json

import grpc
import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, service_pb2
from tritonclient.utils import InferenceServerException

from tests.serving.test_access import certificate  # noqa: F401 (a fixture)
from tests.serving.test_grpc import ROWS, address, sent


@pytest.fixture
def call(tensor_dir, start_server):
    """Start a server with options; return it, and what calls ModelInfer with metadata."""
    channels = []

    def started(*options):
        running = start_server(tensor_dir, "--grpc-port", "0", *options)
        channels.append(grpc.insecure_channel(address(running)))
        method = channels[-1].unary_unary("/inference.GRPCInferenceService/ModelInfer")
        request = service_pb2.ModelInferRequest(model_name="churn", raw_input_contents=[ROWS.tobytes()])
        request.inputs.add(name="x", datatype="FP32", shape=[2, 3])

        def infer(*metadata):
            body, made = method.with_call(request.SerializeToString(), metadata=metadata)
            response = service_pb2.ModelInferResponse.FromString(body)
            np.testing.assert_array_equal(np.frombuffer(response.raw_output_contents[1], "f4"), ROWS.ravel())
            return dict(made.trailing_metadata())

        return running, infer

    yield started
    for channel in channels:
        channel.close()


def test_a_call_needs_the_key_that_a_request_needs_but_health_does_not(call, tmp_path):
    (tmp_path / "keys").write_text("secret\n")
    running, infer = call("--api-key-file", str(tmp_path / "keys"))
    for metadata in ([], [("authorization", "Bearer wrong")], [("x-api-key", "")]):
        with pytest.raises(grpc.RpcError) as raised:
            infer(*metadata)
        assert raised.value.code() == grpc.StatusCode.UNAUTHENTICATED
    infer(("authorization", "Bearer secret"))
    infer(("x-api-key", "secret"))
    with InferenceServerClient(address(running)) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        for refused in (client.get_server_metadata, client.get_model_repository_index):
            with pytest.raises(InferenceServerException, match="UNAUTHENTICATED"):
                refused()
        with pytest.raises(InferenceServerException, match="UNAUTHENTICATED"):
            client.unload_model("churn")
        assert client.get_model_repository_index(headers={"x-api-key": "secret"}).models


def test_metadata_that_would_mean_something_to_http_means_nothing(call):
    _, infer = call()
    for name, value in (
        ("accept-encoding", "gzip"),
        ("content-encoding", "gzip"),
        ("content-length", "x"),
        ("origin", "http://evil.example"),
        ("sec-fetch-site", "cross-site"),
        ("inference-header-content-length", "5"),
    ):
        infer((name, value))


def test_a_call_is_logged_and_named_as_a_request_is(call):
    running, infer = call()
    told = infer(("x-request-id", "abc"))
    assert told["x-request-id"] == "abc"
    assert told["modelrel-model"] == "churn/7"
    running.process.terminate()
    lines = [json.loads(line) for line in running.process.stderr]
    assert [(line["id"], line["path"], line["status"], line["model"]) for line in lines if line.get("path")] == [
        ("abc", "grpc:/v2/models/churn/infer", 200, "churn")
    ]


def test_a_certificate_is_grpc_s_too(tensor_dir, start_server, certificate):  # noqa: F811
    options = ("--tls-cert", str(certificate / "own.pem"), "--tls-key", str(certificate / "own.key"))
    running = start_server(tensor_dir, "--grpc-port", "0", *options)
    with InferenceServerClient(address(running), ssl=True, root_certificates=str(certificate / "own.pem")) as client:
        np.testing.assert_array_equal(client.infer("churn", [sent("x", ROWS)]).as_numpy("z"), ROWS)
    with (
        InferenceServerClient(address(running)) as client,
        pytest.raises(InferenceServerException, match="UNAVAILABLE"),
    ):
        client.is_server_live()


def test_several_processes_share_the_port(tensor_dir, start_server):
    running = start_server(tensor_dir, "--grpc-port", "0", "--workers", "2")
    for _ in range(12):  # a connection stays with the process that took it
        with InferenceServerClient(address(running)) as client:
            np.testing.assert_array_equal(client.infer("churn", [sent("x", ROWS)]).as_numpy("z"), ROWS)
    with InferenceServerClient(address(running)) as client:
        client.unload_model("churn")
    for _ in range(12):
        with InferenceServerClient(address(running)) as client:
            assert not client.is_model_ready("churn")
    assert running.stop() == 0

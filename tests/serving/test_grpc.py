"""V2 over gRPC: Triton's and KServe's clients against the server as a process."""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import numpy as np
import psutil
import pytest
from onnx import helper
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput, service_pb2
from tritonclient.utils import InferenceServerException

from tests.serving.clients import run_client
from tests.serving.conftest import columns_folder, start, tensor_folder
from tests.serving.test_triton_client import COLUMNS, ROWS, TYPES


def address(running):
    return running.ready_line.partition("grpc://")[2].split()[0]


def a_folder(folder):
    """Models of columns (churn), of one tensor (tensor) and of half floats (half)."""
    columns_folder(folder / "churn")
    tensor_folder(folder / "tensor", name="tensor", version="1")
    tensor_folder(folder / "tensor2", name="tensor", version="2")
    tensor_folder(folder / "half", "FP16", name="half")
    return folder


def add_broken(running, folder):
    """Add a model that cannot be loaded to what a server has."""
    (tensor_folder(folder / "broken", name="broken") / "model.onnx").write_bytes(b"no model")
    assert httpx.post(running.url + "/v2/repository/models/broken/load").status_code == 400


@pytest.fixture(scope="module")
def grpc_server(tmp_path_factory):
    folder = a_folder(tmp_path_factory.mktemp("grpc"))
    running = start(folder, "--grpc-port", "0", "--max-body", "100000")
    add_broken(running, folder)
    yield running
    running.process.kill()
    running.process.communicate()


@pytest.fixture(scope="module")
def triton(grpc_server):
    with InferenceServerClient(address(grpc_server)) as client:
        yield client


def sent(name, array, datatype="FP32"):
    tensor = InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return tensor


def test_the_line_says_where_both_protocols_are(grpc_server):
    where = f"on grpc://{address(grpc_server)} and on {grpc_server.url}\n"
    assert grpc_server.ready_line == f"modelrel serving churn/7, half/7, tensor/1, tensor/2 {where}"


def test_triton_s_client_finds_what_is_ready_and_what_is_not(triton):
    assert triton.is_server_live()
    for ready in (("churn",), ("churn", "7"), ("tensor", "1"), ("tensor", "2")):
        assert triton.is_model_ready(*ready)
    for absent in (("churn", "8"), ("other",), ("broken",), ("",), ("churn/versions/7/infer",), ("../churn",)):
        assert not triton.is_model_ready(*absent)


def test_triton_s_client_reads_the_metadata(triton):
    server = triton.get_server_metadata()
    assert (server.name, list(server.extensions)) == ("modelrel", ["binary_tensor_data", "model_repository"])
    for version in ("", "1"):
        model = triton.get_model_metadata("tensor", version)
        assert (model.name, list(model.versions), model.platform) == ("tensor", ["1", "2"], "onnxruntime_onnx")
        assert [(t.name, t.datatype, list(t.shape)) for t in model.inputs] == [("x", "FP32", [-1, 3])]
        assert [t.name for t in model.outputs] == ["y", "z"]


@pytest.mark.parametrize(("version", "answering"), [("", "2"), ("1", "1")])
def test_triton_s_client_infers(triton, version, answering):
    result = triton.infer("tensor", [sent("x", ROWS)], version, request_id="abc")
    np.testing.assert_array_equal(result.as_numpy("y"), ROWS * 2)
    np.testing.assert_array_equal(result.as_numpy("z"), ROWS)
    response = result.get_response()
    assert (response.id, response.model_name, response.model_version) == ("abc", "tensor", answering)


def test_only_the_outputs_asked_for_come_back_in_the_order_asked(triton):
    asked = [InferRequestedOutput("z"), InferRequestedOutput("y")]
    response = triton.infer("tensor", [sent("x", ROWS)], outputs=asked, priority=1, timeout=1, sequence_id=5)
    assert [output.name for output in response.get_response().outputs] == ["z", "y"]
    only = triton.infer("tensor", [sent("x", ROWS)], outputs=asked[:1], parameters={"a": 1, "b": "c", "d": True})
    assert [output.name for output in only.get_response().outputs] == ["z"]


def test_several_inputs_of_every_kind_come_back_as_they_were_sent(triton):
    result = triton.infer("churn", [sent(name, array, TYPES[name]) for name, array in COLUMNS.items()])
    np.testing.assert_array_equal(result.as_numpy("score"), [[1.5 + 200 + 1000 + 10000 + 0.25], [-2 - 300 + 0.5]])
    for name, array in COLUMNS.items():
        texts = [[one.encode()] for one in array.ravel()] if name == "s" else array
        np.testing.assert_array_equal(result.as_numpy(f"{name}_out"), texts)


def test_half_floats_and_no_rows_travel(triton):
    half = ROWS.astype(np.float16)
    np.testing.assert_array_equal(triton.infer("half", [sent("x", half, "FP16")]).as_numpy("y"), half * 2)
    assert triton.infer("tensor", [sent("x", ROWS[:0])]).as_numpy("y").shape == (0, 3)


@pytest.mark.parametrize(
    ("code", "why", "arguments"),
    [
        ("NOT_FOUND", "'other'", ("other", [sent("x", ROWS)])),
        ("NOT_FOUND", "no version '9'", ("tensor", [sent("x", ROWS)], "9")),
        ("UNAVAILABLE", "not ready: UNAVAILABLE", ("broken", [sent("x", ROWS)])),
        ("INVALID_ARGUMENT", "takes", ("tensor", [sent("x", ROWS[:, :2].copy())])),
        ("INVALID_ARGUMENT", "no input 'q'", ("tensor", [sent("q", ROWS)])),
        ("INVALID_ARGUMENT", "twice", ("tensor", [sent("x", ROWS), sent("x", ROWS)])),
        ("INVALID_ARGUMENT", "needs the input", ("tensor", [])),
        ("INVALID_ARGUMENT", "change its values", ("tensor", [sent("x", ROWS.astype("f8") / 3, "FP64")])),
        ("INVALID_ARGUMENT", "no output", ("tensor", [sent("x", ROWS)], "", [InferRequestedOutput("q" * 50_000)])),
        ("RESOURCE_EXHAUSTED", "larger than max", ("tensor", [sent("x", np.zeros((30_000, 3), np.float32))])),
    ],
)
def test_what_is_refused_has_the_code_and_the_reason(triton, code, why, arguments):
    with pytest.raises(InferenceServerException, match=why) as raised:
        triton.infer(*arguments)
    assert raised.value.status() == f"StatusCode.{code}"
    assert len(raised.value.message()) < 2000
    assert triton.is_server_live()


def test_a_model_s_own_failure_is_internal_and_keeps_its_reason(make_folder, start_server):
    nodes = [
        helper.make_node("Cast", ["x"], ["index"], to=7),
        helper.make_node("Gather", ["x", "index"], ["y"], axis=0),
    ]
    running = start_server(make_folder(nodes, [("x", "FP32", [-1])], [("y", "FP32", [-1])]), "--grpc-port", "0")
    with (
        InferenceServerClient(address(running)) as client,
        pytest.raises(InferenceServerException, match=r"INTERNAL\] the model could not compute this request"),
    ):
        client.infer("churn", [sent("x", np.array([9], np.float32))])


def test_triton_s_client_unloads_and_loads_models(tmp_path, start_server):
    running = start_server(a_folder(tmp_path), "--grpc-port", "0")
    add_broken(running, tmp_path)
    with InferenceServerClient(address(running)) as client:
        index = {(m.name, m.version): (m.state, m.reason) for m in client.get_model_repository_index().models}
        assert index["churn", "7"] == ("READY", "")
        assert index["broken", "7"][0] == "UNAVAILABLE"
        assert str(tmp_path) not in index["broken", "7"][1]
        client.unload_model("half")
        assert not client.is_model_ready("half")
        client.load_model("half")
        assert client.is_model_ready("half")
        for change, name, code in (
            (client.load_model, "broken", "INVALID_ARGUMENT"),
            (client.load_model, "other", "NOT_FOUND"),
            (client.unload_model, "../half", "NOT_FOUND"),
        ):
            with pytest.raises(InferenceServerException) as raised:
                change(name)
            assert raised.value.status() == f"StatusCode.{code}"
            assert str(tmp_path) not in raised.value.message()
        with pytest.raises(InferenceServerException, match="'config'"):
            client.load_model("half", config="{}")
        ready = client._client_stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(ready=True))
        assert {model.name for model in ready.models} == {"churn", "half", "tensor"}


BY_KSERVE = """
import asyncio, json, sys
import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest

async def main(address):
    async with InferenceGRPCClient(address) as client:
        typed = InferInput("x", [1, 3], "FP32", data=[1, 2, 3])
        raw = InferInput("x", [1, 3], "FP32")
        raw.set_data_from_numpy(np.array([[1, 2, 3]], np.float32))
        found = [await client.is_server_live(), await client.is_model_ready("tensor")]
        for sent in (typed, raw):
            answered = await client.infer(InferRequest("tensor", [sent]))
            found.append([output.as_numpy().tolist() for output in answered.outputs])
        return found

print(json.dumps(asyncio.run(main(sys.argv[1]))))
"""


def test_kserve_s_client_infers_with_typed_and_with_raw_contents(kserve_python, grpc_server):
    rows = [[[2, 4, 6]], [[1, 2, 3]]]
    assert run_client(kserve_python, BY_KSERVE, address(grpc_server)) == [True, True, rows, rows]


BY_TRITON = """
import json, sys
import google.protobuf, numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput

with InferenceServerClient(sys.argv[1]) as client:
    sent = InferInput("x", [1, 3], "FP32")
    sent.set_data_from_numpy(np.array([[1, 2, 3]], np.float32))
    print(json.dumps([google.protobuf.__version__, client.infer("tensor", [sent]).as_numpy("y").tolist()]))
"""


def test_triton_s_client_infers_with_the_protobuf_that_it_asks_for(kserve_python, grpc_server):
    version, y = run_client(kserve_python, BY_TRITON, address(grpc_server))
    assert version.split(".")[0] == "6"  # in the tests' own environment it is newer
    assert y == [[2, 4, 6]]


def test_what_is_no_message_or_no_method_is_refused_by_code(grpc_server):
    with grpc.insecure_channel(address(grpc_server)) as channel:
        for method in ("ModelInfer", "ModelReady", "ModelMetadata", "RepositoryIndex", "RepositoryModelLoad"):
            with pytest.raises(grpc.RpcError) as raised:
                channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(b"\xff\xff\xff")
            assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.RpcError) as raised:
            channel.unary_unary("/inference.GRPCInferenceService/Nothing")(b"")
        assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_a_packed_message_that_unpacks_beyond_the_limit_is_refused(grpc_server):
    request = service_pb2.ModelInferRequest(model_name="tensor", raw_input_contents=[b"\0" * 10_000_000])
    with grpc.insecure_channel(address(grpc_server), compression=grpc.Compression.Gzip) as channel:
        with pytest.raises(grpc.RpcError) as raised:
            channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(request.SerializeToString())
        assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_probe_of_the_health_service_is_answered(grpc_server, tensor_dir, start_server):
    whole = start_server(tensor_dir, "--grpc-port", "0")
    name = b"inference.GRPCInferenceService"
    with grpc.insecure_channel(address(whole)) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"") == b"\x08\x01"
        assert check(b"\x0a" + bytes([len(name)]) + name) == b"\x08\x01"
        with pytest.raises(grpc.RpcError) as raised:
            check(b"\x0a\x01x")
        assert raised.value.code() == grpc.StatusCode.NOT_FOUND


def slow_folder(make_folder):
    """A model that takes a good part of a second for 1000 rows, outside of Python's lock."""
    chain = [helper.make_node("MatMul", ["x", "xt"], ["p0"])]
    chain += [helper.make_node("MatMul", [f"p{i}", "p0"], [f"p{i + 1}"]) for i in range(24)]
    nodes = [
        helper.make_node("Transpose", ["x"], ["xt"], perm=[1, 0]),
        *chain,
        helper.make_node("ReduceMax", ["p24"], ["y"], keepdims=0),
    ]
    return make_folder(nodes, [("x", "FP32", [-1, 8])], [("y", "FP32", [])])


SLOW = sent("x", np.full((1000, 8), 0.1, np.float32))


def test_a_call_that_has_begun_is_answered_before_the_process_ends(make_folder, start_server):
    running = start_server(slow_folder(make_folder), "--grpc-port", "0")
    computing = psutil.Process(running.process.pid)
    before = sum(computing.cpu_times()[:2])
    with ThreadPoolExecutor(1) as pool, InferenceServerClient(address(running)) as client:
        large = pool.submit(client.infer, "churn", [SLOW])
        while sum(computing.cpu_times()[:2]) < before + 0.2:  # only the computation takes so much
            assert not large.done()
            time.sleep(0.001)
        assert httpx.get(running.url + "/v2/health/live").status_code == 200
        running.process.terminate()
        assert large.result().as_numpy("y").shape == ()
    assert running.process.wait(20) == 0
    assert all(json.loads(line)["level"] == "info" for line in running.process.stderr)


def test_a_call_that_takes_longer_than_it_may_is_ended_with_the_code_for_that(make_folder, start_server):
    running = start_server(slow_folder(make_folder), "--grpc-port", "0", "--timeout", "0.01")
    with InferenceServerClient(address(running)) as client:
        with pytest.raises(InferenceServerException) as raised:
            client.infer("churn", [SLOW])
        assert raised.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        assert client.is_server_live()


def test_grpc_is_loaded_only_where_it_is_asked_for(tensor_server, grpc_server):
    def loaded(running):
        return "cygrpc" in Path(f"/proc/{running.process.pid}/maps").read_text()

    assert (loaded(tensor_server), loaded(grpc_server)) == (False, True)


@pytest.mark.parametrize("gone", ["grpc", "google.protobuf"])
def test_without_the_library_one_sentence_says_how_to_get_it(tensor_dir, gone):
    code = (
        f"import sys; sys.modules[{gone!r}] = None; from modelrel.serving.__main__ import main\n"
        f"sys.exit(main([{str(tensor_dir)!r}, '--port', '0', '--grpc-port', '0']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert done.stderr == "modelrel serving: --grpc-port needs grpcio and protobuf: pip install 'modelrel[grpc]'\n"


def test_a_taken_port_is_one_sentence_and_exit_code_3(tensor_dir, grpc_server):
    for taken in (address(grpc_server).rpartition(":")[2], str(grpc_server.port)):
        command = [sys.executable, "-m", "modelrel.serving", str(tensor_dir), "--port", "0", "--grpc-port", taken]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert (done.returncode, done.stderr) == (
            3,
            f"modelrel serving: the gRPC port {taken} of 127.0.0.1 is in use\n",
        )

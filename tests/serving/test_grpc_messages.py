"""V2's protobuf messages, by the stubs of Triton's client, asked without a transport."""

import json
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper
from tritonclient.grpc import service_pb2

from modelrel.serving import answer, load_model
from modelrel.serving.grpc_v2 import routes
from modelrel.serving.models import Models
from modelrel.serving.routing import Router
from modelrel.serving.tensors import DTYPES
from tests.serving.conftest import write_folder
from tests.serving.test_binary import in_bytes, tensors

CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


@pytest.fixture(scope="module")
def echoes(tmp_path_factory):
    """A server of models that give back what they get, named after their datatypes."""
    models = []
    for datatype in DTYPES:
        nodes = [helper.make_node("Identity", ["x"], ["y"])]
        folder = tmp_path_factory.mktemp("echo") / datatype
        specs = [("x", datatype, [-1, 2])], [("y", datatype, [-1, 2])]
        models.append(load_model(write_folder(folder, nodes, *specs, name=datatype)))
    return Router(Models.of(*models), routes)


def ask(router, request, path=None):
    path = path or f"grpc:/v2/models/{request.model_name}/infer"
    body = request if isinstance(request, bytes) else request.SerializeToString()
    return answer(router, "POST", path, {"content-type": "application/grpc"}, body)


def a_request(datatype, shape, raw=None, values=None, field=None):
    request = service_pb2.ModelInferRequest(model_name=datatype)
    tensor = request.inputs.add(name="x", datatype=datatype, shape=shape)
    if raw is not None:
        request.raw_input_contents.append(raw)
    if values is not None:
        getattr(tensor.contents, field or CONTENTS[datatype]).extend(values)
    return request


def response(reply):
    assert reply.status == 200, reply.body
    return service_pb2.ModelInferResponse.FromString(reply.body)


@pytest.mark.parametrize("datatype", DTYPES)
@settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=40)
@given(data=st.data())
def test_typed_and_raw_contents_come_back_as_they_were_sent(echoes, datatype, data):
    array = data.draw(tensors(datatype))
    raw = in_bytes(array, datatype)
    answered = response(ask(echoes, a_request(datatype, array.shape, raw)))
    assert list(answered.raw_output_contents) == [raw]
    assert list(answered.outputs[0].shape) == list(array.shape)
    assert not answered.outputs[0].HasField("contents")
    if datatype == "FP16":
        return
    values = [one.encode() if datatype == "BYTES" else one for one in array.ravel().tolist()]
    answered = response(ask(echoes, a_request(datatype, array.shape, values=values)))
    assert list(answered.raw_output_contents) == []
    assert list(getattr(answered.outputs[0].contents, CONTENTS[datatype])) == values


def test_an_fp16_output_of_a_typed_request_is_raw(tmp_path):
    nodes = [helper.make_node("Cast", ["x"], ["half"], to=10), helper.make_node("Identity", ["x"], ["y"])]
    outputs = [("half", "FP16", [-1, 2]), ("y", "FP32", [-1, 2])]
    model = load_model(write_folder(tmp_path / "m", nodes, [("x", "FP32", [-1, 2])], outputs, name="FP32"))
    answered = response(ask(Router(Models.of(model), routes), a_request("FP32", [1, 2], values=[1.5, 2])))
    assert [len(contents) for contents in answered.raw_output_contents] == [4, 8]


WRONG = {
    "3 raw_input_contents for 1": lambda r: r.raw_input_contents.extend([b"", b""]),
    "beside raw_input_contents": lambda r: r.inputs[0].contents.fp32_contents.extend([1, 2]),
    "size below 0": lambda r: r.inputs[0].shape.__setitem__(0, -1),
    "takes 4611686018427387904 bytes|takes": lambda r: r.inputs[0].shape.__setitem__(0, 2**59),
    "no datatype": lambda r: setattr(r.inputs[0], "datatype", "BF16"),
    "there are 7 bytes": lambda r: r.raw_input_contents.__setitem__(0, b"1234567"),
}


@pytest.mark.parametrize("why", WRONG)
def test_raw_contents_that_do_not_fit_are_refused(echoes, why):
    request = a_request("FP32", [1, 2], b"12345678")
    assert ask(echoes, request).status == 200
    WRONG[why](request)
    reply = ask(echoes, request)
    assert reply.status == 400
    assert any(part in json.loads(reply.body)["error"] for part in why.split("|"))


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (a_request("FP32", [1, 2], values=[1]), "1 elements"),
        (a_request("FP32", [2**40, 2], values=[1, 2]), "2 elements"),
        (a_request("FP32", [1, 2]), "0 elements"),
        (a_request("FP32", [1, 2], values=[1, 2], field="fp64_contents"), "belong in fp32_contents"),
        (a_request("INT8", [1, 2], values=[128, 0]), "does not fit INT8"),
        (a_request("UINT16", [1, 2], values=[65536, 0]), "does not fit UINT16"),
        (a_request("FP16", [1, 2], values=[1, 2], field="fp32_contents"), "no typed contents"),
        (a_request("BYTES", [1, 2], values=[b"a", b"\xff"]), "element 1 of BYTES is not UTF-8"),
    ],
)
def test_typed_contents_that_do_not_fit_are_refused(echoes, request_, why):
    reply = ask(echoes, request_)
    assert reply.status == 400
    assert why in json.loads(reply.body)["error"]


def test_no_broken_message_makes_the_server_fail(echoes):
    rng = random.Random("messages")
    good = [
        a_request("FP32", [1, 2], b"12345678").SerializeToString(),
        a_request("BYTES", [1, 2], values=[b"a", "é".encode()]).SerializeToString(),
        service_pb2.RepositoryModelLoadRequest(model_name="q").SerializeToString(),
    ]
    paths = ["models/FP32/infer", "models/BYTES/infer", "repository/index", "repository/load", "repository/unload"]
    for _ in range(5000):
        body = bytearray(rng.choice(good))
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(body)) if body else 0
            body[at : at + rng.randint(0, 4)] = rng.randbytes(rng.randint(0, 4))
        reply = ask(echoes, bytes(body), f"grpc:/v2/{rng.choice(paths)}")
        assert reply.status in {200, 400, 404}, body

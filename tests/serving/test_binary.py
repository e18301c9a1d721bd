"""Tensors as bytes behind the JSON, asked without a transport."""

import json
import random
import re
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import helper

from modelrel.serving import answer, load_model
from modelrel.serving.tensors import DTYPES
from tests.serving.conftest import tensor_folder, write_folder

PATH = "/v2/models/churn/infer"
BINARY = {"binary_data": True}


def packed(header, *tails):
    """A body with its JSON, and the headers that say where it ends."""
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return {"inference-header-content-length": str(len(head))}, head + b"".join(tails)


def an_input(size, shape=(1, 3), datatype="FP32", **more):
    return {"name": "x", "shape": list(shape), "datatype": datatype, "parameters": {"binary_data_size": size}} | more


def post(model, header, *tails):
    headers, body = packed(header, *tails)
    return answer(model, "POST", PATH, headers, body)


def unpacked(reply):
    """The JSON of an answer, and the bytes of each binary output by name."""
    assert reply.status == 200, reply.body
    size = int(reply.headers["inference-header-content-length"])
    assert reply.headers["content-type"] == "application/octet-stream"
    head, rest = json.loads(reply.body[:size]), reply.body[size:]
    found = {}
    for output in head["outputs"]:
        if "data" not in output:
            length = output["parameters"]["binary_data_size"]
            found[output["name"]], rest = rest[:length], rest[length:]
    assert rest == b""
    return head, found


def in_bytes(array, datatype):
    """A tensor as the extension has it, by other means than the server's."""
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(one.encode())) + one.encode() for one in array.ravel())
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


ROW = np.array([[1, 2, 3]], np.float32)


def test_outputs_are_bytes_where_the_request_asks_for_them_in_general(tensor_model):
    header = {"inputs": [an_input(12)], "parameters": {"binary_data_output": True}}
    head, found = unpacked(post(tensor_model, header, ROW.tobytes()))
    assert found == {"y": (2 * ROW).tobytes(), "z": ROW.tobytes()}
    assert head["outputs"][0] == {
        "name": "y",
        "shape": [1, 3],
        "datatype": "FP32",
        "parameters": {"binary_data_size": 12},
    }


def test_what_an_output_asks_for_goes_before_what_the_request_asks_for(tensor_model):
    outputs = [{"name": "z"}, {"name": "y", "parameters": {"binary_data": False}}]
    header = {"inputs": [an_input(12)], "parameters": {"binary_data_output": True}, "outputs": outputs}
    head, found = unpacked(post(tensor_model, header, ROW.tobytes()))
    assert found == {"z": ROW.tobytes()}
    assert head["outputs"][1]["data"] == [2.0, 4.0, 6.0]


def test_a_request_in_bytes_is_answered_in_json_unless_it_asks(tensor_model):
    reply = post(tensor_model, {"inputs": [an_input(12)]}, ROW.tobytes())
    assert reply.headers["content-type"] == "application/json"
    assert "inference-header-content-length" not in reply.headers
    assert json.loads(reply.body)["outputs"][1]["data"] == [1.0, 2.0, 3.0]


def test_a_request_in_json_is_answered_in_bytes_if_it_asks(tensor_model, infer):
    reply = infer(tensor_model, [[1, 2, 3]], outputs=[{"name": "z", "parameters": BINARY}])
    assert unpacked(reply.answer)[1] == {"z": ROW.tobytes()}


@pytest.fixture(scope="module")
def two_inputs(tmp_path_factory):
    """A model y = a + b, a and b of the shape [-1, 2]."""

    specs = [("a", "FP32", [-1, 2]), ("b", "FP32", [-1, 2])]
    nodes = [helper.make_node("Add", ["a", "b"], ["y"])]
    return load_model(write_folder(tmp_path_factory.mktemp("two") / "model", nodes, specs, [("y", "FP32", [-1, 2])]))


def test_inputs_in_json_and_in_bytes_may_be_mixed_and_the_bytes_are_in_the_order_of_the_inputs(two_inputs):
    one, two = (np.array([[i, 10 * i]], np.float32) for i in (1, 2))
    a = {"name": "a", "shape": [1, 2], "datatype": "FP32"}
    b = a | {"name": "b"}
    size = {"parameters": {"binary_data_size": 8}}
    for inputs, tails in (
        ([a | size, b | size], (one, two)),
        ([b | size, a | size], (two, one)),
        ([a | {"data": [1, 10]}, b | size], (two,)),
        ([b | size, a | {"data": [1, 10], "parameters": {"other": 1}}], (two,)),
    ):
        reply = post(two_inputs, {"inputs": inputs}, *(tail.tobytes() for tail in tails))
        assert json.loads(reply.body)["outputs"][0]["data"] == [3.0, 30.0]


def test_an_fp16_tensor_travels_both_ways(tmp_path):
    nodes = [helper.make_node("Identity", ["x"], ["y"])]

    model = load_model(write_folder(tmp_path / "m", nodes, [("x", "FP16", [-1, 3])], [("y", "FP16", [-1, 3])]))
    half = np.array([[1.5, -2, 65504]], np.float16)
    header = {"inputs": [an_input(6, datatype="FP16")]}
    asking = header | {"outputs": [{"name": "y", "parameters": BINARY}]}
    assert unpacked(post(model, asking, half.tobytes()))[1] == {"y": half.tobytes()}
    refused = post(model, header, half.tobytes())
    assert (refused.status, b"no JSON form" in refused.body) == (400, True)


def test_fp16_bytes_are_accepted_for_fp32(tensor_model):
    half = np.array([[1.5, -2, 65504]], np.float16)
    reply = post(tensor_model, {"inputs": [an_input(6, datatype="FP16")]}, half.tobytes())
    assert json.loads(reply.body)["outputs"][1]["data"] == [1.5, -2.0, 65504.0]


def test_a_tensor_is_read_right_wherever_the_json_ends(tensor_model):
    for padding in range(16):
        header = {"inputs": [an_input(12)], "parameters": {"binary_data_output": True, "p": "x" * padding}}
        assert unpacked(post(tensor_model, header, ROW.tobytes()))[1]["z"] == ROW.tobytes()


@pytest.fixture(scope="module")
def echoes(tmp_path_factory):
    """A model that gives back what it gets, for each datatype."""
    made = {}
    for datatype in DTYPES:
        nodes = [helper.make_node("Identity", ["x"], ["y"])]
        folder = tmp_path_factory.mktemp("echo") / datatype
        made[datatype] = load_model(write_folder(folder, nodes, [("x", datatype, [-1, 2])], [("y", datatype, [-1, 2])]))
    return made


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def tensors(datatype):
    shape = st.integers(0, 5).map(lambda rows: (rows, 2))
    dtype = DTYPES[datatype]
    if datatype == "BYTES":
        return shape.flatmap(lambda s: arrays.arrays(dtype, s, elements=TEXTS))
    # NaN has no JSON but null, infinity has none at all
    return shape.flatmap(lambda s: arrays.arrays(dtype, s, elements=_finite(dtype)))


def _finite(dtype):
    options = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else {}
    return arrays.from_dtype(dtype, **options)


@pytest.mark.parametrize("datatype", DTYPES)
@settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=40)
@given(data=st.data())
def test_what_is_sent_in_bytes_comes_back_in_bytes_and_equals_json_s_answer(echoes, datatype, data):
    model = echoes[datatype]
    array = data.draw(tensors(datatype))
    raw = in_bytes(array, datatype)
    sent = an_input(len(raw), array.shape, datatype)
    asking = {"parameters": {"binary_data_output": True}}
    assert unpacked(post(model, {"inputs": [sent]} | asking, raw))[1] == {"y": raw}
    if datatype == "FP16":
        return
    plain = {"name": "x", "shape": list(array.shape), "datatype": datatype, "data": array.ravel().tolist()}
    in_json = answer(model, "POST", PATH, {}, json.dumps({"inputs": [plain]}).encode())
    assert in_json.status == 200, in_json.body
    assert post(model, {"inputs": [sent]}, raw).body == in_json.body
    headers = {"content-type": "application/json"}
    assert unpacked(answer(model, "POST", PATH, headers, json.dumps({"inputs": [plain]} | asking).encode()))[1] == {
        "y": raw
    }


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_numbers_that_json_lacks_travel_in_bytes(tensor_model, value):
    row = np.array([[float(value), 1, 2]], np.float32)
    header = {"inputs": [an_input(12)], "outputs": [{"name": "z", "parameters": BINARY}]}
    assert unpacked(post(tensor_model, header, row.tobytes()))[1] == {"z": row.tobytes()}


GOOD = {"inputs": [an_input(12)]}


@pytest.mark.parametrize("value", ["", "-1", "+1", "1.5", "abc", "1e3", "0x10", " 5", "5 ", "٥", "9" * 5000, "1000000"])
def test_a_header_that_is_no_size_of_the_json_is_refused(tensor_model, value):
    body = packed(GOOD, ROW.tobytes())[1]
    reply = answer(tensor_model, "POST", PATH, {"inference-header-content-length": value}, body)
    assert reply.status == 400
    assert b"Inference-Header-Content-Length" in reply.body
    assert len(reply.body) < 300


@pytest.mark.parametrize("change", [-1, 1, -20])
def test_a_header_that_cuts_the_json_elsewhere_is_refused(tensor_model, change):
    headers, body = packed(GOOD, ROW.tobytes())
    headers = {"inference-header-content-length": str(int(headers["inference-header-content-length"]) + change)}
    assert answer(tensor_model, "POST", PATH, headers, body).status == 400


@pytest.mark.parametrize(
    ("sent", "tail", "why"),
    [
        (an_input(12), b"", "0 bytes left"),
        (an_input(12), b"x" * 11, "11 bytes left"),
        (an_input(12), b"x" * 13, "belong to no input"),
        (an_input(8), b"x" * 8, "takes 12"),
        (an_input(16), b"x" * 16, "takes 12"),
        (an_input(0), b"", "takes 12"),
        (an_input(-4), b"", "number of bytes"),
        (an_input(12.0), b"x" * 12, "number of bytes"),
        (an_input("12"), b"x" * 12, "number of bytes"),
        (an_input(True), b"x", "number of bytes"),
        (an_input(2**70), b"x" * 12, "12 bytes left"),
        (an_input(12, data=[1, 2, 3]), b"x" * 12, "both data and"),
        (an_input(12, data=[]), b"x" * 12, "both data and"),
        (an_input(12, (1, 4)), b"x" * 12, "takes \\[-1, 3\\]"),
        (an_input(12, (2**40, 3)), b"x" * 12, "takes"),
        (an_input(12, (-1, 3)), b"x" * 12, "does not fit"),
        (an_input(24, datatype="BF16"), b"x" * 24, "no datatype 'BF16'"),
        (an_input(24, datatype="FP64"), struct.pack("<ddd", 0.1, 0, 0), "would change its values"),
        ({"name": "x", "shape": [1, 3], "datatype": "FP32"}, b"", "no data"),
        ({"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}, b"x", "belong to no input"),
    ],
)
def test_sizes_that_do_not_add_up_are_refused(tensor_model, sent, tail, why):
    reply = post(tensor_model, {"inputs": [sent]}, tail)
    assert reply.status == 400
    assert re.search(why, json.loads(reply.body)["error"])


def test_bytes_without_the_header_are_refused(tensor_model):
    reply = answer(tensor_model, "POST", PATH, {}, json.dumps(GOOD).encode())
    assert reply.status == 400
    assert "Inference-Header-Content-Length" in json.loads(reply.body)["error"]


@pytest.mark.parametrize("value", ["yes", 1, 0.5])
@pytest.mark.parametrize("where", ["request", "output"])
def test_what_asks_for_bytes_must_be_true_or_false(tensor_model, infer, where, value):
    more = {"parameters": {"binary_data_output": value}}
    if where == "output":
        more = {"outputs": [{"name": "z", "parameters": {"binary_data": value}}]}
    assert infer(tensor_model, [[1, 2, 3]], **more).status == 400


def text(*elements):
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


@pytest.mark.parametrize(
    ("tail", "why"),
    [
        (text(b"a", b"b"), "too few for the lengths"),
        (text(b"a", b"b", b"c") + b"\0", "1 bytes are left"),
        (text(b"a", b"b", b"c", b"d"), "5 bytes are left"),
        (text(b"a", b"b", b"c")[:-1], "element 2 of BYTES ends beyond"),
        (text(b"a", b"b") + b"\xff\xff\xff\xff", "element 2 of BYTES ends beyond"),
        (text(b"a", b"b") + b"\x01\0\0", "element 2 of BYTES ends beyond"),
        (b"\0" * 11, "too few for the lengths"),
        (b"", "too few for the lengths"),
        (text(b"a", b"\xff", b"c"), "element 1 of BYTES is not UTF-8"),
        (text(b"a", b"b", b"\xed\xa0\x80"), "element 2 of BYTES is not UTF-8"),
    ],
)
def test_strings_that_overrun_or_are_no_text_are_refused_by_element(tmp_path, tail, why):
    model = load_model(tensor_folder(tmp_path / "m", "BYTES"))
    reply = post(model, {"inputs": [an_input(len(tail), datatype="BYTES")]}, tail)
    assert reply.status == 400
    assert why in json.loads(reply.body)["error"]


def test_a_huge_shape_of_strings_allocates_nothing(tmp_path):
    model = load_model(tensor_folder(tmp_path / "m", "BYTES"))
    reply = post(model, {"inputs": [an_input(0, (2**60, 3), "BYTES")]})
    assert (reply.status, b"too few" in reply.body) == (400, True)


@pytest.mark.parametrize("byte", [2, 255])
def test_a_bool_that_is_neither_0_nor_1_is_refused(echoes, byte):
    reply = post(echoes["BOOL"], {"inputs": [an_input(2, (1, 2), "BOOL")]}, bytes([1, byte]))
    assert (reply.status, b"0 or 1" in reply.body) == (400, True)


def raw(model, body):
    return answer(model, "POST", PATH, {"inference-header-content-length": "0"}, body)


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_a_body_without_json_is_the_one_input_and_is_answered_in_bytes(tensor_model, rows):
    array = np.arange(3 * rows, dtype=np.float32)
    head, found = unpacked(raw(tensor_model, array.tobytes()))
    assert head["outputs"][0]["shape"] == [rows, 3]
    assert found == {"y": (2 * array).tobytes(), "z": array.tobytes()}


def test_of_two_open_dimensions_the_first_is_one_row_in_a_body_without_json(tmp_path):

    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    specs = {n: [(n, "INT64", [-1] * d + [2])] for n, d in (("x", 2), ("y", 2))}
    model = load_model(write_folder(tmp_path / "m", nodes, specs["x"], specs["y"]))
    head, found = unpacked(raw(model, np.arange(6).tobytes()))
    assert (head["outputs"][0]["shape"], found["y"]) == ([1, 3, 2], np.arange(6).tobytes())
    specs = {n: [(n, "INT64", [-1, -1, -1])] for n in "xy"}
    model = load_model(write_folder(tmp_path / "three", nodes, specs["x"], specs["y"]))
    assert raw(model, np.arange(6).tobytes()).status == 400


def test_a_body_without_json_is_one_string(tmp_path):

    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    for shape in ([-1], [-1, 1], [-1, -1]):
        model = load_model(
            write_folder(tmp_path / f"m{len(shape)}", nodes, [("x", "BYTES", shape)], [("y", "BYTES", shape)])
        )
        head, found = unpacked(raw(model, "zażółć".encode()))
        assert head["outputs"][0]["shape"] == [1] * len(shape)
        assert found["y"] == text("zażółć".encode())
        assert raw(model, b"\xff").status == 400
    assert raw(load_model(tensor_folder(tmp_path / "three", "BYTES")), b"abc").status == 400


@pytest.mark.parametrize("size", [1, 11, 13])
def test_a_body_without_json_must_be_whole_rows(tensor_model, size):
    assert raw(tensor_model, b"x" * size).status == 400


def test_a_body_without_json_for_several_inputs_is_refused(two_inputs):
    reply = raw(two_inputs, b"x" * 16)
    assert (reply.status, b"2 inputs" in reply.body) == (400, True)


def broken(rng):
    """A good binary request with something wrong with its sizes, its JSON or its bytes."""
    row = text(b"a", b"", "é".encode())
    sent = [
        {"name": "s", "shape": [3, 1], "datatype": "BYTES", "parameters": {"binary_data_size": len(row)}},
        {"name": "d", "shape": [3], "datatype": "FP64", "parameters": {"binary_data_size": 24}},
        {"name": "l", "shape": [3, 1], "datatype": "INT64", "parameters": {"binary_data_size": 24}},
        {"name": "b", "shape": [3, 1], "datatype": "BOOL", "data": [True, False, True]},
    ]
    for one in sent:
        if rng.random() < 0.2:
            one["shape"] = rng.choice([[], [0, 1], [3, 1, 1], [2**63, 1], [6], [2, 1]])
        if rng.random() < 0.2:
            one["datatype"] = rng.choice([*DTYPES, "BF16", ""])
        if rng.random() < 0.2:
            one["parameters"] = {"binary_data_size": rng.choice([0, 1, -1, 2**31, 2**64, 1e9, "5", True, 12, 24])}
    head = json.dumps({"inputs": rng.sample(sent, rng.randint(1, 4)), "parameters": {"binary_data_output": True}})
    tail = row + struct.pack("<3d", 1, 2, 3) + struct.pack("<3q", 1, 2, 3)
    body = bytearray(head.encode() + tail)
    for _ in range(rng.randint(0, 2)):
        at = rng.randrange(len(body))
        body[at : at + rng.randint(0, 5)] = rng.randbytes(rng.randint(0, 5))
    length = len(head) + rng.choice([0, 0, 0, 0, 1, -1, 10, len(tail), -len(head)])
    return {"inference-header-content-length": str(length)}, bytes(body)


def test_no_broken_bytes_make_the_server_fail(columns_model):
    rng = random.Random("bytes")
    statuses = set()
    for _ in range(5000):
        headers, body = broken(rng)
        reply = answer(columns_model, "POST", PATH, headers, body)
        statuses.add(reply.status)
        assert reply.status in {200, 400}, (headers, body)
        if reply.status == 400:
            assert len(reply.body) < 1000, body
    assert statuses == {200, 400}

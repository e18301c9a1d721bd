"""Packed bodies, both ways."""

import gzip
import json
import tracemalloc
import zlib

import httpx
import pytest

from modelrel.serving.answers import Answer, Refused
from modelrel.serving.compression import Unpacking, chosen, packed

INFER = "/v2/models/churn/infer"
BODY = json.dumps({"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}).encode()
MANY = json.dumps({"inputs": [{"name": "x", "shape": [300, 3], "datatype": "FP32", "data": [1.5] * 900}]}).encode()


def raw_deflate(data):
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACKERS = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-GZIP", gzip.compress),
    "several members": ("gzip", lambda data: gzip.compress(data[:10]) + gzip.compress(data[10:])),
    "deflate as the standard means it": ("deflate", zlib.compress),
    "deflate as many send it": ("deflate", raw_deflate),
    "identity": ("identity", bytes),
}


@pytest.mark.parametrize(("coding", "pack"), PACKERS.values(), ids=PACKERS)
@pytest.mark.parametrize("path", [INFER, "/invocations"])
def test_a_packed_body_is_read(client, path, coding, pack):
    body = BODY if path == INFER else b'{"inputs": [[1, 2, 3]]}'
    headers = {"content-type": "application/json", "content-encoding": coding}
    reply = client.post(path, content=pack(body), headers=headers)
    assert reply.status_code == 200, reply.text
    assert "2.0" in reply.text


@pytest.mark.parametrize(("coding", "pack"), PACKERS.values(), ids=PACKERS)
def test_a_body_is_the_same_when_it_is_unpacked_in_small_steps(coding, pack):
    if coding == "identity":
        return
    data = bytes(range(256)) * 2000
    unpacking = Unpacking(coding, pack(data), len(data))
    while not unpacking.step(999):
        pass
    assert unpacking.finish() == data


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "nonsense"])
def test_another_coding_is_415_and_says_which_are_known(client, coding):
    reply = client.post(INFER, content=BODY, headers={"content-encoding": coding})
    assert reply.status_code == 415
    assert reply.headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize(
    "body",
    [b"not packed", gzip.compress(BODY)[:-9], gzip.compress(BODY) + b"more", gzip.compress(BODY)[:5], b"\x1f\x8b"],
    ids=["plain", "cut", "followed", "cut head", "two bytes"],
)
def test_a_body_that_is_not_what_its_coding_says_is_400(client, body):
    reply = client.post(INFER, content=body, headers={"content-encoding": "gzip"})
    assert reply.status_code == 400
    assert "packed" in reply.json()["error"]


@pytest.mark.parametrize("levels", [1, 2])
def test_a_bomb_is_413_and_does_not_go_off(levels):
    bomb = gzip.compress(bytes(100_000_000), 9)
    if levels == 2:
        bomb = gzip.compress(bytes(1000)) * 50 + bomb
    tracemalloc.start()
    with pytest.raises(Refused) as refused:
        Unpacking("gzip", bomb, 1_000_000).finish()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused.value.status == 413
    assert peak < 5_000_000


def test_a_bomb_sent_over_the_wire_is_413(client):
    reply = client.post(INFER, content=gzip.compress(bytes(10_000_000)), headers={"content-encoding": "gzip"})
    assert reply.status_code == 413


def test_a_thousand_members_are_refused():
    with pytest.raises(Refused) as refused:
        Unpacking("gzip", gzip.compress(b"") * 1000, 1_000_000).finish()
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip", "gzip"),
        ("gzip, deflate, br", "gzip"),
        ("deflate", "deflate"),
        ("*", "gzip"),
        ("gzip;q=0.5, deflate", "deflate"),
        ("gzip;q=0", None),
        ("gzip; q=0, *", "deflate"),
        ("br", None),
        ("identity", None),
        ("", None),
        ("identity, gzip;q=0.5", None),
        ("GZIP;Q=1", "gzip"),
        ("gzip;q=nonsense", None),
        ("gzip;q=7", None),
        ("*;q=0", None),
    ],
)
def test_the_client_s_wishes_are_weighed(accepted, coding):
    assert chosen(accepted) == coding


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_long_answer_is_packed_where_the_client_asks_for_it(client, coding):
    plain = client.post(INFER, content=MANY, headers={"accept-encoding": "identity"})
    reply = client.post(INFER, content=MANY, headers={"accept-encoding": coding})
    assert "content-encoding" not in plain.headers
    assert reply.headers["content-encoding"] == coding
    assert reply.headers["vary"] == "accept-encoding"
    assert int(reply.headers["content-length"]) < len(plain.content)
    assert reply.content == plain.content  # httpx unpacks it


def test_a_long_answer_is_not_packed_where_nobody_asks(tensor_server):
    request = httpx.Request("POST", tensor_server.url + INFER, content=MANY)
    request.headers.pop("accept-encoding", None)
    with httpx.Client() as plain:
        assert "content-encoding" not in plain.send(request).headers


def test_a_short_answer_stays_as_it_is(client):
    assert "content-encoding" not in client.post(INFER, content=BODY, headers={"accept-encoding": "gzip"}).headers


def test_what_does_not_get_smaller_stays_as_it_is():
    import random

    answer = Answer(
        200, {"content-type": "application/octet-stream", "vary": "origin"}, random.Random(1).randbytes(5000)
    )
    found = packed(answer, "gzip")
    assert found.body == answer.body
    assert found.headers == {**answer.headers, "vary": "origin, accept-encoding"}


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_triton_s_client_packs_both_ways(tensor_server, algorithm):
    http = pytest.importorskip("tritonclient.http")
    import numpy as np

    rows = np.ones((400, 3), np.float32)
    sent = http.InferInput("x", list(rows.shape), "FP32")
    sent.set_data_from_numpy(rows, binary_data=False)
    with http.InferenceServerClient(f"127.0.0.1:{tensor_server.port}") as triton:
        result = triton.infer(
            "churn",
            [sent],
            request_compression_algorithm=algorithm,
            response_compression_algorithm=algorithm,
            outputs=[http.InferRequestedOutput("y", binary_data=False)],
        )
    np.testing.assert_array_equal(result.as_numpy("y"), rows * 2)

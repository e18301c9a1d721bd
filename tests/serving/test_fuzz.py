"""Thousands of broken requests, straight at ``answer``: none is the server's fault, none raises."""

import json
import random

import pytest

from modelrel.serving import answer

GOOD = {
    "/v2/models/churn/infer": {
        "id": "1",
        "parameters": {"a": 1},
        "inputs": [
            {"name": "d", "shape": [2], "datatype": "FP64", "data": [1.5, None]},
            {"name": "l", "shape": [2, 1], "datatype": "INT64", "data": [[1], [2]]},
            {"name": "s", "shape": [2, 1], "datatype": "BYTES", "data": ["a", "x"]},
            {"name": "b", "shape": [2], "datatype": "BOOL", "data": [True, False]},
            {"name": "f", "shape": [2], "datatype": "FP32", "data": [1, 2], "parameters": {}},
        ],
        "outputs": [{"name": "score"}],
    },
    "/invocations": {
        "dataframe_split": {"columns": ["d", "l", "s", "b", "f"], "data": [[1.5, 2, "x", True, None]], "index": [0]},
        "params": {},
    },
}
OTHER_FORMS = [
    {"dataframe_records": [{"d": 1.5, "l": 2, "s": "x", "b": True, "f": None}]},
    {"instances": [{"d": 1.5, "l": 2, "s": "x", "b": True, "f": None}]},
    {"inputs": {"d": [1.5], "l": [2], "s": ["x"], "b": [True], "f": [None]}},
    {"inputs": [[1, 2, 3]]},
]
# NaN, half a surrogate, numbers that no datatype holds, names that mean something elsewhere.
NUMBERS = [0, -1, 2**31, 2**63, 2**64, 10**30, -(10**30), 1.5, 1e308, -1e-320, float("nan"), float("inf")]
TEXTS = ["", "x", "\ud800", "\x00", "1e999", "FP32", "FP16", "BYTES", "d"]
NESTS = [[], [[]], [[[1]]], {}, {"": None}, {"d": 1}, [None], [{}], [[1, 2], [3]], [10**400]]
ODD = [None, True, *NUMBERS, *TEXTS, *NESTS]


def mutated(value, rng):
    """Replace, drop, repeat or wrap something, somewhere."""
    if rng.random() < 0.15:
        return rng.choice(ODD)
    if isinstance(value, dict) and value:
        key = rng.choice(list(value))
        change = rng.random()
        if change < 0.1:
            return {name: item for name, item in value.items() if name != key}
        if change < 0.2:
            return value | {str(rng.choice(ODD)): rng.choice(ODD)}
        return value | {key: mutated(value[key], rng)}
    if isinstance(value, list) and value:
        index = rng.randrange(len(value))
        change = rng.random()
        if change < 0.1:
            return value[:index] + value[index + 1 :]
        if change < 0.2:
            return value + [value[index]] * rng.choice([1, 2, 500])
        return [*value[:index], mutated(value[index], rng), *value[index + 1 :]]
    return rng.choice([*ODD, [value], {"a": value}])


def torn(body, rng):
    """Cut, flip or repeat bytes."""
    if not body:
        return body
    at = rng.randrange(len(body))
    return rng.choice(
        [
            body[:at],
            body[at:],
            body[:at] + bytes([rng.randrange(256)]) + body[at + 1 :],
            body[:at] + rng.choice([b"[", b"{", b'"', b"\\", b"\xff", b"\x00", b"-", b"e", b"NaN"]) + body[at:],
            body[:at] + body[at : at + 20] * 50 + body[at:],
            body.decode("latin-1").encode("utf-16"),
        ]
    )


def assert_blameless(model, path, body):
    reply = answer(model, "POST", path, {"content-type": "application/json"}, body)
    assert reply.status in {200, 400}, body
    if reply.status == 400:
        error = json.loads(reply.body)["error"]
        assert "Traceback" not in error
        assert len(reply.body) < 2000, body


@pytest.mark.parametrize("kind", ["columns_model", "tensor_model"])
@pytest.mark.parametrize("path", GOOD)
def test_no_change_to_a_good_body_makes_the_server_fail(request, kind, path):
    model = request.getfixturevalue(kind)
    rng = random.Random(f"{kind}{path}")
    for _ in range(3000):
        value = rng.choice([GOOD[path], *OTHER_FORMS]) if path == "/invocations" else GOOD[path]
        for _ in range(rng.randint(1, 3)):
            value = mutated(value, rng)
        assert_blameless(model, path, json.dumps(value).encode())


@pytest.mark.parametrize("path", GOOD)
def test_no_broken_bytes_make_the_server_fail(columns_model, path):
    rng = random.Random(path)
    for _ in range(3000):
        body = json.dumps(GOOD[path]).encode()
        for _ in range(rng.randint(1, 3)):
            body = torn(body, rng)
        assert_blameless(columns_model, path, body)


@pytest.mark.parametrize("path", GOOD)
def test_no_random_bytes_make_the_server_fail(tensor_model, path):
    rng = random.Random(path)
    for _ in range(1000):
        assert_blameless(tensor_model, path, rng.randbytes(rng.randint(0, 60)))


def test_no_path_makes_the_server_fail(tensor_model):
    rng = random.Random(1)
    parts = [
        "v2",
        "models",
        "churn",
        "versions",
        "7",
        "infer",
        "ready",
        "health",
        "",
        "..",
        "%2e",
        "\x00",
        "\ud800",
        "é",
    ]
    for _ in range(3000):
        path = "/" + "/".join(rng.choices(parts, k=rng.randint(0, 7)))
        method = rng.choice(["GET", "POST", "HEAD", "OPTIONS", "", "get"])
        assert answer(tensor_model, method, path, {}, b"").status in {200, 400, 404, 405, 415}

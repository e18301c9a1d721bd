"""Requests that nobody means well with: bodies that lie, packed wrongly or nested deeply, and HTTP that is none.

Made from a seed, so that what was found can be sent again. ``bench/fuzz.py`` sends many, the tests some.
"""

from __future__ import annotations

import gzip
import json
import re
import socket
import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import random

    Headers = dict[str, str]


class Hostile(NamedTuple):
    """One request."""

    method: str
    path: str
    headers: Headers
    body: bytes

    def wire(self) -> bytes:
        """Return it as HTTP/1.1."""
        lines = [f"{self.method} {self.path} HTTP/1.1", "Host: a", f"Content-Length: {len(self.body)}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + self.body


NUMBERS = [0, -1, 1, 2**31, 2**63, 2**64, 10**30, -(10**30), 1.5, 1e308, -1e-320, float("nan"), float("inf")]
TEXTS = [
    "",
    "x",
    "\ud800",
    "\x00",
    "1e999",
    "FP32",
    "FP16",
    "BYTES",
    "BOOL",
    "d",
    "binary_data_size",
    "../../etc/passwd",
]
NESTS = [[], [[]], [[[1]]], {}, {"": None}, {"d": 1}, [None], [{}], [[1, 2], [3]], [10**400], [[0] * 50] * 50]
ODD = [None, True, *NUMBERS, *TEXTS, *NESTS]
SHAPES = [[2**31, 2**31], [2**62], [10**18], [1] * 100, [0], [1, 0], [-1], [2, 2**63 - 1], [1, 3, 1], [], [3], [10**30]]
MLFLOW = "/invocations"
PATHS = [
    "/v2/models/churn/infer",
    "/v2/models/churn/versions/7/infer",
    "/invocations",
    "/v1/models/churn:predict",
    "/v1/models/churn/versions/7:predict",
    "/v2/repository/index",
    "/predict",
]
ODD_PATHS = [
    "/",
    "/v2",
    "/v2/",
    "/v2/models/%00",
    "/v2/models/%ff/infer",
    "/..%2f..%2fetc/passwd",
    "/v2/models/churn",
    "/%",
]
ODD_LINES = [
    "GET / HTTP/1.0",
    "GET /",
    "PRI * HTTP/2.0",
    "GET http://[::1 HTTP/1.1",
    "CONNECT a:1 HTTP/1.1",
    "GET * HTTP/1.1",
    "OPTIONS * HTTP/1.1",
    "GET /\x00 HTTP/1.1",
    "GET //// HTTP/1.1",
    "\x16\x03\x01\x02\x00",
    "GET /?\xff HTTP/1.1",
]
ODD_HEADERS = [
    b"Expect: 100-continue",
    b"Upgrade: h2c\r\nConnection: upgrade",
    b"Connection: close, keep-alive",
    b"X:" + b"a" * 40_000,
    b"X: \r\n folded",
    b": empty",
    b"No colon",
    b"Content-Length: 1",
    b"X: a\x00b",
    b"Host: b",
    b"A: b\r\n" * 150,
]


def good(rng: random.Random) -> tuple[str, object]:
    """Return a path and a body that a model of the tests may take there."""
    rows = rng.choice([1, 2, 30])
    tensor = {"name": "x", "shape": [rows, 3], "datatype": "FP32", "data": [1.5] * 3 * rows}
    columns = [
        {"name": "d", "shape": [2], "datatype": "FP64", "data": [1.5, None]},
        {"name": "l", "shape": [2, 1], "datatype": "INT64", "data": [[1], [2]]},
        {"name": "s", "shape": [2, 1], "datatype": "BYTES", "data": ["a", "x"]},
        {"name": "b", "shape": [2], "datatype": "BOOL", "data": [True, False]},
        {"name": "f", "shape": [2], "datatype": "FP32", "data": [1, 2], "parameters": {}},
    ]
    row = {"d": 1.5, "l": 2, "s": "x", "b": True, "f": None}
    v1, v2 = "/v1/models/churn:predict", "/v2/models/churn/infer"
    return rng.choice(
        [
            (v2, {"inputs": [tensor]}),
            (v2, {"inputs": [tensor], "outputs": [{"name": "y", "parameters": {"binary_data": True}}]}),
            (v2, {"id": "1", "parameters": {"a": 1}, "inputs": columns, "outputs": [{"name": "score"}]}),
            (MLFLOW, {"dataframe_split": {"columns": list(row), "data": [list(row.values())], "index": [0]}}),
            (MLFLOW, {"dataframe_records": [row], "params": {}}),
            (MLFLOW, {"instances": [row]}),
            (MLFLOW, {"inputs": {name: [value] for name, value in row.items()}}),
            (MLFLOW, {"inputs": [[1, 2, 3]]}),
            (v1, {"instances": [[1, 2, 3]], "signature_name": "serving_default"}),
            (v1, {"instances": [row]}),
        ]
    )


def mutated(value: object, rng: random.Random) -> object:
    """Replace, drop, repeat or wrap something, somewhere."""
    if rng.random() < 0.1:
        return rng.choice(ODD)
    if isinstance(value, dict) and value:
        key = rng.choice(list(value))
        change = rng.random()
        if change < 0.1:
            return {name: item for name, item in value.items() if name != key}
        if change < 0.2:
            return value | {str(rng.choice(ODD)): rng.choice(ODD)}
        if key == "shape" and change < 0.6:
            return value | {key: rng.choice(SHAPES)}
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


def torn(body: bytes, rng: random.Random) -> bytes:
    """Cut, flip or repeat bytes."""
    if not body:
        return body
    at = rng.randrange(len(body))
    odd = rng.choice([b"[", b"{", b'"', b"\\", b"\xff", b"\x00", b"-", b"e", b"NaN", b"\r\n", b"\r\n\r\n", b": "])
    return rng.choice(
        [
            body[:at],
            body[at:],
            body[:at] + bytes([rng.randrange(256)]) + body[at + 1 :],
            body[:at] + odd + body[at:],
            body[:at] + body[at : at + 20] * 50 + body[at:],
        ]
    )


def nested(rng: random.Random) -> bytes:
    """Return JSON that is deep, or has very many values."""
    depth = rng.choice([10, 500, 2000, 100_000])
    start, end = rng.choice([(b"[", b"]"), (b'{"a":', b"}"), (b'{"inputs":[', b"]}")])
    return rng.choice([start * depth, start * depth + b"1" + end * depth, b"[" + b"[]," * depth + b"1]"])


def binary(rng: random.Random) -> tuple[Headers, bytes]:
    """Return headers and body of the binary tensor extension whose sizes do not fit, or do."""
    datatype = rng.choice(["FP32", "BYTES", "FP16", "INT64", "BOOL", "nonsense"])
    data = struct.pack("<3f", 1, 2, 3)
    if datatype == "BYTES":
        data = b"".join(struct.pack("<I", rng.choice([1, 0, 2**31, 2**32 - 1])) + b"a" for _ in range(3))
    said = rng.choice([len(data), 0, -1, 10**9, len(data) - 1, len(data) + 1, 1.5, "12", None, 2**63])
    tensor = {"name": "x", "shape": rng.choice([[1, 3], *SHAPES]), "datatype": datatype}
    tensor["parameters"] = {"binary_data_size": said}
    if rng.random() < 0.2:
        tensor["data"] = [1, 2, 3]
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    length = rng.choice([len(head)] * 4 + [0, -1, len(head) + len(data) + 1, 10**20, 3, "x", "", "1e2", "+5", " 5"])
    return {"inference-header-content-length": str(length)}, head + data * rng.choice([1, 1, 1, 0, 2, 300])


def packed(body: bytes, rng: random.Random) -> tuple[Headers, bytes]:
    """Return a body that is packed, or says so."""
    kind = rng.choice(["gzip", "deflate", "gzip, deflate", "br", "", "GZIP", "identity"])
    data = rng.choice([gzip.compress, zlib.compress, bytes])(body)
    bomb = rng.random() < 0.02
    return {"content-encoding": kind}, gzip.compress(bytes(5_000_000)) if bomb else torn(data, rng)


def request(rng: random.Random) -> Hostile:
    """Return a request that is one for an HTTP parser, whatever is in it."""
    headers: Headers = {"content-type": "application/json"}
    path = rng.choice(PATHS) if rng.random() < 0.95 else rng.choice(ODD_PATHS)
    kind = rng.random()
    if kind < 0.5:
        path, value = good(rng)
        for _ in range(rng.randint(0, 3)):
            value = mutated(value, rng)
        body = json.dumps(value).encode()
    elif kind < 0.7:
        body = torn(torn(json.dumps(good(rng)[1]).encode(), rng), rng)
    elif kind < 0.75:
        body = rng.randbytes(rng.randint(0, 100))
    elif kind < 0.78:
        body = nested(rng)
    else:
        more, body = binary(rng)
        headers |= more
    if rng.random() < 0.15:
        more, body = packed(body, rng)
        headers |= more
    if rng.random() < 0.1:
        types = ["", "text/csv", "application/octet-stream", "nonsense", "application/json; charset=utf-16", "a" * 1000]
        headers["content-type"] = rng.choice(types)
    if rng.random() < 0.1:
        headers["accept-encoding"] = rng.choice(["gzip", "*;q=0", "gzip;q=;;;", ",,,", "deflate;q=1.5", "identity;q=0"])
    method = "POST" if rng.random() < 0.95 else rng.choice(["GET", "PUT", "HEAD", "OPTIONS", "DELETE", "PATCH"])
    return Hostile(method, path, headers, body)


def broken_http(rng: random.Random) -> bytes:
    """Return bytes for a connection that are HTTP up to some point."""
    one = request(rng)
    wire = one.wire()
    kind = rng.random()
    if kind < 0.25:
        return torn(wire, rng)
    if kind < 0.4:
        lie = rng.choice([0, 1, len(one.body) + 10, 10**12, -1, 10**30, "0x10", "5, 6", "1 2", "", "+3", "9" * 5000])
        return wire.replace(b"Content-Length: %d" % len(one.body), f"Content-Length: {lie}".encode(), 1)
    if kind < 0.6:
        sizes = [b"5", b"-1", b"fffffffffffffffff", b"0", b"g", b"5;ext=" + b"a" * 5000, b" 5", b"5 "]
        head = b"POST /v2/models/churn/infer HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
        also = rng.choice([b"", b"", b"Content-Length: 5\r\n", b"Transfer-Encoding: gzip\r\n"])
        parts = [rng.choice(sizes) + b"\r\n" + one.body[:5] + rng.choice([b"\r\n", b"", b"\n"]) for _ in range(3)]
        return head + also + b"\r\n" + b"".join(parts) + rng.choice([b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"", b"0\r\n"])
    if kind < 0.75:
        return b"".join(request(rng).wire() for _ in range(rng.randint(2, 8))) + rng.choice(
            [b"", b"\r\n", b"garbage\r\n\r\n"]
        )
    if kind < 0.85:
        line = rng.choice(ODD_LINES)
        return f"{line}\r\nHost: a\r\n\r\n".encode("latin-1")
    if kind < 0.95:
        return wire.replace(b"\r\n", b"\r\n" + rng.choice(ODD_HEADERS) + b"\r\n", 1)
    return rng.randbytes(rng.randint(1, 2000))


def exchange(port: int, data: bytes, seconds: float = 20) -> list[int]:
    """Send bytes, say that there are no more, and return the statuses of what comes back until the server closes.

    Raises ``TimeoutError`` where it does not.
    """
    with socket.create_connection(("127.0.0.1", port), seconds) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has heard enough: what it says is read all the same
        found = bytearray()
        try:
            while chunk := connection.recv(1 << 16):
                found += chunk
        except ConnectionError:
            pass
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d\d\d)", found)]

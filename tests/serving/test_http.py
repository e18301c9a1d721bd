"""What only a real connection shows: limits, chunks, pipelines, what is not HTTP."""

import json
import re
import socket

import pytest

INFER = "/v2/models/churn/infer"
BODY = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}


def exchange(port, data):
    """Send bytes and read until the server closes or falls silent."""
    with socket.create_connection(("127.0.0.1", port), 2) as connection:
        connection.sendall(data)
        answer = b""
        try:
            while chunk := connection.recv(65536):
                answer += chunk
        except TimeoutError:
            pass
    return answer


def test_an_answer_says_how_long_it_is_and_what_it_is(client):
    reply = client.post(INFER, json=BODY)
    assert reply.headers["content-type"] == "application/json"
    assert int(reply.headers["content-length"]) == len(reply.content)


def test_an_answer_does_not_name_the_server_software(client):
    assert "server" not in client.get("/v2").headers


def test_head_is_get_without_the_body(client):
    assert client.head("/v2/health/ready").status_code == 200
    assert client.head("/v2/health/ready").content == b""


@pytest.mark.parametrize("path", [INFER, "/invocations", "/nothing"])
def test_a_body_beyond_the_limit_is_413_with_an_error(client, path):
    reply = client.post(path, content=b" " * 100_001, headers={"content-type": "application/json"})
    assert reply.status_code == 413
    assert "100000" in reply.json()["error"]


def test_a_body_beyond_the_limit_is_413_also_when_its_length_is_not_told(client):
    reply = client.post(INFER, content=(b" " * 1000 for _ in range(200)))
    assert reply.status_code == 413
    assert "100000" in reply.json()["error"]


def test_the_connection_lives_on_after_a_body_that_was_too_large(client):
    client.post(INFER, content=b" " * 3_000_000)
    assert client.post(INFER, json=BODY).status_code == 200


def test_a_body_just_within_the_limit_is_read_in_whole(client):
    body = json.dumps(BODY).encode().ljust(100_000)
    assert client.post(INFER, content=body).status_code == 200


def test_a_chunked_body_is_put_together(client):
    body = json.dumps(BODY).encode()
    assert client.post(INFER, content=(body[i : i + 7] for i in range(0, len(body), 7))).status_code == 200


def test_a_query_is_ignored_and_an_escaped_path_is_read(client):
    assert client.get("/v2/models/ch%75rn?x=1").json()["name"] == "churn"


def test_a_get_with_a_body_is_answered(client):
    assert client.request("GET", "/v2", content=b"abc").status_code == 200


def test_pipelined_requests_are_answered_in_order(tensor_server):
    request = b"GET %s HTTP/1.1\r\nHost: a\r\n%s\r\n"
    answer = exchange(
        tensor_server.port,
        request % (b"/v2/health/live", b"")
        + request % (b"/nothing", b"")
        + request % (b"/v2", b"Connection: close\r\n"),
    )
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"404", b"200"]


@pytest.mark.parametrize(
    "data",
    [
        b"this is not HTTP\r\n\r\n",
        b"GET /v2 HTTP/9.9\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\nContent-Length: abc\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST /v2 HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_what_is_not_http_is_400_and_json_too(tensor_server, data):
    head, _, body = exchange(tensor_server.port, data).partition(b"\r\n\r\n")
    assert re.match(rb"HTTP/1.1 4\d\d", head)
    assert list(json.loads(body)) == ["error"]


def test_a_client_that_leaves_in_the_middle_does_no_harm(tensor_server, client):
    with socket.create_connection(("127.0.0.1", tensor_server.port)) as connection:
        connection.sendall(b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{")
    assert client.get("/v2/health/live").status_code == 200


def test_an_upgrade_nobody_offers_is_answered_as_an_ordinary_request(client):
    headers = {"connection": "upgrade", "upgrade": "h2c"}
    assert client.get("/v2/health/live", headers=headers).status_code == 200


def test_mlflow_s_route_works_over_the_wire(client):
    reply = client.post("/invocations", json={"inputs": [[1, 2, 3]]})
    assert reply.json() == {"predictions": [[2.0, 4.0, 6.0]]}

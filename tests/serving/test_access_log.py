"""The log on stderr: a line of JSON for each request, errors in the same form, and nobody waits for its reader."""

import json
import os
import re
import threading
import time

import httpx
import pytest
from onnx import TensorProto, helper

from modelrel.serving.access import Lines

X = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
PATH = "/v2/models/churn/infer"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


def lines(running):
    """Stop a server and return what it has logged."""
    assert running.stop() == 0
    return [json.loads(line) for line in running.process.stderr]


@pytest.fixture
def failing_folder(make_folder):
    """A model that takes an index, and fails where there is no such row."""
    table = helper.make_tensor("", TensorProto.FLOAT, [2], [1.0, 2.0])
    nodes = [helper.make_node("Constant", [], ["t"], value=table), helper.make_node("Gather", ["t", "i"], ["y"])]
    return make_folder(nodes, [("i", "INT64", [-1])], [("y", "FP32", [-1])])


def test_a_request_is_one_line_that_says_what_it_was(tensor_dir, start_server):
    running = start_server(tensor_dir)
    body = json.dumps({"id": "mine", "inputs": [X]}).encode()
    reply = httpx.post(running.url + PATH, content=body, headers={"traceparent": f"00-{TRACE}-{SPAN}-01"})
    (line,) = lines(running)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line.pop("ms") > 0
    assert line == {
        "level": "info",
        "id": "mine",
        "method": "POST",
        "path": PATH,
        "status": 200,
        "bytes_in": len(body),
        "bytes_out": len(reply.content),
        "client": "127.0.0.1",
        "model": "churn",
        "version": "7",
        "trace_id": TRACE,
        "span_id": SPAN,
    }
    assert reply.headers["x-request-id"] == "mine"


def test_every_answer_has_an_id_the_client_s_or_one_of_ours(tensor_dir, start_server):
    running = start_server(tensor_dir)
    with httpx.Client(base_url=running.url) as client:
        replies = [
            client.post(PATH, json={"id": "body", "inputs": [X]}, headers={"x-request-id": "header"}),
            client.post(PATH, json={"inputs": [X]}, headers={"x-request-id": "header"}),
            client.post("/invocations", json={"inputs": [[1, 2, 3]]}, headers={"x-request-id": "mlflow"}),
            client.get("/nothing", headers={"x-request-id": "lost"}),
            client.post(PATH, content=b"{", headers={"x-request-id": "broken"}),
            client.post(PATH, json={"inputs": [X]}, headers={"x-request-id": "x" * 257}),
            client.get("/v2"),
        ]
        odd = client.post(PATH, json={"id": "zürich\r\nevil: 1", "inputs": [X]})
    ids = [reply.headers["x-request-id"] for reply in replies]
    assert ids[:5] == ["body", "header", "mlflow", "lost", "broken"]
    assert all(re.fullmatch("[0-9a-f]{32}", name) for name in ids[5:])
    assert len(set(ids)) == 7
    assert odd.headers["x-request-id"] == "z%C3%BCrich%0D%0Aevil:%201"
    assert "evil" not in odd.headers
    logged = lines(running)
    assert [line["id"] for line in logged[:7]] == ids
    assert logged[7]["id"] == "zürich\r\nevil: 1"


def test_no_client_can_forge_a_line(tensor_dir, start_server):
    running = start_server(tensor_dir)
    evil = '%0A{"time":"now","status":200}%0D%0A%1B[2J%E2%80%A8"'
    httpx.get(running.url + "/" + evil, headers={"x-request-id": 'a"},{"'})
    assert running.stop() == 0
    raw = running.process.stderr.read()
    assert raw.count("\n") == 1
    assert "\x1b" not in raw
    line = json.loads(raw)
    assert line["path"] == '/\n{"time":"now","status":200}\r\n\x1b[2J\u2028"'
    assert line["id"] == 'a"},{"'


def test_health_checks_are_logged_only_when_they_fail(tensor_dir, start_server):
    running = start_server(tensor_dir)
    for path in ("/ping", "/health", "/v2/health/live", "/v2/health/ready", "/v2/models/churn/ready", "/metrics"):
        assert httpx.get(running.url + path).status_code == 200
    assert httpx.get(running.url + "/v2/models/ghost/ready").status_code == 404
    (line,) = lines(running)
    assert (line["path"], line["status"]) == ("/v2/models/ghost/ready", 404)


def test_an_error_is_a_line_with_the_id_and_its_cause_which_the_client_does_not_learn(failing_folder, start_server):
    running = start_server(failing_folder)
    body = {"id": "bad", "inputs": [{"name": "i", "shape": [1], "datatype": "INT64", "data": [9]}]}
    reply = httpx.post(running.url + PATH, json=body)
    assert reply.status_code == 500
    assert "Traceback" not in reply.text
    text = httpx.get(running.url + "/metrics").text
    assert "modelrel_errors_total 1\n" in text
    event, request = lines(running)
    assert (event["level"], event["id"], request["id"]) == ("error", "bad", "bad")
    assert "failed" in event["message"]
    assert "Traceback" in event["exception"]
    assert "InferenceFailed" in event["exception"]
    assert (request["level"], request["status"], request["model"]) == ("error", 500, "churn")


def test_without_the_access_log_errors_are_still_told(failing_folder, start_server):
    running = start_server(failing_folder, "--no-access-log")
    for index in (0, 9):
        body = {"inputs": [{"name": "i", "shape": [1], "datatype": "INT64", "data": [index]}]}
        httpx.post(running.url + PATH, json=body)
    (line,) = lines(running)
    assert line["level"] == "error"


def test_a_server_whose_log_nobody_reads_goes_on_answering_and_ends(tensor_dir, start_server):
    running = start_server(tensor_dir)  # its stderr is a pipe of 64 KiB
    with httpx.Client(base_url=running.url) as client:
        for _ in range(600):
            assert client.get("/" + "a" * 900).status_code == 404
    assert running.stop() == 0


def test_what_nobody_reads_is_bounded_and_counted(monkeypatch):
    reading, writing = os.pipe()
    monkeypatch.setattr("modelrel.serving.access.MOST_LINES", 100)
    made = Lines(writing)
    stuck = b"x" * (1 << 20)  # more than a pipe holds
    made.add(stuck)
    while made._waiting:
        time.sleep(0.001)
    for _ in range(150):
        made.add(b"line")
    assert made.lost == 50
    got = []

    def read():
        while data := os.read(reading, 65536):
            got.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    made.close(60)
    os.close(writing)
    reader.join()
    os.close(reading)
    assert b"".join(got) == stuck + b"\n" + b"line\n" * 100


def test_lines_that_come_after_the_end_are_written_too():
    reading, writing = os.pipe()
    made = Lines(writing)
    for line in (b"one", b"two"):
        made.add(line)
        made.close(60)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b"one\ntwo\n"

"""The end of a server: what has begun is finished in the time for that, what has not is not begun."""

from __future__ import annotations

import errno
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest
from onnx import helper

INFER = "/v2/models/churn/infer"
ROWS = 1600
LONG = {"inputs": [{"name": "x", "shape": [ROWS, 8], "datatype": "FP32", "data": [0.1] * (ROWS * 8)}]}


@pytest.fixture
def long_folder(make_folder):
    """A model that takes seconds for a request of many rows, and no time for one of few."""

    def make(links):
        chain = [helper.make_node("MatMul", ["x", "xt"], ["p0"])]
        chain += [helper.make_node("MatMul", [f"p{i}", "p0"], [f"p{i + 1}"]) for i in range(links)]
        nodes = [
            helper.make_node("Transpose", ["x"], ["xt"], perm=[1, 0]),
            *chain,
            helper.make_node("ReduceMax", [f"p{links}"], ["y"], keepdims=0),
        ]
        return make_folder(nodes, [("x", "FP32", [-1, 8])], [("y", "FP32", [])])

    return make


def begin(pool, running, processes):
    """Send the long request; return its future when it is being computed."""
    before = sum(sum(process.cpu_times()[:2]) for process in processes)
    future = pool.submit(httpx.post, running.url + INFER, json=LONG, timeout=120)
    while sum(sum(process.cpu_times()[:2]) for process in processes) < before + 0.2:
        assert not future.done()
        time.sleep(0.001)
    return future


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_request_that_is_computed_is_answered_although_the_server_is_told_to_stop(long_folder, start_server, workers):
    running = start_server(long_folder(6), "--workers", workers)
    parent = psutil.Process(running.process.pid)
    with ThreadPoolExecutor(1) as pool:
        future = begin(pool, running, parent.children() or [parent])
        running.process.terminate()
        reply = future.result()
    assert reply.status_code == 200
    assert reply.headers["connection"] == "close"
    assert running.process.wait(20) == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_request_that_takes_longer_than_the_grace_is_cut_and_the_end_is_a_good_one(
    long_folder, start_server, workers
):
    running = start_server(long_folder(300), "--grace", "0.3", "--workers", workers)
    parent = psutil.Process(running.process.pid)
    processes = parent.children() or [parent]
    with ThreadPoolExecutor(1) as pool:
        future = begin(pool, running, processes)
        running.process.terminate()
        with pytest.raises(httpx.HTTPError):
            future.result()
    assert running.process.wait(20) == 0
    assert not any(process.is_running() for process in processes)


def test_a_server_that_stops_takes_no_new_connections_and_closes_idle_ones(long_folder, start_server):
    running = start_server(long_folder(6))
    with ThreadPoolExecutor(1) as pool, socket.create_connection(("127.0.0.1", running.port), 20) as idle:
        idle.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        assert idle.recv(10_000).startswith(b"HTTP/1.1 200")
        future = begin(pool, running, [psutil.Process(running.process.pid)])
        running.process.terminate()
        assert idle.recv(1) == b""
        refused = False
        while not refused and not future.done():
            with socket.socket() as another:
                refused = another.connect_ex(("127.0.0.1", running.port)) == errno.ECONNREFUSED
        assert refused
        assert future.result().status_code == 200


def test_a_request_that_is_still_coming_in_is_finished_but_not_waited_for_without_end(tensor_dir, start_server):
    running = start_server(tensor_dir, "--grace", "0.5")
    body = json.dumps(LONG).encode()
    head = b"POST /v2 HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
    with socket.create_connection(("127.0.0.1", running.port), 20) as connection:
        connection.sendall(head + body[:100])
        connection.sendall(b"")
        running.process.terminate()
        assert running.process.wait(20) == 0

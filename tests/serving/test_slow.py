"""Requests, answers and models that are slow, too many or too large: nobody holds up the others.

The server runs in this process, on real sockets, with a clock that the tests move and a model that the tests let go.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading

import numpy as np
import pytest
import uvicorn
from uvicorn.server import ServerState

from modelrel.serving.answers import Refused
from modelrel.serving.app import App
from modelrel.serving.engine import Engine
from modelrel.serving.limits import (
    BYTES_PER_S,
    ELEMENTS,
    HEAD_BYTES,
    HEADERS,
    KEEP_ALIVE_S,
    RECEIVE_S,
    URL_BYTES,
    check_elements,
)
from modelrel.serving.loop import no_asgi
from modelrel.serving.manifest import Manifest, TensorSpec
from modelrel.serving.model import Model
from modelrel.serving.models import Models
from modelrel.serving.options import defaults
from modelrel.serving.protocol import bound
from modelrel.serving.wire import Shared

INFER = b"/v2/models/gate/infer"
BODY = json.dumps({"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [1]}]}).encode()
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n"


class Gate:
    """A loaded model that computes on a thread, and only when it is let."""

    inputs = outputs = None
    blocks = True
    pool = None

    def __init__(self, rows=1):
        self.open = threading.Event()
        self.entered = threading.Semaphore(0)
        self.rows = rows

    def run(self, outputs, feeds, params):
        self.entered.release()
        self.open.wait(60)
        return [np.repeat(feeds["x"], self.rows, axis=0)]

    def close(self):
        pass


class Served:
    """A server in this process. ``later`` moves its clock and lets it look at it."""

    def __init__(self, gate, **settings):
        spec = TensorSpec("x", "FP32", (-1, 1))
        manifest = Manifest(
            schema=1, name="gate", version="1", format="onnx", file="x", kind="tensor", inputs=(spec,),
            outputs=(TensorSpec("y", "FP32", (-1, 1)),), predict="y",
        )  # fmt: skip
        self.engine = Engine(Models.of(Model(manifest, gate)), defaults(**settings))
        self.app = App(self.engine)
        self.shared = Shared(self.app)
        self.state = ServerState()
        self.loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self.loop.run_until_complete, args=(self._main(),))
        self._thread.start()
        assert self._started.wait(10)

    async def _main(self):
        config = uvicorn.Config(
            no_asgi, log_config=None, log_level="critical", ws="none", lifespan="off", interface="asgi3"
        )
        self.shared.tick(1.0, b"Sat, 01 Jan 2000 00:00:00 GMT")
        make = bound(self.shared)
        server = await self.loop.create_server(lambda: make(config, self.state, {}), "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._stop = asyncio.Event()
        self._started.set()
        await self._stop.wait()
        server.close()
        for connection in list(self.state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)

    def call(self, function, *arguments):
        """Call something on the loop's thread and return its result."""

        async def on_loop():
            return function(*arguments)

        return asyncio.run_coroutine_threadsafe(on_loop(), self.loop).result(10)

    def later(self, seconds):
        def move():
            self.shared.tick(self.shared.now + seconds, self.shared.date)
            self.shared.sweep(self.state.connections)

        self.call(move)

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), 10)

    def wait_for(self, what):
        """Wait until something is true on the server's side."""
        deadline = threading.Event()
        for _ in range(5000):
            if self.call(what):
                return
            deadline.wait(0.002)
        raise AssertionError("it never came to be")

    def close(self):
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self.engine.close()
        self.loop.close()


@pytest.fixture
def gate():
    made = Gate()
    yield made
    made.open.set()


@pytest.fixture
def serve(gate):
    running = []

    def one(**settings):
        running.append(Served(gate, **settings))
        return running[-1]

    yield one
    gate.open.set()
    for server in running:
        server.close()


def post(body=BODY, path=INFER, headers=b""):
    return b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n%s\r\n%s" % (path, len(body), headers, body)


def answer_of(connection):
    """Read one answer: status, headers, JSON."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = connection.recv(65536)
        if not chunk:
            return None
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().lower().split("\r\n")[1:])
    while len(body) < int(headers.get("content-length", "0")):
        body += connection.recv(65536)
    return int(head.split()[1]), headers, json.loads(body) if body else None


def is_closed(connection):
    """Whether the server closes the connection, as a read of nothing shows."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_a_request_beyond_those_in_flight_is_429_and_told_when_to_come_again(serve, gate):
    server = serve(max_in_flight=2)
    first, second, third = (server.connect() for _ in range(3))
    with first, second, third:
        for connection in (first, second):
            connection.sendall(post())
            assert gate.entered.acquire(timeout=10)
        third.sendall(post())
        status, headers, error = answer_of(third)
        assert (status, headers["retry-after"]) == (429, "1")
        assert "2 requests" in error["error"]
        third.sendall(LIVE)
        assert answer_of(third)[0] == 200  # health is answered all the same, and on the same connection
        gate.open.set()
        assert answer_of(first)[0] == answer_of(second)[0] == 200
        server.wait_for(lambda: not server.app.working)
        third.sendall(post())
        assert answer_of(third)[0] == 200


def test_a_request_that_takes_too_long_is_504_and_its_place_is_taken_until_it_is_through(serve, gate):
    server = serve(timeout=0.05, max_in_flight=1)
    with server.connect() as connection:
        connection.sendall(post())
        assert answer_of(connection)[0] == 504
        connection.sendall(post())
        assert answer_of(connection)[0] == 429
        gate.open.set()
        server.wait_for(lambda: not server.app.working)
        connection.sendall(post())
        assert answer_of(connection)[0] == 200


def test_what_was_given_up_is_not_answered_twice(serve, gate):
    server = serve(timeout=0.05)
    with server.connect() as connection:
        connection.sendall(post())
        assert answer_of(connection)[0] == 504
        gate.open.set()
        server.wait_for(lambda: not server.app.working)
        connection.sendall(LIVE)
        assert answer_of(connection)[2] == {"live": True}


def test_a_client_that_leaves_while_its_request_is_computed_leaves_no_place_taken(serve, gate):
    server = serve(max_in_flight=1)
    with server.connect() as connection:
        connection.sendall(post())
        assert gate.entered.acquire(timeout=10)
    gate.open.set()
    server.wait_for(lambda: not server.app.working and not server.state.connections)
    with server.connect() as connection:
        connection.sendall(post())
        assert answer_of(connection)[0] == 200


def test_answers_come_in_the_order_of_the_requests_also_where_the_first_is_slow(serve, gate):
    server = serve()
    with server.connect() as connection:
        connection.sendall(post() + LIVE + b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\nnonsense\r\n\r\n")
        assert gate.entered.acquire(timeout=10)
        gate.open.set()
        data = b""
        while chunk := connection.recv(65536):
            data += chunk
    assert re.findall(rb"HTTP/1.1 (\d+)", data) == [b"200", b"200", b"404", b"400"]


def test_a_client_that_has_said_its_last_word_still_gets_its_answer(serve, gate):
    server = serve()
    with server.connect() as connection:
        connection.sendall(post())
        assert gate.entered.acquire(timeout=10)
        connection.shutdown(socket.SHUT_WR)
        server.wait_for(lambda: any(one._last for one in server.state.connections))
        gate.open.set()
        assert answer_of(connection)[0] == 200
        assert is_closed(connection)


@pytest.mark.parametrize(
    "sent",
    [
        b"POST " + INFER + b" HTTP/1.1\r\nHost: a\r\nX-Slow: ",
        post()[:-5],
        b"POST " + INFER + b" HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
    ],
    ids=["head", "body", "chunk"],
)
def test_a_request_that_does_not_come_in_is_408_and_the_connection_ends(serve, sent):
    server = serve()
    with server.connect() as connection:
        connection.sendall(sent)
        server.wait_for(lambda: any(one._url for one in server.state.connections))
        server.later(RECEIVE_S - 1)
        server.later(3)
        assert answer_of(connection)[0] == 408
        assert is_closed(connection)
    server.wait_for(lambda: not server.state.connections)


def test_a_connection_that_sends_nothing_ends(serve):
    server = serve()
    with server.connect() as connection:
        server.wait_for(lambda: server.state.connections)
        server.later(RECEIVE_S + 1)
        assert is_closed(connection)


def test_an_idle_connection_outlives_a_load_balancer_s_minute_but_ends(serve):
    server = serve()
    with server.connect() as connection:
        connection.sendall(LIVE)
        assert answer_of(connection)[0] == 200
        server.later(61)
        connection.sendall(LIVE)
        assert answer_of(connection)[0] == 200
        server.later(KEEP_ALIVE_S + 1)
        assert is_closed(connection)


def test_a_request_that_is_computed_is_not_cut_however_long_it_takes(serve, gate):
    server = serve(timeout=0)
    with server.connect() as connection:
        connection.sendall(post())
        assert gate.entered.acquire(timeout=10)
        server.later(100_000)
        gate.open.set()
        assert answer_of(connection)[0] == 200


def test_a_long_body_gets_more_time_but_not_without_end(serve):
    server = serve()
    size = 40 * BYTES_PER_S
    with server.connect() as connection:
        connection.sendall(post(b" " * (2 * size))[:-size])
        server.wait_for(lambda: server.shared.receiving >= size - 100)
        server.later(RECEIVE_S + 5)
        server.later(5)
        assert server.state.connections
        server.later(40)
        assert answer_of(connection)[0] == 408


def test_a_client_that_does_not_read_its_answers_is_cut_and_asked_nothing_more(serve, gate):
    gate.rows = 1_000_000
    gate.open.set()
    server = serve()
    with server.connect() as connection:
        connection.sendall(post() * 3)
        server.wait_for(lambda: any(one.flow.write_paused for one in server.state.connections))
        (one,) = server.state.connections
        assert len(one._queue) == 2  # not even begun while the first is not read
        server.later(RECEIVE_S + 1)
        assert server.state.connections  # the answer is large, which takes time
        server.later(10_000)
        server.wait_for(lambda: not server.state.connections)


def test_the_next_request_of_a_slow_reader_is_answered_when_it_has_read(serve, gate):
    gate.rows = 1_000_000
    gate.open.set()
    server = serve()
    with server.connect() as connection:
        connection.sendall(post() + LIVE)
        server.wait_for(lambda: any(one.flow.write_paused for one in server.state.connections))
        data = b""
        while not data.endswith(b'{"live":true}'):
            data += connection.recv(1 << 20)
        first = data.partition(b"\r\n\r\n")[2].partition(b"HTTP/1.1 200 OK")[0]
        assert len(json.loads(first)["outputs"][0]["data"]) == 1_000_000


def test_bodies_on_their_way_in_have_a_limit_together(serve):
    server = serve(max_body=200_000)
    connections = [server.connect() for _ in range(10)]
    for connection in connections[:8]:
        connection.sendall(post(b" " * 200_000)[:-1000])
    server.wait_for(lambda: server.shared.receiving >= 8 * 199_000)
    connections[8].sendall(post(b" " * 200_000)[:-1000])
    status, headers, _ = answer_of(connections[8])
    assert (status, headers["retry-after"]) == (429, "5")
    connections[9].sendall(LIVE)
    assert answer_of(connections[9])[0] == 200
    for connection in connections:
        connection.close()
    server.wait_for(lambda: not server.state.connections)
    assert server.shared.receiving == 0


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /" + b"a" * (URL_BYTES + 1) + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * (HEAD_BYTES + 1) + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: a\r\n" % i for i in range(HEADERS + 1)) + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 1_000_000, 431),
        (b"GET /" + b"a" * 1_000_000, 414),
    ],
    ids=["address", "header", "headers", "header without end", "address without end"],
)
def test_a_head_that_is_too_large_is_refused_with_its_own_status(serve, request_, status):
    server = serve()
    with server.connect() as connection:
        connection.sendall(request_)
        assert answer_of(connection)[0] == status
        connection.shutdown(socket.SHUT_WR)
        assert is_closed(connection)


@pytest.mark.parametrize(("value", "status"), [(b"[],", 413), (b" " * 30 + b"1,", 400)])
def test_a_body_of_too_many_values_is_refused_before_it_is_read(serve, value, status):
    server = serve()
    body = b'{"inputs":[' + value * 4_200_000 + b"1]}"
    if status == 400:
        body = body[: 60 << 20]
    with server.connect() as connection:
        connection.sendall(post(body))
        answered, _, error = answer_of(connection)
    assert answered == status, error


def test_numbers_in_binary_are_not_counted_as_if_they_were_text():
    check_elements({"inference-header-content-length": "5"}, b"," * (ELEMENTS + 1))
    with pytest.raises(Refused):
        check_elements({}, b"," * (ELEMENTS + 1))


def test_trailers_without_end_are_refused(serve):
    server = serve()
    with server.connect() as connection:
        connection.sendall(
            b"POST /v2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: " + b"a" * 1_000_000
        )
        assert answer_of(connection)[0] == 431


def test_a_hundred_requests_in_one_packet_are_answered_one_by_one(serve):
    server = serve()
    with server.connect() as connection:
        connection.sendall(LIVE * 100)
        data = b""
        while data.count(b"HTTP/1.1 200 OK") < 100:
            data += connection.recv(65536)


def test_a_body_is_asked_for_where_the_client_waits_to_send_it(serve, gate):
    gate.open.set()
    server = serve()
    with server.connect() as connection:
        connection.sendall(post(headers=b"Expect: 100-continue\r\n")[: -len(BODY)])
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(BODY)
        assert answer_of(connection)[0] == 200


def test_a_body_that_is_not_wanted_is_not_asked_for(serve):
    server = serve(max_body=10)
    with server.connect() as connection:
        connection.sendall(post(headers=b"Expect: 100-continue\r\n")[: -len(BODY)])
        status, headers, _ = answer_of(connection)
        assert (status, headers["connection"]) == (413, "close")
        connection.shutdown(socket.SHUT_WR)
        assert is_closed(connection)


def test_a_server_that_is_about_to_stop_is_not_ready_and_closes(serve):
    server = serve()
    with server.connect() as connection:
        connection.sendall(LIVE)
        answer_of(connection)

        def stop():
            server.app.stopping = True

        server.call(stop)
        for path, status in ((b"/v2/health/ready", 503), (b"/ping", 503), (b"/v2/health/live", 200)):
            connection.sendall(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % path)
            assert answer_of(connection)[0] == status


def test_a_connection_with_a_request_is_closed_after_its_answer_when_the_server_stops(serve, gate):
    server = serve()
    with server.connect() as connection, server.connect() as idle:
        connection.sendall(post())
        assert gate.entered.acquire(timeout=10)
        idle.sendall(LIVE)
        answer_of(idle)
        server.call(lambda: [one.shutdown() for one in list(server.state.connections)])
        assert is_closed(idle)
        gate.open.set()
        status, headers, _ = answer_of(connection)
        assert (status, headers["connection"]) == (200, "close")
        assert is_closed(connection)

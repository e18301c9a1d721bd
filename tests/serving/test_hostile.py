"""Thousands of requests that nobody means well with: no crash, no hang, nothing that is the server's fault.

``make nightly`` sends a hundred thousand and more, from new seeds (bench/fuzz.py).
"""

from __future__ import annotations

import asyncio
import random

import psutil
import pytest

from modelrel.serving.app import App, Request
from modelrel.serving.engine import Engine
from modelrel.serving.models import Models
from modelrel.serving.options import defaults
from tests.serving.hostile import Hostile, broken_http, exchange, request

MEMORY_MIB = 24
"""What a server may grow by; a leak of a kilobyte for each request would be more where many are sent."""


async def blamed(app: App, hostile: Hostile) -> int:
    """Ask the app, without a connection, and return the status."""
    asked = Request(hostile.method, hostile.path, "", dict(hostile.headers))
    asked.body = hostile.body
    answer = app.early(asked)
    if answer is None:
        later = asyncio.get_running_loop().create_future()
        answer = app.start(asked, lambda _request, found: later.set_result(found)) or await later
    assert b"Traceback" not in answer.body
    return answer.status


@pytest.mark.parametrize("kind", ["columns_model", "tensor_model"])
def test_no_request_makes_the_server_fail(request_fixture, kind):
    app = App(Engine(Models.of(request_fixture(kind)), defaults(max_body=1_000_000)))
    rng = random.Random(kind)

    async def ask_many():
        for _ in range(5000):
            hostile = request(rng)
            status = await blamed(app, hostile)
            assert status < 500, hostile

    asyncio.run(ask_many())
    app.close()
    assert not app.working


@pytest.fixture
def request_fixture(request):
    return request.getfixturevalue


def test_no_bytes_on_a_connection_make_the_server_fail_hang_or_grow(tensor_dir, start_server):
    running = start_server(tensor_dir, "--max-body", "1000000", "--no-access-log")
    process = psutil.Process(running.process.pid)
    rng = random.Random(1)
    grown_from = 0
    for turn in range(2000):
        if turn == 400:
            grown_from = process.memory_info().rss
        data = broken_http(rng)
        statuses = exchange(running.port, data)
        assert all(status < 500 for status in statuses), data
    assert exchange(running.port, b"GET /v2/health/ready HTTP/1.1\r\nHost: a\r\n\r\n") == [200]
    assert process.memory_info().rss - grown_from < MEMORY_MIB << 20
    assert running.stop() == 0
    assert running.process.stderr.read() == ""

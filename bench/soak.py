"""An hour's worth of requests on one server, to see that its memory is flat and that nothing is lost.

``python bench/soak.py`` puts the linear model under 16 connections until 3 million requests are answered or 15 minutes
are over. Every answer's body is compared, byte for byte, with the first; the server's own count must be the client's;
and the resident memory of the last tenth is compared with that after the first. It ends with 1 where one fails.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import re
import sys
import tempfile
import time
from pathlib import Path

import load
import peers
import served

CONNECTIONS = 16
ALLOWED_MIB = 5.0
OK = b"HTTP/1.1 200 "


class Client:
    """Connections that send one request after another, and count the answers that are the expected bytes."""

    def __init__(self, port: int, request: bytes, length: int, until: float, limit: int) -> None:
        self._port, self._request, self._length = port, request, length
        self._until, self._limit = until, limit
        self.sent = self.right = 0
        self.expected = b""

    async def run(self) -> None:
        """Send until the time or the number is reached."""
        await asyncio.gather(*[self._connection() for _ in range(CONNECTIONS)])

    async def _connection(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        while self.sent < self._limit and time.monotonic() < self._until:
            self.sent += 1
            writer.write(self._request)
            answer = await reader.readexactly(self._length)
            self.right += answer.startswith(OK) and answer.endswith(self.expected)
        writer.close()


def request_of(server: peers.Server, body: peers.Body) -> bytes:
    """Return a whole request, as bytes on the wire."""
    headers = "".join(f"{name}: {value}\r\n" for name, value in body.headers.items())
    head = f"POST {server.path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {len(body.content)}\r\n"
    return f"{head}X-Request-Id: soak\r\n\r\n".encode() + body.content


async def first_answer(port: int, request: bytes) -> tuple[int, bytes]:
    """Return the length of the answer to one request, and its body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    found = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    assert found, head
    body = await reader.readexactly(int(found[1]))
    writer.close()
    return len(head) + len(body), body


def counted(port: int) -> int:
    """Return how many inferences the server says it has answered with 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    found = re.findall(r"^modelrel_requests_total\{([^}]*)\} (\S+)", text, re.MULTILINE)
    return int(sum(float(value) for labels, value in found if 'model="linear"' in labels and 'status="200"' in labels))


def main() -> int:
    """Run it, and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=3_000_000)
    parser.add_argument("--minutes", type=float, default=15)
    options = parser.parse_args()
    trained = served.linear()
    with tempfile.TemporaryDirectory() as folder:
        onnx = served.write(trained, "onnx", Path(folder) / "onnx")
        port = peers.free_port()
        command = [sys.executable, "-m", "modelrel.serving", str(onnx), "--port", str(port)]
        peer = load.Peer("modelrel", peers.Server("modelrel", command, port, "/v2/models/linear/infer"), [("json", 1)])
        body = load.body(trained, peer, "json", 1)
        process, _ = peers.start(peer.server, body)
        try:
            return asyncio.run(soaked(peer.server, body, process.pid, options))
        finally:
            peers.stop(process)


async def soaked(server: peers.Server, body: peers.Body, pid: int, options: argparse.Namespace) -> int:
    """Send everything in twenty parts, and look at the memory after each."""
    request = request_of(server, body)
    length, expected = await first_answer(server.port, request)
    before, began = counted(server.port), time.monotonic()
    sent = right = 0
    memory = []
    for part in range(20):
        until = began + options.minutes * 60 * (part + 1) / 20
        client = Client(server.port, request, length, until, options.requests // 20)
        client.expected = expected
        await client.run()
        sent, right = sent + client.sent, right + client.right
        memory.append(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20)
        rate = sent / (time.monotonic() - began)
        print(f"{sent:>10,} requests  {rate:>7.0f} a second  {memory[-1]:>7.1f} MiB", flush=True)
    grown = max(memory[-2:]) - min(memory[1:3])
    told = counted(server.port) - before
    print(f"{sent:,} sent, {right:,} answered rightly, {told:,} counted by the server, memory {grown:+.1f} MiB")
    return 0 if sent == right == told and grown <= ALLOWED_MIB else 1


if __name__ == "__main__":
    sys.exit(main())

"""Trace context in, OpenTelemetry's spans out to a collector that is a real HTTP server."""

import gzip
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from modelrel.serving.tracing import parent

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
X = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
PATH = "/v2/models/churn/infer"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"00-{TRACE}-{SPAN}-01", (TRACE, SPAN, True)),
        (f"00-{TRACE}-{SPAN}-00", (TRACE, SPAN, False)),
        (f" 00-{TRACE}-{SPAN}-01\t", (TRACE, SPAN, True)),
        (f"cc-{TRACE}-{SPAN}-09-what-the-future-brings", (TRACE, SPAN, True)),
        (f"00-{TRACE}-{SPAN}-01-more", None),
        (f"cc-{TRACE}-{SPAN}-01.more", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{TRACE[1:]}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}", None),
        (f"00-{TRACE}-{SPAN}-1", None),
        (f"00-{TRACE}-{SPAN}-01\n", None),
        ("٠٠-" + f"{TRACE}-{SPAN}-01", None),
        ("", None),
    ],
)
def test_a_traceparent_is_read_as_the_standard_has_it(text, found):
    assert parent({"traceparent": text}) == found


def test_a_request_without_one_has_none():
    assert parent({}) is None


class Collector(ThreadingHTTPServer):
    """Keeps the spans that are sent to it."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Collecting)
        self.requests = []


class _Collecting(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.requests.append((self.path, ExportTraceServiceRequest.FromString(body)))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def collector():
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def attributes(span):
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}


def spans(collector):
    return [
        span
        for _, request in collector.requests
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


@pytest.fixture
def environment(collector):
    port = collector.server_address[1]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return kept | {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "NO_PROXY": "*"}


def test_a_request_is_a_server_span_of_the_caller_s_trace_with_the_inference_in_it(
    tensor_dir, start_server, collector, environment
):
    running = start_server(tensor_dir, "--otel", env=environment | {"OTEL_SERVICE_NAME": "churn-service"})
    headers = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=1", "user-agent": "tester"}
    reply = httpx.post(running.url + PATH, json={"id": "mine", "inputs": [X]}, headers=headers)
    assert reply.status_code == 200
    assert running.stop() == 0
    (path, request) = collector.requests[0]
    assert path == "/v1/traces"
    named = {a.key: a.value.string_value for a in request.resource_spans[0].resource.attributes}
    assert named["service.name"] == "churn-service"
    inference, server = sorted(spans(collector), key=lambda span: span.kind)
    assert (server.name, server.kind) == (f"POST {PATH}", 2)  # SPAN_KIND_SERVER
    assert (server.trace_id.hex(), server.parent_span_id.hex(), server.trace_state) == (TRACE, SPAN, "vendor=1")
    assert (inference.name, inference.parent_span_id) == ("inference churn", server.span_id)
    assert inference.trace_id == server.trace_id
    assert server.start_time_unix_nano <= inference.start_time_unix_nano
    assert inference.start_time_unix_nano <= inference.end_time_unix_nano <= server.end_time_unix_nano
    known = attributes(server)
    assert {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": PATH,
        "url.path": PATH,
        "url.scheme": "http",
        "client.address": "127.0.0.1",
        "server.address": "127.0.0.1",
        "server.port": running.port,
        "user_agent.original": "tester",
        "modelrel.request.id": "mine",
        "modelrel.model.name": "churn",
        "modelrel.model.version": "7",
    }.items() <= known.items()
    assert attributes(inference)["modelrel.model.version"] == "7"
    (line,) = [line for line in running.process.stderr if PATH in line]
    assert f'"trace_id":"{TRACE}","span_id":"{server.span_id.hex()}"' in line


def test_a_path_that_leads_nowhere_names_no_span_and_a_failure_is_an_error(
    tensor_dir, start_server, collector, environment
):
    running = start_server(tensor_dir, "--otel", env=environment)
    httpx.get(running.url + "/secret/1")
    running.stop()
    (span,) = spans(collector)
    assert span.name == "GET"
    assert "http.route" not in attributes(span)
    assert span.parent_span_id == b""
    assert span.status.code == 0  # a client's error is none of ours


def test_what_the_caller_does_not_sample_is_not_sent(tensor_dir, start_server, collector, environment):
    running = start_server(tensor_dir, "--otel", env=environment)
    httpx.post(running.url + PATH, json={"inputs": [X]}, headers={"traceparent": f"00-{TRACE}-{SPAN}-00"})
    running.stop()
    assert spans(collector) == []


def test_a_collector_that_is_not_there_costs_no_answer(tensor_dir, start_server, environment):
    gone = environment | {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    running = start_server(tensor_dir, "--otel", env=gone)
    assert httpx.post(running.url + PATH, json={"inputs": [X]}).status_code == 200
    assert running.stop() == 0


def test_without_the_libraries_the_sentence_has_the_pip_command(tensor_dir, tmp_path):
    (tmp_path / "opentelemetry.py").write_text("raise ImportError('not installed')")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    ended = subprocess.run(
        [sys.executable, "-m", "modelrel.serving", str(tensor_dir), "--port", "0", "--otel"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert ended.returncode == 2
    assert "pip install opentelemetry-sdk" in ended.stderr

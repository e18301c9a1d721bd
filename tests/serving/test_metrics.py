"""``GET /metrics``: what is counted, and that Prometheus can read it."""

import asyncio
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil
import pyarrow.parquet
import pytest
from prometheus_client.parser import text_string_to_metric_families

from modelrel.serving import load_model, metrics
from modelrel.serving.engine import Engine
from modelrel.serving.models import Models
from modelrel.serving.options import defaults

BODY = {"inputs": [{"name": "x", "shape": [2, 3], "datatype": "FP32", "data": [1, 2, 3, 4, 5, 6]}]}


def samples(text):
    """Return name -> labels -> value of an exposition, as Prometheus' own parser reads it."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = frozenset(sample.labels.items())
            assert labels not in found.setdefault(sample.name, {}), "the same series twice"
            found[sample.name][labels] = sample.value
    return found


def value(text, name, **labels):
    """Return the sum of the series that have some labels."""
    wanted = labels.items()
    return sum(number for has, number in samples(text).get(name, {}).items() if wanted <= has)


def exchange(engine, method, path, body=b"", **headers):
    return asyncio.run(engine.records.watched("http", engine.answer)(method, path, headers, body))


def scrape(engine):
    return exchange(engine, "GET", "/metrics").body.decode()


@pytest.fixture
def make_engine():
    made = []

    def make(*models, **settings):
        shared = settings.pop("shared", None)
        worker = settings.pop("worker", 0)
        chosen = defaults(**settings)
        chosen.shared, chosen.worker = shared, worker
        # A model of its own each: the end of an engine is that of its models.
        own = [load_model(model) if isinstance(model, Path) else model for model in models]
        made.append(Engine(Models.of(*own), chosen))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


def test_requests_are_counted_by_protocol_model_version_and_status(tensor_dir, start_server):
    running = start_server(tensor_dir)
    with httpx.Client(base_url=running.url) as client:
        for _ in range(3):
            client.post("/v2/models/churn/infer", json=BODY)
        client.post("/v2/models/churn/versions/7/infer", content=b"{")
        client.post("/invocations", json={"inputs": [[1, 2, 3]]})
        client.get("/v2/health/live")
        reply = client.get("/metrics")
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = samples(reply.text)["modelrel_requests_total"]
    assert {
        tuple(dict(labels).get(n) for n in ("protocol", "model", "version", "status")): n for labels, n in found.items()
    } == {
        ("v2", "churn", "7", "200"): 3,
        ("v2", "churn", "7", "400"): 1,
        ("mlflow", "churn", "7", "200"): 1,
        ("v2", "", "", "200"): 1,
    }
    assert value(reply.text, "modelrel_request_duration_seconds_count", protocol="v2", model="churn") == 4
    assert value(reply.text, "modelrel_inference_rows_sum", model="churn", role="answer") == 2 * 3 + 1
    assert value(reply.text, "modelrel_inference_duration_seconds_count") == 4
    assert value(reply.text, "modelrel_requests_in_flight") == 1  # the one that asks
    assert value(reply.text, "modelrel_request_bytes_total", protocol="mlflow") == len(
        json.dumps({"inputs": [[1, 2, 3]]}, separators=(",", ":"))
    )


def test_the_format_keeps_the_rules_of_prometheus(tensor_dir, tmp_path, make_engine):
    engine = make_engine(tensor_dir, log_predictions=str(tmp_path))
    exchange(engine, "POST", "/v2/models/churn/infer", json.dumps(BODY).encode())
    text = scrape(engine)
    assert text.endswith("\n")
    seen = set()
    for block in re.split(r"(?m)^(?=# HELP )", text)[1:]:
        head, kind, *rest = block.splitlines()
        name = head.split()[2]
        assert name not in seen, "one block a name"
        seen.add(name)
        assert len(head.split(maxsplit=3)[3]) > 10
        assert kind.split()[:3] == ["#", "TYPE", name]
        kind = kind.split()[3]
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
        assert (kind == "counter") == name.endswith("_total")
        assert not re.search(r"_(ms|milliseconds|kb|mb|count|sum|bucket|gauge|counter|histogram)$", name)
        assert all(line.startswith(name) for line in rest)
    histograms = samples(text)
    for name in ("modelrel_request_duration_seconds", "modelrel_inference_duration_seconds", "modelrel_inference_rows"):
        assert histograms[f"{name}_count"]
        for labels, count in histograms[f"{name}_count"].items():
            buckets = {
                float(dict(has)["le"]): number for has, number in histograms[f"{name}_bucket"].items() if labels <= has
            }
            counts = [buckets[bound] for bound in sorted(buckets)]
            assert counts == sorted(counts)
            assert max(buckets) == float("inf")
            assert counts[-1] == count
            assert histograms[f"{name}_sum"][labels] > 0


def test_a_time_falls_into_the_buckets_that_are_not_below_it(tensor_dir, tensor_model, make_engine):
    engine = make_engine(tensor_dir)
    for took in (0.0004, 0.0005, 0.0051, 100.0):
        engine.records.metrics.computed(tensor_model, 4, took, "answer")
    text = scrape(engine)
    bucket = "modelrel_inference_duration_seconds_bucket"
    assert {bound: value(text, bucket, le=bound) for bound in ("0.0005", "0.001", "0.005", "0.01", "60", "+Inf")} == {
        "0.0005": 2,
        "0.001": 2,
        "0.005": 2,
        "0.01": 3,
        "60": 3,
        "+Inf": 4,
    }
    assert value(text, "modelrel_inference_rows_bucket", le="4") == 4
    assert value(text, "modelrel_inference_rows_bucket", le="2") == 0


def test_names_that_nobody_serves_make_no_series(tensor_dir, make_engine):
    engine = make_engine(tensor_dir)
    for at in range(50):
        exchange(engine, "POST", f"/v2/models/ghost{at}/infer", b"{}")
        exchange(engine, "POST", f"/v2/models/churn/versions/{at + 100}/infer", b"{}")
        exchange(engine, "GET", f"/nothing/{at}")
        exchange(engine, "PURGE", "/v2", b"")
    text = scrape(engine)
    assert len(samples(text)["modelrel_requests_total"]) == 3
    assert value(text, "modelrel_requests_total", status="404", protocol="v2", model="") == 100
    assert "ghost" not in text


def test_a_client_that_does_not_wait_is_counted_too(tensor_dir, start_server):
    running = start_server(tensor_dir)
    import socket

    with socket.create_connection(("127.0.0.1", running.port)) as connection:
        connection.sendall(b"POST /v2/models/churn/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{")
    for _ in range(1000):
        text = httpx.get(running.url + "/metrics").text
        if value(text, "modelrel_requests_total", status="499"):
            break
    assert value(text, "modelrel_requests_total", status="499") == 1


def test_what_is_loaded_is_said_with_the_digest_of_its_file(tensor_dir, make_engine):
    text = scrape(make_engine(tensor_dir))
    digest = hashlib.sha256((tensor_dir / "model.onnx").read_bytes()).hexdigest()
    assert value(text, "modelrel_model_info", model="churn", version="7", format="onnx", digest=digest) == 1
    assert value(text, "modelrel_model_loaded", model="churn", version="7") == 1


def test_names_with_quotes_and_line_ends_are_escaped(make_tensor_folder, make_engine):
    name = 'a"b\\c\nd'
    text = scrape(make_engine(load_model(make_tensor_folder(name=name))))
    assert value(text, "modelrel_model_loaded", model=name) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells them")
def test_the_process_is_described_by_the_standard_names(tensor_dir, make_engine):
    text = scrape(make_engine(tensor_dir))
    me = psutil.Process()
    assert value(text, "process_start_time_seconds") == pytest.approx(me.create_time(), abs=2)
    assert value(text, "process_resident_memory_bytes") == pytest.approx(me.memory_info().rss, rel=0.5)
    assert value(text, "process_virtual_memory_bytes") == pytest.approx(me.memory_info().vms, rel=0.5)
    assert 0 < value(text, "process_cpu_seconds_total") <= sum(me.cpu_times()[:2])
    assert 0 < value(text, "process_open_fds") < value(text, "process_max_fds")


def test_errors_that_are_no_client_s_fault_are_counted(tensor_dir, tmp_path, start_server):
    running = start_server(tensor_dir)
    assert value(httpx.get(running.url + "/metrics").text, "modelrel_errors_total") == 0


def test_workers_add_up_to_the_last_request_of_each_that_has_ended(tensor_dir, tmp_path, make_engine):
    code = (
        "import sys, asyncio, json\n"
        "sys.path[:0] = [sys.argv[3]]\n"
        "from modelrel.serving import load_model\n"
        "from modelrel.serving.engine import Engine\n"
        "from modelrel.serving.models import Models\n"
        "from modelrel.serving.options import defaults\n"
        "settings = defaults(); settings.shared = sys.argv[1]; settings.worker = 1\n"
        "engine = Engine(Models.of(load_model(sys.argv[2])), settings)\n"
        "ask = engine.records.watched('http', engine.answer)\n"
        f"for _ in range(5): asyncio.run(ask('POST', '/v2/models/churn/infer', {{}}, {json.dumps(BODY).encode()!r}))\n"
        "engine.records.begin()\n"  # a request without an answer
        "engine.close()\n"
    )
    top = str(Path(__file__).resolve().parents[2])
    subprocess.run([sys.executable, "-c", code, str(tmp_path), str(tensor_dir), top], check=True)
    engine = make_engine(tensor_dir, shared=str(tmp_path))
    other = make_engine(tensor_dir, shared=str(tmp_path), worker=2)
    for _ in range(2):
        exchange(engine, "POST", "/v2/models/churn/infer", json.dumps(BODY).encode())
        exchange(other, "POST", "/v2/models/churn/infer", json.dumps(BODY).encode())
    other.records.metrics._publish()
    text = scrape(engine)
    assert value(text, "modelrel_requests_total", model="churn") == 5 + 2 + 2
    assert value(text, "modelrel_inference_rows_sum") == 2 * (5 + 2 + 2)
    assert value(text, "modelrel_inference_duration_seconds_bucket", le="+Inf") == 5 + 2 + 2
    assert value(text, "modelrel_requests_in_flight") == 1  # not the one of the worker that has gone
    again = scrape(other)
    assert value(again, "modelrel_requests_total", model="churn") >= 5 + 2


def test_half_a_file_of_another_worker_does_not_count(tensor_dir, tmp_path, make_engine):
    (tmp_path / "metrics-3-1.json").write_text('{"pid":')
    assert value(scrape(make_engine(tensor_dir, shared=str(tmp_path))), "modelrel_model_loaded") == 1


def test_other_workers_are_told_without_being_asked(tensor_dir, tmp_path, make_engine, monkeypatch):
    monkeypatch.setattr(metrics, "PUBLISH_S", 0.01)
    engine = make_engine(tensor_dir, shared=str(tmp_path))
    other = make_engine(tensor_dir, shared=str(tmp_path), worker=1)
    exchange(other, "POST", "/v2/models/churn/infer", json.dumps(BODY).encode())
    while value(scrape(engine), "modelrel_requests_total", model="churn") != 1:
        pass


@pytest.fixture
def short_folder():
    """A folder for what workers share: its path must fit into the address of a socket."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def test_no_request_is_forgotten_when_a_worker_dies(tensor_dir, tmp_path, short_folder, start_server):
    options = ("--workers", "2", "--log-predictions", str(tmp_path))
    running = start_server(tensor_dir, *options, env=os.environ | {"TMPDIR": str(short_folder)})

    def published():
        files = [json.loads(path.read_bytes()) for path in short_folder.glob("*/metrics-*.json")]
        return sum(sum(numbers[3:]) for file in files for key, numbers in file["requests"].items() if "churn" in key)

    def answered():
        text = httpx.get(running.url + "/metrics").text
        return value(text, "modelrel_requests_total", model="churn", status="200")

    for _ in range(40):
        assert httpx.post(running.url + "/v2/models/churn/infer", json=BODY).status_code == 200
    while published() != 40:
        time.sleep(0.05)
    workers = psutil.Process(running.process.pid).children()
    workers[0].kill()
    psutil.wait_procs(workers[:1])
    for _ in range(10):
        httpx.post(running.url + "/v2/models/churn/infer", json=BODY).raise_for_status()
    while answered() != 50:
        time.sleep(0.05)
    assert running.stop() == 0
    written = [pyarrow.parquet.read_table(path).num_rows for path in tmp_path.glob("*.parquet")]
    assert 10 * 2 <= sum(written) <= 50 * 2  # what the killed one had in memory is gone, and no file is half

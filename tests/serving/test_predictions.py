"""The prediction log: what is written down of requests, and that no disk ever gets in their way."""

import asyncio
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np
import pyarrow.parquet
import pytest

from modelrel.serving import load_model, record_files
from modelrel.serving.engine import Engine
from modelrel.serving.models import Models
from modelrel.serving.options import Unusable, defaults
from modelrel.serving.predictions import Predictions
from modelrel.serving.record_files import RecordFiles

X = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
PATH = "/v2/models/churn/infer"


def read(folder, pattern="predictions-*.parquet"):
    """Return the rows of all complete files."""
    return [row for path in sorted(folder.glob(pattern)) for row in pyarrow.parquet.read_table(path).to_pylist()]


def eventually(condition, process=None):
    """Wait for something that is bound to happen; the time limit of the test is the only one."""
    while not (found := condition()):
        assert process is None or process.poll() is None
        time.sleep(0.01)
    return found


def metric(url, name):
    lines = httpx.get(url + "/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


@pytest.fixture
def make_engine(tmp_path):
    """Make engines that are closed when the test ends."""
    made = []

    def make(*models, **settings):
        settings = {"log_predictions": str(tmp_path / "log"), "log_max_s": 0.0} | settings
        # A model of its own each: the end of an engine is that of its models.
        own = [load_model(model) if isinstance(model, Path) else model for model in models]
        made.append(Engine(Models.of(*own), defaults(**settings)))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


def ask(engine, body=None, path=PATH, **headers):
    """Ask an engine as a transport does, and return its answer."""

    headers["content-type"] = "application/json"
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    sent = json.dumps({"inputs": [X]} if body is None else body).encode()
    return asyncio.run(engine.records.watched("http", engine.answer)("POST", path, named, sent))


def test_there_is_a_row_for_each_row_with_columns_of_the_signature_s_types(columns_dir, tmp_path, start_server):
    running = start_server(columns_dir, "--log-predictions", str(tmp_path / "log"))
    column = {"shape": [2], "datatype": "FP64"}
    inputs = [
        column | {"name": "d", "data": [1.5, 2.5]},
        column | {"name": "l", "datatype": "INT64", "data": [3, 4]},
        column | {"name": "s", "datatype": "BYTES", "data": ["x", "ü"]},
        column | {"name": "b", "datatype": "BOOL", "data": [True, False]},
    ]
    asked = httpx.post(running.url + PATH, json={"id": "first", "inputs": inputs, "outputs": [{"name": "score"}]})
    assert asked.status_code == 200
    running.stop()
    (path,) = (tmp_path / "log").glob("predictions-churn-7-*.parquet")
    table = pyarrow.parquet.read_table(path)
    types = {field.name: str(field.type) for field in table.schema}
    assert {name: types[name] for name in ("in.d", "in.l", "in.s", "in.b", "in.f", "out.score", "row", "time")} == {
        "in.d": "double",
        "in.l": "int64",
        "in.s": "string",
        "in.b": "bool",
        "in.f": "float",
        "out.score": "double",
        "row": "int32",
        "time": "timestamp[us, tz=UTC]",
    }
    one, two = table.to_pylist()
    assert [(row["request_id"], row["row"], row["model"], row["version"], row["role"]) for row in (one, two)] == [
        ("first", 0, "churn", "7", "answer"),
        ("first", 1, "churn", "7", "answer"),
    ]
    assert (one["in.d"], one["in.l"], one["in.s"], one["in.b"]) == (1.5, 3, "x", True)
    assert (two["in.d"], two["in.l"], two["in.s"], two["in.b"]) == (2.5, 4, "ü", False)
    assert np.isnan(one["in.f"])
    assert [one["out.score"], two["out.score"]] == asked.json()["outputs"][0]["data"]
    assert one["out.d_out"] is None  # it was not asked for
    assert one["latency_ms"] > 0
    assert abs(one["time"].timestamp() - time.time()) < 600


def test_a_tensor_is_a_list_and_the_id_is_the_one_that_the_client_was_told(tensor_dir, tmp_path, start_server):
    running = start_server(tensor_dir, "--log-predictions", str(tmp_path))
    named = httpx.post(
        running.url + "/invocations", json={"inputs": [[1, 2, 3], [4, 5, 6]]}, headers={"x-request-id": "mine"}
    )
    unnamed = httpx.post(running.url + "/invocations", json={"instances": [[7, 8, 9]]})
    running.stop()
    assert named.headers["x-request-id"] == "mine"
    rows = [(row["request_id"], row["row"], row["in.x"], row["out.y"], row["out.z"]) for row in read(tmp_path)]
    assert rows == [
        ("mine", 0, [1, 2, 3], [2, 4, 6], None),
        ("mine", 1, [4, 5, 6], [8, 10, 12], None),
        (unnamed.headers["x-request-id"], 0, [7, 8, 9], [14, 16, 18], None),
    ]


def test_requests_of_different_sizes_and_outputs_go_into_one_file(tensor_dir, tmp_path, make_engine):
    engine = make_engine(tensor_dir, log_max_s=300.0)
    for rows in (1, 3, 2):
        sent = {"name": "x", "shape": [rows, 3], "datatype": "FP32", "data": [rows] * rows * 3}
        ask(engine, {"id": str(rows), "inputs": [sent], "outputs": [{"name": "z" if rows == 3 else "y"}]})
    engine.close()
    found = read(tmp_path / "log")
    assert Counter(row["request_id"] for row in found) == {"1": 1, "3": 3, "2": 2}
    assert all(row["in.x"] == [int(row["request_id"])] * 3 for row in found)
    assert all((row["out.z"] is None) == (row["request_id"] != "3") for row in found)
    assert len(list((tmp_path / "log").iterdir())) == 1


@pytest.mark.parametrize("datatype", ["BOOL", "INT32", "INT64", "UINT8", "FP16", "FP32", "FP64", "BYTES"])
def test_every_datatype_is_written_as_it_is(make_tensor_folder, tmp_path, make_engine, datatype):
    model = load_model(make_tensor_folder(datatype))
    engine = make_engine(model)
    kind = model.inputs[0].datatype
    values = {"BYTES": ["a", "", "ü"], "BOOL": [True, False, True]}.get(kind, [1, 2, 0])
    array = np.array([values], object if kind == "BYTES" else None).astype(
        {"BYTES": object, "BOOL": bool, "FP16": "f2", "FP32": "f4", "FP64": "f8"}.get(kind, kind.lower())
    )
    from modelrel.serving.calls import Call

    call = Call(model, ["z"], {"x": array}, lambda *_: None, "a")
    engine.observe(call, model.run(["z"], call.feeds), 1.0, "answer")
    engine.close()
    (row,) = read(tmp_path / "log")
    assert (row["in.x"], row["out.z"]) == (values, values)


def test_a_model_that_does_not_go_by_rows_is_one_row_for_each_request(make_folder, tmp_path, make_engine):
    from onnx import helper

    nodes = [helper.make_node("ReduceMax", ["x"], ["y"], keepdims=0), helper.make_node("NonZero", ["x"], ["n"])]
    outputs = [("y", "FP32", []), ("n", "INT64", [2, -1])]
    model = load_model(make_folder(nodes, [("x", "FP32", [-1, 2])], outputs))
    engine = make_engine(model, log_max_s=300.0)
    for data in ([0, 2, 3, 0], [1, 1, 1, 1]):
        ask(engine, {"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": data}]})
    engine.close()
    one, two = read(tmp_path / "log")
    assert (one["row"], one["in.x"], one["out.y"], one["out.n"]) == (0, [[0, 2], [3, 0]], 3, [[0, 1], [1, 0]])
    assert two["out.n"] == [[0, 0, 1, 1], [0, 1, 0, 1]]


def test_a_model_that_promises_rows_and_gives_others_loses_nothing(make_folder, tmp_path, make_engine):
    from onnx import helper

    nodes = [helper.make_node("Concat", ["x", "x"], ["y"], axis=0)]
    model = load_model(make_folder(nodes, [("x", "FP32", [-1, 2])], [("y", "FP32", [-1, 2])]))
    engine = make_engine(model)
    ask(engine, {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]})
    engine.close()
    (row,) = read(tmp_path / "log")
    assert (row["in.x"], row["out.y"]) == ([[1, 2]], [[1, 2], [1, 2]])


def test_the_share_that_is_recorded_is_drawn_once_a_request_for_its_answer_and_its_shadows(tensor_dir, tmp_path):
    settings = defaults(log_predictions=str(tmp_path), sample=0.5)
    draws = iter([0.49, 0.5, 0.9, 0.0])
    files = RecordFiles(str(tmp_path), settings)
    models = Models.of(load_model(tensor_dir))
    predictions = Predictions(files, models, settings, lambda: next(draws))
    engine = Engine(models, defaults())
    engine.observers.append(predictions.observe)
    engine.observers.append(
        lambda call, results, ms, role: predictions.observe(call, results, ms, "shadow") if role == "answer" else None
    )
    for name in "abcd":
        ask(engine, {"id": name, "inputs": [X]})
    files.close()
    engine.close()
    assert [(row["request_id"], row["role"]) for row in read(tmp_path)] == [
        ("a", "answer"),
        ("a", "shadow"),
        ("d", "answer"),
        ("d", "shadow"),
    ]


def test_a_share_of_nothing_records_nothing(tensor_dir, tmp_path, make_engine):
    engine = make_engine(tensor_dir, sample=0.0)
    assert ask(engine).status == 200
    engine.close()
    assert list((tmp_path / "log").iterdir()) == []


def test_fields_are_left_out_by_name(tensor_dir, tmp_path, make_engine):
    engine = make_engine(tensor_dir, log_omit=("x", "z"))
    ask(engine)
    engine.close()
    (row,) = read(tmp_path / "log")
    assert [name for name in row if name[:3] in {"in.", "out"}] == ["out.y"]


def test_a_field_that_no_model_has_cannot_be_left_out(tensor_dir, make_engine):
    with pytest.raises(Unusable, match="--log-omit names 'who', which is no input or output"):
        make_engine(tensor_dir, log_omit=("x", "who"))


def test_a_folder_that_cannot_be_is_one_sentence_at_the_start(tensor_dir, tmp_path):
    (tmp_path / "file").write_text("")
    command = [sys.executable, "-m", "modelrel.serving", str(tensor_dir), "--port", "0"]
    ended = subprocess.run(
        [*command, "--log-predictions", str(tmp_path / "file")], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert "--log-predictions cannot write to" in ended.stderr


def test_without_pyarrow_the_sentence_has_the_pip_command(tensor_dir, tmp_path):
    (tmp_path / "pyarrow.py").write_text("raise ImportError('not installed')")
    command = [sys.executable, "-m", "modelrel.serving", str(tensor_dir), "--port", "0"]
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    ended = subprocess.run(
        [*command, "--log-predictions", str(tmp_path / "log")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert ended.returncode == 2
    assert "pip install pyarrow" in ended.stderr


@pytest.mark.parametrize("limit", [{"log_max_mb": 0.0001, "log_max_s": 3600.0}, {"log_max_s": 0.0}])
def test_a_new_file_is_begun_by_size_and_by_age(tensor_dir, tmp_path, make_engine, limit):
    engine = make_engine(tensor_dir, **limit)
    for count in (1, 2, 3):
        ask(engine)
        eventually(lambda: len(list((tmp_path / "log").glob("*.parquet"))) >= count)  # noqa: B023
    assert len(read(tmp_path / "log")) == 3


def test_a_killed_server_leaves_whole_files_only_and_the_next_one_clears_up(tensor_dir, tmp_path, start_server):
    running = start_server(tensor_dir, "--log-predictions", str(tmp_path), "--log-max-mb", "0.0002")
    body = {"inputs": [X | {"shape": [2000, 3], "data": list(range(6000))}]}
    with httpx.Client() as client:
        while not list(tmp_path.glob("*.parquet")):
            assert client.post(running.url + PATH, json=body).status_code == 200
    running.process.kill()
    running.process.wait()
    rows = read(tmp_path)
    assert rows
    assert len(rows) % 2000 == 0
    half = tmp_path / ".predictions-churn-7-old.parquet.tmp"
    half.write_bytes(b"PAR1")
    os.utime(half, (1, 1))
    young = tmp_path / ".predictions-churn-7-young.parquet.tmp"  # of another server, at work
    young.write_bytes(b"PAR1")
    start_server(tensor_dir, "--log-predictions", str(tmp_path))
    assert not half.exists()
    assert young.exists()


def test_servers_that_share_a_folder_never_write_to_the_same_file(tensor_dir, tmp_path, start_server):
    servers = [start_server(tensor_dir, "--log-predictions", str(tmp_path), "--log-max-s", "0") for _ in range(3)]
    for at in range(30):
        httpx.post(servers[at % 3].url + PATH, json={"id": str(at), "inputs": [X]})
    for running in servers:
        assert running.stop() == 0
    assert sorted(int(row["request_id"]) for row in read(tmp_path)) == list(range(30))
    assert not list(tmp_path.glob(".*"))


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of its own of 256 KiB, where this machine lets us have one; else None."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(command, check=False).returncode:
        yield None
        return
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_costs_records_but_no_request_and_is_told_once(tensor_dir, tmp_path, small_disk, start_server):
    if small_disk is not None:
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(256 * 1024))
        folder, limited = small_disk, None
    else:  # the file size limit refuses every byte just so

        def limited():
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))

        folder = tmp_path
    running = start_server(tensor_dir, "--log-predictions", str(folder), "--log-max-s", "0", preexec_fn=limited)
    rng = np.random.default_rng(0)
    with httpx.Client() as client:
        for at in range(60):
            data = rng.normal(size=3000).tolist()
            body = {"id": str(at), "inputs": [X | {"shape": [1000, 3], "data": data}]}
            assert client.post(running.url + PATH, json=body).status_code == 200
    eventually(lambda: metric(running.url, "modelrel_errors_total") == 1, running.process)
    assert metric(running.url, "modelrel_prediction_log_waiting_bytes") > 0
    assert metric(running.url, "modelrel_prediction_log_records_total") == 0
    assert not list(folder.glob("*.parquet"))
    if small_disk is not None:
        ballast.unlink()
        subprocess.run(["mount", "-o", "remount,size=16m", str(folder)], check=True)
    else:
        resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    eventually(lambda: metric(running.url, "modelrel_prediction_log_records_total") == 60_000, running.process)
    assert Counter(row["request_id"] for row in read(folder)) == {str(at): 1000 for at in range(60)}
    running.stop()
    told = [line["message"] for line in map(json.loads, running.process.stderr) if "message" in line]
    assert len(told) == 2
    assert "cannot write to" in told[0]
    assert "again; 0 rows were lost" in told[1]


def test_what_a_slow_disk_cannot_take_is_dropped_and_counted_and_requests_do_not_wait(
    tensor_dir, tmp_path, make_engine, monkeypatch
):
    engine = make_engine(tensor_dir)
    disk, slow = os.write, threading.Event()
    busy = threading.Event()

    def write(descriptor, data):
        if threading.current_thread().name == "records":
            busy.set()
            slow.wait()
        return disk(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(record_files, "MOST_RECORDS", 10)
    try:
        ask(engine, {"id": "first", "inputs": [X]})
        assert busy.wait(60)
        for at in range(15):
            assert ask(engine, {"id": str(at), "inputs": [X]}).status == 200
        counts = engine.records.metrics.counts()
        assert counts.totals["predictions_lost"] == 5
    finally:
        slow.set()
    eventually(lambda: engine.records.metrics.counts().totals["predictions"] == 11)
    engine.close()
    assert sorted(row["request_id"] for row in read(tmp_path / "log")) == sorted(["first", *map(str, range(10))])


def test_a_folder_that_has_gone_costs_no_request_and_is_written_to_when_it_is_back(tensor_dir, tmp_path, make_engine):
    engine = make_engine(tensor_dir)
    folder = tmp_path / "log"
    folder.rmdir()
    for at in range(5):
        assert ask(engine, {"id": str(at), "inputs": [X]}).status == 200
    eventually(lambda: engine.records._files._failing)
    folder.mkdir()
    eventually(lambda: engine.records.metrics.counts().totals["predictions"] == 5)
    assert len(read(folder)) == 5


def test_a_folder_that_goes_with_its_file_costs_the_rows_of_that_file(tensor_dir, tmp_path, make_engine):
    engine = make_engine(tensor_dir, log_max_s=3600.0)
    folder = tmp_path / "log"
    data = np.random.default_rng(1).normal(size=60_000).tolist()
    ask(engine, {"inputs": [{"name": "x", "shape": [20_000, 3], "datatype": "FP32", "data": data}]})
    eventually(lambda: list(folder.iterdir()))
    shutil.rmtree(folder)
    engine.close()
    counts = engine.records.metrics.counts().totals
    assert (counts["predictions"], counts["predictions_lost"]) == (0, 20_000)

"""Models in worker processes: whatever a model does, its requests are answered or refused, and no others are."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import stat
import sys
import threading
import time
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pandas as pd
import psutil
import pytest

from modelrel.serving import BrokenModel, Model, load_model
from modelrel.serving.answers import Refused
from modelrel.serving.model import InferenceFailed
from modelrel.serving.runtimes import Means, worker
from modelrel.serving.runtimes.processes import Processes, Start
from modelrel.serving.runtimes.python import _interpreter as interpreter_of
from modelrel.serving.runtimes.unpacking import Place, unpack
from tests.models import logged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PRINTS, ENDS, SLEEPS, SHORT, TEXT, RAISES, LEAVES, JUNK, CHILD = range(-9, 0)


def odd_model() -> Any:
    """Return a model that doubles what is not negative, and does what it should not for the rest."""
    from mlflow.pyfunc import PythonModel

    class Odd(PythonModel):  # made here, so that it is pickled by value
        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
            import contextlib
            import os
            import subprocess
            import sys
            import time

            import numpy as np

            def scribble(number):  # type: ignore[no-untyped-def]
                with contextlib.suppress(OSError):
                    os.write(number, b"\xff" * 100)

            x = model_input["x"].to_numpy()
            ways = {
                -9: lambda: (print("words on stdout"), os.write(1, b"and more of them\n")),
                -8: lambda: os._exit(3),
                -7: lambda: time.sleep(3600),
                -4: lambda: 1 / 0,
                -3: lambda: sys.exit(0),
                -2: lambda: [scribble(number) for number in range(3, 64)],
                -1: lambda: subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"]),
            }
            does = int(x[0])
            ways.get(does, lambda: None)()
            if does in (-6, -5):
                return np.zeros(len(x) + 1) if does == -6 else ["text"] * len(x)
            return x * float((params or {}).get("factor", 2.0))

    return Odd()


def packed(folder: Path, model: Any, path: Path) -> Path:
    """Write the folder that ``modelrel`` leaves of a Python model of one column x."""
    from mlflow.models import infer_signature

    frame = pd.DataFrame({"x": [1.0, 2.0]})
    signature = infer_signature(frame, np.zeros(2), params={"factor": 2.0})
    source = logged(model, frame, folder, flavor="pyfunc", signature=signature)
    path.mkdir(parents=True)
    with zipfile.ZipFile(path / "model.zip", "w", zipfile.ZIP_DEFLATED) as content:
        content.writestr("modelrel-origin.json", json.dumps({"flavor": "pyfunc"}))
        for file in source.model_dir.rglob("*"):
            if file.is_file():
                content.write(file, f"model/{file.relative_to(source.model_dir)}")
    (path / "golden.json").write_text(json.dumps({"inputs": {"x": [[1.0]]}}))
    manifest = {
        "schema": 1, "name": "odd", "version": "1", "format": "python", "file": "model.zip", "kind": "columns",
        "inputs": [{"name": "x", "datatype": "FP64", "shape": [-1, 1]}],
        "outputs": [{"name": "prediction", "datatype": "FP64", "shape": [-1]}],
        "predict": "prediction", "golden": "golden.json",
    }  # fmt: skip
    (path / "modelrel.json").write_text(json.dumps(manifest))
    return path


@pytest.fixture(scope="module")
def odd_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd")
    return packed(folder, odd_model(), folder / "model")


@pytest.fixture(scope="module")
def odd(odd_dir: Path) -> Iterator[Model]:
    model = load_model(odd_dir)
    yield model
    model.retire()


def processes(model: Model) -> Processes:
    found: Processes = model._loaded._processes  # type: ignore[attr-defined]
    return found


def column(*values: float) -> dict[str, Any]:
    return {"x": np.array(values, np.float64).reshape(-1, 1)}


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def answers(model: Model) -> None:
    """Check that a model that may have lost its process answers rightly, now or once it is back."""
    until(lambda: model.ready)
    assert model.predict(column(1, 2.5))["prediction"].tolist() == [2, 5]


@pytest.mark.parametrize("does", [SHORT, TEXT, RAISES, LEAVES])
def test_a_model_that_fails_is_a_failed_request_of_its_own(does: int, odd: Model, ask: Callable[..., Any]) -> None:
    before = processes(odd).pids
    body = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP64", "data": [does]}]}
    reply = ask(odd, "POST", "/v2/models/odd/infer", body)
    assert (reply.status, reply.json) == (500, {"error": "the model could not compute this request"})
    with pytest.raises(InferenceFailed):
        odd.predict(column(does))
    answers(odd)
    assert processes(odd).pids == before


def test_a_process_that_ends_is_a_refused_request_and_is_there_again(odd: Model, ask: Callable[..., Any]) -> None:
    before = processes(odd).pids
    body = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP64", "data": [ENDS]}]}
    reply = ask(odd, "POST", "/v2/models/odd/infer", body)
    assert (reply.status, reply.answer.headers["retry-after"]) == (503, "1")
    answers(odd)
    assert processes(odd).pids != before


def test_what_a_model_writes_between_the_messages_is_not_taken_for_an_answer(odd: Model) -> None:
    with pytest.raises((InferenceFailed, Refused)):
        odd.predict(column(JUNK))
    answers(odd)


def test_a_request_beyond_its_time_is_refused_and_the_next_is_answered_rightly(odd: Model) -> None:
    with pytest.raises(Refused) as stop:
        processes(odd).ask({"outputs": ["prediction"], "params": None}, column(SLEEPS), 0.5)
    assert stop.value.status == 504
    answers(odd)


def test_params_reach_the_model_and_wrong_ones_are_refused(odd: Model) -> None:
    assert odd.run(["prediction"], column(3), {"factor": 5.0})[0].tolist() == [15]
    with pytest.raises(Refused) as stop:
        odd.run(["prediction"], column(3), {"factor": "much"})
    assert stop.value.status == 400
    answers(odd)


def test_what_a_model_started_ends_with_it(odd_dir: Path) -> None:
    model = load_model(odd_dir)
    model.predict(column(CHILD))
    (pid,) = processes(model).pids
    (child,) = psutil.Process(pid).children()
    model.enter()
    model.retire()
    answers(model)  # the request that it was in use for is still answered
    model.leave()
    until(lambda: not psutil.pid_exists(pid))
    gone, _ = psutil.wait_procs([child], timeout=30)
    assert gone or child.status() == psutil.STATUS_ZOMBIE


def test_a_model_that_cannot_be_loaded_again_is_refused_until_it_can(odd_dir: Path) -> None:
    model = load_model(odd_dir)
    place = model._loaded._place.path  # type: ignore[attr-defined]
    (place / "model").rename(place / "away")
    (pid,) = processes(model).pids
    os.kill(pid, signal.SIGKILL)
    until(lambda: not model.ready)
    with pytest.raises(Refused) as stop:  # it waits until the first try to load it has failed
        model.predict(column(1))
    assert stop.value.status == 503
    assert not model.ready
    (place / "away").rename(place / "model")
    answers(model)
    model.retire()


def test_an_interpreter_is_that_of_the_model_or_of_all_or_of_the_server() -> None:
    assert interpreter_of("odd", ()) == (sys.executable, "")
    assert interpreter_of("odd", ("/a/python", "even=/b/python")) == ("/a/python", "")
    assert interpreter_of("odd", ("odd=/b/python", "/a/python")) == ("/b/python", "")


def test_a_folder_of_packages_is_seen_by_the_servers_own_interpreter(tmp_path: Path) -> None:
    assert interpreter_of("odd", (str(tmp_path),)) == (sys.executable, str(tmp_path))
    assert interpreter_of("odd", (f"odd={tmp_path}", "/a/python")) == (sys.executable, str(tmp_path))


def test_a_worker_with_a_folder_of_packages_sees_no_others(tmp_path: Path) -> None:
    installed = Path(np.__file__).parents[1]
    for name in ("numpy", "numpy.libs"):
        (tmp_path / name).symlink_to(installed / name)
    (tmp_path / "more.pth").write_text("extra\n")
    (tmp_path / "extra").mkdir()
    (tmp_path / "extra/odd_program.py").write_text(
        "import sys\nclass Served:\n    def __init__(self, asked):\n        raise ValueError('|'.join(sys.path))\n"
    )
    start = Start(sys.executable, tmp_path, {}, 1, program="odd_program", packages=str(tmp_path))
    running = Processes(start, 1, "odd")
    try:
        kind, _, said = running.wait().partition(": ")
    finally:
        running.close()
    assert kind == "ValueError"
    seen = [Path(place) for place in said.split("|")]
    assert {tmp_path, tmp_path / "extra"} <= set(seen)
    assert not [place for place in seen if place.name in ("site-packages", "dist-packages")]


@pytest.mark.slow
def test_ten_loads_and_unloads_leave_no_process_thread_or_file(odd_dir: Path) -> None:
    before = {thread.name for thread in threading.enumerate()}

    def cycle(_: int) -> list[int]:
        model = load_model(odd_dir)
        pids = processes(model).pids
        answers(model)
        place = model._loaded._place.path  # type: ignore[attr-defined]
        assert (place / "model/MLmodel").is_file()
        model.retire()
        assert not place.exists()
        return pids

    with ThreadPoolExecutor(2) as threads:
        pids = [pid for found in threads.map(cycle, range(10)) for pid in found]
    assert len(set(pids)) == 10
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    until(lambda: {thread.name for thread in threading.enumerate()} <= before)


def test_an_interpreter_without_mlflow_is_one_sentence(odd_dir: Path, tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\nexit 7\n")
    bare.chmod(0o755)
    with pytest.raises(BrokenModel, match=r"odd/1 cannot be loaded by .*: its process ended \(exit code 7\)"):
        load_model(odd_dir, means=Means(python=(str(bare),)))
    with pytest.raises(BrokenModel, match="does not start: No such file"):
        load_model(odd_dir, means=Means(python=("odd=/nowhere/python",)))


def test_a_killed_worker_costs_its_own_request_and_is_back(odd_dir: Path, start_server: Callable[..., Any]) -> None:
    server = start_server(odd_dir, "--python-workers", "2")
    threading.Thread(target=server.process.stderr.read, daemon=True).start()  # nobody waits for a full pipe
    counted: Counter[object] = Counter()
    stop = threading.Event()

    def load(number: int) -> None:
        with httpx.Client(base_url=server.url, timeout=120) as client:
            while not stop.is_set():
                number += 1
                body = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP64", "data": [number]}]}
                reply = client.post("/v2/models/odd/infer", json=body)
                right = reply.status_code == 200 and reply.json()["outputs"][0]["data"] == [2 * number]
                counted["right" if right else (reply.status_code, reply.text)] += 1

    until(lambda: len(psutil.Process(server.process.pid).children()) == 2)
    with ThreadPoolExecutor(6) as threads:
        clients = [threads.submit(load, 1000 * number) for number in range(6)]
        try:
            until(lambda: counted["right"] > 100)
            psutil.Process(server.process.pid).children()[0].kill()
            lost = counted["right"]
            until(lambda: counted["right"] > lost + 100)  # the other one answers
            for one in psutil.Process(server.process.pid).children():
                one.kill()
            until(lambda: httpx.get(f"{server.url}/v2/health/ready").status_code == 503)
            assert httpx.get(f"{server.url}/v2/models/odd/ready").status_code == 503
            until(lambda: httpx.get(f"{server.url}/v2/health/ready").status_code == 200)
            back = counted["right"]
            until(lambda: counted["right"] > back + 100)
        finally:
            stop.set()
        for client in clients:
            client.result()
    ended = "the model's process ended while it computed this request"
    refused = counted.pop((503, json.dumps({"error": ended}, separators=(",", ":"))), 0)
    assert refused <= 3  # three were killed, each with one request at most
    assert set(counted) == {"right"}
    assert server.stop() == 0


def test_a_model_that_hangs_does_not_hold_up_another(
    odd_dir: Path, tensor_dir: Path, tmp_path: Path, start_server: Callable[..., Any]
) -> None:
    for folder in (odd_dir, tensor_dir):
        shutil.copytree(folder, tmp_path / "models" / folder.parent.name)
    server = start_server(tmp_path / "models")
    large = {"inputs": [{"name": "x", "shape": [20_000, 3], "datatype": "FP32", "data": [1.5] * 60_000}]}
    sleeps = json.dumps({"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP64", "data": [SLEEPS]}]})
    connections = []
    for _ in range(8):
        head = f"POST /v2/models/odd/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(sleeps)}\r\n\r\n"
        connection = socket.create_connection(("127.0.0.1", server.port))
        connections.append(connection)
        connection.sendall((head + sleeps).encode())
    for _ in range(3):
        reply = httpx.post(f"{server.url}/v2/models/churn/infer", json=large, timeout=60)
        assert reply.json()["outputs"][0]["data"] == [3.0] * 60_000
    assert httpx.get(f"{server.url}/v2/health/ready").status_code == 200
    for connection in connections:
        connection.close()


def test_what_a_model_prints_is_on_the_servers_stderr_and_it_ends_with_a_server_that_is_killed(
    odd_dir: Path, start_server: Callable[..., Any]
) -> None:
    server = start_server(odd_dir)
    body = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP64", "data": [PRINTS]}]}
    reply = httpx.post(f"{server.url}/v2/models/odd/infer", json=body, timeout=60)
    assert reply.json()["outputs"][0]["data"] == [2 * PRINTS]
    assert {server.process.stderr.readline(), server.process.stderr.readline()} == {
        "words on stdout\n",
        "and more of them\n",
    }
    workers = psutil.Process(server.process.pid).children()
    places = {Path(one.cwd()).parent for one in workers}
    server.process.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]
    assert all(place.exists() for place in places)
    Place().remove()  # the next server that unpacks a model deletes what nobody holds
    assert not any(place.exists() for place in places)


def test_a_place_that_is_in_use_is_not_swept() -> None:
    first = Place()
    second = Place()
    assert first.path.exists()
    for place in (first, second):
        place.remove()


def written(path: Path, *entries: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as content:
        content.writestr("modelrel-origin.json", b'{"flavor": "sklearn"}')
        content.writestr("model/MLmodel", b"flavors: {}")
        for name, data in entries:
            content.writestr(name, data)
    return path


def link() -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("model/link")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


HOSTILE: dict[str, tuple[str | zipfile.ZipInfo, bytes]] = {
    "above": ("model/../../out", b"x"),
    "top": ("../out", b"x"),
    "absolute": ("/tmp/out", b"x"),
    "backslash": ("model\\..\\out", b"x"),
    "drive": ("C:/out", b"x"),
    "beside": ("other/out", b"x"),
    "link": (link(), b"/etc/passwd"),
    "folder": ("model/sub/", b""),
    "control character": ("model/a\nb", b"x"),
    "twice": ("model/MLmodel", b"flavors: {}"),
    "file as folder": ("model/MLmodel/inside", b"x"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("way", HOSTILE)
def test_a_zip_with_an_entry_that_is_no_file_of_a_model_is_refused(way: str, tmp_path: Path) -> None:
    path = written(tmp_path / "model.zip", HOSTILE[way])
    (tmp_path / "in").mkdir()
    with pytest.raises(BrokenModel):
        unpack(path, tmp_path / "in")
    assert {one.name for one in tmp_path.rglob("*")} <= {"in", "model.zip", "model", "MLmodel", "modelrel-origin.json"}


def test_a_zip_that_is_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    content = bytearray(written(tmp_path / "model.zip").read_bytes())
    place = content.index(b"PK\x01\x02")  # the first entry of the central directory; its size stands 24 bytes on
    content[place + 24 : place + 28] = (2**31 - 1).to_bytes(4, "little")
    (tmp_path / "model.zip").write_bytes(content)
    (tmp_path / "in").mkdir()
    with pytest.raises(BrokenModel, match="that claim to be 2147483647"):
        unpack(tmp_path / "model.zip", tmp_path / "in")
    assert not list((tmp_path / "in").iterdir())


def test_a_zip_that_is_cut_or_changed_is_refused(tmp_path: Path) -> None:
    whole = written(tmp_path / "model.zip", ("model/data", os.urandom(2000))).read_bytes()
    for place in range(0, len(whole), 97):
        changed = bytearray(whole)
        changed[place] ^= 0xFF
        for number, content in enumerate((whole[:place], bytes(changed))):
            (tmp_path / "model.zip").write_bytes(content)
            folder = tmp_path / f"{place}-{number}"
            folder.mkdir()
            with suppress(BrokenModel):  # and nothing else: some bytes may change and none notices
                unpack(tmp_path / "model.zip", folder)


MESSAGES = {
    "nothing": b"",
    "half": b"\x01",
    "large": worker.SIZES.pack(2**32 - 1, 2**63),
    "no JSON": worker.SIZES.pack(4, 0) + b"\xff\xfe{}",
    "deep": worker.SIZES.pack(200_000, 0) + b"[" * 200_000,
    "a list": worker.SIZES.pack(2, 0) + b"[]",
    "no arrays": worker.SIZES.pack(2, 0) + b"{}",
    "arrays of numbers": worker.SIZES.pack(15, 0) + b'{"arrays": [1]}',
}
HEADS = {
    "another dtype": ["y", "object", [1], 8],
    "a shape below 0": ["y", "FP64", [-1], 8],
    "a size below 0": ["y", "FP64", [1], -8],
    "a size that is true": ["y", "INT8", [1], True],
    "a shape that is not the size": ["y", "FP64", [2], 8],
    "a huge shape": ["y", "FP64", [2**62, 4], 8],
    "many dimensions": ["y", "FP64", [1] * 40, 8],
    "texts that are none": ["y", "BYTES", [1], 8],
}


@pytest.mark.parametrize("what", [*MESSAGES, *HEADS])
def test_a_message_that_is_none_is_refused(what: str) -> None:
    if what in HEADS:
        head = json.dumps({"arrays": [HEADS[what]]}).encode()
        message = worker.SIZES.pack(len(head), 8) + head + b"[1234567"
    else:
        message = MESSAGES[what]
    here, there = socket.socketpair()
    with here, there:
        sender = threading.Thread(target=lambda: (there.sendall(message), there.shutdown(socket.SHUT_WR)))
        sender.start()
        with pytest.raises((EOFError, ValueError)):
            worker.receive(here)
        sender.join()


def test_arrays_of_every_datatype_travel_unchanged() -> None:
    arrays = {name: np.arange(6).astype(dtype).reshape(2, 3) for name, dtype in worker.KINDS.items() if name != "BYTES"}
    texts = np.array([["a", None], ["\u00e4\ud800", ""]], object)
    empty = np.zeros((0, 4), np.float32)
    here, there = socket.socketpair()
    with here, there:
        worker.send(there, {"more": [1, None]}, {**arrays, "texts": texts, "empty": empty})
        said, found = worker.receive(here)
    assert said == {"more": [1, None]}
    assert list(found) == [*arrays, "texts", "empty"]
    for name, array in {**arrays, "empty": empty}.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)
    assert found["texts"].tolist() == texts.tolist()


def test_the_worker_is_written_for_old_pythons() -> None:
    import ast

    text = Path(worker.__file__).read_text()
    ast.parse(text, feature_version=(3, 9))
    assert io.StringIO(text).readline().startswith('"""')

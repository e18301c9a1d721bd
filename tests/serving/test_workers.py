"""Several processes behind one socket."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest

from modelrel.serving.manifest import BrokenModel
from modelrel.serving.models import Models
from modelrel.serving.options import defaults
from modelrel.serving.shared_models import SharedModels

INFER = "/v2/models/churn/infer"
BODY = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}


def workers_of(running):
    return psutil.Process(running.process.pid).children()


def ask(running):
    return httpx.post(running.url + INFER, json=BODY).json()["outputs"][0]["data"] == [2.0, 4.0, 6.0]


@pytest.fixture
def start_several(start_server, tmp_path):
    """Start a server of two processes whose shared folder lies in a folder of the test."""
    made = []
    (tmp_path / "t").mkdir()

    def one(folder, *options):
        found = tmp_path / "t"
        if len(str(found)) >= 60:  # the server would not use it: too long for the address of a socket
            found = Path(tempfile.mkdtemp(dir="/tmp"))
            made.append(found)
        running = start_server(
            folder, "--workers", "2", "--no-access-log", *options, env=os.environ | {"TMPDIR": str(found)}
        )
        return running, found

    yield one
    for folder in made:
        shutil.rmtree(folder)


def test_several_processes_answer_on_one_port_and_say_so_once(tensor_dir, start_several):
    running, _ = start_several(tensor_dir)
    assert len(workers_of(running)) == 2
    assert all(ask(running) for _ in range(20))
    assert running.stop() == 0
    assert running.process.stderr.read() == ""


def test_their_folder_is_theirs_alone_and_goes_when_they_end(tensor_dir, start_several):
    running, folder = start_several(tensor_dir)
    (shared,) = folder.iterdir()
    assert shared.stat().st_mode & 0o777 == 0o700
    processes = workers_of(running)
    assert running.stop() == 0
    assert list(folder.iterdir()) == []
    assert not any(process.is_running() for process in processes)


def test_a_process_that_dies_is_started_again(tensor_dir, start_several):
    running, _ = start_several(tensor_dir)
    before = workers_of(running)
    before[0].kill()
    assert "ended by signal 9" in running.process.stderr.readline()
    while len(after := workers_of(running)) < 2 or before[0] in after:
        time.sleep(0.01)
    assert all(ask(running) for _ in range(20))
    assert running.stop() == 0


def test_all_end_when_their_parent_is_killed(tensor_dir, start_several):
    running, _ = start_several(tensor_dir)
    processes = workers_of(running)
    assert ask(running)
    running.process.kill()
    psutil.wait_procs(processes, timeout=20)
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_to_the_whole_group_ends_it_with_0(tensor_dir, start_server, number):
    running = start_server(tensor_dir, "--workers", "2", start_new_session=True)
    os.killpg(running.process.pid, number)
    assert running.process.wait(20) == 0


def test_what_cannot_be_loaded_is_said_once_and_ends_all_with_2(tmp_path, make_tensor_folder):
    folder = make_tensor_folder()
    (folder / "model.onnx").write_bytes(b"nothing")
    for more in ((), ("--threads", "2")):  # loaded before and after the processes are made
        command = [sys.executable, "-m", "modelrel.serving", str(folder), "--port", "0", "--workers", "2", *more]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == 2
        assert "model.onnx" in result.stderr


def test_models_that_have_threads_are_loaded_by_each_process(tensor_dir, start_server):
    running = start_server(tensor_dir, "--workers", "2", "--threads", "2")
    assert all(ask(running) for _ in range(20))
    assert running.stop() == 0


def test_keys_are_read_again_by_all_processes(tensor_dir, start_server, tmp_path):
    path = tmp_path / "keys"
    path.write_text("old\n")
    running = start_server(tensor_dir, "--workers", "2", "--api-key-file", str(path))
    path.write_text("new\n")
    running.process.send_signal(signal.SIGHUP)
    in_a_row = 0
    while in_a_row < 30:
        in_a_row = (
            in_a_row + 1 if httpx.get(running.url + "/v2", headers={"x-api-key": "new"}).status_code == 200 else 0
        )
    assert running.stop() == 0


# What one process loads or unloads, the others do too: four of them, here as threads, each with models of its own.


@pytest.fixture
def several(make_tensor_folder):
    folder = make_tensor_folder()
    shared = tempfile.mkdtemp(dir="/tmp")  # the address of a socket is short

    def join(worker):
        models = SharedModels([folder])
        models.load_all()
        settings = defaults(workers=4)
        settings.worker, settings.shared = worker, shared
        models.join(settings)
        return models

    yield folder, join
    shutil.rmtree(shared)


def change(folder, version):
    path = folder / "modelrel.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": version}))


def versions(models):
    return [list(endpoint.versions) for endpoint in models.snapshot.endpoints.values()]


def test_what_one_process_loads_all_have_loaded_when_it_returns(several):
    folder, join = several
    models = [join(worker) for worker in range(4)]
    change(folder, "8")
    models[2].load("churn")
    assert [versions(one) for one in models] == [[["8"]]] * 4
    models[0].unload("churn")
    assert [versions(one) for one in models] == [[]] * 4


def test_a_process_that_comes_later_does_what_was_done_before(several):
    folder, join = several
    first = join(0)
    second = join(1)
    first.unload("churn")
    assert versions(join(2)) == []
    change(folder, "8")
    second.load("churn")
    assert versions(join(3)) == [["8"]]


def test_a_name_that_nobody_knows_is_unknown_in_all(several):
    _, join = several
    models = [join(worker) for worker in range(2)]
    for verb in (models[0].load, models[0].unload):
        with pytest.raises(KeyError):
            verb("nobody")
    assert [versions(one) for one in models] == [[["7"]]] * 2


def test_what_breaks_breaks_in_all_and_is_told_once(several):
    folder, join = several
    models = [join(worker) for worker in range(4)]
    (folder / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(BrokenModel) as broken:
        models[1].load("churn")
    assert str(broken.value).count("cannot be loaded") == 1
    assert [versions(one) for one in models] == [[["7"]]] * 4  # what was there before serves on


def test_changes_from_all_sides_at_once_end_alike_in_all(several):
    _, join = several
    models = [join(worker) for worker in range(4)]

    def change_often(one):
        for _ in range(10):
            one.load("churn")
            one.unload("churn")

    threads = [threading.Thread(target=change_often, args=(one,)) for one in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert [versions(one) for one in models] == [[]] * 4


def test_without_others_loading_is_as_it_is(make_tensor_folder):
    shared, plain = SharedModels([make_tensor_folder()]), Models([make_tensor_folder()])
    shared.load_all()
    plain.load_all()
    shared.load("churn")
    assert versions(shared) == versions(plain)

"""The server as a process: start-up, ports, signals, the health check."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from onnx import helper

import modelrel.serving

SERVING = [sys.executable, "-m", "modelrel.serving"]
BODY = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}


def run(*words, **kwargs):
    return subprocess.run(
        [*SERVING, *map(str, words)], capture_output=True, text=True, timeout=30, check=False, **kwargs
    )


@pytest.fixture
def taken_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.fixture
def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_one_line_says_what_is_served_and_where(tensor_dir, start_server):
    running = start_server(tensor_dir)
    assert running.ready_line == f"modelrel serving churn/7 on http://127.0.0.1:{running.port}\n"
    assert running.port != 0


def test_the_line_is_the_only_one_where_requests_are_not_logged(tensor_dir, start_server):
    running = start_server(tensor_dir, "--no-access-log")
    httpx.get(running.url + "/v2")
    running.stop()
    assert running.process.stderr.read() == ""


def test_the_server_answers_as_soon_as_it_has_said_so(tensor_dir, start_server):
    running = start_server(tensor_dir)
    reply = httpx.post(running.url + "/v2/models/churn/infer", json=BODY)
    assert reply.json()["outputs"][0]["data"] == [2.0, 4.0, 6.0]


def test_a_taken_port_is_one_sentence_and_exit_code_3(tensor_dir, taken_port):
    result = run(tensor_dir, "--port", taken_port)
    assert result.returncode == 3
    assert result.stderr == f"modelrel serving: port {taken_port} of 127.0.0.1 is in use\n"


def test_an_address_that_is_not_this_machine_s_is_one_sentence_and_exit_code_3(tensor_dir):
    result = run(tensor_dir, "--host", "192.0.2.1", "--port", "0")
    assert (result.returncode, result.stderr.count("\n")) == (3, 1)


def test_a_broken_folder_is_one_sentence_and_exit_code_2(tmp_path):
    result = run(tmp_path, "--port", "0")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "modelrel.json" in result.stderr


@pytest.mark.parametrize(
    "words",
    [(), ("dir", "--port", "x"), ("dir", "--port", "70000"), ("dir", "--threads", "0"), ("dir", "--max-body", "-1")],
)
def test_a_wrong_command_line_is_exit_code_2(words, bare_environment):
    assert run(*words, env=bare_environment).returncode == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_ends_the_process_with_0(tensor_dir, start_server, number):
    running = start_server(tensor_dir)
    running.process.send_signal(number)
    assert running.process.wait(10) == 0


def test_an_idle_connection_does_not_hold_up_a_stop(tensor_dir, start_server):
    running = start_server(tensor_dir)
    with httpx.Client() as client:
        client.get(running.url + "/v2")
        assert running.stop() == 0


def test_a_request_that_has_begun_is_answered_before_the_process_ends(tensor_dir, start_server):
    running = start_server(tensor_dir)
    body = json.dumps(BODY).encode()
    head = b"POST /v2/models/churn/infer HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
    with socket.create_connection(("127.0.0.1", running.port)) as connection:
        connection.sendall(head + body[:20])
        time.sleep(0.2)
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        connection.sendall(body[20:])
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer.lower()
    assert running.process.wait(10) == 0


def test_a_stop_signal_before_the_model_is_loaded_is_obeyed(tensor_dir):
    with subprocess.Popen([*SERVING, str(tensor_dir), "--port", "0"], stderr=subprocess.DEVNULL) as process:
        time.sleep(0.12)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) in {0, -signal.SIGTERM}  # the latter before Python has run our first line


def test_the_port_comes_from_the_environment_if_no_flag_names_one(tensor_dir, bare_environment, taken_port, free_port):
    for variable in ("PORT", "AIP_HTTP_PORT"):
        result = run(tensor_dir, env=bare_environment | {variable: str(taken_port)})
        assert f"port {taken_port} " in result.stderr
    with subprocess.Popen(
        [*SERVING, str(tensor_dir), "--port", str(free_port)],
        env=bare_environment | {"PORT": str(taken_port)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        line = process.stderr.readline()
        process.terminate()
    assert line.endswith(f":{free_port}\n")


def test_the_folder_comes_from_the_environment_and_the_word_serve_is_ignored(tensor_dir, bare_environment, taken_port):
    environment = bare_environment | {"MODELREL_MODEL_DIR": str(tensor_dir)}
    assert run("serve", "--port", taken_port, env=environment).returncode == 3


def test_the_health_check_knows_a_ready_server_from_none(tensor_server, free_port):
    assert run("healthcheck", "--port", tensor_server.port).returncode == 0
    assert run("healthcheck", f"--port={tensor_server.port}").returncode == 0
    assert run("healthcheck", "--port", free_port).returncode == 1


def test_the_health_check_reads_the_port_where_the_server_does(tensor_server, bare_environment):
    assert run("healthcheck", env=bare_environment | {"PORT": str(tensor_server.port)}).returncode == 0


@pytest.mark.parametrize("words", [("--port", "x"), ("x",), ("--port",)])
def test_a_wrong_health_check_is_exit_code_2(words):
    assert run("healthcheck", *words).returncode == 2


def test_the_health_check_imports_nothing_slow():
    code = (
        "import sys; sys.argv = ['x', 'healthcheck', '--port', '1']; import runpy\n"
        "try: runpy.run_module('modelrel.serving', run_name='__main__')\n"
        "except SystemExit: print(sorted({'numpy', 'onnxruntime', 'argparse', 'asyncio'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_plain_start_imports_nothing_that_it_does_not_need(tensor_dir):
    code = """
import os, sys
from modelrel.serving import process
from modelrel.serving.options import read
def tell(*_):
    files = {name: getattr(module, "__file__", None) or "" for name, module in list(sys.modules.items())}
    print(*sorted({name.partition(".")[0] for name, file in files.items() if "site-packages" in file}))
    sys.stdout.flush()
    os._exit(0)
process.say_ready = tell
process.serve(read([sys.argv[1], "--port", "0"]))
"""
    result = subprocess.run([sys.executable, "-c", code, str(tensor_dir)], capture_output=True, text=True, check=True)
    needed = {"numpy", "onnxruntime", "msgspec", "uvicorn", "click", "httptools", "uvloop"}
    by_python = {"_distutils_hack", "typing_extensions", "coverage", "pytest_cov", "colorama", "flatbuffers"}
    assert needed <= set(result.stdout.split()) <= needed | by_python


def test_the_folder_runs_when_it_is_copied_alone_under_another_name(tmp_path, tensor_dir, bare_environment):
    shutil.copytree(Path(modelrel.serving.__file__).parent, tmp_path / "serving")
    command = [sys.executable, "-P", "-m", "serving", str(tensor_dir), "--port", "0"]
    environment = bare_environment | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        line = process.stderr.readline()
        reply = httpx.get(line.split()[-1] + "/v2/health/ready")
        process.terminate()
    assert reply.status_code == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_any_user_without_a_home_may_run_it(tensor_dir, bare_environment):
    # The interpreter of a developer may be closed to others, so everything is imported before the change of user.
    become_nobody = (
        "import os, sys; import modelrel.serving.app, modelrel.serving.process, modelrel.serving.model\n"
        "import uvicorn, uvloop, uvicorn.protocols.http.auto, uvicorn.loops.uvloop, uvicorn.lifespan.off\n"
        "import argparse, encodings.idna, base64, urllib.parse, modelrel.serving.adapters\n"
        "from modelrel.serving.__main__ import main\n"
        "os.setgroups([]); os.setgid(12345); os.setuid(12345); sys.exit(main(sys.argv[1:]))"
    )
    folder = Path(tempfile.mkdtemp())
    try:
        shutil.copytree(tensor_dir, folder, dirs_exist_ok=True)
        folder.chmod(0o755)
        command = [sys.executable, "-c", become_nobody, str(folder), "--port", "0"]
        with subprocess.Popen(command, env=bare_environment, stderr=subprocess.PIPE, text=True) as process:
            line = process.stderr.readline()
            process.terminate()
            rest = process.stderr.read()
    finally:
        shutil.rmtree(folder)
    assert line.startswith("modelrel serving churn/7"), line + rest


def test_nothing_is_written_to_the_home_folder_where_the_runtime_would_keep_an_identifier(
    tensor_dir, tmp_path, start_server, bare_environment
):
    # Several CI systems and test runners switch the runtime's reports off by themselves; a production host does not.
    environment = {
        n: v for n, v in bare_environment.items() if not n.startswith(("CI", "GITHUB", "PYTEST", "ORT_", "XDG"))
    }
    running = start_server(tensor_dir, env=environment | {"HOME": str(tmp_path)})
    assert httpx.post(running.url + "/v2/models/churn/infer", json=BODY).status_code == 200
    assert running.stop() == 0
    assert list(tmp_path.iterdir()) == []


def test_health_is_answered_while_a_large_request_is_computed(make_folder, start_server):
    # A chain of large products: each row block keeps the runtime busy for a while, outside of Python's lock.
    chain = [helper.make_node("MatMul", ["x", "xt"], ["p0"])]
    chain += [helper.make_node("MatMul", [f"p{i}", "p0"], [f"p{i + 1}"]) for i in range(24)]
    nodes = [
        helper.make_node("Transpose", ["x"], ["xt"], perm=[1, 0]),
        *chain,
        helper.make_node("ReduceMax", ["p24"], ["y"], keepdims=0),
    ]
    running = start_server(make_folder(nodes, [("x", "FP32", [-1, 8])], [("y", "FP32", [])]))
    rows = 1600
    body = {"inputs": [{"name": "x", "shape": [rows, 8], "datatype": "FP32", "data": [0.1] * (rows * 8)}]}
    computing = psutil.Process(running.process.pid)
    before = sum(computing.cpu_times()[:2])
    with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=running.url) as client:
        large = pool.submit(httpx.post, running.url + "/v2/models/churn/infer", json=body, timeout=60)
        while sum(computing.cpu_times()[:2]) < before + 0.2:  # only the computation takes so much
            assert not large.done()
            time.sleep(0.001)
        answered = 0
        while not large.done():
            assert client.get("/v2/health/live").status_code == 200
            answered += not large.done()
        assert large.result().status_code == 200
    assert answered > 0

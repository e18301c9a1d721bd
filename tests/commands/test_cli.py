"""The command line itself: start-up, JSON, exit codes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from modelrel import __version__
from modelrel.errors import FAMILIES
from tests.conftest import Run, free_port

HEAVY = ("mlflow", "sklearn", "onnx", "onnxruntime", "numpy", "pandas", "docker", "jinja2")
COMMANDS = (
    "pull",
    "inspect",
    "convert",
    "verify",
    "package",
    "serve",
    "smoke",
    "promote",
    "release",
    "doctor",
    "formats",
)


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["release", "--help"]])
def test_help_and_version_import_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys; from modelrel.commands import main;"
        f"code = main({words!r}); sys.exit(code or ','.join(set({HEAVY!r}) & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_version_says_the_version(run: Run) -> None:
    assert run("--version").out.strip() == f"modelrel {__version__}"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_that_names_the_shared_options(run: Run, command: str) -> None:
    done = run(command, "--help")
    assert done.code == 0
    for option in ("--registry", "--dist", "--json", "--quiet", "--verbose"):
        assert option in done.out


def test_pull_puts_exactly_one_json_document_on_stdout(run: Run, sqlite_registry: str) -> None:
    done = run("pull", "flowers@candidate", "--registry", sqlite_registry, "--json")
    assert done.code == 0
    found = done.json
    assert found["source"]["version"] == "2"
    assert found["source"]["signature"]["kind"] == "columns"
    assert found["stages"][0]["outcome"] == "done"


def test_options_of_every_command_may_stand_in_front_of_it(run: Run, sqlite_registry: str) -> None:
    done = run("--json", "--registry", sqlite_registry, "--dist", "elsewhere", "pull", "flowers/1")
    assert done.json["folder"] == "elsewhere/flowers-1"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["pull", "flwers"], 2, "no model 'flwers'"),
        (["pull"], 2, "Missing argument"),
        (["pull", "flowers", "--what"], 2, "No such option"),
        (["nonsense"], 2, "No such command"),
        (["release", "flowers", "--target", "lamda"], 2, "no target 'lamda'"),
        (["convert", "flowers", "--to", "onix"], 2, "no format 'onix'"),
    ],
)
def test_errors_are_one_json_document_too(
    run: Run, sqlite_registry: str, words: list[str], code: int, said: str
) -> None:
    done = run("--registry", sqlite_registry, "--json", *words)
    assert done.code == code
    error = done.json["error"]
    assert said in error["message"]
    assert error["code"] == code
    assert error["hint"]


def test_people_get_the_error_and_the_hint_on_stderr_and_nothing_on_stdout(run: Run, sqlite_registry: str) -> None:
    done = run("pull", "flwers", "--registry", sqlite_registry)
    assert (done.code, done.out) == (2, "")
    assert "error: " in done.err
    assert "hint: Did you mean flowers?" in done.err
    assert "Traceback" not in done.err


def test_quiet_shows_no_progress(run: Run, sqlite_registry: str) -> None:
    assert run("pull", "flowers", "--registry", sqlite_registry, "--quiet") == (
        type(run("pull", "flowers", "--registry", sqlite_registry, "--quiet"))(0, "", "")
    )


def test_a_second_pull_does_nothing_and_neither_imports_mlflow(sqlite_registry: str, tmp_path: Path) -> None:
    words = ["pull", "flowers@candidate", "--registry", sqlite_registry, "--json"]
    code = f"import sys; from modelrel.commands import main; main({words!r}); sys.exit('mlflow' in sys.modules)"
    first, second = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False) for _ in range(2)
    )
    assert json.loads(first.stdout)["stages"][0]["outcome"] == "done"
    assert json.loads(second.stdout)["stages"][0]["outcome"] == "up to date"
    assert (first.returncode, second.returncode) == (0, 0)


def test_inspect_tells_what_the_model_is_and_can_become(run: Run, sqlite_registry: str) -> None:
    done = run("inspect", "flowers/2", "--registry", sqlite_registry)
    assert done.code == 0
    for words in ("sklearn", "sepal_length: FP64", "shape: BYTES", "iris", "accuracy 0.9", "scikit-learn", "to onnx"):
        assert words in done.out


def test_doctor_names_what_is_there_and_what_its_absence_costs(run: Run, sqlite_registry: str) -> None:
    found = {one["name"]: one for one in run("doctor", "--registry", sqlite_registry, "--json").json["findings"]}
    assert found["mlflow"]["state"] == "ok"
    assert found["registry"]["detail"].endswith("2 models")
    assert "PMML copies cannot be checked" in found["java"]["cost"]
    assert "context" in found["docker engine"]["cost"] or found["docker engine"]["state"] == "ok"


def test_formats_lists_every_flavor_with_what_it_can_become(run: Run) -> None:
    found = run("formats", "--json").json
    four = ["onnx", "tflite", "pmml", "python"]
    tables = {name: four for name in ("sklearn", "xgboost", "lightgbm", "catboost", "pyfunc")}  # noqa: C420
    networks = {name: ["onnx", "tflite", "python"] for name in ("onnx", "pytorch", "tensorflow", "keras")}
    assert found["flavors"] == tables | networks | {"transformers": ["onnx", "python"]}
    assert found["tools"]["onnx"]["onnxruntime"]
    targets = found["targets"]
    assert {"docker", "oci", "lambda", "npm", "kserve"} <= set(targets["onnx"]) - {"tflite"}
    assert {"tflite", "android", "docker"} <= set(targets["tflite"]) - {"lambda", "npm"}
    assert targets["pmml"] == ["modelpack"]
    assert {"docker", "oci"} <= set(targets["python"]) - {"tflite", "npm", "android"}
    assert "lightgbm" in run("formats").out


def test_doctor_goes_on_where_the_registry_is_down(run: Run) -> None:
    done = run("doctor", "--registry", f"http://127.0.0.1:{free_port()}", "--json")
    found = {one["name"]: one for one in done.json["findings"]}
    assert (done.code, found["registry"]["state"]) == (0, "missing")


def listening() -> None:
    """Let a process hear Ctrl-C, which those that a shell starts in the background do not."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_an_interrupted_command_ends_with_130_and_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # a registry that takes a question and never answers
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        command = [sys.executable, "-m", "modelrel", "convert", "flowers/1", "--registry", address]
        patient = {**os.environ, "MLFLOW_HTTP_REQUEST_TIMEOUT": "300"}
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=patient, preexec_fn=listening)  # noqa: PLW1509  # no threads here
        asked, _ = silent.accept()
        with asked:
            assert asked.recv(1)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "goes on where it was" in err


def test_the_exit_codes_are_the_documented_ones() -> None:
    assert {family.kind: family.exit_code for family in FAMILIES} == {
        "invalid": 2, "unavailable": 3, "refused": 4, "conflict": 5, "interrupted": 130,
    }  # fmt: skip


def test_settings_come_from_modelrel_toml(run: Run, sqlite_registry: str) -> None:
    Path("modelrel.toml").write_text(f'[release]\nregistry = "{sqlite_registry}"\ndist = "out"\n')
    assert run("pull", "flowers/1", "--json").json["folder"] == "out/flowers-1"
    os.environ["MODELREL_DIST"] = "from-environment"
    try:
        assert run("pull", "flowers/1", "--json").json["folder"] == "from-environment/flowers-1"
    finally:
        del os.environ["MODELREL_DIST"]

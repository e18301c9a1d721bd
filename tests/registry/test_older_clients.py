"""Models that MLflow 2.22 logged and registered, in a file, on a server of its time and on one of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelrel import interpreters, wheels
from modelrel.registry import Registry
from tests.conftest import Run
from tests.registry import small
from tests.registry.services import mlflow_server

pytestmark = pytest.mark.slow

THEIRS = ("mlflow==2.22.*", "sqlalchemy<2.1")  # which came later, and lacks what MLflow 2 imports


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Python of an environment with MLflow 2.22, and the scikit-learn that goes with it."""
    python = interpreters.find("3.11") or sys.executable
    top = tmp_path_factory.mktemp("older")
    subprocess.run([wheels.uv(), "venv", "--quiet", "--python", python, top / "venv"], check=True)
    theirs = str(top / "venv" / "bin" / "python")
    subprocess.run([wheels.uv(), "pip", "install", "--quiet", "--python", theirs, *THEIRS], check=True)
    return theirs


def _registered(older: str, uri: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [older, small.__file__, uri, "small"]
    done = subprocess.run(words, check=False, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return uri


@pytest.fixture(scope="module", params=["a file", "a server of 2.22", "a server of ours"])
def registry(request: pytest.FixtureRequest, older: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("theirs")
    file = f"sqlite:///{folder}/mlflow.db"
    if request.param == "a file":
        subprocess.run([older, "-c", _MADE, file, str(folder / "artifacts")], check=True, capture_output=True)
        yield _registered(older, file)
        return
    options = ("--backend-store-uri", file, "--artifacts-destination", str(folder / "artifacts"))
    with mlflow_server(folder, *options, python=older if "2.22" in request.param else sys.executable) as uri:
        yield _registered(older, uri)


_MADE = "import sys, mlflow; mlflow.set_tracking_uri(sys.argv[1]); mlflow.create_experiment('small', sys.argv[2])"


def test_a_model_of_mlflow_2_is_pulled_verified_and_promoted(run: Run, registry: str) -> None:
    done = run("release", "small/1", "-t", "npm", "--promote", "champion", "--registry", registry, "--json")
    assert done.code == 0, done.out + done.err
    assert Registry(registry).holder("small", alias="champion") == "1"
    source = json.loads(Path("dist/small-1/SourceModel.json").read_text())["value"]
    assert source["mlflow_version"].startswith("2.22")
    assert source["metrics"]["accuracy"] > 0.9
    assert source["run_id"]
    told = run("history", "small", "--registry", registry, "--json")
    assert told.code == 0, told.out

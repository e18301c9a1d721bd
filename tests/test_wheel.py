"""The wheel, installed in a new environment elsewhere, carries all it needs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from modelrel.wheels import uv

TOP = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("wheel")
    # from a copy, as the source tree may be read-only, and must not be littered
    shutil.copytree(
        TOP,
        top / "source",
        ignore=shutil.ignore_patterns(".git", ".venv", ".demo", "bench", "*cache*", "dist", "build"),
    )
    subprocess.run([uv(), "build", "--wheel", "--quiet", "--out-dir", top / "out", top / "source"], check=True)
    return next((top / "out").glob("*.whl"))


def test_the_wheel_contains_the_templates(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    ours = {f"modelrel/{path.relative_to(TOP).as_posix()}" for path in (TOP / "templates").rglob("*") if path.is_file()}
    assert ours
    assert ours <= inside


@pytest.mark.slow
@pytest.mark.lambda_runtime
def test_the_installed_wheel_runs_a_release(wheel: Path, sqlite_registry: str, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    home = tmp_path / "home"
    home.mkdir()
    subprocess.run([uv(), "venv", "--quiet", "--python", sys.executable, environment], check=True)
    python = environment / "bin" / "python"
    subprocess.run([uv(), "pip", "install", "--quiet", "--python", python, f"modelrel @ file://{wheel}"], check=True)
    done = subprocess.run(
        [environment / "bin" / "modelrel", "release", "flowers/1", "--target", "lambda", "--target", "docker",
         "--render-only", "--registry", sqlite_registry, "--json"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**{k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}, "HOME": str(home)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    stages = {one["stage"]: one["outcome"] for one in json.loads(done.stdout)["stages"]}
    assert stages["smoke lambda"] == stages["smoke docker"] == "done"
    assert (tmp_path / "dist/flowers-1/onnx/docker/context/Dockerfile").is_file()

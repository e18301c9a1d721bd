"""`modelrel push` and `--push`: what is pushed has been smoke-tested, and what is promoted says where it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import registries
from tests.conftest import Run


def test_the_command_smokes_pushes_and_says_what_was_there(
    run: Run, own_registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    with registries.running(tmp_path / "images") as address:
        walk(run, own_registry, tmp_path, address)


def walk(run: Run, own_registry: str, tmp_path: Path, address: str) -> None:
    words = ("--registry", own_registry, "--dist", tmp_path / "dist", "--json")
    name = f"{address}/flowers:1"
    first = run("push", "flowers/1", "--target", "modelpack", "--to", name, *words)
    assert first.code == 0, first.err + first.out
    assert first.json["pushed"]["name"] == name
    assert {"smoke modelpack", "push modelpack"} <= {stage["stage"] for stage in first.json["stages"]}
    again = run("push", "flowers/1", "--target", "modelpack", "--to", name, *words)
    assert {stage["outcome"] for stage in again.json["stages"]} == {"up to date"}
    released = run(
        "release", "flowers/1", "--target", "modelpack", "--push", f"{address}/other:1", "--promote", "live", *words
    )
    assert released.code == 0, released.err + released.out
    order = [stage["stage"] for stage in released.json["stages"]]
    assert order.index("smoke modelpack") < order.index("push modelpack") < order.index("promote live")
    entry = json.loads(released.json["promotion"]["tags"]["modelrel.promotion.live"])
    assert entry["artifacts"]["modelpack"]["pushed"].startswith(f"{address}/other:1@sha256:")
    wrong = run("push", "flowers/1", "--target", "tflite", "--to", name, *words)
    assert wrong.code == 2

"""The image, in a real engine: what it is labelled, under whom it runs, and that strict platforms can run it."""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest

from modelrel.delivered import Image
from modelrel.errors import Invalid, Refused, Unavailable
from modelrel.steps.package import package
from modelrel.targets import docker as target
from modelrel.targets.engine import STRICT
from modelrel.targets.process import free_port
from modelrel.values import PackageOptions
from tests.targets import tiny

pytestmark = pytest.mark.docker


def image() -> Image:
    found = tiny.delivered("docker", image=True).image
    assert found is not None
    return found


def config() -> dict[str, Any]:
    with tiny.engine() as engine:
        found: dict[str, Any] = engine.images.get(image().id).attrs["Config"]
        return found


@contextmanager
def container(**settings: Any) -> Iterator[Any]:
    with tiny.engine() as engine:
        running = engine.containers.run(image().id, detach=True, **settings)
        try:
            yield running
        finally:
            running.remove(force=True)


def healthy(running: Any, seconds: float = 40) -> str:
    """Wait for the verdict of the engine's own health check."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        running.reload()
        health = str(running.attrs["State"].get("Health", {}).get("Status"))
        if health != "starting" or running.status == "exited":
            return health if running.status == "running" else f"{running.status}: {running.logs().decode()}"
        time.sleep(0.3)
    return "starting"


def ready(running: Any) -> bool:
    """Wait until the health check, run inside, says that the server is ready."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if running.exec_run(["python3", "-m", "serving", "healthcheck"]).exit_code == 0:
            return True
        time.sleep(0.1)
    return False


def test_it_adds_less_than_200_mb_to_its_base() -> None:
    assert 10_000_000 < image().added < 200_000_000


def test_it_is_tagged_with_name_and_version() -> None:
    assert image().tags == ("churn:7",)


def test_its_labels_are_the_standard_ones_and_ours() -> None:
    labels = config()["Labels"]
    expected = {
        "org.opencontainers.image.title": "churn",
        "org.opencontainers.image.version": "7",
        "org.opencontainers.image.revision": "c0ffee" * 6 + "c0ff",
        "org.opencontainers.image.created": "2026-05-04T03:02:01Z",
        "org.opencontainers.image.base.name": tiny.BASE,
        "io.modelrel.model.name": "churn",
        "io.modelrel.run-id": "ab12" * 8,
        "io.modelrel.source.sha256": tiny.delivered("docker", image=True).parity.source.digest,
        "io.modelrel.parity.rows": "1000",
    }
    assert {key: labels.get(key) for key in expected} == expected


def test_its_licences_are_an_spdx_expression() -> None:
    stated = config()["Labels"]["org.opencontainers.image.licenses"]
    assert re.fullmatch(r"[\w.()+-]+( (AND|OR) [\w.()+-]+)*", stated)
    assert {"MIT", "BSD-3-Clause"} <= set(stated.split(" AND "))


def test_its_user_is_a_number_that_is_not_root() -> None:
    assert config()["User"] == "65532"


def test_its_entrypoint_needs_no_shell() -> None:
    assert config()["Entrypoint"] == ["python3", "-m", "serving"]


def test_it_stops_on_sigterm() -> None:
    assert config()["StopSignal"] == "SIGTERM"


def test_its_health_check_needs_no_shell_and_no_curl() -> None:
    assert config()["Healthcheck"]["Test"] == ["CMD", "python3", "-m", "serving", "healthcheck"]


def test_it_becomes_healthy() -> None:
    with container(network_mode="none") as running:
        assert healthy(running) == "healthy"


def test_it_runs_read_only_as_another_user_and_without_network() -> None:
    with container(read_only=True, user="12345", network_mode="none") as running:
        assert ready(running), running.logs().decode()


def test_it_runs_as_a_strict_platform_would() -> None:
    with container(**STRICT, network_mode="none", pids_limit=64, mem_limit="256m") as running:
        assert ready(running), running.logs().decode()


def test_it_runs_as_root_too() -> None:
    with container(user="0", network_mode="none") as running:
        assert ready(running), running.logs().decode()


def test_it_takes_the_word_with_which_sagemaker_starts_it() -> None:
    with container(command=["serve"], network_mode="none") as running:
        assert ready(running), running.logs().decode()


def test_it_listens_where_the_platform_says() -> None:
    with container(environment={"PORT": "9999"}, network_mode="none") as running:
        assert ready(running), running.logs().decode()


def test_sigterm_ends_it_at_once_with_exit_code_0() -> None:
    with container(network_mode="none") as running:
        assert ready(running)
        started = time.monotonic()
        running.stop(timeout=20)
        assert time.monotonic() - started < 5
        assert running.wait()["StatusCode"] == 0


def test_a_mounted_model_takes_the_place_of_the_one_inside(tmp_path: Path) -> None:
    newer = tiny.verified(tmp_path / "churn-8", version="8")
    port = free_port()
    mounts = {str(newer.source.folder / "onnx"): {"bind": "/mnt/models", "mode": "ro"}}
    environment = {"MODELREL_MODEL_DIR": "/mnt/models", "PORT": str(port)}
    with container(network_mode="host", volumes=mounts, environment=environment) as running:
        assert ready(running), running.logs().decode()
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/v2/models/churn")
        answer = json.loads(connection.getresponse().read())
        connection.close()
    assert answer["versions"] == ["8"]


def test_the_same_context_gives_the_same_image(tmp_path: Path) -> None:
    again = package(tiny.verified(tmp_path / "churn-7"), "docker", tiny.image_options())
    assert again.image is not None
    assert again.image.id == image().id


def test_every_tag_that_was_asked_for_names_the_image(tmp_path: Path) -> None:
    tags = ("modelrel-test/churn:7", "modelrel-test/churn:latest")
    found = package(tiny.verified(tmp_path / "churn-7"), "docker", tiny.image_options(tags=tags)).image
    assert found is not None
    with tiny.engine() as engine:
        try:
            assert {engine.images.get(tag).id for tag in tags} == {found.id}
        finally:
            for tag in tags:
                engine.images.remove(tag, noprune=True)


def test_a_base_image_that_cannot_be_had_is_one_sentence(tmp_path: Path) -> None:
    options = tiny.image_options(base_image="localhost:9/nothing:1")
    with pytest.raises(
        Unavailable, match=r"^the base image localhost:9/nothing:1 .* cannot be pulled: [^\n]+$"
    ) as caught:
        package(tiny.verified(tmp_path / "churn-7"), "docker", options)
    assert "--base-image" in caught.value.hint


def test_a_base_image_with_another_python_is_an_error_of_the_command(tmp_path: Path) -> None:
    right = tiny.image_options()
    other = "3.13" if right.python != "3.13" else "3.12"
    with pytest.raises(Invalid, match=rf"holds Python {re.escape(right.python)}\.\d+, the wheels are for {other}"):
        package(tiny.verified(tmp_path / "churn-7"), "docker", replace(right, python=other))


def test_a_build_that_fails_names_its_step(tmp_path: Path) -> None:
    (tmp_path / "own" / "docker").mkdir(parents=True)
    (tmp_path / "own" / "docker" / "Dockerfile.j2").write_text(
        '{% extends "builtin/docker/Dockerfile.j2" %}{% block system %}COPY nothing.txt /\n{% endblock %}'
    )
    with pytest.raises(Refused, match=r"^the image build failed at COPY nothing\.txt /: [^\n]+$"):
        package(tiny.verified(tmp_path / "churn-7"), "docker", tiny.image_options(templates=tmp_path / "own"))


def test_progress_is_told_step_by_step(tmp_path: Path) -> None:
    told: list[str] = []
    package(tiny.verified(tmp_path / "churn-7"), "docker", tiny.image_options(), told.append)
    assert [line for line in told if line.startswith("Step 1/") and "FROM" in line]


def test_a_label_cannot_break_out_of_the_dockerfile(tmp_path: Path) -> None:
    parity = tiny.verified(tmp_path / "odd", name='odd "$HOME" \\ name')
    found = package(parity, "docker", tiny.image_options()).image
    assert found is not None
    with tiny.engine() as engine:
        labels = engine.images.get(found.id).attrs["Config"]["Labels"]
        engine.images.remove(found.tags[0], noprune=True)
    assert labels["io.modelrel.model.name"] == 'odd "$HOME" \\ name'
    assert found.tags == ("odd-home-name:7",)


@pytest.mark.parametrize("tag", ["Churn:7", "churn 7", "-churn", "churn:", "churn:7:8", "http://host/churn"])
def test_a_tag_that_no_engine_takes_is_an_error_of_the_command(tag: str) -> None:
    with pytest.raises(Invalid, match="not an image name"):
        target.options(PackageOptions(tags=(tag,)))


@pytest.mark.parametrize("tag", ["churn", "churn:7", "host.example:5000/team/churn:7", "ghcr.io/a/b_c/d-e:v1.2-X"])
def test_a_tag_that_engines_take_is_taken(tag: str) -> None:
    assert target.options(PackageOptions(tags=(tag,))).tags == (tag,)


def test_it_is_an_image_that_other_tools_read() -> None:
    with tiny.engine() as engine:
        history = engine.images.get(image().id).history()
    assert docker.__name__ == "docker"
    assert sum(1 for layer in history if layer["Size"] > 0) == 5  # base, wheels, serving, model, lock and manifest

"""A function as an image: what is in it, how it is started, and that AWS's runtime client answers in it."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from modelrel import archive, interpreters, wheels
from modelrel.delivered import Package
from modelrel.errors import Invalid, Unavailable
from modelrel.oci import examine
from modelrel.oci.content import Descriptor
from modelrel.oci.read import Layout, document
from modelrel.steps.package import checked, package
from modelrel.steps.smoke import smoke
from modelrel.targets import engine
from modelrel.values import PackageOptions
from tests.targets import tiny

TAG = f"d-modelrel-test-{os.getpid()}:7"
RUNNING = "{}.{}".format(*sys.version_info[:2])
NOWHERE = "unix:///nowhere/docker.sock"


@cache
def written() -> Package:
    """Return the small model in an image that modelrel wrote, on a base with nothing that runs in it."""
    python = "3.13" if interpreters.find("3.13") else RUNNING
    options = tiny.offered("lambda-image", builder="oci", python=python, platform=wheels.host_platform())
    return package(tiny.verified(tiny.place() / "lambda-image-written"), "lambda-image", options)


@contextlib.contextmanager
def opened(made: Package) -> Iterator[tuple[Layout, dict[str, Any]]]:
    assert made.image
    with Layout.at(made.folder / made.image.at) as image:
        yield image, examine.manifests(image)[0][1]


def settings(made: Package) -> dict[str, Any]:
    with opened(made) as (image, manifest):
        found: dict[str, Any] = document(image, Descriptor.read(manifest["config"]))["config"]
        return found


def checks(made: Package) -> list[str]:
    return [check.name for check in smoke(made).checks]


def test_it_runs_awss_runtime_client_with_the_handler() -> None:
    found = settings(written())
    assert (found["Entrypoint"], found["Cmd"]) == (["python3", "-m", "awslambdaric"], ["handler.handler"])
    assert found["WorkingDir"] == "/var/task"


def test_it_chooses_no_user_and_opens_no_port() -> None:
    assert not settings(written()).get("User")
    assert not settings(written()).get("ExposedPorts")


def test_its_manifests_are_dockers_and_for_one_platform() -> None:
    with opened(written()) as (image, manifest):
        assert manifest["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
        assert len(examine.manifests(image)) == 1


def test_it_names_its_base_by_digest() -> None:
    labels = settings(written())["Labels"]
    assert labels["org.opencontainers.image.base.digest"].startswith("sha256:")


def test_a_changed_model_changes_the_layers_of_model_and_metadata_alone(tmp_path: Path) -> None:
    made = written()
    changed = tiny.verified(tmp_path, version="8")
    options = tiny.offered("lambda-image", builder="oci", python=made.python, platform=made.platform)
    again = package(changed, "lambda-image", options)
    assert made.image
    assert again.image
    before, after = ({one.name: one.digest for one in image.layers} for image in (made.image, again.image))
    assert {name for name in before if before[name] != after[name]} == {"model", "metadata"}


def test_two_packagings_are_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = written()
    old = os.umask(0o077)
    monkeypatch.setenv("LC_ALL", "C")
    try:
        options = tiny.offered("lambda-image", builder="oci", python=made.python, platform=made.platform)
        again = package(tiny.verified(tmp_path / "elsewhere"), "lambda-image", options)
    finally:
        os.umask(old)
    assert archive.sha256(made.folder / made.artifact) == archive.sha256(again.folder / again.artifact)


def test_an_image_for_arm64_has_its_libraries_and_only_those(tmp_path: Path) -> None:
    options = tiny.offered("lambda-image", builder="oci", python="3.13", platform="linux/arm64")
    made = package(tiny.verified(tmp_path), "lambda-image", options)
    assert made.image
    with opened(made) as (image, manifest):
        ours = frozenset(layer.digest for layer in made.image.layers)
        assert "libraries, all for it" in examine.machines(image, manifest, wheels.MACHINES["linux/arm64"], ours)


def test_without_an_engine_what_it_adds_to_its_base_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", NOWHERE)
    report = smoke(written())
    assert report.runner == "awslambdaric"
    names = [check.name for check in report.checks]
    assert {"direct invocation", "load balancer", "after a restore from a snapshot", "image"} <= set(names)


def test_a_context_that_nobody_built_is_run_too() -> None:
    python = "3.13" if interpreters.find("3.13") else RUNNING
    made = tiny.delivered("lambda-image", python=python)
    assert made.image is None
    report = smoke(made)
    assert (report.runner, report.max_abs_error) == ("awslambdaric", 0.0)


def test_without_an_engine_and_a_python_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", NOWHERE)
    monkeypatch.setattr(interpreters, "find", lambda _: None)
    with pytest.raises(Unavailable, match="no engine, and no Python"):
        smoke(written())


def test_it_says_how_to_push_and_to_deploy_it() -> None:
    push, deploy = written().notes[-2:]
    assert "docker load -i " in push
    assert "docker push ACCOUNT.dkr.ecr.REGION.amazonaws.com/churn:7" in push
    assert "aws cloudformation deploy --template-file " in deploy
    assert "ImageUri=ACCOUNT.dkr.ecr.REGION.amazonaws.com/churn:7" in deploy


def test_the_place_in_ecr_that_was_given_is_named(tmp_path: Path) -> None:
    uri = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/team/churn:7"
    options = tiny.offered("lambda-image", render_only=True, python="3.13", push=uri)
    made = package(tiny.verified(tmp_path), "lambda-image", options)
    assert f"ImageUri={uri} " in made.notes[-1]
    assert uri in (made.folder / "onnx" / "lambda-image" / "README.md").read_text()


def test_several_platforms_are_refused() -> None:
    with pytest.raises(Invalid, match="no platform"):
        checked("lambda-image", PackageOptions(platform="linux/amd64,linux/arm64"))


def test_building_nothing_by_somebody_is_refused() -> None:
    with pytest.raises(Invalid, match="--render-only builds nothing"):
        checked("lambda-image", PackageOptions(render_only=True, builder="oci"))


def test_a_base_that_is_not_to_be_had_leaves_the_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", NOWHERE)
    options = PackageOptions(base_image=str(tmp_path / "missing.tar"), python="3.13")
    made = package(tiny.verified(tmp_path / "release"), "lambda-image", options)
    assert made.image is None
    assert any("docker build -t churn:7 " in note for note in made.notes)


@pytest.mark.docker
@pytest.mark.lambda_runtime
@pytest.mark.parametrize("builder", ["engine", "oci"])
def test_the_image_answers_in_an_engine_without_a_writable_root(builder: str, tmp_path: Path) -> None:
    base = tiny.base_image()
    options = tiny.image_options(builder=builder, tags=(TAG,), platform=wheels.host_platform())
    with tiny.engine() as client:
        if builder == "oci":  # what an engine alone has is read from the tar that it saves
            with (tmp_path / "base.tar").open("wb") as stream:
                stream.writelines(client.images.get(base).save())
            options = replace(options, base_image=str(tmp_path / "base.tar"))
        made = package(tiny.verified(tmp_path / "release"), "lambda-image", options)
        try:
            report = smoke(made)
        finally:
            if builder == "engine":
                client.images.remove(TAG, force=True)
    assert (report.runner, report.max_abs_error) == ("image", 0.0)
    assert "after a restore from a snapshot" in [check.name for check in report.checks]
    assert json.loads((made.folder / made.artifact).parent.joinpath("context/manifest.json").read_text())


def test_a_function_in_an_engine_elsewhere_is_not_reached() -> None:
    elsewhere = engine.Engine(None, "192.0.2.1")
    made = written()
    assert made.image
    with pytest.raises(Unavailable, match="on another machine"), elsewhere.run_function(made.image, {}):
        pass

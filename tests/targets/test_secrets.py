"""Secrets of whoever packages: none is in what is made, in what is kept, or in what is said."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from modelrel import archive
from modelrel.errors import redacted
from modelrel.steps.package import package
from tests.conftest import Run
from tests.models import logged
from tests.targets import houses, tiny

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "hush-aws",
    "AWS_SESSION_TOKEN": "hush-session",
    "MLFLOW_TRACKING_PASSWORD": "hush-mlflow",
    "MLFLOW_TRACKING_TOKEN": "hush-token",
    "DOCKER_AUTH_CONFIG": '{"auths": {"x": {"auth": "hush-docker"}}}',
    "UV_INDEX_PRIVATE_PASSWORD": "hush-index",
    "HTTPS_PROXY": "http://me:hush-proxy@127.0.0.1:9",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = np.random.default_rng(0).normal(size=(60, 3))
    top = tmp_path_factory.mktemp("model")
    logged(LogisticRegression().fit(rows, rows[:, 0] > 0), rows, top)
    return (top / "source").rename(top / "leads")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    house = houses.of_a_function()  # before there is a proxy
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with houses.private_index(house) as host:
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://{houses.USER}:{houses.PASSWORD}@{host}/simple")
        yield host


def everything(top: Path) -> Iterator[tuple[str, bytes]]:
    for path in archive.walk(top):
        yield str(path), path.read_bytes()
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as packed:
                yield from ((f"{path}/{name}", packed.read(name)) for name in packed.namelist())


def test_a_private_index_serves_a_package_that_does_not_know_it(
    model: Path, index: str, run: Run, tmp_path: Path
) -> None:
    done = run("package", model, "--target", "lambda", "--python", "3.13", "-v")
    assert done.code == 0, done.out + done.err
    kept = {name: content for top in ("dist", "cache") for name, content in everything(tmp_path / top)}
    assert any(name.endswith(".zip/manifest.json") for name in kept)
    for secret in ("hush-", houses.USER, index):
        assert [name for name, content in kept.items() if secret.encode() in content] == []
        assert secret not in done.out + done.err


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://r3ader-of-wheels:hush-wrong@{}/simple", "does not let us in (401 Unauthorized)"),
        ("http://hush-token@{}/simple", "does not let us in (401 Unauthorized)"),
        ("http://r3ader-of-wheels:hush-5ecret@127.0.0.1:9/simple", "no package index answers"),
        ("http://127.0.0.1:9/simple?token=hush-query", "no package index answers"),
    ],
)
def test_a_private_index_that_fails_is_told_without_its_password(  # noqa: PLR0917
    address: str, said: str, model: Path, index: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", address.format(index))
    for more in (("--json",), ("-v",)):
        done = run("package", model, "--target", "lambda", "--python", "3.13", *more)
        assert done.code == 3
        assert said in (done.err if more == ("-v",) else done.json["error"]["message"])
        assert "hush-" not in done.out + done.err
    kept = dict(everything(Path("dist")))
    assert [name for name, content in kept.items() if b"hush-" in content] == []


def test_the_repository_of_the_code_is_told_without_its_token(tmp_path: Path) -> None:
    parity = tiny.verified(tmp_path / "churn-7")
    tags = {"mlflow.source.git.repoURL": "https://hush-token@git.example/team/churn.git"}
    source = replace(parity.source, tags=tags)
    parity = replace(parity, converted=replace(parity.converted, source=source))
    context = package(parity, "docker", tiny.plain("docker"))
    text = (context.folder / context.artifact / "Dockerfile").read_text()
    assert 'image.source="https://***@git.example/team/churn.git"' in text
    assert all(b"hush-" not in content for _, content in everything(context.folder))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:pass@x.example/simple", "https://***@x.example/simple"),
        ("(https://token@x.example:443/a?b=c)", "(https://***@x.example:443/a?***)"),
        ("git+ssh://git:p@ss@x.example/a", "git+ssh://***@x.example/a"),
        ("me@x.example, 3:4@5 and http://x.example/a@b", "me@x.example, 3:4@5 and http://x.example/a@b"),
    ],
)
def test_what_addresses_keep_secret_is_not_shown(text: str, shown: str) -> None:
    assert redacted(text) == shown

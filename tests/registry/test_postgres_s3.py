"""A registry as companies run it: an MLflow server on PostgreSQL and S3, which asks who we are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from modelrel.registry import Registry
from tests.conftest import Run
from tests.registry import small
from tests.registry.services import BUCKET, KEYS, mlflow_server, postgres, s3
from tests.registry.stumbling import stumbling

pytestmark = pytest.mark.slow

USER = {"MLFLOW_TRACKING_USERNAME": "release", "MLFLOW_TRACKING_PASSWORD": "long enough 4 mlflow"}
MODELS = {"proxied": "", "direct": f"s3://{BUCKET}/direct"}
"""The server hands out the files of one model; those of the other are fetched from S3."""


@dataclass
class Company:
    """The server with basic authentication, a gateway in front of it that wants a token, and where the files lie."""

    server: str
    gateway: str
    s3: str


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    folder = tmp_path_factory.mktemp("company")
    config = folder / "auth.ini"
    config.write_text(
        "[mlflow]\ndefault_permission = READ\n"
        f"database_uri = sqlite:///{folder}/auth.db\nadmin_username = {USER['MLFLOW_TRACKING_USERNAME']}\n"
        f"admin_password = {USER['MLFLOW_TRACKING_PASSWORD']}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    with postgres() as database, s3(folder) as store:
        there = {**KEYS, "MLFLOW_S3_ENDPOINT_URL": store}
        options = ("--backend-store-uri", database, "--artifacts-destination", f"s3://{BUCKET}/proxied")
        secret = {"MLFLOW_AUTH_CONFIG_PATH": str(config), "MLFLOW_FLASK_SERVER_SECRET_KEY": "secret", **there}
        with mlflow_server(folder, *options, "--app-name", "basic-auth", **secret) as server:
            for name, artifacts in MODELS.items():
                words = [sys.executable, small.__file__, server, name, artifacts]
                subprocess.run(words, check=True, env={**os.environ, **USER, **there})
            import base64

            pair = base64.b64encode(":".join(USER.values()).encode()).decode()
            gateway = stumbling(server, demanded="Bearer let-me-in", headers={"Authorization": f"Basic {pair}"})
            with gateway as proxy:
                yield Company(server, proxy.uri, store)


@pytest.fixture(params=["password", "token"])
def uri(request: pytest.FixtureRequest, company: Company, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the registry, with what it takes to be let in."""
    for name, value in {**KEYS, "MLFLOW_S3_ENDPOINT_URL": company.s3}.items():
        monkeypatch.setenv(name, value)
    if request.param == "token":
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "let-me-in")
        return company.gateway
    for name, value in USER.items():
        monkeypatch.setenv(name, value)
    return company.server


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_released_and_promoted(run: Run, uri: str, name: str) -> None:
    done = run("release", name, "-t", "npm", "--promote", "champion", "--registry", uri, "--json")
    assert done.code == 0, done.out + done.err
    assert Registry(uri).holder(name, alias="champion") == "1"
    source = json.loads(Path("dist", f"{name}-1", "SourceModel.json").read_text())["value"]
    assert source["metrics"]["accuracy"] > 0.9
    assert uri.partition("//")[2].partition(":")[0] in source["registry"]


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_inspected(run: Run, uri: str, name: str) -> None:
    done = run("inspect", name, "--quick", "--registry", uri, "--json")
    assert done.code == 0, done.out + done.err
    assert done.json["source"]["flavor"] == "sklearn"


def test_who_is_not_let_in_is_told_which_variables_to_set(
    run: Run, company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    for registry in (company.server, company.gateway):
        done = run("pull", "proxied", "--registry", registry, "--json")
        assert done.code == 3
        assert "MLFLOW_TRACKING_TOKEN" in done.json["error"]["hint"]


def test_a_store_that_is_down_is_told(run: Run, company: Company, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    done = run("pull", "direct", "--registry", uri, "--json")
    assert done.code == 3, done.out + done.err
    assert "127.0.0.1:9" in done.json["error"]["message"]
    assert not list(Path("dist").rglob("MLmodel"))

"""`modelrel init`: its files are taken by who reads them, and the commands inside them run."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelrel.commands import initial
from modelrel.commands.settings import read
from tests.conftest import Run

GITHUB = (".github/workflows/release-model.yml", ".github/workflows/try-release.yml")
RULES = "{extends: default, rules: {line-length: {max: 120}}}"
ODD = 'it\'s: a #name, "50%" {{ x }} $(touch y)'


def judged(*words: object) -> None:
    """Run a program of this environment that must find nothing."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name(str(words[0]))), *map(str, words[1:])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def steps(path: str) -> list[dict[str, Any]]:
    """Return the steps of a workflow that run something."""
    [job] = yaml.safe_load(Path(path).read_text())["jobs"].values()
    return [step for step in job["steps"] if "run" in step]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One release folder for all: what is made once is up to date for the next."""
    return tmp_path_factory.mktemp("pipelines") / "dist"


@pytest.fixture
def shell(own_registry: str, tmp_path: Path, dist: Path) -> dict[str, str]:
    """Variables of a runner that can ask the registry; pip only writes down what it is told, and is not at hand."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "modelrel").write_text(f'#!/bin/sh\nexec {sys.executable} -m modelrel "$@"\n')
    (tools / "python").write_text('#!/bin/sh\necho "$@" >> pip.log\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    top = str(Path(initial.__file__).parents[2])
    return {
        "PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(tmp_path), "PYTHONPATH": top,
        "MLFLOW_TRACKING_URI": own_registry, "MLFLOW_DISABLE_TELEMETRY": "true",
        "MODELREL_DIST": str(dist),
        "MODELREL_JUNIT": "modelrel.xml", "GITHUB_ACTIONS": "true", "GITHUB_REPOSITORY": "team/churn",
        "GITHUB_RUN_ID": "7", "GITHUB_OUTPUT": str(tmp_path / "output"), "GITHUB_ACTOR": "ann",
    }  # fmt: skip


def sh(command: str, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a step as GitHub's runner does."""
    return subprocess.run(["bash", "-e", "-c", command], env=variables, capture_output=True, text=True, check=False)


def alias(registry: str, name: str) -> str:
    from modelrel.registry import Registry

    return Registry(registry).holder("flowers", alias=name)


def mine(name: str = "flowers") -> None:
    """Write the files for a model of this name."""
    for kind in initial.KINDS:
        initial.write(initial.texts(initial.Plan(name=name, targets=("modelpack",)), kind), Path.cwd(), force=False)


@pytest.mark.parametrize("name", ["flowers", ODD], ids=["plain", "odd"])
def test_the_pipelines_pass_the_checks_of_those_who_read_them(name: str) -> None:
    mine(name)
    judged("yamllint", "--strict", "-d", RULES, *GITHUB, ".gitlab-ci.yml")
    judged("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *GITHUB)
    judged("check-jsonschema", "--builtin-schema", "vendor.gitlab-ci", ".gitlab-ci.yml")
    judged("zizmor", "--offline", "--persona", "auditor", ".")


@pytest.mark.parametrize("name", ["flowers", ODD], ids=["plain", "odd"])
def test_the_settings_are_settings(name: str) -> None:
    mine(name)
    assert tomllib.loads(Path("modelrel.toml").read_text())["release"] == {
        "target": ["modelpack"], "promote": "champion",
    }  # fmt: skip
    assert read(Path.cwd(), {}).policy.ladder == ("champion",)


def test_every_action_is_pinned_by_its_commit_and_says_its_version() -> None:
    mine()
    used = [line.split("uses:")[1].strip() for path in GITHUB for line in Path(path).read_text().splitlines()
            if "uses:" in line]  # fmt: skip
    assert len(used) == 7
    for action in used:
        name, _, pin = action.partition("@")
        assert name.startswith("actions/")
        assert pin in initial.ACTIONS.values()


def test_a_pull_request_tries_the_release_and_changes_nothing(own_registry: str, shell: dict[str, str]) -> None:
    mine()
    workflow = yaml.safe_load(Path(GITHUB[1]).read_text())
    for step in steps(GITHUB[1]):
        done = sh(step["run"], {**shell, "MODEL": workflow["env"]["MODEL"]})
        assert done.returncode == 0, done.stdout + done.stderr
    assert "-m pip install --quiet modelrel==" in Path("pip.log").read_text()
    assert "would change" in done.stdout
    assert Path("modelrel.xml").is_file()
    assert alias(own_registry, "champion") == ""


def test_a_tag_releases_and_a_form_does_too(own_registry: str, shell: dict[str, str]) -> None:
    mine()
    [_, _, release] = steps(GITHUB[0])
    tag = sh(release["run"], {**shell, "ASKED": "", "GITHUB_REF_NAME": "flowers-v2"})
    assert tag.returncode == 0, tag.stdout + tag.stderr
    assert alias(own_registry, "champion") == "2"
    form = sh(release["run"], {**shell, "ASKED": "flowers/2", "GITHUB_REF_NAME": "main"})
    assert form.returncode == 0, form.stdout + form.stderr
    injected = sh(release["run"], {**shell, "ASKED": "", "GITHUB_REF_NAME": "a$(touch broken)`touch broken`-v2"})
    assert injected.returncode == 2
    assert not Path("broken").exists()


def event(body: bytes, secret: str) -> dict[str, str]:
    """Return the headers of an event, signed as MLflow signs it, as variables."""
    from mlflow.webhooks.delivery import _generate_hmac_signature

    now = str(int(time.time()))
    return {"HTTP_X_MLFLOW_SIGNATURE": _generate_hmac_signature(secret, "id", now, body.decode()),
            "HTTP_X_MLFLOW_TIMESTAMP": now, "HTTP_X_MLFLOW_DELIVERY_ID": "id"}  # fmt: skip


BODY = json.dumps({
    "entity": "model_version_alias", "action": "created",
    "data": {"name": "flowers", "alias": "candidate", "version": "2"},
}).encode()  # fmt: skip


def test_a_signed_event_releases_and_another_stops_the_workflow(own_registry: str, shell: dict[str, str]) -> None:
    mine()
    [_, check, release] = steps(GITHUB[0])
    variables = {**shell, "BODY": BODY.decode(), "MLFLOW_WEBHOOK_SECRET": "s", "ASKED": "", "GITHUB_REF_NAME": "main"}
    forged = sh(check["run"], {**variables, **event(BODY, "another")})
    assert forged.returncode == 4
    assert sh(check["run"], {**variables, **event(BODY, "s")}).returncode == 0
    assert Path("asked.sh").read_text() == "modelrel release flowers/2 --target modelpack --promote champion\n"
    done = sh(release["run"], variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert alias(own_registry, "champion") == "2"


def test_the_scripts_of_gitlab_run(own_registry: str, shell: dict[str, str]) -> None:
    mine()
    jobs = yaml.safe_load(Path(".gitlab-ci.yml").read_text())
    variables = {**shell, "MODELREL_DOTENV": "release.env", "MODEL": jobs["variables"]["MODEL"],
                 "CI_COMMIT_TAG": "flowers-v2", "CI_PIPELINE_ID": "1", "EVENT": base64.b64encode(BODY).decode(),
                 "MLFLOW_WEBHOOK_SECRET": "s", **event(BODY, "s")}  # fmt: skip
    for job in ("dry-run", "release", "release-on-event"):
        script = "\n".join(["set -eo pipefail", *jobs[".modelrel"]["before_script"], *jobs[job]["script"]])
        done = sh(script, variables)
        assert done.returncode == 0, job + done.stdout + done.stderr
        assert alias(own_registry, "champion") == ("" if job == "dry-run" else "2")
        assert "RELEASE_VERSION=2\n" in Path("release.env").read_text()


def test_targets_are_those_that_the_model_can_have(run: Run, own_registry: str) -> None:
    done = run("init", "digits/1", "--registry", own_registry, "--ci", "github", "--json")
    assert done.code == 0, done.err
    assert done.json["written"] == ["modelrel.toml", *GITHUB]
    text = Path("modelrel.toml").read_text()
    assert tomllib.loads(text)["release"]["registry"] == own_registry
    [line] = [line for line in text.splitlines() if "can also become" in line]
    assert {"lambda", "npm", "kserve"} <= set(line.rstrip(".").split(": ")[1].split(", "))
    assert 'pip install --quiet "modelrel[xgboost]==' in Path(GITHUB[1]).read_text()
    assert "digits@candidate" in Path(GITHUB[1]).read_text()


def test_nothing_is_written_over_unless_it_is_forced(run: Run) -> None:
    Path("modelrel.toml").write_text("# mine\n")
    done = run("init", "--ci", "gitlab")
    assert (done.code, "modelrel.toml is there already" in done.err) == (2, True)
    assert Path("modelrel.toml").read_text() == "# mine\n"
    assert not Path(".gitlab-ci.yml").exists()
    assert run("init", "--ci", "gitlab", "--force").code == 0
    again = run("init", "--ci", "gitlab", "--json")
    assert (again.code, again.json["written"]) == (0, [])
    assert again.json["unchanged"] == ["modelrel.toml", ".gitlab-ci.yml"]


def test_it_says_what_to_set(run: Run) -> None:
    done = run("init", "--ci", "github")
    for name in ("MODEL in the pipeline", "MLFLOW_TRACKING_URI", "MODELREL_KEY", "MLFLOW_WEBHOOK_SECRET"):
        assert name in done.out
    assert run("init", "--ci", "githup").code == 2


def test_a_password_in_the_address_of_a_registry_is_not_written_down(run: Run) -> None:
    assert run("init", "--registry", "https://ann:hush@mlflow.example").code == 0
    assert "hush" not in Path("modelrel.toml").read_text()

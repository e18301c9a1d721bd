"""How a function is deployed: every combination of settings is a template that AWS's checkers accept."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from modelrel import render
from modelrel.errors import Invalid
from modelrel.steps.package import checked
from modelrel.targets import TARGETS
from modelrel.values import PackageOptions
from tests.targets import tiny

FUNCTIONS = ("lambda", "lambda-image")


def template(target: str, folder: Path, **values: str) -> str:
    """Return the SAM template of the small model with some settings."""
    options = checked(target, PackageOptions(python="3.13", values=values))
    known = TARGETS[target].variables(tiny.verified(folder / "release"), options, "")
    render.render(target, folder / "out", known)
    return (folder / "out" / "template.yaml").read_text()


@pytest.mark.parametrize("target", FUNCTIONS)
def test_every_template_is_accepted_by_cfn_lint(target: str, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("cfn-lint")
    found = str(program) if program.is_file() else shutil.which("cfn-lint")
    if not found:
        tiny.absent("lambda", "cfn-lint is not installed")
    paths = []
    kinds = ({}, {"snapstart": "yes"}, {"provisioned": "2"})
    for number, (auth, api, kind) in enumerate(itertools.product(("iam", "none"), ("http", "rest", "none"), kinds)):
        path = tmp_path / f"{number}.yaml"
        path.write_text(template(target, tmp_path / str(number), auth=auth, api=api, memory="512", **kind))
        paths.append(str(path))
    done = subprocess.run([str(found), *paths], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_the_template_of_a_zip_deploys_the_zip_beside_it() -> None:
    package = tiny.delivered("lambda", python="3.13")
    text = (package.folder / "onnx" / "lambda" / "template.yaml").read_text()
    assert f"CodeUri: ./{Path(package.artifact).name}\n" in text
    assert f"Runtime: python{package.python}\n" in text


def test_a_url_for_everybody_has_both_permissions(tmp_path: Path) -> None:
    text = template("lambda", tmp_path, auth="none", api="none")
    assert "AuthType: NONE" in text
    assert "Action: lambda:InvokeFunction\n" in text
    assert "InvokedViaFunctionUrl: true" in text
    assert "AWS_IAM" not in text


def test_by_default_every_caller_signs(tmp_path: Path) -> None:
    text = template("lambda", tmp_path)
    assert "AuthType: AWS_IAM" in text
    assert "AWS::Lambda::Permission" not in text
    assert "NONE" not in text


def test_with_snapstart_callers_reach_a_published_version(tmp_path: Path) -> None:
    text = template("lambda", tmp_path, snapstart="yes", auth="none")
    assert "AutoPublishAlias: live" in text
    assert "ApplyOn: PublishedVersions" in text
    assert "FunctionName: !Ref ModelAliaslive" in text


@pytest.mark.parametrize("target", FUNCTIONS)
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"memory": "64"}, "256 to 10240"),
        ({"memory": "lots"}, "256 to 10240"),
        ({"timeout": "901"}, "1 to 900"),
        ({"provisioned": "-1"}, "0 to 10000"),
        ({"auth": "cognito"}, "iam, none"),
        ({"api": "soap"}, "http, rest, none"),
        ({"snapstart": "maybe"}, "neither yes nor no"),
        ({"slim": "rather"}, "neither yes nor no"),
        ({"snapstart": "yes", "provisioned": "1"}, "no two of them"),
        ({"memry": "512"}, "no setting 'memry'"),
    ],
)
def test_a_setting_that_lambda_does_not_take_is_an_error_of_the_command(
    target: str, values: dict[str, str], said: str
) -> None:
    with pytest.raises(Invalid, match=said):
        checked(target, PackageOptions(values=values))

"""The TFLite package: what is in the folder, and that it runs with LiteRT alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from modelrel.delivered import Package
from modelrel.errors import Invalid, Refused
from modelrel.steps.convert import convert
from modelrel.steps.package import checked, package
from modelrel.steps.smoke import smoke
from modelrel.steps.verify import verify
from modelrel.values import ConvertOptions, PackageOptions, VerifyOptions
from tests.formats.texts import classes, frame
from tests.models import logged
from tests.targets import tiny


@pytest.fixture(scope="module")
def delivered() -> Package:
    return tiny.delivered("tflite")


@pytest.fixture
def folder(delivered: Package, tmp_path: Path) -> Path:
    """Return a copy of the delivered folder, somewhere else."""
    top = (delivered.folder / delivered.artifact).parent
    return Path(shutil.copytree(top, tmp_path / "elsewhere"))


def run(folder: Path, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", folder / "try_model.py", *words]
    return subprocess.run(command, capture_output=True, text=True, input=given, cwd="/", check=False)


def test_the_folder_holds_the_model_its_labels_and_how_to_try_it(delivered: Package, folder: Path) -> None:
    names = {path.name for path in folder.iterdir()} - {"Package.json"}
    told = {"README.md", "sbom.cdx.json", "try_model.py"}
    assert names == {"model.tflite", "labels.txt", "golden.json", "modelrel.json"} | told
    assert (folder / "labels.txt").read_text(encoding="utf-8").splitlines() == list(delivered.converted.classes)
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "labels.txt" in text
    assert "{" not in text
    assert f"{delivered.parity.rows:,} rows" in text


def test_the_script_proves_the_golden_rows_anywhere(folder: Path) -> None:
    done = run(folder)
    assert done.returncode == 0, done.stderr
    assert "8 golden rows: right" in done.stdout


def test_the_script_notices_another_model(folder: Path) -> None:
    content = json.loads((folder / "golden.json").read_text())
    content["outputs"]["label"] = content["outputs"]["label"][::-1]
    (folder / "golden.json").write_text(json.dumps(content))
    done = run(folder)
    assert done.returncode == 1
    assert done.stdout.startswith("WRONG: label")


def test_the_script_answers_rows_of_a_file(folder: Path, tmp_path: Path) -> None:
    content = json.loads((folder / "golden.json").read_text())
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps({"inputs": content["inputs"]}))
    answered: dict[str, Any] = json.loads(run(folder, str(rows)).stdout)["outputs"]
    assert answered["label"] == content["outputs"]["label"]
    assert np.allclose(answered["probabilities"], content["outputs"]["probabilities"])


def test_a_line_that_does_not_fit_is_answered_with_an_error_and_the_next_is_right(folder: Path) -> None:
    content = json.loads((folder / "golden.json").read_text())
    good = json.dumps({"inputs": content["inputs"]})
    done = run(folder, "--lines", given="no JSON\n{}\n" + good + "\n")
    first, second, third = (json.loads(line) for line in done.stdout.splitlines())
    assert "error" in first
    assert "error" in second
    assert third["outputs"]["label"] == content["outputs"]["label"]


def test_a_package_of_texts_carries_what_turns_them_into_numbers(tmp_path: Path) -> None:
    columns = ColumnTransformer([("text", TfidfVectorizer(), "text"), ("plan", OneHotEncoder(), ["plan"])])
    model = make_pipeline(columns, LogisticRegression()).fit(frame()[["text", "plan"]], classes())
    source = logged(model, frame()[["text", "plan"]], tmp_path)
    report = verify(convert(source, "tflite", ConvertOptions()), VerifyOptions(rows=100))
    made = package(report, "tflite", PackageOptions())
    assert "values of another type" in {check.name for check in smoke(made).checks}
    folder = Path(shutil.copytree((made.folder / made.artifact).parent, tmp_path / "elsewhere"))
    assert {"adapter.json", "adapters"} < {path.name for path in folder.iterdir()}
    assert "adapter.json" in (folder / "README.md").read_text(encoding="utf-8")
    done = run(folder)
    assert done.returncode == 0, done.stderr
    assert "8 golden rows: right" in done.stdout
    said = json.dumps({"inputs": {"text": [[frame()["text"][0]]], "plan": [["basic"]]}})
    answered = json.loads(run(folder, "--lines", given=said).stdout)["outputs"]
    np.testing.assert_allclose(answered["probabilities"], model.predict_proba(frame()[["text", "plan"]][:1]), atol=1e-6)


def test_smoke_runs_it_in_a_process_without_tensorflow(delivered: Package) -> None:
    report = smoke(delivered)
    assert report.runner.startswith("LiteRT 2")
    assert {check.name for check in report.checks} >= {"golden rows", "one row", "a batch", "an unknown input"}
    assert report.max_abs_error < 1e-6
    # TensorFlow alone would be more
    assert 2**20 < report.memory_bytes < 200 * 2**20


def test_smoke_refuses_a_model_that_answers_otherwise(delivered: Package, tmp_path: Path) -> None:
    from dataclasses import replace

    from modelrel import archive

    top = tmp_path / "release"
    shutil.copytree(delivered.folder, top)
    path = top / delivered.artifact
    content = path.read_bytes()
    at = content.index(b"versicolor")
    path.write_bytes(content[:at] + b"versicolxr" + content[at + 10 :])
    source = replace(delivered.parity.source, folder=top)
    converted = replace(delivered.converted, source=source)
    files = tuple(archive.describe(top / file.path, top) for file in delivered.files)
    changed = replace(delivered, parity=replace(delivered.parity, converted=converted), files=files)
    with pytest.raises(Refused, match="output 'label' of row"):
        smoke(changed)


@pytest.mark.parametrize(
    "options",
    [{"base_image": "python:3.11"}, {"tags": ("a:b",)}, {"python": "3.12"}, {"platform": "linux/arm64"}],
)
def test_what_is_about_images_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        checked("tflite", PackageOptions(**options))

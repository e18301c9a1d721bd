"""The bill of materials: valid to a judge that is not ours, about what is inside, and silent about this machine."""

from __future__ import annotations

import json
import re
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from modelrel import archive, distributions, wheels
from modelrel.targets import TARGETS, bom
from modelrel.values import Dataset
from tests.targets import tiny

EACH = pytest.mark.parametrize("target", sorted(name for name in TARGETS if not TARGETS[name].IMAGES))
"""What carries the model: the others are text about an image, which has a bill of its own."""
SELF_CONTAINED = pytest.mark.parametrize("target", ["docker", "lambda"])
WANTED = (("flatbuffers", "httptools"),)


def judged(content: bytes) -> Any:
    """Return the document of a bill that the CycloneDX project's own strict validator finds nothing wrong with."""
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(content.decode()) is None
    return json.loads(content)


def billed(target: str) -> Any:
    found = tiny.delivered(target)
    if target == "modelpack":  # a referrer inside the artifact
        with tarfile.open(found.folder / found.artifact) as tar:
            parts = [stream.read() for entry in tar if (stream := tar.extractfile(entry))]
        (content,) = [part for part in parts if b'"bomFormat"' in part]
        return judged(content)
    path = next(found.folder / file.path for file in found.files if Path(file.path).name == bom.NAME)
    return judged(path.read_bytes())


def inside(target: str) -> set[str]:
    """Return the wheels that are in a delivery: a Lambda zip leaves out those that answering never needs."""
    found = tiny.delivered(target)
    names = [file.path for file in found.files]
    if target == "lambda":
        with zipfile.ZipFile(found.folder / found.artifact) as packed:
            names = packed.namelist()
    return {stem.group(1).lower() for name in names if (stem := re.search(r"(?:^|/)([^/]+)-[^/-]+\.dist-info/", name))}


@EACH
def test_every_delivery_has_a_bill_that_is_valid(target: str) -> None:
    assert billed(target)["metadata"]["component"]["name"]


@EACH
def test_the_model_is_in_it_with_its_digest_and_its_card(target: str) -> None:
    parity = tiny.delivered(target).parity
    (model,) = [one for one in billed(target)["components"] if one["type"] == "machine-learning-model"]
    card = model["modelCard"]["modelParameters"]
    assert model["hashes"] == [{"alg": "SHA-256", "content": parity.converted.file.sha256}]
    assert card["task"] == "classification"
    assert [one["format"].split(":")[0] for one in card["inputs"]] == [one.name for one in parity.converted.inputs]
    assert [one["format"].split(":")[0] for one in card["outputs"]] == [one.name for one in parity.converted.outputs]


@SELF_CONTAINED
def test_every_wheel_inside_is_a_component_with_its_terms(target: str) -> None:
    components = {one["bom-ref"]: one for one in billed(target)["components"]}
    found = tiny.delivered(target)
    lock = next(found.folder / one.path for one in found.files if one.path.endswith("requirements.lock")).read_text()
    pins = set(re.findall(r"^([\w.-]+==\S+)", lock, re.MULTILINE))
    ours = {f"{ref.removeprefix('pkg:pypi/').replace('@', '==')}" for ref in components if ref.startswith("pkg:pypi/")}
    carried = {pin for pin in pins if pin.partition("==")[0].replace("-", "_") in inside(target)}
    assert {"onnxruntime", "numpy", "msgspec"} <= {pin.partition("==")[0] for pin in carried}
    assert {pin for pin in ours if not pin.startswith("modelrel==")} == carried
    runtime = next(one for ref, one in components.items() if ref.startswith("pkg:pypi/onnxruntime@"))
    assert runtime["licenses"] == [{"expression": "MIT", "acknowledgement": "declared"}]
    listed = [one["content"] for one in runtime["externalReferences"][0]["hashes"]]
    assert listed == re.findall(r"sha256:(\w+)", lock.partition("\nonnxruntime==")[2].partition("==")[0])


@SELF_CONTAINED
def test_what_needs_what_is_in_it(target: str) -> None:
    needs = {one["ref"].partition("@")[0]: one["dependsOn"] for one in billed(target)["dependencies"]}
    expected = {f"pkg:pypi/{name}" for name in {"numpy", "protobuf"} & inside(target)}
    assert "pkg:pypi/numpy" in expected
    assert {one.partition("@")[0] for one in needs["pkg:pypi/onnxruntime"]} >= expected
    assert "model" in needs["delivery"]


@SELF_CONTAINED
def test_the_terms_of_everything_inside_are_there_word_for_word(target: str) -> None:
    found = tiny.delivered(target)
    text = next(found.folder / one.path for one in found.files if one.path.endswith(bom.LICENSES)).read_text()
    if target == "docker":  # all wheels
        assert re.search(r"^flatbuffers [\d.]+: Apache-2\.0; its wheel has no licence text$", text, re.MULTILINE)
        assert "Copyright 2008 Google Inc." in text  # Protocol Buffers
    assert re.search(r"^={100}\nonnxruntime [\d.]+: onnxruntime/ThirdPartyNotices\.txt\n={100}$", text, re.MULTILINE)
    assert "Copyright (c) 2005-20" in text  # NumPy
    assert "OpenBLAS" in text  # what NumPy's wheel brings along


def test_a_licence_survives_the_cleaning_whatever_it_is_called(tmp_path: Path) -> None:
    top = tmp_path / "x-1.dist-info" / "licenses" / "src" / "tests"
    top.mkdir(parents=True)
    (top / "inflate.c").write_text("/* terms */")
    (top.parents[2] / "METADATA").write_text("Metadata-Version: 2.4\nName: x\nVersion: 1\n")
    (top.parents[2] / "RECORD").write_text("x")
    wheels._clean(tmp_path)
    (one,) = distributions.read(tmp_path)
    assert one.texts == (("x-1.dist-info/licenses/src/tests/inflate.c", "/* terms */"),)
    assert not (top.parents[2] / "RECORD").exists()


@pytest.mark.parametrize(
    ("stated", "expression", "words"),
    [
        ("License-Expression: MIT OR Apache-2.0", "MIT OR Apache-2.0", ""),
        ("License: Apache 2.0", "Apache-2.0", ""),
        ("License: MPL-2.0 AND MIT", "MPL-2.0 AND MIT", ""),
        ("License: BSD\nClassifier: License :: OSI Approved :: BSD License", "", "BSD"),
        ("Classifier: License :: OSI Approved :: MIT License", "MIT", ""),
        ("License: Copyright (c) me\n        all rights", "", "Copyright (c) me"),
        ("Summary: says nothing", "", ""),
    ],
)
def test_older_wheels_are_understood_where_they_mean_one_thing(
    stated: str, expression: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / "x-1.dist-info").mkdir()
    (tmp_path / "x-1.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: x\nVersion: 1\n{stated}\n")
    (one,) = distributions.read(tmp_path)
    assert (one.license, one.stated) == (expression, words)
    assert one.texts == ()


def test_two_bills_of_the_same_are_the_same_and_of_another_are_not(tmp_path: Path) -> None:
    first = bom.bill(tiny.verified(tmp_path / "a"), bom.Contents())
    assert first == bom.bill(tiny.verified(tmp_path / "b"), bom.Contents())
    other = bom.bill(tiny.verified(tmp_path / "c", version="8"), bom.Contents())
    assert json.loads(first)["serialNumber"] != json.loads(other)["serialNumber"]


def test_the_date_is_never_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parity = tiny.verified(tmp_path / "churn-7")
    assert judged(bom.bill(parity, bom.Contents()))["metadata"]["timestamp"] == "2026-05-04T03:02:01Z"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1777777777")
    assert judged(bom.bill(parity, bom.Contents()))["metadata"]["timestamp"] == "2026-05-03T03:09:37Z"


def test_data_sets_metrics_and_a_name_of_any_kind_are_valid_and_no_path_is_told(tmp_path: Path) -> None:
    parity = tiny.verified(tmp_path / "churn-7", name='a "b" {{ c }}\nd ü', version="")
    data = (Dataset(name="iris", digest="ab12", context="training", path="/home/somebody/iris.parquet"),)
    source = replace(
        parity.source, datasets=data, metrics={"accuracy": 0.97, "loss": float("nan")}, tags={"secret": "hush"}
    )
    content = bom.bill(replace(parity, converted=replace(parity.converted, source=source)), bom.Contents())
    model, dataset = judged(content)["components"]
    assert model["modelCard"]["modelParameters"]["datasets"] == [{"ref": dataset["bom-ref"]}]
    assert model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"][:2] == [
        {"type": "accuracy", "value": "0.97"},
        {"type": "loss", "value": "nan"},
    ]
    assert b"/home/" not in content
    assert b"hush" not in content


@pytest.mark.parametrize(
    ("base", "name", "version", "purl"),
    [
        ("python:3.12-slim", "python", "3.12-slim", None),
        ("localhost:5000/team/py", "localhost:5000/team/py", None, None),
        (
            f"ghcr.example/py:1@sha256:{'ab' * 32}",
            "ghcr.example/py",
            f"sha256:{'ab' * 32}",
            f"pkg:oci/py@sha256%3A{'ab' * 32}?repository_url=ghcr.example/py&tag=1",
        ),
    ],
)
def test_the_base_image_is_in_it(base: str, name: str, version: str, purl: str, tmp_path: Path) -> None:
    contents = bom.Contents(kind="container", base=base)
    *_, found = judged(bom.bill(tiny.verified(tmp_path / "churn-7"), contents))["components"]
    assert (found["name"], found.get("version"), found.get("purl")) == (name, version, purl)


def test_what_is_needed_beside_it_is_declared(tmp_path: Path) -> None:
    contents = bom.Contents(kind="library", needs=("pkg:npm/%40scope/x@1.2.0", "pkg:pypi/numpy"))
    *_, first, second = judged(bom.bill(tiny.verified(tmp_path / "churn-7"), contents))["components"]
    assert (first["name"], first["version"]) == ("@scope/x", "1.2.0")
    assert (second["name"], "version" in second) == ("numpy", False)


def test_the_libraries_that_a_wheel_brings_are_in_it_with_their_digests() -> None:
    found = tiny.delivered("lambda")
    fetched = wheels.fetch((("numpy",),), found.python, found.platform)
    contents = bom.Contents(wheels=fetched)
    *_, numpy = judged(bom.bill(found.parity, contents))["components"]
    assert {one["name"]: one["hashes"][0]["content"] for one in numpy["components"]} == {
        path.relative_to(fetched.folder).as_posix(): archive.sha256(path)
        for path in archive.walk(fetched.folder / "numpy.libs")
    }

"""What is stated of a package: all that went in, both tests, the bytes that came out, and nothing that is secret."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from modelrel.attestation.envelope import unwrap
from modelrel.delivered import Attestation, Image, SmokeReport
from modelrel.errors import Invalid
from modelrel.steps import attest as step
from modelrel.targets.payload import LOCK
from modelrel.values import Dataset, PackageOptions
from tests.attestation import made


def said(found: Attestation, name: str) -> Any:
    """Return a statement of an attestation."""
    folder = found.smoke.package.folder / made.HOME / "evidence"
    return unwrap(next(folder.glob(f"{name}.*")).read_bytes()).statement


def provenance(found: Attestation) -> Any:
    return said(found, "provenance")["predicate"]


def dependencies(found: Attestation) -> dict[str, Any]:
    return {one["name"]: one for one in provenance(found)["buildDefinition"]["resolvedDependencies"]}


@pytest.fixture
def smoke(tmp_path: Path) -> SmokeReport:
    """The smoke report of a copy of the small release."""
    return made.moved(made.attested("modelrel").smoke, made.release(tmp_path))


def test_every_packaged_file_and_the_image_are_subjects_of_every_statement(smoke: SmokeReport) -> None:
    image = Image(tags=("churn:7",), id=f"sha256:{'1d' * 32}", size=1, added=1, base="", manifest=f"sha256:{'ab' * 32}")
    found = step.attest(replace(smoke, package=replace(smoke.package, image=image)), None, made.AT)
    files = {file.path.removeprefix(f"{made.HOME}/"): file.sha256 for file in smoke.package.files}
    for name in ("provenance", "parity", "smoke"):
        subjects = {one["name"]: one["digest"]["sha256"] for one in said(found, name)["subject"]}
        assert subjects == {**files, "churn:7": "ab" * 32, "churn:7 (config)": "1d" * 32}
        assert said(found, name)["subject"][0]["name"] == "churn-7.tar"


def test_the_provenance_names_all_that_went_in(smoke: SmokeReport) -> None:
    package = smoke.package
    source = package.parity.source
    lock = replace(package.files[0], path=f"{made.HOME}/context/{LOCK}")
    source = replace(
        source, model_id="m-1234", registry="https://me:hush@mlflow.example",
        datasets=(Dataset(name="calls", digest="5eed5eed", context="training", path="/home/me/calls.csv"),),
        tags={"mlflow.source.git.repoURL": "https://me:hush@git.example/churn.git"},
    )  # fmt: skip
    parity = replace(package.parity, converted=replace(package.converted, source=source))
    base = f"registry.example/python:3.13@sha256:{'ba' * 32}"
    image = Image(tags=(), id=f"sha256:{'1d' * 32}", size=1, added=1, base=base)
    package = replace(package, parity=parity, image=image, files=(*package.files, lock), tools={"templates": "7e" * 32})
    given = dependencies(step.attest(replace(smoke, package=package), None, made.AT))
    assert given["model"]["uri"] == "models:/churn/7"
    assert given["logged model"]["uri"] == "models:/m-1234"
    assert given["run"]["uri"] == f"runs:/{source.run_id}"
    assert given["code"]["digest"] == {"gitCommit": source.git_commit}
    assert given["calls"]["digest"] == {"mlflow": "5eed5eed"}
    assert given[lock.path]["digest"] == {"sha256": lock.sha256}
    assert given["templates"]["digest"] == {"sha256": "7e" * 32}
    assert given["registry.example/python:3.13"]["digest"] == {"sha256": "ba" * 32}


def test_nothing_secret_and_no_path_of_this_machine_is_stated(smoke: SmokeReport) -> None:
    source = replace(
        smoke.package.parity.source, registry="https://me:hush@mlflow.example?token=hush",
        datasets=(Dataset(name="calls", digest="5eed", path="/home/me/calls.csv"),),
        tags={"mlflow.source.git.repoURL": "https://me:hush@git.example/churn.git", "secret": "hush"},
    )  # fmt: skip
    parity = replace(smoke.package.parity, converted=replace(smoke.package.converted, source=source))
    options = PackageOptions(base_image="/home/me/base.tar", push="registry.example/churn:7", values={"role": "reader"})
    found = step.attest(replace(smoke, package=replace(smoke.package, parity=parity, options=options)), None, made.AT)
    text = "".join(json.dumps(said(found, name)) for name in ("provenance", "parity", "smoke"))
    text += (found.smoke.package.folder / made.HOME / "evidence/bom.cdx.json").read_text()
    assert re.findall(r"hush|/home/me", text) == []
    assert provenance(found)["buildDefinition"]["externalParameters"]["options"] == {
        "push": "registry.example/churn:7", "values": {"role": "reader"}
    }  # fmt: skip


def test_the_digest_of_the_source_is_what_the_shell_computes_of_its_folder(smoke: SmokeReport) -> None:
    found = dependencies(step.attest(smoke, None, made.AT))["model"]["digest"]["dirHash"]
    command = "find . -type f | cut -c3- | LC_ALL=C sort | xargs -r sha256sum | sha256sum | cut -f1 -d' '"
    folder = smoke.package.folder / "source"
    done = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == found


def test_the_tests_are_stated_with_their_figures_and_the_digests_of_their_records(smoke: SmokeReport) -> None:
    found = step.attest(smoke, None, made.AT)
    parity, tested = said(found, "parity")["predicate"], said(found, "smoke")["predicate"]
    assert {parity["result"], tested["result"]} == {"PASSED"}
    assert tested["passedTests"] == [f"{one.name}: {one.detail}" for one in smoke.checks]
    figures = {one["name"]: one for one in parity["configuration"] + tested["configuration"]}
    assert figures["onnx/ParityReport.json"]["annotations"]["maxAbsError"] == 1.5e-7
    assert figures[f"{made.HOME}/SmokeReport.json"]["annotations"]["p99Ms"] == smoke.p99_ms
    assert {"SourceModel.json", "onnx/ConvertedModel.json", "onnx/golden.json", "onnx/model.onnx"} <= figures.keys()


def test_a_figure_that_is_not_finite_is_left_out(smoke: SmokeReport) -> None:
    found = step.attest(replace(smoke, max_abs_error=float("inf")), None, made.AT)
    (record,) = [one for one in said(found, "smoke")["predicate"]["configuration"] if "annotations" in one]
    assert "maxAbsError" not in record["annotations"]


def test_the_same_package_at_the_same_time_is_stated_in_the_same_bytes(smoke: SmokeReport) -> None:
    assert step.attest(smoke, None, made.AT) == step.attest(smoke, None, made.AT)


def test_the_time_is_that_of_source_date_epoch_where_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert step.now() == "1970-01-02T00:00:00+00:00"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(Invalid, match="not seconds"):
        step.now()
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert datetime.fromisoformat(step.now()).tzinfo == UTC


def test_signing_again_leaves_no_file_of_before(smoke: SmokeReport) -> None:
    folder = smoke.package.folder / made.HOME / "evidence"
    step.attest(smoke, None, made.AT)
    assert sorted(path.name for path in folder.iterdir()) == [
        "bom.cdx.json", "parity.dsse.json", "provenance.dsse.json", "smoke.dsse.json"
    ]  # fmt: skip
    step.attest(smoke, made.signer(), made.AT)
    assert sorted(path.name for path in folder.iterdir()) == [
        "bom.cdx.json", "model.sig", "parity.sigstore.json", "provenance.sigstore.json", "smoke.sigstore.json"
    ]  # fmt: skip

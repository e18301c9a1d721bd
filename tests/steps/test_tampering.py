"""Tampering: one changed bit in any file of a release, a file more or less, and nothing is promoted."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from modelrel import archive, records
from modelrel.commands import main
from modelrel.delivered import Attestation, Package, SmokeReport
from modelrel.errors import Invalid, Refused
from modelrel.registry import Registry
from modelrel.steps import evidence, summary
from modelrel.steps.attest import attest
from modelrel.steps.package import package
from modelrel.values import ConvertedModel, PackageOptions, ParityReport, SourceModel
from tests.attestation import made
from tests.conftest import Done, Run

HOME = Path(made.HOME)
Promote = Callable[..., Done]


REGISTER = """
import sys
import mlflow
client = mlflow.MlflowClient(registry_uri=sys.argv[1], tracking_uri=sys.argv[1])
client.create_registered_model("churn")
for _ in range(7):
    client.create_model_version("churn", "file:///nowhere")
"""


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A release that is signed, promoted to staging, and has a record of a package that was refused; its registry."""
    top = tmp_path_factory.mktemp("tampering")
    folder, uri = made.release(top / "dist"), f"sqlite:///{top}/mlflow.db"
    subprocess.run([sys.executable, "-c", REGISTER, uri], check=True)
    with pytest.raises(Refused, match="--max-size"):
        package(made.moved(made.attested("modelrel").smoke, folder).package.parity, "ios", PackageOptions(max_size=1))
    summary.write(folder, {"model": "churn", "version": "7", "uri": "models:/churn/7"}, {})
    words = ["promote", "churn/7", "--to", "staging", "--registry", uri, "--dist", str(top / "dist"), "--quiet"]
    assert main(words) == 0
    return folder, uri


@pytest.fixture
def folder(pristine: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of the release that a test may change, where a policy names who may sign."""
    Path("modelrel.toml").write_text(f'[policy]\npublic_keys = ["{made.pair()[1]}"]\n')
    return shutil.copytree(pristine[0], tmp_path / "dist/churn-7")


@pytest.fixture
def promote(run: Run, pristine: tuple[Path, str], folder: Path) -> Promote:
    return lambda to="champion": run("promote", "churn/7", "--to", to, "--registry", pristine[1], "--json")


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def places(path: Path, many: int) -> Iterator[int]:
    """Yield positions in a file: its ends, its middle, and some that the file's name decides."""
    size = path.stat().st_size
    yield from dict.fromkeys([0, size // 2, size - 1])
    yield from random.Random(path.name).sample(range(size), min(size, many))


def examined(folder: Path) -> None:
    """Do what `promote` does with the folder before it asks a policy."""
    smokes = evidence.of(folder, "churn/7", "onnx")
    evidence.attested(smokes, [str(made.pair()[1])])


def named(stop: Refused | Invalid, path: Path) -> bool:
    return path.name in json.dumps([stop.message, stop.evidence], ensure_ascii=False)


def test_what_nobody_changed_is_promoted(promote: Promote, pristine: tuple[Path, str], folder: Path) -> None:
    done = promote()
    assert done.code == 0, done.out + done.err
    assert Registry(pristine[1]).holder("churn", alias="champion") == "7"
    # and still is after what promote itself wrote
    assert promote().code == 0


def test_every_kind_of_file_is_there(folder: Path) -> None:
    there = {path.relative_to(folder).as_posix() for path in files(folder)}
    assert there >= {
        "SourceModel.json", "source/MLmodel", "onnx/ConvertedModel.json", "onnx/model.onnx", "onnx/ParityReport.json",
        "onnx/golden.json", "onnx/modelrel.json", "onnx/modelpack/Package.json", "onnx/modelpack/churn-7.tar",
        "onnx/modelpack/SmokeReport.json", "onnx/modelpack/Attestation.json", "Promotion.staging.json", "release.json",
        "onnx/modelpack/evidence/provenance.sigstore.json", "onnx/modelpack/evidence/bom.cdx.json",
        "onnx/modelpack/evidence/model.sig", "onnx/ios/Package.refused.json",
    }  # fmt: skip


def test_promote_ends_with_4_and_names_the_file_in_which_one_bit_was_changed(promote: Promote, folder: Path) -> None:
    passed = []
    for path in files(folder):
        before = made.flipped(path, path.stat().st_size // 2)
        done = promote()
        if done.code != 4 or path.name not in done.out:
            passed.append((path.relative_to(folder).as_posix(), done.code, done.out))
        for other, content in before.items():
            other.write_bytes(content)
    assert passed == []
    assert promote().code == 0


def test_one_bit_anywhere_in_any_file_is_noticed_and_the_file_is_named(folder: Path) -> None:
    examined(folder)
    passed, tried = [], 0
    for path in files(folder):
        content = path.read_bytes()
        for place in places(path, 24):
            tried += 1
            made.flipped(path, place)
            try:
                examined(folder)
                passed.append((path.name, place))
            except Refused as stop:
                if not named(stop, path):
                    passed.append((path.name, place))
        path.write_bytes(content)
    assert passed == []
    assert tried > 20 * len(files(folder))
    examined(folder)


@pytest.mark.parametrize("name", ["Attestation.json", "SmokeReport.json"])
def test_every_part_of_a_small_record_counts(name: str, folder: Path) -> None:
    path = folder / HOME / name
    content = path.read_bytes()
    for place in range(0, len(content), 7):
        made.flipped(path, place)
        with pytest.raises(Refused):
            examined(folder)
        path.write_bytes(content)


def test_a_file_that_is_gone_is_noticed(promote: Promote, folder: Path) -> None:
    promoted = []
    for path in files(folder):
        # a release without its summary, or without what was refused or promoted before, proves no less
        free = path.name in ("release.json", "Package.refused.json", "Promotion.staging.json")
        content = path.read_bytes()
        path.unlink()
        done = promote() if not free else Done(4, path.name, "")
        if done.code != 4 or path.name not in done.out:
            promoted.append((path.relative_to(folder).as_posix(), done.code, done.out))
        path.write_bytes(content)
    assert promoted == []


@pytest.mark.parametrize("where", [HOME, HOME / "evidence", HOME / "deep/down", Path("source"), Path("source/deep")])
def test_a_file_that_was_added_is_noticed(where: Path, promote: Promote, folder: Path) -> None:
    (folder / where).mkdir(parents=True, exist_ok=True)
    (folder / where / "more.txt").write_text("more")
    done = promote()
    assert done.code == 4, done.out
    assert "more.txt" in done.out


def test_signed_evidence_of_another_package_is_refused_though_every_record_names_it(
    promote: Promote, folder: Path, tmp_path: Path
) -> None:
    mine = made.moved(made.attested("modelrel").smoke, folder)
    top = made.release(tmp_path / "other")
    (top / HOME / "README.md").write_text("another one")
    files = archive.describe_tree(top / HOME, top)
    other = made.moved(mine, top)
    packed = replace(other.package, files=tuple(one for one in files if one.path.endswith((".md", ".tar"))))
    signed = attest(replace(other, package=packed), made.signer(), made.AT)
    shutil.rmtree(folder / HOME / "evidence")
    shutil.copytree(top / HOME / "evidence", folder / HOME / "evidence")
    records.write(replace(signed, smoke=mine), folder / HOME / "Attestation.json", "k")
    (folder / "release.json").unlink()
    done = promote()
    assert done.code == 4, done.out
    assert "README.md" in done.out


def test_evidence_that_a_stranger_signed_is_refused(promote: Promote, folder: Path) -> None:
    smoke = made.moved(made.attested("modelrel").smoke, folder)
    records.write(attest(smoke, made.signer("stranger"), made.AT), folder / HOME / "Attestation.json", "k")
    (folder / "release.json").unlink()
    done = promote()
    assert done.code == 4
    assert "none of those that may sign" in done.json["error"]["message"]


def test_evidence_that_nobody_signed_is_refused_only_where_a_policy_asks_for_a_signature(
    promote: Promote, folder: Path
) -> None:
    smoke = made.moved(made.attested("modelrel").smoke, folder)
    records.write(attest(smoke, None, made.AT), folder / HOME / "Attestation.json", "k")
    (folder / "release.json").unlink()
    Path("modelrel.toml").write_text(
        f'[policy]\nladder = ["audited"]\npublic_keys = ["{made.pair()[1]}"]\n[policy.audited]\nsigned = true\n'
    )
    done = promote("audited")
    assert done.code == 4, done.out
    assert "not signed" in done.out
    Path("modelrel.toml").unlink()
    assert promote("audited").code == 0


def forged(folder: Path, stated: int) -> Attestation:
    """Write better figures into every record, each sealed as modelrel seals it; return the attestation, as it was."""
    form, home = folder / "onnx", folder / HOME

    def read(kind: type, path: Path, **parents: object) -> object:
        found = records.read(kind, path, None, **parents)
        assert found is not None
        return found

    source = read(SourceModel, folder / "SourceModel.json", folder=folder)
    converted = read(ConvertedModel, form / "ConvertedModel.json", source=source)
    parity = read(ParityReport, form / "ParityReport.json", converted=converted)
    packed = read(Package, home / "Package.json", parity=parity, variants=())
    smoke = read(SmokeReport, home / "SmokeReport.json", package=packed)
    attestation = read(Attestation, home / "Attestation.json", smoke=smoke)
    better = replace(parity, rows=stated)
    packed = replace(packed, parity=better)
    smoke = replace(smoke, package=packed, p99_ms=0.001)
    attestation = replace(attestation, smoke=smoke)
    for value, path in ((better, form / "ParityReport.json"), (packed, home / "Package.json"),
                        (smoke, home / "SmokeReport.json"), (attestation, home / "Attestation.json")):  # fmt: skip
        records.write(value, path, json.loads(path.read_bytes())["key"])
    return attestation


def test_records_that_were_written_anew_with_all_their_seals_are_not_what_was_signed(
    promote: Promote, folder: Path
) -> None:
    forged(folder, 1_000_000)
    done = promote()
    assert done.code == 4, done.out
    assert "ParityReport.json" in done.out

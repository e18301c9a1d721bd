"""check-evidence: what it lists, what it refuses, and that it needs nothing but files."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from modelrel.attestation.envelope import unwrap, wrap
from tests.attestation import made
from tests.conftest import Done, Run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The packaged folder of a copy of the small release, signed."""
    return made.release(tmp_path) / made.HOME


def checked(run: Run, path: Path, *words: object) -> Done:
    return run("check-evidence", path, "--public-key", made.pair()[1], "--json", *words)


def findings(done: Done) -> dict[str, tuple[str, str]]:
    value = done.json.get("error", {}).get("evidence") or done.json
    return {one["what"]: (one["result"], one["seen"]) for each in value["packages"] for one in each["findings"]}


def wrong(done: Done) -> set[str]:
    return {what for what, (result, _) in findings(done).items() if result == "wrong"}


def restate(folder: Path, name: str, change: Any, signer: str = "modelrel") -> None:
    """Sign another statement in the place of one."""
    path = folder / "evidence" / f"{name}.sigstore.json"
    statement = dict(unwrap(path.read_bytes()).statement)
    change(statement)
    path.write_bytes(wrap(statement, made.signer(signer)))
    (folder / "Attestation.json").unlink(missing_ok=True)  # who signs can write a record as well


def test_a_package_as_it_was_signed_holds(run: Run, folder: Path) -> None:
    done = checked(run, folder)
    assert done.code == 0, done.out
    assert (done.json["holds"], done.json["signed"]) == (True, True)
    assert {result for result, _ in findings(done).values()} == {"ok"}


def test_a_release_folder_is_checked_package_by_package(run: Run, folder: Path) -> None:
    done = checked(run, folder.parent.parent)
    assert done.code == 0
    assert [Path(one["package"]).name for one in done.json["packages"]] == ["modelpack"]


def test_a_package_that_was_copied_alone_holds_and_what_is_away_is_said(run: Run, folder: Path, tmp_path: Path) -> None:
    done = checked(run, shutil.copytree(folder, tmp_path / "elsewhere"))
    assert done.code == 0, done.out
    assert "SourceModel.json" in findings(done)["records of the release"][1]


def test_an_artifact_alone_is_checked_with_its_evidence(run: Run, folder: Path, tmp_path: Path) -> None:
    alone = tmp_path / "renamed.tar"
    shutil.copy(folder / "churn-7.tar", alone)
    assert checked(run, alone, "--evidence", folder / "evidence").code == 0
    made.flipped(alone, 99)
    done = checked(run, alone, "--evidence", folder / "evidence")
    assert (done.code, wrong(done)) == (4, {"renamed.tar"})


FILES = (
    "churn-7.tar", "README.md", "Package.json", "SmokeReport.json", "../ParityReport.json", "../golden.json",
    "../model.onnx", "../../SourceModel.json", "Attestation.json", "evidence/bom.cdx.json", "evidence/model.sig",
    "evidence/smoke.sigstore.json",
)  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_one_changed_bit_is_refused_by_name(name: str, run: Run, folder: Path) -> None:
    path = folder / name
    made.flipped(path, path.stat().st_size // 2)
    done = checked(run, folder)
    assert done.code == 4, done.out
    assert path.name in done.out


def test_everything_that_is_wrong_is_listed_at_once(run: Run, folder: Path) -> None:
    (folder / "README.md").write_text("other")
    (folder / "more.txt").write_text("more")
    (folder / "evidence/parity.sigstore.json").unlink()
    done = checked(run, folder, "--max-age", "1s")
    assert wrong(done) == {"README.md", "more.txt", "parity", "parity.sigstore.json", "age"}
    assert "(and 4 more)" in done.json["error"]["message"]


def test_a_key_of_somebody_else_is_refused(run: Run, folder: Path) -> None:
    done = run("check-evidence", folder, "--public-key", made.pair("stranger")[1], "--json")
    assert done.code == 4
    assert wrong(done) == {"provenance", "parity", "smoke", "model.sig"}
    both = [word for name in ("stranger", "modelrel") for word in ("--public-key", made.pair(name)[1])]
    assert run("check-evidence", folder, *both).code == 0


def test_one_statement_by_another_key_is_refused(run: Run, folder: Path) -> None:
    restate(folder, "smoke", lambda _: None, "stranger")
    assert wrong(checked(run, folder)) == {"smoke"}


def test_what_is_not_signed_is_refused_where_a_key_is_given(run: Run, tmp_path: Path) -> None:
    folder = made.release(tmp_path, "") / made.HOME
    assert wrong(checked(run, folder)) == {"provenance", "parity", "smoke"}


def test_without_a_key_digests_are_compared_and_nobody_is_said_to_vouch(run: Run, tmp_path: Path) -> None:
    folder = made.release(tmp_path, "") / made.HOME
    done = run("check-evidence", folder)
    assert done.code == 0
    assert "nobody vouches" in done.out
    made.flipped(folder / "churn-7.tar", 5)
    assert run("check-evidence", folder).code == 4


def test_a_test_that_failed_is_refused_whoever_signed_it(run: Run, folder: Path) -> None:
    restate(folder, "smoke", lambda said: said["predicate"].update(result="FAILED"))
    assert wrong(checked(run, folder)) == {"smoke"}


def test_a_statement_about_other_bytes_is_refused(run: Run, folder: Path) -> None:
    restate(folder, "parity", lambda said: said["subject"][0]["digest"].update(sha256="00" * 32))
    assert "subjects" in wrong(checked(run, folder))


def test_a_statement_in_the_place_of_another_is_refused(run: Run, folder: Path) -> None:
    shutil.copy(folder / "evidence/parity.sigstore.json", folder / "evidence/provenance.sigstore.json")
    assert "provenance" in wrong(checked(run, folder))


def test_a_time_to_come_is_refused(run: Run, folder: Path) -> None:
    at = {"finishedOn": "2126-01-01T00:00:00+00:00"}
    restate(folder, "provenance", lambda said: said["predicate"]["runDetails"].update(metadata=at))
    done = checked(run, folder)
    assert wrong(done) == {"age"}
    assert "in the future" in findings(done)["age"][1]


@pytest.mark.parametrize("change", [
    lambda said: said.update(subject="none"), lambda said: said.update(predicate=None),
    lambda said: said["predicate"].update(runDetails={}), lambda said: said["predicate"].update(buildDefinition=[]),
    lambda said: said["predicate"]["runDetails"].update(byproducts=[{"name": "../../../etc/passwd"}]),
    lambda said: said["predicate"]["runDetails"].update(
        byproducts=[{"name": "../../../../../../etc/passwd", "digest": {"sha256": "00" * 32}}]),
], ids=["no subjects", "no predicate", "no time", "no build", "no digest", "a path that leads out"])  # fmt: skip
def test_a_statement_of_another_shape_is_refused_without_a_traceback(change: Any, run: Run, folder: Path) -> None:
    restate(folder, "provenance", change)
    done = checked(run, folder)
    assert done.code in (2, 4), done.out
    assert "bug" not in done.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nowhere",), "is not there"),
        ((".",), "has no folder evidence"),
        ((".", "--max-age", "soon"), "not a span of time"),
        ((".", "--public-key", "nowhere.pub"), "cannot be read"),
    ],
    ids=["nowhere", "no evidence", "no age", "no key"],
)
def test_a_wrong_command_line_ends_with_2(words: tuple[str, ...], said: str, run: Run) -> None:
    done = run("check-evidence", *words, "--json")
    assert (done.code, said in done.json["error"]["message"]) == (2, True)


def test_nothing_heavy_is_imported(folder: Path) -> None:
    heavy = {"mlflow", "onnx", "onnxruntime", "sklearn", "numpy", "pandas"}
    code = (
        "import json, sys; from modelrel.commands import main; "
        f"code = main(['check-evidence', {str(folder)!r}, '--public-key', {str(made.pair()[1])!r}, '--quiet']); "
        "print(json.dumps([code, sorted(name for name in sys.modules if '.' not in name)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    code, modules = json.loads(done.stdout)
    assert code == 0
    assert heavy & set(modules) == set()

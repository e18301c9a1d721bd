"""A whole release: what it leaves behind, what it skips, what makes it run again, what it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from modelrel.registry import Registry
from tests.conftest import Done, Run

pytestmark = pytest.mark.lambda_runtime


def release(run: Run, registry: str, *words: object, model: str = "flowers@candidate") -> Done:
    return run("release", model, "--target", "lambda", "--registry", registry, "--json", *words)


def outcomes(done: Done) -> dict[str, str]:
    return {one["stage"]: one["outcome"] for one in done.json["stages"]}


def digests(folder: Path) -> dict[str, str]:
    """Return path -> sha256 of every released file (not of records and evidence, which hold timings)."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name[0].isupper() and path.name != "release.json"
        and path.parent.name != "evidence"
    }  # fmt: skip


def test_a_release_runs_every_stage_and_promotes(run: Run, own_registry: str) -> None:
    done = release(run, own_registry, "--promote", "champion")
    assert done.code == 0, done.out + done.err
    assert outcomes(done) == dict.fromkeys(
        ["pull", "convert onnx", "verify onnx", "package lambda", "smoke lambda", "attest lambda", "promote champion"],
        "done",
    )
    assert Registry(own_registry).holder("flowers", alias="champion") == "2"


def test_a_second_release_does_nothing_and_says_so(run: Run, own_registry: str) -> None:
    assert release(run, own_registry, "--promote", "champion").code == 0
    before = {path: path.stat().st_mtime_ns for path in Path("dist").rglob("*")}
    done = release(run, own_registry, "--promote", "champion")
    assert set(outcomes(done).values()) == {"up to date"}
    assert done.json["changed"] is False
    assert {path: path.stat().st_mtime_ns for path in Path("dist").rglob("*")} == before


def test_release_json_names_every_file_with_its_sha256(run: Run, own_registry: str) -> None:
    assert release(run, own_registry, "--promote", "champion").code == 0
    folder = Path("dist/flowers-2")
    listed = {one["path"]: one["sha256"] for one in json.loads((folder / "release.json").read_text())["files"]}
    there = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "release.json"
    }
    assert listed == there


def test_the_audit_tag_tells_when_by_whom_from_which_version_and_which_digests(run: Run, own_registry: str) -> None:
    os.environ["MODELREL_USER"] = "ada"
    try:
        assert release(run, own_registry, "--promote", "champion", model="flowers/1").code == 0
        assert release(run, own_registry, "--promote", "champion", model="flowers/3").code == 0
    finally:
        del os.environ["MODELREL_USER"]
    found = Registry(own_registry).version("flowers", "3")
    assert found is not None
    entry = json.loads(found.tags["modelrel.promotion.champion"])
    assert (entry["by"], entry["from"]) == ("ada", "1")
    assert entry["at"].startswith("20")
    model = hashlib.sha256(Path("dist/flowers-3/onnx/model.onnx").read_bytes()).hexdigest()
    assert entry["model_sha256"] == model
    assert entry["artifacts"]["lambda"]["smoke"] == "awslambdaric"


def test_a_stage_is_moved_where_one_is_named(run: Run, own_registry: str) -> None:
    assert release(run, own_registry, "--stage", "production").code == 0
    registry = Registry(own_registry)
    stages = [getattr(registry.version("flowers", number), "stage", "") for number in ("1", "2")]
    assert stages == ["Archived", "Production"]


def test_a_dry_run_of_promote_changes_nothing(run: Run, released: Path, own_registry: str) -> None:
    done = run("promote", "flowers/2", "--to", "champion", "--dry-run", "--registry", own_registry)
    assert done.code == 0
    assert "would move from nobody to version 2" in done.out
    assert Registry(own_registry).holder("flowers", alias="champion") == ""
    assert not list(Path("dist").rglob("Promotion.*"))


def test_promoting_twice_says_that_it_is_there_already(run: Run, released: Path, own_registry: str) -> None:
    words = ["promote", "flowers/2", "--to", "champion", "--registry", own_registry]
    assert "moved from nobody to version 2" in run(*words).out
    again = run(*words)
    assert (again.code, "already" in again.out) == (0, True)


def test_an_alias_without_its_audit_tag_gets_the_tag(run: Run, released: Path, own_registry: str) -> None:
    """A run that was killed between the two writes leaves this; so does an alias set by hand."""
    Registry(own_registry).mlflow.set_alias("flowers", "champion", "2")
    assert run("promote", "flowers/2", "--to", "champion", "--registry", own_registry).code == 0
    found = Registry(own_registry).version("flowers", "2")
    assert found is not None
    assert "modelrel.promotion.champion" in found.tags


@pytest.mark.parametrize(
    "path",
    ["source/MLmodel", "onnx/model.onnx", "onnx/golden.json", "onnx/modelrel.json", "onnx/lambda/template.yaml",
     "SourceModel.json", "onnx/ConvertedModel.json", "onnx/ParityReport.json", "onnx/lambda/Package.json",
     "onnx/lambda/SmokeReport.json"],
)  # fmt: skip
def test_a_changed_byte_makes_promote_refuse(run: Run, released: Path, own_registry: str, path: str) -> None:
    file = released / path
    content = bytearray(file.read_bytes())
    # in records, the last digit of the value's last number; elsewhere, the last byte
    place = max(index for index, byte in enumerate(content) if chr(byte).isalnum())
    content[place] ^= 1
    file.write_bytes(bytes(content))
    done = run("promote", "flowers/2", "--to", "champion", "--registry", own_registry, "--json")
    assert done.code == 4, done.out
    assert Registry(own_registry).holder("flowers", alias="champion") == ""


@pytest.fixture(scope="module")
def released_once(sqlite_registry: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("released")
    words = ["release", "flowers/2", "-t", "lambda", "--registry", sqlite_registry, "--dist", str(top / "dist")]
    subprocess.run([sys.executable, "-m", "modelrel", *words, "--quiet"], check=True)
    return top / "dist"


@pytest.fixture
def released(released_once: Path, tmp_path: Path, own_registry: str) -> Path:
    """A copy of a finished release, in ./dist, as if it had been made from `own_registry`."""
    shutil.copytree(released_once, tmp_path / "dist")
    return tmp_path / "dist" / "flowers-2"


def test_only_what_depends_on_a_changed_option_is_done_again(run: Run, released: Path, sqlite_registry: str) -> None:
    done = run("release", "flowers/2", "-t", "lambda", "--python", "3.12", "--registry", sqlite_registry, "--json")
    assert outcomes(done) == {
        "pull": "up to date", "convert onnx": "up to date", "verify onnx": "up to date",
        "package lambda": "done", "smoke lambda": "done", "attest lambda": "done",
    }  # fmt: skip


def test_force_does_everything_again_and_gives_the_same_bytes(run: Run, released: Path, sqlite_registry: str) -> None:
    before = digests(released)
    done = run("release", "flowers/2", "-t", "lambda", "--force", "--registry", sqlite_registry, "--json")
    assert set(outcomes(done).values()) == {"done"}
    assert digests(released) == before


def test_a_damaged_file_is_made_again(run: Run, released: Path, sqlite_registry: str) -> None:
    before = digests(released)
    (released / "onnx" / "model.onnx").write_bytes(b"half")
    done = run("release", "flowers/2", "-t", "lambda", "--registry", sqlite_registry, "--json")
    assert done.code == 0
    assert outcomes(done)["convert onnx"] == "done"
    assert digests(released) == before


def test_two_releases_at_once_take_turns_and_both_end_right(sqlite_registry: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "modelrel", "convert", "flowers/1", "--registry", sqlite_registry]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=300)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("waiting for another modelrel" in text for text in said) == 1


@pytest.mark.slow
def test_a_release_killed_at_random_moments_goes_on_and_ends_with_the_same_digests(
    released_once: Path, sqlite_registry: str, tmp_path: Path
) -> None:
    """Ten kills -9 of the whole process group, each at another moment; what was done is never done again wrongly."""
    wanted = digests(released_once / "flowers-2")
    command = [
        sys.executable, "-m", "modelrel", "release", "flowers/2", "-t", "lambda", "--registry", sqlite_registry,
        "--quiet",
    ]  # fmt: skip
    moments = random.Random(7)
    killed = 0
    for _ in range(10):
        if killed % 4 == 3:
            shutil.rmtree("dist", ignore_errors=True)  # from the start again, so that early stages are hit as well
        process = subprocess.Popen(command, start_new_session=True)
        try:
            process.wait(moments.uniform(0.3, 8.0))
            shutil.rmtree("dist", ignore_errors=True)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
        for record in Path("dist").rglob("[A-Z]*.json"):
            if "source" not in record.parts:
                json.loads(record.read_text())  # a record is whole or not there
    assert killed >= 5
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert digests(Path("dist/flowers-2")) == wanted
    assert not list(Path("dist").rglob(".unfinished-*"))


def test_a_killed_worker_leaves_no_process_behind(sqlite_registry: str) -> None:
    command = [sys.executable, "-m", "modelrel", "convert", "flowers/1", "--registry", sqlite_registry, "--quiet"]
    process = subprocess.Popen(command, start_new_session=True)
    workers: list[int] = []
    end = time.monotonic() + 300
    while not workers and time.monotonic() < end:
        time.sleep(0.05)
        workers = [pid for pid in _children(process.pid) if "modelrel.worker" in _command(pid)]
    assert workers
    process.kill()
    process.wait()
    end = time.monotonic() + 120  # what was just being imported ends at its next look
    while any("modelrel.worker" in _command(pid) for pid in workers) and time.monotonic() < end:
        time.sleep(0.1)
    assert [pid for pid in workers if "modelrel.worker" in _command(pid)] == []


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in task.read_text().split()]
        except OSError:
            continue
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def test_a_release_through_a_server_is_the_same(run: Run, http_registry: str, released_once: Path) -> None:
    done = release(run, http_registry, "--promote", "champion", model="flowers/2")
    assert done.code == 0, done.out + done.err
    assert Registry(http_registry).holder("flowers", alias="champion") == "2"
    there, here = (digests(top / "flowers-2") for top in (released_once, Path("dist")))
    assert there == here


def test_somebody_who_moves_the_alias_meanwhile_is_noticed(
    run: Run, released: Path, own_registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process sets the alias right after we did: the second reading tells."""
    from modelrel.registry.mlflow import Mlflow

    ours = Mlflow.set_alias

    def raced(self: Any, name: str, alias: str, version: str) -> None:
        ours(self, name, alias, version)
        ours(self, name, alias, "3")

    monkeypatch.setattr(Mlflow, "set_alias", raced)
    # the record of the pull names the registry it came from
    done = release(run, own_registry, "--promote", "champion", model="flowers/2")
    assert done.code == 5, done.out
    assert "version 3 now" in done.json["error"]["message"]


@pytest.mark.docker
def test_an_image_that_was_removed_is_built_again_and_its_options_are_remembered(
    run: Run, own_registry: str, base_image: str
) -> None:
    words = ("flowers/2", "-t", "docker", "--registry", own_registry, "--json")
    tag = "modelrel-test-removed:1"
    first = run("package", *words, "--base-image", base_image, "--tag", tag)
    assert first.code == 0, first.out + first.err
    # neither the base image nor the tag is said again: what was built is what is smoked
    assert outcomes(run("smoke", *words)) == {
        "pull": "up to date", "convert onnx": "up to date", "verify onnx": "up to date",
        "package docker": "up to date", "smoke docker": "done",
    }  # fmt: skip
    subprocess.run(["docker", "image", "rm", "--force", tag], check=True, capture_output=True)
    again = run("package", *words, "--base-image", base_image, "--tag", tag)
    assert outcomes(again)["package docker"] == "done"
    assert again.json["packages"][0]["image"]["tags"] == [tag]
    subprocess.run(["docker", "image", "rm", "--force", tag], check=True, capture_output=True)


def test_evidence_about_another_model_of_the_same_name_is_refused(run: Run, released: Path, own_registry: str) -> None:
    """Another registry can have a flowers/2 of its own."""
    with sqlite3.connect(own_registry.removeprefix("sqlite:///")) as database:
        database.execute("update model_versions set run_id = 'another' where name = 'flowers' and version = 2")
    done = run("promote", "flowers/2", "--to", "champion", "--registry", own_registry, "--json")
    assert done.code == 4
    assert "is of run another" in done.json["error"]["message"]


def test_what_was_signed_stays_signed_and_as_old_as_its_tests(
    run: Run, released: Path, sqlite_registry: str, tmp_path: Path
) -> None:
    from modelrel.attestation import keys

    def attestation() -> Any:
        return json.loads((released / "onnx/lambda/Attestation.json").read_text())["value"]

    before = attestation()
    assert before["key"] == ""
    words = ("flowers/2", "-t", "lambda", "--registry", sqlite_registry, "--json")
    private, public = keys.generate(tmp_path / "release")
    signed = run("attest", *words, "--key", private)
    assert outcomes(signed)["attest lambda"] == "done"
    # who signs later does not make the tests younger
    assert (attestation()["key"], attestation()["at"]) == (keys.public(str(public)).id, before["at"])
    assert outcomes(run("release", *words))["attest lambda"] == "up to date"
    assert run("check-evidence", released, "--public-key", public).code == 0
    again = run("attest", *words, "--key", private, "--force")
    assert outcomes(again)["smoke lambda"] == outcomes(again)["attest lambda"] == "done"
    assert attestation()["at"] > before["at"]
    # and rebuild leaves all of that alone
    assert run("rebuild", released, "--verify").code == 0

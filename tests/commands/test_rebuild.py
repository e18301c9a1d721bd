"""Rebuild: a release is made again from its records, elsewhere, with the same bytes; or it is said where they part."""

from __future__ import annotations

import os
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from modelrel import archive, differences, records
from modelrel.steps import rebuild
from modelrel.steps.package import package
from modelrel.targets import TARGETS
from tests.conftest import Run
from tests.targets import tiny

EACH = pytest.mark.parametrize("target", sorted(TARGETS))


def released(folder: Path, *targets: str, **changes: object) -> Path:
    """Lay out a release folder with its records, as the commands leave it."""
    for target in targets:
        parity = tiny.fitting(target, folder)
        form = parity.converted.format
        records.write(parity.source, folder / "SourceModel.json", "key")
        records.write(parity.converted, folder / form / "ConvertedModel.json", "key")
        records.write(parity, folder / form / "ParityReport.json", "key")
        made = package(parity, target, replace(tiny.plain(target), **changes))
        records.write(made, folder / form / target / "Package.json", "key")
    return folder


def contents(top: Path) -> dict[str, tuple[str, int]]:
    return {str(path): (archive.sha256(path), path.stat().st_mtime_ns) for path in archive.walk(top)}


@EACH
def test_every_target_is_made_again_with_the_same_bytes_and_dist_is_not_touched(
    target: str, run: Run, tmp_path: Path
) -> None:
    folder = released(tmp_path / "dist" / "churn-7", target)
    before = contents(tmp_path / "dist")
    done = run("rebuild", folder, "--verify", "--json")
    assert done.code == 0, done.out + done.err
    (one,) = done.json["packages"]
    assert done.json["same"]
    assert (one["target"], one["differences"]) == (target, [])
    assert one["files"] > 0
    assert contents(tmp_path / "dist") == before


def test_the_date_of_then_is_the_date_of_now(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1777777777")
    folder = released(tmp_path / "churn-7", "docker")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "5")
    assert run("rebuild", folder / "SourceModel.json", "--verify").code == 2
    (folder / "release.json").write_text("{}")
    assert run("rebuild", folder / "release.json", "--verify").code == 0
    assert os.environ["SOURCE_DATE_EPOCH"] == "5"


def test_what_does_not_come_out_again_is_named_with_its_first_difference(run: Run, tmp_path: Path) -> None:
    folder = released(tmp_path / "churn-7", "tflite")
    forged(folder, "tflite/tflite/README.md")
    done = run("rebuild", folder, "--verify")
    assert done.code == 4
    assert (
        "tflite/tflite/README.md has other bytes when it is packaged again: line 1 was '# another', is '# " in done.err
    )
    assert "1 differ" in done.out
    told = run("rebuild", folder, "--verify", "--json").json["error"]
    (difference,) = told["evidence"]["packages"][0]["differences"]
    assert difference["path"] == "tflite/tflite/README.md"
    assert difference["recorded"] == archive.sha256(folder / difference["path"]) != difference["again"]
    only_said = run("rebuild", folder, "--json")
    assert (only_said.code, only_said.json["same"]) == (0, False)


def forged(folder: Path, name: str) -> None:
    """Change a packaged file, and the record of the package, as someone would who can write both."""
    (made,) = rebuild.recorded(folder)
    path = folder / name
    path.write_text("# another\n" + path.read_text())
    files = tuple(archive.describe(path, folder) if one.path == name else one for one in made.files)
    records.write(replace(made, files=files), folder / "tflite" / "tflite" / "Package.json", "key")


def test_a_release_that_was_changed_is_refused_before_anything_is_built(run: Run, tmp_path: Path) -> None:
    folder = released(tmp_path / "churn-7", "tflite")
    with (folder / "tflite" / "tflite" / "README.md").open("a") as stream:
        stream.write("x")
    done = run("rebuild", folder, "--verify")
    assert done.code == 4
    assert "not about the bytes that are on disk" in done.err


def test_other_templates_than_then_are_an_error_of_the_command(run: Run, tmp_path: Path) -> None:
    own = tmp_path / "own" / "tflite"
    own.mkdir(parents=True)
    (own / "OWNER.j2").write_text("ours")
    folder = released(tmp_path / "churn-7", "tflite", templates=tmp_path / "own")
    assert str(tmp_path / "own") not in (folder / "tflite" / "tflite" / "Package.json").read_text()
    assert run("rebuild", folder, "--verify").code == 2
    assert run("rebuild", folder, "--verify", "--templates", tmp_path / "own").code == 0
    (own / "OWNER.j2").write_text("somebody's")
    done = run("rebuild", folder, "--verify", "--templates", tmp_path / "own")
    assert done.code == 2
    assert "packaged with other templates" in done.err


def test_a_target_that_was_not_packaged_is_named(run: Run, tmp_path: Path) -> None:
    folder = released(tmp_path / "churn-7", "tflite")
    done = run("rebuild", folder, "--target", "tfite")
    assert done.code == 2
    assert "Did you mean tflite?" in done.err


@pytest.mark.parametrize("what", ["nothing", "a folder"])
def test_what_is_no_release_is_one_sentence(what: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "a folder").mkdir()
    done = run("rebuild", tmp_path / what, "--verify")
    assert done.code in (2, 3, 4)
    assert "Traceback" not in done.err
    assert not (tmp_path / "dist").exists()


def two(tmp_path: Path, one: bytes, other: bytes) -> str:
    (tmp_path / "1").write_bytes(one)
    (tmp_path / "2").write_bytes(other)
    return differences.explain(tmp_path / "1", tmp_path / "2")


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (b"a\nb\n", b"a\nc\n", "line 2 was 'b', is 'c' (4 and 4 bytes)"),
        (b"a\nb\n", b"a\nb\nc\n", "line 3 was '', is 'c' (4 and 6 bytes)"),
        (b"a\0b", b"a\0c", "from byte 2 on (3 and 3 bytes)"),
        (b"same", b"same", ""),
    ],
)
def test_two_texts_part_at_a_line_and_two_others_at_a_byte(one: bytes, other: bytes, said: str, tmp_path: Path) -> None:
    assert two(tmp_path, one, other) == said


def test_two_archives_part_at_a_member(tmp_path: Path) -> None:
    for name, mode, text in (("1", 0o644, "x"), ("2", 0o755, "x"), ("3", 0o644, "y")):
        (tmp_path / "a").write_text("same")
        (tmp_path / "b").write_text(text)
        (tmp_path / "b").chmod(mode)
        archive.write_zip(tmp_path / f"{name}.zip", [("a", tmp_path / "a"), ("b", tmp_path / "b")])
        with tarfile.open(tmp_path / f"{name}.tgz", "w:gz") as packed:
            packed.add(tmp_path / "b", "b")
    assert "b was 2d711642b726, 1 bytes" in differences.explain(tmp_path / "1.zip", tmp_path / "3.zip")
    assert "mode 100755" in differences.explain(tmp_path / "1.zip", tmp_path / "2.zip")
    assert "mode 755" in differences.explain(tmp_path / "1.tgz", tmp_path / "2.tgz")
    assert differences.explain(tmp_path / "1.zip", tmp_path / "no.zip") == "there is none now"

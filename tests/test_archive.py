"""Files on disk: a crash leaves old or new, a zip is made of names and contents alone, no name leads outside."""

from __future__ import annotations

import os
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelrel import archive
from modelrel.errors import Invalid, Unavailable


class Crash(Exception):
    """What happens in the middle."""


def tree(top: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return top


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("not on this platform: mounting a small disk takes root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_written_file_replaces_the_old_one(tmp_path: Path) -> None:
    archive.write(tmp_path / "a", b"old")
    archive.write(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


def test_nothing_but_the_file_is_left(tmp_path: Path) -> None:
    archive.write(tmp_path / "a", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_fresh_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    old = tree(tmp_path / "folder", {"old": "1", "deep/old": "2"})
    with archive.fresh_folder(old) as work:
        tree(work, {"new": "3"})
    assert [path.name for path in old.rglob("*")] == ["new"]


def test_the_old_folder_stands_when_making_the_new_one_fails(tmp_path: Path) -> None:
    old = tree(tmp_path / "folder", {"old": "1"})

    def crash() -> None:
        with archive.fresh_folder(old) as work:
            tree(work, {"new": "3"})
            raise Crash

    with pytest.raises(Crash):
        crash()
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "old"]


def test_sweeping_takes_unfinished_things_only(tmp_path: Path) -> None:
    tree(tmp_path, {f"{archive.UNFINISHED}1/a": "", f"deep/{archive.UNFINISHED}2": "", "deep/kept": ""})
    archive.sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["deep", "kept"]


@pytest.mark.parametrize("name", ["../a", "/a", "a/../../b", "C:/a", "..\\a", "a\nb", ""])
def test_a_name_that_leads_outside_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="leads outside"):
        archive.within(tmp_path, name)


def test_a_name_that_leads_outside_through_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "link").symlink_to(tmp_path)
    with pytest.raises(Invalid, match="through a link"):
        archive.within(tmp_path / "inside", "link/a")


def test_a_link_is_not_released(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/hostname")
    with pytest.raises(Invalid, match="not a regular file"):
        list(archive.walk(tmp_path))


def test_a_zip_does_not_depend_on_order_times_or_modes(tmp_path: Path) -> None:
    files = {"b": "2", "a/c": "1"}
    first = tree(tmp_path / "first", files)
    second = tree(tmp_path / "second", dict(reversed(files.items())))
    (second / "b").chmod(0o600)
    os.utime(second / "b", (1, 1))
    archive.write_zip(tmp_path / "1.zip", [(name, first / name) for name in files])
    archive.write_zip(tmp_path / "2.zip", [(name, second / name) for name in reversed(files)])
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()


def test_a_zip_keeps_what_may_be_executed(tmp_path: Path) -> None:
    tree(tmp_path, {"run": "#!/bin/sh"}).joinpath("run").chmod(0o750)
    archive.write_zip(tmp_path / "a.zip", [("run", tmp_path / "run")])
    with zipfile.ZipFile(tmp_path / "a.zip") as found:
        assert found.getinfo("run").external_attr >> 16 & 0o777 == 0o755


def test_a_full_disk_is_one_sentence(small_disk: Path) -> None:
    with pytest.raises(Unavailable, match="is full"):
        archive.write(small_disk / "a", b"x" * 2_000_000)


def test_a_full_disk_keeps_the_old_file(small_disk: Path) -> None:
    archive.write(small_disk / "a", b"old")
    with pytest.raises(Unavailable):
        archive.write(small_disk / "a", b"x" * 2_000_000)
    assert (small_disk / "a").read_bytes() == b"old"


def test_a_full_disk_leaves_nothing_unfinished(small_disk: Path) -> None:
    with pytest.raises(Unavailable), archive.fresh_folder(small_disk / "folder") as work:
        (work / "a").write_bytes(b"x" * 2_000_000)
    assert not list(small_disk.iterdir())

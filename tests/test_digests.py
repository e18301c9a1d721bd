"""Remembered digests: what may have changed is read again, whatever its date says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelrel import archive, digests

LONG_AGO_NS = 1_000_000_000


def remembered(path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a file be remembered: what was written a moment ago is not."""
    later = path.stat().st_ctime_ns + 10_000_000_000
    with monkeypatch.context() as patch:
        patch.setattr(digests.time, "time_ns", lambda: later)
        assert digests.of([path], kept) == {path: archive.sha256(path)}
    assert str(path) in kept.read_text()


def test_what_has_not_changed_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, kept = tmp_path / "a.py", tmp_path / "kept.json"
    path.write_text("one")
    remembered(path, kept, monkeypatch)
    kept.write_text(kept.read_text().replace(archive.sha256(path), "what was remembered"))
    assert digests.of([path], kept) == {path: "what was remembered"}


def test_a_file_that_has_its_old_size_and_date_again_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, kept = tmp_path / "a.py", tmp_path / "kept.json"
    path.write_text("one")
    os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    remembered(path, kept, monkeypatch)
    before = path.stat()
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # the clock of a file system ticks every few milliseconds
        path.write_text("two")
        os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    assert (path.stat().st_mtime_ns, path.stat().st_size) == (before.st_mtime_ns, before.st_size)
    assert digests.of([path], kept) == {path: archive.sha256(path)}


def test_a_file_in_the_place_of_another_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, kept = tmp_path / "a.py", tmp_path / "kept.json"
    path.write_text("one")
    remembered(path, kept, monkeypatch)
    (tmp_path / "b.py").write_text("two")
    (tmp_path / "b.py").replace(path)
    assert digests.of([path], kept) == {path: archive.sha256(path)}


def test_what_was_written_a_moment_ago_is_not_remembered(tmp_path: Path) -> None:
    path, kept = tmp_path / "a.py", tmp_path / "kept.json"
    path.write_text("one")
    assert digests.of([path], kept) == {path: archive.sha256(path)}
    assert not kept.exists()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}', '{"a": [1]}'])
def test_a_memory_that_cannot_be_read_is_made_anew(text: str, tmp_path: Path) -> None:
    path, kept = tmp_path / "a.py", tmp_path / "kept.json"
    path.write_text("one")
    kept.write_text(text)
    assert digests.of([path], kept) == {path: archive.sha256(path)}

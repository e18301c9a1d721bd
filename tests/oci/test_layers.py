"""Layers: the same bytes everywhere, plain entries, names that cannot do harm."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from modelrel.errors import Invalid
from modelrel.oci import layers
from modelrel.oci.blobs import Blobs

CONTENT = {"opt/app/b.py": b"b" * 700, "opt/app/a.py": b"a", "models/größe\nx.onnx": b"\0" * 513, "empty": b""}


def laid(folder: Path, content: Mapping[str, bytes] = CONTENT) -> dict[str, Path]:
    """Write files under plain names; return name in the image -> file."""
    folder.mkdir(parents=True)
    found = {}
    for number, (name, data) in enumerate(content.items()):
        found[name] = folder / str(number)
        found[name].write_bytes(data)
    return found


def entries(blob: layers.Blob) -> list[tarfile.TarInfo]:
    with tarfile.open(blob.path) as tar:
        return tar.getmembers()


def test_a_layer_holds_the_files_with_their_folders(tmp_path: Path) -> None:
    blob = layers.write(laid(tmp_path / "files"), Blobs(tmp_path / "blobs"))
    with tarfile.open(blob.path) as tar:
        found = {entry.name: tar.extractfile(entry).read() for entry in tar if entry.isreg()}  # type: ignore[union-attr]
    assert found == CONTENT
    assert [entry.name for entry in entries(blob) if entry.isdir()] == ["models", "opt", "opt/app"]


def test_entries_are_sorted_roots_and_without_times(tmp_path: Path) -> None:
    files = laid(tmp_path / "files")
    files["opt/app/a.py"].chmod(0o777)
    found = entries(layers.write(files, Blobs(tmp_path / "blobs")))
    assert [entry.name for entry in found if entry.isreg()] == sorted(CONTENT)
    assert {(entry.uid, entry.gid, entry.uname, entry.gname, entry.mtime) for entry in found} == {(0, 0, "", "", 0)}
    assert {entry.mode for entry in found if entry.isdir()} == {0o755}
    assert {entry.mode for entry in found if entry.isreg()} == {0o644}


@pytest.mark.parametrize("compress", [True, False])
def test_digests_are_those_of_the_bytes(tmp_path: Path, compress: bool) -> None:
    blob = layers.write(laid(tmp_path / "files"), Blobs(tmp_path / "blobs"), compress=compress)
    content = blob.path.read_bytes()
    assert blob.part.digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert blob.part.size == len(content)
    tar = gzip.decompress(content) if compress else content
    assert blob.diff_id == f"sha256:{hashlib.sha256(tar).hexdigest()}"
    assert blob.part.media_type.endswith("tar+gzip" if compress else "tar")


def test_the_same_files_elsewhere_give_the_same_bytes(tmp_path: Path) -> None:
    first = layers.write(laid(tmp_path / "a"), Blobs(tmp_path / "blobs-a"))
    before = os.umask(0o077)
    try:
        other = laid(tmp_path / "b" / "deep", dict(reversed(CONTENT.items())))
        for path in other.values():
            os.utime(path, (1e9, 1e9))
        second = layers.write(other, Blobs(tmp_path / "blobs-b"))
    finally:
        os.umask(before)
    assert first.path.read_bytes() == second.path.read_bytes()
    assert (first.part, first.diff_id) == (second.part, second.diff_id)


def test_a_layer_that_was_made_before_is_not_made_again(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    first = layers.write(laid(tmp_path / "a"), blobs)
    written = first.path.stat().st_ino
    assert layers.write(laid(tmp_path / "b"), blobs) == first
    assert first.path.stat().st_ino == written


def test_a_layer_that_was_cut_off_on_the_disk_is_made_again(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    first = layers.write(laid(tmp_path / "a"), blobs)
    whole = first.path.read_bytes()
    first.path.write_bytes(whole[:-1])
    assert layers.write(laid(tmp_path / "b"), blobs).path.read_bytes() == whole


def test_one_other_byte_is_another_layer(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    first = layers.write(laid(tmp_path / "a"), blobs)
    second = layers.write(laid(tmp_path / "b", {**CONTENT, "empty": b"x"}), blobs)
    assert first.diff_id != second.diff_id


@pytest.mark.parametrize(
    "name", ["../up", "/etc/passwd", "a/../../b", "a//b", "./a", "a/.wh.b", ".wh..wh..opq", "a/.wh.b/c", "a\0b", ""]
)
def test_a_name_that_leads_elsewhere_or_deletes_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(Invalid):
        layers.write(laid(tmp_path / "files", {name: b"x"}), Blobs(tmp_path / "blobs"))
    assert not list((tmp_path / "blobs").rglob("*"))


def test_ten_thousand_files_with_long_names_are_one_layer(tmp_path: Path) -> None:
    files = laid(tmp_path / "files", {"x": b"x"})
    many = {f"{'long-' * 30}{number}/ü\t{number}": files["x"] for number in range(10_000)}
    blob = layers.write(many, Blobs(tmp_path / "blobs"), remember=False)
    assert {entry.name for entry in entries(blob) if entry.isreg()} == many.keys()


def test_the_compressed_bytes_are_what_gzip_reads() -> None:
    chunks = [b"a" * 100_000, b"", b"b" * 3]
    packed = b"".join(layers.gzipped(iter(chunks)))
    assert gzip.GzipFile(fileobj=io.BytesIO(packed)).read() == b"".join(chunks)
    assert packed[4:8] == b"\0\0\0\0"  # no time

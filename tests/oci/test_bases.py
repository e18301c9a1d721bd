"""Bases: found wherever they are, pinned, kept, and refused where they are damaged or want to do harm."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelrel.errors import Invalid, ModelrelError, Refused, Unavailable
from modelrel.oci import bases, tars
from modelrel.oci.bases import Base, find
from modelrel.oci.blobs import Blobs
from modelrel.oci.content import Descriptor
from modelrel.oci.read import Layout
from tests.oci import made

AMD64 = "linux/amd64"


def quiet(_: str) -> None:
    """Take a note."""


def found(path: Path, blobs: Blobs, platform: str = AMD64, tag: str = "") -> Base:
    with Layout.at(path, tag) as source:
        return find(source, "made", platform, blobs, quiet)


def packed(folder: Path, into: Path) -> Path:
    """Put a folder into a tar, as `skopeo copy … oci-archive:` does."""
    with tarfile.open(into, "w") as tar:
        tar.add(folder, ".")
    return into


def saved(path: Path, layers: Sequence[bytes], tags: Sequence[str] = ("made:1",), **links: str) -> Path:
    """Write what `docker save` of version 20.10 writes: a folder for each layer; `links` are layers that are links."""
    diff_ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    config = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    text = json.dumps(config).encode()
    name = f"{hashlib.sha256(text).hexdigest()}.json"
    places = [f"layer{number}/layer.tar" for number in range(len(layers))]
    entries = [made.file(name, text)]
    for place, layer in zip(places, layers, strict=True):
        target = links.get(place.partition("/")[0])
        entries.append(made.file(place, type=tarfile.SYMTYPE, linkname=target) if target else made.file(place, layer))
    listed = [{"Config": name, "RepoTags": list(tags), "Layers": places}]
    entries.append(made.file("manifest.json", json.dumps(listed).encode()))
    path.write_bytes(made.tar(entries))
    return path


def content(base: Base, number: int = 0) -> list[str]:
    with tarfile.open(base.layers[number].path) as tar:
        return tar.getnames()


@pytest.mark.parametrize("platform", made.PLATFORMS)
def test_a_layout_gives_the_image_of_the_platform(tmp_path: Path, platform: str) -> None:
    base = found(made.base(tmp_path / "base"), Blobs(tmp_path / "blobs"), platform)
    assert base.config["architecture"] == platform.partition("/")[2]
    assert "usr/lib/libmade.so.1" in content(base)
    assert base.variables["MADE"] == "by hand"


def test_a_tar_of_a_layout_is_the_same_base(tmp_path: Path) -> None:
    folder = made.base(tmp_path / "base")
    first = found(folder, Blobs(tmp_path / "one"))
    second = found(packed(folder, tmp_path / "base.tar"), Blobs(tmp_path / "two"))
    assert first.digest == second.digest
    assert [layer.part for layer in first.layers] == [layer.part for layer in second.layers]


def test_it_is_pinned_by_the_digest_of_its_manifest(tmp_path: Path) -> None:
    folder = made.base(tmp_path / "base", [AMD64])
    index = json.loads((folder / "index.json").read_text())
    assert found(folder, Blobs(tmp_path / "blobs")).digest == index["manifests"][0]["digest"]


def test_what_docker_saved_is_a_base_and_its_layers_are_compressed(tmp_path: Path) -> None:
    layer = made.tar(made.plain(AMD64))
    path = saved(tmp_path / "saved.tar", [layer])
    base = found(path, Blobs(tmp_path / "blobs"))
    assert base.layers[0].diff_id == f"sha256:{hashlib.sha256(layer).hexdigest()}"
    assert gzip.decompress(base.layers[0].path.read_bytes()) == layer
    with tarfile.open(path) as tar:
        config = next(name for name in tar.getnames() if name.endswith(".json"))
    assert base.digest == f"sha256:{config.removesuffix('.json')}"


def test_equal_layers_that_docker_saved_as_a_link_are_found(tmp_path: Path) -> None:
    layer = made.tar(made.plain(AMD64))
    base = found(saved(tmp_path / "a.tar", [layer, layer], layer1="../layer0/layer.tar"), Blobs(tmp_path / "blobs"))
    assert base.layers[0] == base.layers[1]


@pytest.mark.parametrize("link", ["../../../etc/passwd", "/etc/passwd", "../nowhere/layer.tar"])
def test_a_link_that_leads_out_of_the_tar_is_followed_nowhere(tmp_path: Path, link: str) -> None:
    layer = made.tar(made.plain(AMD64))
    with pytest.raises(Refused, match=r"does not hold the layer 'layer0/layer\.tar'"):
        found(saved(tmp_path / "a.tar", [layer], layer0=link), Blobs(tmp_path / "blobs"))


def test_a_layer_that_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    folder, blobs = made.base(tmp_path / "base", [AMD64]), Blobs(tmp_path / "blobs")
    first = found(folder, blobs)
    (folder / "blobs" / "sha256" / first.layers[0].part.digest.removeprefix("sha256:")).unlink()
    assert found(folder, blobs) == first


def test_a_platform_that_it_is_not_made_for_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="made is not made for linux/arm64"):
        found(made.base(tmp_path / "base", [AMD64]), Blobs(tmp_path / "blobs"), "linux/arm64")


def test_an_index_without_the_platform_is_said(tmp_path: Path) -> None:
    layout = made.Layout(tmp_path / "base")
    other = {**layout.image(AMD64, [made.tar([])]), "platform": {"os": "linux", "architecture": "s390x"}}
    with pytest.raises(Unavailable, match="not made for linux/amd64"):
        found(layout.done(other, other), Blobs(tmp_path / "blobs"))


def test_attestations_beside_the_images_are_passed_over(tmp_path: Path) -> None:
    layout = made.Layout(tmp_path / "base")
    image = layout.image(AMD64, [made.tar(made.plain(AMD64))])
    attestation = {**layout.add(b"{}", "manifest.v1+json"), "platform": {"os": "unknown", "architecture": "unknown"}}
    assert found(layout.done(attestation, image), Blobs(tmp_path / "blobs")).digest == image["digest"]


def test_one_of_several_images_is_chosen_by_its_tag(tmp_path: Path) -> None:
    layout = made.Layout(tmp_path / "base")
    images = [layout.image(AMD64, [made.tar([made.file(name)])]) for name in ("one", "two")]
    named = [
        {**image, "annotations": {"org.opencontainers.image.ref.name": tag}}
        for image, tag in zip(images, ("1", "2"), strict=True)
    ]
    (layout.folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": named}))
    blobs = Blobs(tmp_path / "blobs")
    assert content(found(layout.folder, blobs, tag="2")) == ["two"]
    with pytest.raises(Invalid, match="holds 2 images, none with the tag 3") as caught:
        found(layout.folder, blobs, tag="3")
    assert "there are: 1, 2" in caught.value.hint


def test_symbolic_links_and_devices_are_what_systems_are_made_of(tmp_path: Path) -> None:
    entries = [
        made.file("bin", type=tarfile.SYMTYPE, linkname="../../../../usr/bin"),
        made.file("dev/console", type=tarfile.CHRTYPE),
        made.file("etc/.wh.gone"),
    ]
    assert content(found(made.one_layer(tmp_path / "base", entries), Blobs(tmp_path / "blobs")))


ESCAPES = {
    "up": made.file("../../etc/cron.d/x", b"x"),
    "up in the middle": made.file("usr/../../x", b"x"),
    "from the root": made.file("/etc/x", b"x"),
    "a folder": made.file("..", type=tarfile.DIRTYPE),
    "a hard link": made.file("x", type=tarfile.LNKTYPE, linkname="../../etc/shadow"),
    "a hard link from the root": made.file("x", type=tarfile.LNKTYPE, linkname="/etc/shadow"),
    "a link": made.file("../x", type=tarfile.SYMTYPE, linkname="/etc"),
    "a device": made.file("../sda", type=tarfile.BLKTYPE),
}


@pytest.mark.parametrize("how", ESCAPES)
def test_a_layer_that_would_leave_its_root_is_refused(tmp_path: Path, how: str) -> None:
    entries = [*made.plain(AMD64), ESCAPES[how]]
    blobs = Blobs(tmp_path / "blobs")
    with pytest.raises(Refused, match="has an entry that leads outside"):
        found(made.one_layer(tmp_path / "base", entries), blobs)
    assert not list((tmp_path / "blobs" / "sha256").iterdir())


def broken(tmp_path: Path, change: Callable[[bytes], bytes], diff_id: str = "") -> Path:
    """Make a base whose one blob was changed before it was named."""
    tar = made.tar(made.plain(AMD64))
    diff_id = diff_id or f"sha256:{hashlib.sha256(tar).hexdigest()}"
    layout = made.Layout(tmp_path / "base")
    config = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [diff_id]}}
    return layout.done(layout.manifest(AMD64, config, [change(gzip.compress(tar, mtime=0))]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda blob: blob[:-20], "cannot be unpacked"),
        (lambda blob: b"PK" + blob, "cannot be unpacked"),
        (lambda _: gzip.compress(b"no tar at all" * 100), "is no tar"),
        (lambda _: gzip.compress(b""), "is no tar|another tar"),
        (lambda blob: blob + gzip.compress(b"more"), "another tar than its image says"),
    ],
    ids=["cut off", "no gzip", "no tar", "empty", "more behind it"],
)
def test_a_damaged_layer_is_refused(tmp_path: Path, change: Callable[[bytes], bytes], said: str) -> None:
    with pytest.raises(Refused, match=said):
        found(broken(tmp_path, change), Blobs(tmp_path / "blobs"))


def test_a_layer_of_another_tar_than_the_config_names_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="holds another tar than its image says"):
        found(broken(tmp_path, bytes, f"sha256:{'0' * 64}"), Blobs(tmp_path / "blobs"))


def test_a_layer_that_is_known_is_still_checked_against_another_config(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    found(broken(tmp_path / "a", bytes), blobs)
    with pytest.raises(Refused, match="holds another tar than its image says"):
        found(broken(tmp_path / "b", bytes, f"sha256:{'0' * 64}"), blobs)


@pytest.mark.parametrize("which", ["manifest", "config", "layer"])
def test_other_bytes_than_the_digest_names_are_refused(tmp_path: Path, which: str) -> None:
    folder = made.base(tmp_path / "base", [AMD64])
    index = json.loads((folder / "index.json").read_text())
    part = index["manifests"][0]
    blobs = folder / "blobs" / "sha256"
    if which != "manifest":
        manifest = json.loads((blobs / part["digest"].removeprefix("sha256:")).read_text())
        part = manifest["config"] if which == "config" else manifest["layers"][0]
    path = blobs / part["digest"].removeprefix("sha256:")
    path.write_bytes(path.read_bytes()[:-1] + b" ")
    with pytest.raises(Refused, match=r"holds other bytes than sha256:|cannot be unpacked"):
        found(folder, Blobs(tmp_path / "blobs"))


def test_a_layer_that_swells_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bases, "FREE", 1 << 20)
    bomb = [made.file("zeros", bytes(32 << 20))]
    with pytest.raises(Refused, match=r"unpacks to more than [\d,]+ bytes"):
        found(made.one_layer(tmp_path / "base", bomb), Blobs(tmp_path / "blobs"))


def test_a_layer_of_too_many_entries_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "ENTRIES", 100)
    many = [made.file(str(number)) for number in range(101)]
    with pytest.raises(Refused, match="more than 100 entries"):
        found(made.one_layer(tmp_path / "base", many), Blobs(tmp_path / "blobs"))


def test_a_header_that_asks_for_all_memory_is_refused(tmp_path: Path) -> None:
    head = tarfile.TarInfo("././@LongLink")
    head.type, head.size = tarfile.GNUTYPE_LONGNAME, 1 << 34
    tar = head.tobuf(tarfile.GNU_FORMAT) + bytes(1024)
    layout = made.Layout(tmp_path / "base")
    with pytest.raises(Refused, match="is no tar"):
        found(layout.done(layout.image(AMD64, [tar])), Blobs(tmp_path / "blobs"))
    (tmp_path / "outer.tar").write_bytes(tar)
    with pytest.raises(Refused, match="is not a tar that holds an image"):
        found(tmp_path / "outer.tar", Blobs(tmp_path / "blobs"))


def test_a_kind_of_layer_that_we_do_not_read_is_said_with_the_way_out(tmp_path: Path) -> None:
    layout = made.Layout(tmp_path / "base")
    image = layout.image(AMD64, [made.tar([])])
    path = layout.folder / "blobs" / "sha256" / image["digest"].removeprefix("sha256:")
    manifest = json.loads(path.read_text())
    manifest["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.v1.tar+zstd"
    again = {**layout.add(json.dumps(manifest).encode(), "manifest.v1+json"), "platform": image["platform"]}
    with pytest.raises(Invalid, match=r"tar\+zstd") as caught:
        found(layout.done(again), Blobs(tmp_path / "blobs"))
    assert "skopeo copy --dest-compress-format gzip" in caught.value.hint


@pytest.mark.parametrize(
    "config",
    [
        {"rootfs": []}, {"rootfs": {"diff_ids": []}}, {"rootfs": {"diff_ids": 3}}, {}, {"architecture": "s390x"},
        {"rootfs": {"diff_ids": ["x"] * 121}},
    ],
)  # fmt: skip
def test_a_config_that_makes_no_sense_is_one_sentence(tmp_path: Path, config: dict[str, Any]) -> None:
    layout = made.Layout(tmp_path / "base")
    blobs = [gzip.compress(made.tar([]))] * (121 if "x" in str(config) else 1)
    folder = layout.done(layout.manifest(AMD64, {"os": "linux", "architecture": "amd64", **config}, blobs))
    with pytest.raises(ModelrelError) as caught:
        found(folder, Blobs(tmp_path / "blobs"))
    assert caught.value.exit_code in (3, 4)


@pytest.mark.parametrize(
    "index", ["", "[]", "{}", '{"manifests": 1}', '{"manifests": [1]}', '{"manifests": [{}]}', "[" * 9999]
)
def test_an_index_that_makes_no_sense_is_one_sentence(tmp_path: Path, index: str) -> None:
    folder = made.base(tmp_path / "base")
    (folder / "index.json").write_text(index)
    with pytest.raises(ModelrelError):
        found(folder, Blobs(tmp_path / "blobs"))


@pytest.mark.parametrize("manifest", ["", "{}", "[]", "[{}]", '[{"Config": "x", "Layers": []}]', '[{"Config": 3}]'])
def test_what_docker_saved_and_makes_no_sense_is_one_sentence(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "a.tar").write_bytes(made.tar([made.file("manifest.json", manifest.encode()), made.file("x", b"{}")]))
    with pytest.raises(ModelrelError):
        found(tmp_path / "a.tar", Blobs(tmp_path / "blobs"))


def test_a_compressed_tar_says_how_to_go_on(tmp_path: Path) -> None:
    packed(made.base(tmp_path / "base"), tmp_path / "base.tar")
    (tmp_path / "base.tar.gz").write_bytes(gzip.compress((tmp_path / "base.tar").read_bytes()))
    with pytest.raises(Refused, match="is not a tar that holds an image") as caught:
        Layout.at(tmp_path / "base.tar.gz")
    assert "gunzip" in caught.value.hint


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="there is no image at"):
        Layout.at(tmp_path / "nowhere")


def test_the_python_that_it_states_must_be_ours(tmp_path: Path) -> None:
    folder = made.base(tmp_path / "base", [AMD64], Env=["PYTHON_VERSION=3.12.7"])
    base = found(folder, Blobs(tmp_path / "blobs"))
    bases.python_of(base, "3.12")
    with pytest.raises(Invalid, match=r"holds Python 3\.12\.7, the wheels are for 3\.13"):
        bases.python_of(base, "3.13")


def test_settings_that_are_none_are_refused(tmp_path: Path) -> None:
    base = found(made.base(tmp_path / "base", [AMD64], Env="PATH=/bin"), Blobs(tmp_path / "blobs"))
    with pytest.raises(Refused, match="an environment that is no list"):
        bases.python_of(base, "3.13")
    with pytest.raises(Refused, match="a config that is none"):
        _ = replace(base, config={"config": "none"}).settings


def test_a_part_of_another_size_than_stated_is_refused(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    part = replace(Descriptor.of(b"right", "text/plain"), size=4)
    with pytest.raises(Refused, match="has not its digest"):
        blobs.fetch(part, io.BytesIO(b"right"))
    assert not blobs.holds(part)
    shutil.rmtree(tmp_path / "blobs")

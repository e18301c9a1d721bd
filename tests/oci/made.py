"""Small images made by hand, for tests to build on: nothing of the code under test wrote them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MACHINES = {"linux/amd64": 0x3E, "linux/arm64": 0xB7}
PLATFORMS = tuple(MACHINES)

Entry = tuple[tarfile.TarInfo, bytes]


def library(machine: int) -> bytes:
    """Return the start of a shared object, with nothing in it."""
    return b"\x7fELF\x02\x01\x01" + b"\0" * 9 + (3).to_bytes(2, "little") + machine.to_bytes(2, "little") + b"\0" * 44


def file(name: str, content: bytes = b"", **changes: Any) -> Entry:
    """Return an entry of a layer."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    for key, value in changes.items():
        setattr(entry, key, value)
    return entry, content


def tar(entries: Sequence[Entry]) -> bytes:
    """Return a layer."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as packed:
        for entry, content in entries:
            packed.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def plain(platform: str) -> list[Entry]:
    """Return what the base of a platform holds where a test has no wishes."""
    return [
        file("etc/os-release", b'ID=made\nPRETTY_NAME="made by hand"\n'),
        file("usr/lib/libmade.so.1", library(MACHINES[platform])),
        file("bin/sh", type=tarfile.SYMTYPE, linkname="/usr/bin/made"),
        file("dev/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
    ]


class Layout:
    """An OCI layout folder, filled part by part."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "blobs" / "sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def add(self, content: bytes, kind: str) -> dict[str, Any]:
        """Put a part in; return its descriptor."""
        digest = hashlib.sha256(content).hexdigest()
        (self.folder / "blobs" / "sha256" / digest).write_bytes(content)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(content)}

    def image(self, platform: str, layers: Sequence[bytes], **settings: Any) -> dict[str, Any]:
        """Put an image of some layers (tars) in; return the descriptor of its manifest."""
        system, machine = platform.split("/")
        config = {
            "os": system,
            "architecture": machine,
            "config": {
                "Env": ["PATH=/usr/bin:/bin", "MADE=by hand"],
                "Cmd": ["sh"],
                "Labels": {"made": "yes"},
                **settings,
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in layers]},
        }
        return self.manifest(platform, config, [gzip.compress(one, 6, mtime=0) for one in layers])

    def manifest(self, platform: str, config: Mapping[str, Any], blobs: Sequence[bytes]) -> dict[str, Any]:
        """Put an image of a config and compressed layers in; return the descriptor of its manifest."""
        system, machine = platform.split("/")
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": self.add(json.dumps(config).encode(), "config.v1+json"),
            "layers": [self.add(one, "layer.v1.tar+gzip") for one in blobs],
        }
        found = self.add(json.dumps(manifest).encode(), "manifest.v1+json")
        return {**found, "platform": {"os": system, "architecture": machine}}

    def done(self, *manifests: Mapping[str, Any]) -> Path:
        """Write `index.json`: of one manifest, or of an index of several; return the folder."""
        listed = list(manifests)
        if len(listed) > 1:
            listed = [self.add(json.dumps({"schemaVersion": 2, "manifests": listed}).encode(), "index.v1+json")]
        (self.folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": listed}))
        return self.folder


def base(folder: Path, platforms: Sequence[str] = PLATFORMS, **settings: Any) -> Path:
    """Make a base image for some platforms; return the folder of its layout."""
    layout = Layout(folder)
    return layout.done(*(layout.image(one, [tar(plain(one))], **settings) for one in platforms))


def one_layer(folder: Path, entries: Sequence[Entry], platform: str = "linux/amd64") -> Path:
    """Make a base image with one layer of these entries; return the folder of its layout."""
    layout = Layout(folder)
    return layout.done(layout.image(platform, [tar(entries)]))


def stream(entry: Entry) -> tuple[tarfile.TarInfo, io.BytesIO]:
    """Return an entry as `tarfile` takes it."""
    return entry[0], io.BytesIO(entry[1])

"""A written image, looked at as whoever gets it would: whole, said twice in the same way, made for its processor."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from modelrel.errors import Refused
from modelrel.oci import layout, media
from modelrel.oci.bases import FREE, SWELLING
from modelrel.oci.blobs import pieces
from modelrel.oci.content import Descriptor
from modelrel.oci.read import Layout, document, unzipped
from modelrel.oci.tars import Tar, entries

_HINT: Final = "Package again with --force; where it stays, delete the folder `images` in modelrel's cache."
# e_machine (System V ABI) of a 64-bit processor -> of its 32-bit kin, whose libraries a base may have besides
_OLDER: Final = {0x3E: 0x03, 0xB7: 0x28}


def manifests(image: Layout) -> list[tuple[Descriptor, dict[str, Any]]]:
    """Return the manifests of an image: its only one, or that of each platform."""
    if image.index.media_type in media.INDEXES:
        parts = [Descriptor.read(one) for one in document(image, image.index)["manifests"]]
    else:
        parts = [image.index]
    return [(part, document(image, part)) for part in parts]


def whole(image: Layout) -> str:
    """Return how many parts an image has; raises `Refused` where one is missing, damaged, or named by nobody."""
    named = {image.index.digest}
    for part, manifest in manifests(image):
        named |= {part.digest, *(Descriptor.read(one).digest for one in (manifest["config"], *manifest["layers"]))}
    held = image.parts()
    if {part.digest for part in held} != named:
        raise Refused(f"{image.path.name} names {len(named)} parts and holds {len(held)}, not the same ones", _HINT)
    for part in held:
        with image.open(part) as stream:
            for _ in pieces(stream):
                pass
    _, first = manifests(image)[0]
    loads = json.loads(image.bytes_of("manifest.json"))
    digests = [Descriptor.read(one).digest for one in first["layers"]]
    expected = layout.loading(Descriptor.read(first["config"]).digest, digests, loads[0]["RepoTags"] or ())
    if loads != [expected]:
        raise Refused(f"{image.path.name} tells docker load of another image than readers of OCI layouts", _HINT)
    return f"{len(held)} parts with their digests"


def machines(image: Layout, manifest: Mapping[str, Any], machine: int, ours: frozenset[str]) -> str:
    """Return how many programs and libraries an image holds for a processor (`e_machine` of ELF).

    `ours` are the digests of the layers that we made. Raises `Refused` for one there of another processor, or a
    library of a base that is for another one (or its 32-bit kin).
    """
    seen = 0
    for plain in manifest["layers"]:
        part = Descriptor.read(plain)
        allowed = {machine} if part.digest in ours else {machine, _OLDER.get(machine, machine)}
        with image.open(part) as stream:
            tar = Tar(unzipped(stream, part.media_type), max(FREE, SWELLING * part.size))
            for entry, content in entries(tar):
                start = content.read(20) if entry.size >= 20 else b""
                # a program of another processor in a base is data for somebody (emulators, boot loaders)
                library = part.digest in ours or ".so" in Path(entry.name).name
                if start[:4] != b"\x7fELF" or not library:
                    continue
                # byte 5 tells the order of the others
                found = int.from_bytes(start[18:20], "big" if start[5] == 2 else "little")
                if found not in allowed:
                    raise Refused(
                        f"{entry.name} in the image is built for another processor (machine {found}, not {machine})",
                        "Choose the --platform that the base and the wheels are for.",
                    )
                seen += 1
    return f"{seen} programs and libraries, all for it"


def unpack(image: Layout, layers: list[Descriptor], into: Path) -> None:
    """Unpack layers that hold folders and files alone, as ours do; raises `Refused` for anything else in them."""
    into = into.resolve()
    for part in layers:
        with image.open(part) as stream:
            tar = Tar(unzipped(stream, part.media_type), max(FREE, SWELLING * part.size))
            for entry, content in entries(tar):
                names = entry.name.split("/")
                odd = not (entry.isreg() or entry.isdir()) or names[-1].startswith(".wh.")
                if odd or not all(names) or {".", ".."} & set(names) or "\0" in entry.name:
                    raise Refused(f"the image holds {entry.name[:200]!r}, which is no plain file or folder", _HINT)
                path = into.joinpath(*names)
                path.parent.mkdir(parents=True, exist_ok=True)
                if entry.isdir():
                    path.mkdir(exist_ok=True)
                else:
                    with path.open("wb") as file:
                        shutil.copyfileobj(content, file, 1 << 20)
            tar.digest()

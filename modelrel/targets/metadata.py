"""The last group of every self-contained delivery: its lock, its bill of materials, licence texts, and a manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from modelrel import archive, distributions
from modelrel.targets import bom, payload
from modelrel.targets.bom import Contents
from modelrel.targets.payload import Payload
from modelrel.values import ParityReport


def write(
    parity: ParityReport, load: Payload, others: Mapping[str, Path], contents: Contents, into: Path
) -> Mapping[str, Path]:
    """Write the group into a folder, and return it: name inside the delivery -> file.

    `others` are what the target adds to the payload (a handler, a Dockerfile). `manifest.json` has the digest of every
    file of the payload, of the others, and of this group. Raises `Invalid` for a link among the wheels.
    """
    texts = {
        payload.LOCK: load.wheels.lock.encode(),
        bom.NAME: bom.bill(
            parity, replace(contents, wheels=load.wheels, own=load.as_is.environment if load.as_is else None)
        ),
        bom.LICENSES: distributions.notices(load.distributions).encode(),
    }
    for name, content in texts.items():
        archive.write(into / name, content)
    group = {name: into / name for name in texts}
    text = payload.manifest(parity, {**load.files, **others, **group}, load)
    archive.write(into / payload.MANIFEST, text.encode())
    return {**group, payload.MANIFEST: into / payload.MANIFEST}

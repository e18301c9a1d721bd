"""Push: what was built and smoke-tested goes into a registry of images, the tag last."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from modelrel import archive, records
from modelrel.attestation import layout
from modelrel.attestation.envelope import BUNDLE, unwrap
from modelrel.delivered import Attestation, Package, Pushed
from modelrel.errors import Conflict, Invalid, Unavailable
from modelrel.oci import names
from modelrel.oci import push as pushing
from modelrel.oci.content import Descriptor
from modelrel.oci.read import Layout
from modelrel.oci.referrer import Beside, referrer
from modelrel.oci.registry import Registry
from modelrel.targets import TARGETS, engine_push
from modelrel.targets.delivery import Note
from modelrel.targets.engine import Engine

_CREATED: Final = "org.opencontainers.image.created"
_CONTENT: Final = "dev.sigstore.bundle.content"
_PREDICATE: Final = "dev.sigstore.bundle.predicateType"


def checked(target: str, name: str) -> str:
    """Return the name that a target is pushed under; raises `Invalid` for one that it cannot have."""
    fitting = [known for known, room in TARGETS.items() if "push" in room.OPTIONS]
    if target not in fitting:
        raise Invalid(
            f"the target {target} makes nothing that a registry of images takes", f"These do: {', '.join(fitting)}."
        )
    if not name:
        raise Invalid("no name to push to was given", "Add it: --push REGISTRY/NAME:TAG (for the command push, --to).")
    found = names.parse(name)
    if found.digest:
        raise Invalid(f"{name} names a digest, which nobody can choose", "Write it as registry.example/churn:7.")
    return str(found)


def push(
    package: Package,
    name: str,
    note: Note = lambda _: None,
    before: Sequence[str] = (),
    evidence: Attestation | None = None,
) -> Pushed:
    """Push what was built under `name`; `before` are names that were pushed to, which may have the same layers.

    An image that modelrel wrote, or an artifact with its evidence, goes from its archive; one that an engine built is
    pushed by the engine, and read back. Signed statements of `evidence` about the image go along, as manifests that
    refer to it. The table in `oci.connection` says what is raised, and when.
    """
    records.intact(package)
    begun, place = time.perf_counter(), names.parse(name)
    if package.image is not None and not package.image.at:
        return _by_engine(package, place, note, begun)
    at = package.image.at if package.image else package.artifact
    if not archive.within(package.folder, at).is_file():
        raise Unavailable(
            f"no image was built for {package.target}: there is nothing to push",
            "Start an engine, or package with --builder oci and a base image that can be had.",
        )
    note(f"pushing to {place}")
    with Layout.at(archive.within(package.folder, at)) as image, Registry.connect(place, write=True) as registry:
        stated, contents = _stated(evidence, image.index)
        parts = (image.index, *image.referrers(), *stated)
        moved = pushing.push(Beside(contents, image), parts, registry, _neighbours(package, place, before), note)
    return Pushed(
        package=package,
        name=str(place),
        digest=moved.top.digest,
        media_type=moved.top.media_type,
        sent=moved.sent,
        mounted=moved.mounted,
        there=moved.there,
        sent_bytes=moved.wire,
        seconds=round(time.perf_counter() - begun, 3),
        evidence=tuple(part.digest for part in stated),
    )


def _stated(evidence: Attestation | None, top: Descriptor) -> tuple[list[Descriptor], Mapping[str, bytes]]:
    """Return a manifest for each signed statement that names an image, and the bytes of what it is made of.

    Whoever looks for statements about an image finds them beside it, as cosign writes them (sigstore/cosign,
    specs/BUNDLE_SPEC.md).
    """
    found: list[Descriptor] = []
    contents: dict[str, bytes] = {}
    if evidence is None:
        return found, contents
    for file in (one for one in evidence.files if one.path.endswith(layout.SIGNED)):
        content = archive.within(evidence.smoke.package.folder, file.path).read_bytes()
        statement = unwrap(content).statement
        if not any(one["digest"].get("sha256") == top.digest.removeprefix("sha256:") for one in statement["subject"]):
            continue  # of an artifact the statements name the archive that it comes in
        notes = {_CONTENT: "dsse-envelope", _PREDICATE: str(statement["predicateType"]), _CREATED: evidence.at}
        part, parts = referrer(content, BUNDLE, top, notes, {})
        found.append(part)
        contents |= parts
    return found, contents


def stands(pushed: Pushed) -> bool:
    """Return whether the registry still has what was pushed under its name."""
    place = names.parse(pushed.name)
    with Registry.connect(place) as registry:
        found = registry.resolve(place.reference)
    return found is not None and found.digest == pushed.digest


def before(dist: Path) -> tuple[str, ...]:
    """Return the names that releases in a folder were pushed under, as their records say."""
    found = set()
    for path in dist.glob("*/*/*/Pushed.json"):
        try:
            found.add(str(json.loads(path.read_bytes())["value"]["name"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a record that cannot be read is a push that cannot be used
    return tuple(sorted(found))


def _neighbours(package: Package, place: names.Name, before: Sequence[str]) -> list[str]:
    """Return the repositories of the same registry that may have layers of ours: the base's, those of before."""
    found = []
    for text in (package.image.base if package.image else "", *before):
        try:
            other = names.parse(text)
        except Invalid:
            continue  # a base from a file
        if other.host == place.host:
            found.append(other.path)
    return found


def _by_engine(package: Package, place: names.Name, note: Note, begun: float) -> Pushed:
    assert package.image is not None
    with Engine.connect() as engine:
        counts = engine_push.push(engine, package.image, place, note)
    with Registry.connect(place) as registry:
        found = registry.index
    if found.digest != counts.digest:
        raise Conflict(
            f"{place} is {found.digest} after the engine pushed {counts.digest}",
            "Somebody else pushed to the same tag meanwhile: push again, or choose another tag.",
        )
    return Pushed(
        package=package,
        name=str(place),
        digest=found.digest,
        media_type=found.media_type,
        sent=counts.sent,
        mounted=counts.mounted,
        there=counts.there,
        sent_bytes=counts.wire,
        seconds=round(time.perf_counter() - begun, 3),
    )

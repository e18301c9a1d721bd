"""Pushing: what a manifest or an index names, before it; the tag last, so that nothing half pushed is ever tagged.

Sources: OCI distribution-spec, spec.md, "Push", "Listing Referrers" and "Pushing Manifests with Subject".
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final

from modelrel.errors import Conflict, Refused, Unavailable
from modelrel.oci import media
from modelrel.oci.connection import DOCUMENT_BYTES, Ask
from modelrel.oci.content import Descriptor, Store, canonical
from modelrel.oci.registry import Registry, wrong
from modelrel.oci.upload import Stopped, Upload

_THREADS: Final = 4
_DEPTH: Final = 4
_TURNS: Final = 5
_HINT: Final = "It is damaged, or no image: build it again."

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What a push came to: `sent`, `mounted` and `there` count blobs, `wire` is what was sent of them in bytes.

    `changed` is False where all was there, tag and referrers included.
    """

    top: Descriptor
    sent: int
    mounted: int
    there: int
    wire: int
    changed: bool


@dataclass(slots=True)
class _Tree:
    """All that a document names: its manifests, those that others name first, and their blobs."""

    manifests: dict[str, tuple[Descriptor, bytes]] = field(default_factory=dict)
    blobs: dict[str, Descriptor] = field(default_factory=dict)

    def add(self, store: Store, part: Descriptor, depth: int = 0) -> None:
        if part.digest in self.manifests:
            return
        if part.size > DOCUMENT_BYTES or depth > _DEPTH:
            raise Refused(f"{part.digest} is no description of an image", _HINT)
        with store.open(part) as stream:
            content = stream.read()
        plain = document(content, part.digest)
        children = plain.get("manifests", []) if part.media_type in media.INDEXES else []
        for child in map(Descriptor.read, _list(children, part)):
            self.add(store, child, depth + 1)
        if part.media_type in media.MANIFESTS:
            named = [plain.get("config"), *_list(plain.get("layers"), part)]
            self.blobs |= {one.digest: one for one in map(Descriptor.read, named)}
        elif part.media_type not in media.INDEXES:
            raise Refused(f"{part.digest} is {part.media_type!r}, which is neither an image nor an index", _HINT)
        self.manifests[part.digest] = (part, content)


def push(
    store: Store,
    parts: Sequence[Descriptor],
    into: Registry,
    neighbours: Sequence[str] = (),
    note: Note = lambda _: None,
) -> Moved:
    """Put an image, an index or an artifact under the name of a repository that was opened with `write`.

    The first of `parts` is tagged; the others are manifests with a `subject` that go with it. `neighbours` are other
    repositories of the same registry that may have blobs already. Raises what `connection` says, and `Conflict` where
    the tag is about other bytes at the end.
    """
    tree, top = _Tree(), parts[0]
    for part in parts:
        tree.add(store, part)
    before = into.resolve(into.name.tag) if into.name.tag else None
    counts, wire = _blobs(store, into, tree, neighbours, note)
    changed = any(counts[how] for how in ("sent", "mounted"))
    subjects: dict[str, list[Descriptor]] = {}
    for part, content in tree.manifests.values():
        subject, known = _subject(content), into.resolve(part.digest) is not None
        listed = False if known else _put(into, part, content, part.digest)
        changed |= not known
        if subject and not listed:
            subjects.setdefault(subject, []).append(part)
    for subject, pushed in subjects.items():
        changed |= _listed(into, subject, [_described(part, tree) for part in pushed])
    if into.name.tag:
        if before is None or before.digest != top.digest:
            note(f"setting the tag {into.name.tag}")
            _put(into, top, tree.manifests[top.digest][1], into.name.tag)
            changed = True
        after = into.resolve(into.name.tag)
        if after is None or after.digest != top.digest:
            raise Conflict(
                f"{into.name} is {after.digest if after else 'not there'} after {top.digest} was pushed to it",
                "Somebody else pushed to the same tag meanwhile: push again, or choose another tag.",
            )
    return Moved(top=top, **counts, wire=wire, changed=changed)


def document(content: bytes, name: str) -> dict[str, Any]:
    """Return a JSON object; raises `Refused` where the bytes are none."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Refused(f"{name} is no JSON object", _HINT)
    return found


def _list(value: Any, part: Descriptor) -> list[Any]:
    if not isinstance(value, list):
        raise Refused(f"{part.digest} does not list its parts", _HINT)
    return value


def _blobs(
    store: Store, into: Registry, tree: _Tree, neighbours: Sequence[str], note: Note
) -> tuple[dict[str, int], int]:
    """Upload what is missing, a few at once; the first failure stops the others."""
    stop = threading.Event()
    upload = Upload(into, store, neighbours, stop)
    note(f"{len(tree.blobs)} blobs, {sum(one.size for one in tree.blobs.values()) / 1e6:.1f} MB: asking for each")
    with ThreadPoolExecutor(_THREADS) as pool:
        try:
            # the largest first: the others find time beside it
            ordered = sorted(tree.blobs.values(), key=lambda one: (-one.size, one.digest))
            running = [pool.submit(upload.put, one) for one in ordered]
            done, _ = wait(running, return_when=FIRST_EXCEPTION)
            failed = [error for one in done if (error := one.exception()) and not isinstance(error, Stopped)]
            if failed:
                raise failed[0]
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
    results = [one.result() for one in running]
    counts = {how: sum(one.how == how for one in results) for how in ("sent", "mounted", "there")}
    return counts, sum(one.wire for one in results)


def _put(into: Registry, part: Descriptor, content: bytes, reference: str) -> bool:
    """Put a manifest under its digest or a tag; return whether the registry lists it as a referrer by itself."""
    asked = Ask(
        method="PUT",
        url=into.connection.url(f"manifests/{reference}"),
        scope=into.scope,
        headers={"Content-Type": part.media_type, "Content-Length": str(len(content))},
        body=lambda: content,
        expect=(200, 201, 202),
    )
    with closing(into.connection.ask(asked)) as answer:
        told = answer.headers.get("Docker-Content-Digest", part.digest)
        if told != part.digest and told.startswith("sha256:"):
            raise wrong(into.name, part.digest, told[:80])
        return "OCI-Subject" in answer.headers


def _subject(content: bytes) -> str:
    found = document(content, "a manifest").get("subject")
    return Descriptor.read(found).digest if found is not None else ""


def _described(part: Descriptor, tree: _Tree) -> Descriptor:
    """Return how a list of referrers names a manifest: with its artifact type and its annotations."""
    plain = document(tree.manifests[part.digest][1], part.digest)
    config = plain.get("config")
    kind = plain.get("artifactType") or (config.get("mediaType") if isinstance(config, dict) else "")
    notes = plain.get("annotations") or {}
    return Descriptor(
        media_type=part.media_type,
        digest=part.digest,
        size=part.size,
        artifact_type=str(kind),
        annotations={str(key): str(value) for key, value in notes.items()} if isinstance(notes, dict) else {},
    )


def fallback(digest: str) -> str:
    """Return the tag that lists the referrers of a digest where the registry does not.

    >>> fallback("sha256:" + "ab" * 32)[:14]
    'sha256-abababa'
    """
    return digest.replace(":", "-")


def referrers(of: Registry, digest: str) -> list[Descriptor]:
    """Return the manifests whose subject is a digest: as the registry lists them, else by the fallback tag."""
    return _by_api(of, digest) or _by_tag(of, digest)


def _by_api(of: Registry, digest: str) -> list[Descriptor]:
    asked = Ask(
        method="GET",
        url=of.connection.url(f"referrers/{digest}"),
        scope=of.scope,
        headers={"Accept": media.OCI_INDEX},
        expect=(200, 400, 404, 405),  # registries without it answer as they like
    )
    answer, content = of.connection.document(asked)
    if answer.status_code != 200:
        return []
    return [Descriptor.read(one) for one in _entries(content)]


def _by_tag(of: Registry, digest: str) -> list[Descriptor]:
    found = of.manifest(fallback(digest))
    if found is None or found[0].media_type != media.OCI_INDEX:
        return []
    return [Descriptor.read(one) for one in _entries(found[1])]


def _entries(content: bytes) -> list[Any]:
    found = document(content, "a list of referrers").get("manifests")
    return found if isinstance(found, list) else []


def _listed(into: Registry, subject: str, parts: Sequence[Descriptor]) -> bool:
    """Make sure that referrers are listed, by the registry or by the fallback tag; return whether that changed it.

    The tag belongs to all who push referrers: it is read again after it was set, and set again where somebody else
    was faster. Source: "Referrers Tag Schema".
    """
    missing = {one.digest for one in parts}
    if missing <= {one.digest for one in _by_api(into, subject)}:
        return False
    for turn in range(_TURNS):
        listed = _by_tag(into, subject)
        if missing <= {one.digest for one in listed}:
            return turn > 0
        known = {one.digest: one for one in (*listed, *parts)}
        plain = [known[digest].plain() for digest in sorted(known)]
        content = canonical({"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": plain})
        _put(into, Descriptor.of(content, media.OCI_INDEX), content, fallback(subject))
    raise Unavailable(
        f"the registry {into.name.host} does not keep the tag {fallback(subject)[:20]}… that lists the evidence",
        "Others may push to it at the same time: push again.",
    )

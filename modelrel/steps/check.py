"""Check: what is stated about a package, against its bytes; nothing is needed but the files and a public key.

Nothing here reads a registry or a model, and nothing else of modelrel has to be believed: no record is taken as a
proof of anything, only what is stated (and, with a key, signed) about the bytes that are there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

from modelrel import archive, records
from modelrel.attestation import layout
from modelrel.attestation.envelope import Opened, unwrap
from modelrel.attestation.keys import PublicKey
from modelrel.attestation.statement import MODEL_SIGNATURE, PROVENANCE, STATEMENT, TEST_RESULT, of_folder
from modelrel.errors import Invalid, ModelrelError
from modelrel.oci import media
from modelrel.oci.content import Descriptor
from modelrel.oci.read import Layout, document

KINDS: Final = {"provenance": PROVENANCE, "parity": TEST_RESULT, "smoke": TEST_RESULT}
_SKEW_S: Final = 300.0
"""How far a clock may be behind the one that made the statements."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at: whether it is as stated, and what was seen."""

    what: str
    outcome: Literal["ok", "wrong", "not checked"]
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What a checker brings along: keys (none: digests alone are compared), the most age, and the time now.

    `max_age_s` is in seconds, 0 for any age.
    """

    keys: tuple[PublicKey, ...] = ()
    max_age_s: float = 0.0
    now: datetime | None = None


@dataclass(slots=True)
class _Case:
    """What is known so far of one folder of evidence."""

    evidence: Path
    trust: Trust
    findings: list[Finding] = field(default_factory=list)
    opened: dict[str, Opened] = field(default_factory=dict)

    def say(self, what: str, outcome: Literal["ok", "wrong", "not checked"], detail: str) -> None:
        self.findings.append(Finding(what=what, outcome=outcome, detail=detail))

    def predicate(self, name: str) -> Mapping[str, Any]:
        """Return what a statement says; empty where there is none, or of another form."""
        found = self.opened[name].statement.get("predicate") if name in self.opened else None
        return found if isinstance(found, dict) else {}


def package(top: Path, trust: Trust, digests: Mapping[str, str] | None = None) -> tuple[Finding, ...]:
    """Return what is found of a package's folder, which has `evidence/` in it.

    `digests` are the sha256 of its files by name, where they were taken just now. Raises `Invalid` for a folder
    without evidence.
    """
    case = _opened(top / layout.FOLDER, trust)
    stated = _subjects(case)
    if stated is not None:
        files = {name: one for name, (one, kind) in stated.items() if not kind}
        _files(case, top, files, digests)
        inside = _inside(top, files)
        for name, digest in ((name, one) for name, (one, kind) in stated.items() if kind):
            if found := inside.get(f"sha256:{digest}"):
                case.say(f"image {name}", "ok", f"sha256:{digest} is in {found}")
            else:
                case.say(f"image {name}", "not checked", f"sha256:{digest} is stated; it is not a file of the package")
    _listed(case, top)
    _recorded(case, top)
    _model(case, stated)
    return tuple(case.findings)


def _inside(top: Path, names: Iterable[str]) -> dict[str, str]:
    """Return which file has an image or an artifact: digests of its manifest and of its config -> name."""
    found: dict[str, str] = {}
    for name in (one for one in names if one.endswith(".tar") and (top / one).is_file()):
        with suppress(ModelrelError), Layout.at(top / name) as image:
            found[image.index.digest] = name
            if image.index.media_type in media.MANIFESTS:
                config = document(image, image.index).get("config")
                found[Descriptor.read(config).digest] = name
    return found


def artifact(path: Path, evidence: Path, trust: Trust) -> tuple[Finding, ...]:
    """Return what is found of one file by a folder of evidence, which lies anywhere."""
    case = _opened(evidence, trust)
    stated = _subjects(case)
    digest = archive.sha256(path)
    if stated is not None:
        names = [name for name, (one, _) in stated.items() if one == digest]
        known = f"sha256 {digest}, stated as {names[0]}" if names else f"sha256 {digest}: nothing is stated of it"
        case.say(path.name, "ok" if names else "wrong", known)
        if len(stated) > 1 and names:
            case.say("other files of the package", "not checked", f"{len(stated) - 1} are stated")
    return tuple(case.findings)


def _opened(evidence: Path, trust: Trust) -> _Case:
    """Open every statement, and look at who signed it, what it says and how old it is."""
    if not evidence.is_dir():
        raise Invalid(f"{evidence} is not there: nothing is stated", "Make it: modelrel attest MODEL --target TARGET.")
    case = _Case(evidence, trust)
    for name in layout.STATEMENTS:
        paths = [path for end in (layout.SIGNED, layout.UNSIGNED) if (path := evidence / f"{name}{end}").is_file()]
        if len(paths) != 1:
            there = "two files, where there should be one" if paths else "no statement"
            case.say(name, "wrong", f"{there}: {evidence / name}{layout.SIGNED}")
            continue
        _open(case, name, paths[0])
    _age(case)
    allowed = {f"{name}{end}" for name in KINDS for end in (layout.SIGNED, layout.UNSIGNED)}
    for path in sorted(evidence.rglob("*")):
        if path.is_file() and path.relative_to(evidence).as_posix() not in allowed | {layout.BOM, layout.MODEL}:
            case.say(path.name, "wrong", f"{path} is no evidence that modelrel writes")
    return case


def _open(case: _Case, name: str, path: Path) -> None:
    try:
        opened = unwrap(path.read_bytes())
    except ValueError as error:
        case.say(name, "wrong", f"{path}: {error}")
        return
    said = opened.statement
    if said.get("_type") != STATEMENT or said.get("predicateType") != KINDS[name]:
        case.say(name, "wrong", f"{path} states {str(said.get('predicateType'))[:80]!r}, not {KINDS[name]}")
        return
    case.opened[name] = opened
    predicate = case.predicate(name)
    if name != "provenance" and (predicate.get("result") != "PASSED" or predicate.get("failedTests")):
        case.say(name, "wrong", f"{path} says {str(predicate.get('result'))[:80]!r}, not that the tests passed")
        return
    tests = predicate.get("passedTests")
    seen = f"{len(tests)} tests passed" if isinstance(tests, list) else str(path.name)
    _signed(case, name, opened, path, seen)


def _signed(case: _Case, name: str, opened: Opened, path: Path, seen: str) -> None:
    """Say who signed a statement, as far as the keys at hand tell."""
    keys = case.trust.keys
    if not keys:
        who = f"key {opened.hint[:16]}… is named, and was not asked for" if opened.signature else "nobody signed it"
        case.say(name, "ok", f"{seen}; {who}")
    elif not opened.signature:
        case.say(name, "wrong", f"{path} is not signed")
    elif any(opened.signed_by(key) for key in keys):
        case.say(name, "ok", f"{seen}; signed by key {opened.hint[:16]}…")
    elif opened.hint in {one for key in keys for one in (key.id, key.pem_id)}:
        case.say(name, "wrong", f"{path}: the signature is not of key {opened.hint[:16]}… over these bytes")
    else:
        wanted = ", ".join(f"{key.id[:16]}…" for key in keys)
        case.say(name, "wrong", f"{path} is signed by another key: {opened.hint[:16]}…, not {wanted}")


def made_at(opened: Mapping[str, Any]) -> datetime | None:
    """Return when a provenance says that it was finished; None where it says no time."""
    try:
        found = datetime.fromisoformat(opened["runDetails"]["metadata"]["finishedOn"])
    except (KeyError, TypeError, ValueError):
        return None
    return found if found.tzinfo else None


def _age(case: _Case) -> None:
    if "provenance" not in case.opened:
        return
    at = made_at(case.predicate("provenance"))
    if at is None:
        case.say("age", "wrong", "the provenance says no time")
    elif case.trust.now is not None:
        age = (case.trust.now - at).total_seconds()
        most = case.trust.max_age_s
        days = f"{at.isoformat()}, {max(age, 0) / 86400:.1f} days old"
        if age < -_SKEW_S:
            case.say("age", "wrong", f"{at.isoformat()} is in the future")
        elif most and age > most:
            case.say("age", "wrong", f"{days}; at most {most / 86400:g} are allowed")
        else:
            case.say("age", "ok", days)


def _subjects(case: _Case) -> dict[str, tuple[str, str]] | None:
    """Return name -> sha256 and media type of what the statements are about; None where they do not agree."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for name, opened in case.opened.items():
        try:
            subjects = opened.statement["subject"]
            found[name] = {one["name"]: (str(one["digest"]["sha256"]), one.get("mediaType", "")) for one in subjects}
        except (KeyError, TypeError, AttributeError):
            case.say(name, "wrong", "it does not name its subjects as it should")
            return None
    if len({tuple(sorted(one.items())) for one in found.values()}) > 1:
        case.say("subjects", "wrong", f"{', '.join(found)} are about different bytes")
        return None
    return next(iter(found.values()), None)


def _files(case: _Case, top: Path, stated: Mapping[str, str], known: Mapping[str, str] | None) -> None:
    """Compare every file of a package with what is stated of it."""
    there = {path.relative_to(top).as_posix(): path for path in archive.walk(top)}
    found = {name: path for name, path in there.items() if not _beside(name)}
    wrong = []
    for name in sorted(stated.keys() | found.keys()):
        if name not in found:
            wrong.append((name, "is missing"))
        elif name not in stated:
            wrong.append((name, "nothing is stated of it"))
        else:
            digest = known[name] if known and name in known else archive.sha256(found[name])
            if digest != stated[name]:
                wrong.append((name, f"sha256 {digest}, but {stated[name]} is stated"))
    for name, detail in wrong:
        case.say(name, "wrong", f"{top / name}: {detail}")
    if not wrong:
        size = sum(path.stat().st_size for path in found.values())
        case.say("packaged files", "ok", f"{len(found)} files, {size:,} bytes, each as stated")


def _beside(name: str) -> bool:
    return name in layout.RECORDS or name.startswith(f"{layout.FOLDER}/")


def _listed(case: _Case, top: Path) -> None:
    """Compare the records and other files that the statements name, as far as they are here."""
    provenance = case.predicate("provenance")
    try:
        asked = provenance["buildDefinition"]["externalParameters"]
        here = f"{asked['format']}/{asked['target']}/"
        named = {str(one["name"]): str(one["digest"]["sha256"]) for one in _resources(case)}
    except (KeyError, TypeError):
        if "provenance" in case.opened:
            case.say("provenance", "wrong", "it does not name the records as it should")
        return
    release = top.resolve().parent.parent
    whole = (release / "SourceModel.json").is_file() and f"{'/'.join(top.resolve().parts[-2:])}/" == here
    wrong, away, seen = [], [], 0
    for name, digest in sorted(named.items()):
        inside = name.startswith(here)
        if not inside and not whole:
            away.append(name)
            continue
        path = archive.within(top, name.removeprefix(here)) if inside else archive.within(release, name)
        seen += 1
        if not path.is_file():
            wrong.append((path, "is missing"))
        elif archive.sha256(path) != digest:
            wrong.append((path, f"has not the sha256 that is stated: {digest}"))
    for path, detail in wrong:
        case.say(path.name, "wrong", f"{path} {detail}")
    if not wrong:
        case.say("records", "ok", f"{seen} files, each as stated")
    if away:
        case.say("records of the release", "not checked", f"not here: {', '.join(away)}")


def _resources(case: _Case) -> Iterator[Mapping[str, Any]]:
    """Yield the files that the statements name beside their subjects."""
    yield from case.predicate("provenance")["runDetails"]["byproducts"]
    for name in ("parity", "smoke"):
        yield from case.predicate(name).get("configuration", ())


def _recorded(case: _Case, top: Path) -> None:
    """Look at the record of the attestation, which has the digest of every file of evidence, where it is here."""
    path = top / "Attestation.json"
    if not path.is_file():
        return
    try:
        files = {
            str(one["path"]).rpartition("/")[2]: str(one["sha256"]) for one in records.sealed(path)["value"]["files"]
        }
    except (ValueError, KeyError, TypeError):
        case.say(path.name, "wrong", f"{path} has other bytes than were written")
        return
    there = {one.name: one for one in sorted(case.evidence.iterdir()) if one.is_file()}
    wrong = [name for name in sorted(files.keys() | there.keys())
             if name not in files or name not in there or archive.sha256(there[name]) != files[name]]  # fmt: skip
    for name in wrong:
        case.say(name, "wrong", f"{case.evidence / name} is not what {path.name} was recorded for")


def _model(case: _Case, stated: Mapping[str, tuple[str, str]] | None) -> None:
    """Look at OpenSSF's signature of the folder, which is there where the statements are signed."""
    path = case.evidence / layout.MODEL
    signed = any(opened.signature for opened in case.opened.values())
    if not path.is_file():
        if signed:
            case.say(layout.MODEL, "wrong", f"{path} is missing")
        return
    try:
        opened = unwrap(path.read_bytes())
        resources = {one["name"]: one["digest"] for one in opened.statement["predicate"]["resources"]}
        again = of_folder(opened.statement["subject"][0]["name"], resources, (*layout.RECORDS, layout.FOLDER))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        case.say(layout.MODEL, "wrong", f"{path}: {error}")
        return
    files = {name: one for name, (one, kind) in (stated or {}).items() if not kind}
    if again != opened.statement or (stated and resources != files):
        case.say(layout.MODEL, "wrong", f"{path} is about other files than the statements")
        return
    _signed(case, layout.MODEL, opened, path, f"{len(resources)} files ({MODEL_SIGNATURE})")


def evidence_of(path: Path) -> Sequence[Path]:
    """Return the packages with evidence in a folder: itself, or those of a release, sorted."""
    if (path / layout.FOLDER).is_dir():
        return [path]
    return sorted(found.parent for found in path.glob(f"*/*/{layout.FOLDER}") if found.is_dir())


def wrong(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings that refuse a package."""
    return [one for one in findings if one.outcome == "wrong"]

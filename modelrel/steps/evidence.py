"""What a release folder proves: its records, read from the source to the smoke reports, each about the one before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from modelrel import archive, records
from modelrel.attestation import layout
from modelrel.attestation.keys import PublicKey
from modelrel.delivered import Attestation, Package, SmokeReport
from modelrel.errors import Refused
from modelrel.formats import FORMATS
from modelrel.steps import check, summary
from modelrel.steps import package as package_step
from modelrel.steps.stages import Value
from modelrel.values import ConvertedModel, ParityReport, SourceModel

VARIANTS: Final = "variants"
"""The folder, beside the copy in a format, of other copies in it: smaller ones that one package carries."""

_PACKAGED: Final = ("Package.json", "Package.refused.json")
_AGAIN: Final = "modelrel attest MODEL --target …"


def of(folder: Path, label: str, form: str) -> tuple[SmokeReport, ...]:
    """Return the smoke reports on disk, one for each packaged target; `form` is the format where none is packaged.

    `label` is the model as the user names it. Raises `Refused`, with the names of all files, where a record is missing
    or is about other bytes than those on disk, or a package (or the pulled source) has a file more or less.
    """

    def recorded(kind: type[Value], name: str, **parents: object) -> Value:
        return _recorded(kind, folder / name, label, **parents)

    source = recorded(SourceModel, "SourceModel.json", folder=folder)
    forms = [form for form in FORMATS if any((folder / form).glob("*/Package.json"))]
    smokes = []
    for one in forms or [form]:
        converted = recorded(ConvertedModel, f"{one}/ConvertedModel.json", source=source)
        parity = recorded(ParityReport, f"{one}/ParityReport.json", converted=converted)
        for path in sorted((folder / one).glob("*/Package.json")):
            others = variants(path.parent, source, label)
            package = recorded(Package, path.relative_to(folder).as_posix(), parity=parity, variants=others)
            report = path.with_name("SmokeReport.json").relative_to(folder).as_posix()
            smokes.append(recorded(SmokeReport, report, package=package))
    _whole(folder, source, tuple(smokes))
    return tuple(smokes)


def _whole(folder: Path, source: SourceModel, smokes: tuple[SmokeReport, ...]) -> None:
    """Raise `Refused` with every file of a release that is not as it was written, or that nobody wrote."""
    packages = [smoke.package for smoke in smokes]
    held = [source, *packages, *(value for one in packages for value in (one.parity, one.converted))]
    known = {file.path: file for value in held for file in records.files_of(value)}
    wrong = [(name, "has other bytes than were written") for name in summary.changed(folder, known)]
    tops = [folder / "source", *(one.home for one in packages)]
    for path in (path for top in tops for path in archive.walk(top)):
        name = path.relative_to(folder).as_posix()
        beside = path.parent in tops[1:] and path.name in layout.RECORDS
        if not beside and name not in known and path.parent.name != layout.FOLDER:
            wrong.append((name, "was not there when it was packaged"))
    left = {path.parent for name in ("SmokeReport", "Attestation") for path in folder.glob(f"*/*/{name}.json")}
    # what a packaging that was refused left behind says so
    alone = [top for top in sorted(left) if not any((top / name).is_file() for name in _PACKAGED)]
    wrong += [((top / "Package.json").relative_to(folder).as_posix(), "is missing") for top in alone]
    for one in packages:
        record = one.home / "Attestation.json"
        if (one.home / layout.FOLDER).is_dir() != record.is_file():
            wrong.append((record.relative_to(folder).as_posix(), "and the evidence that it is about belong together"))
    _refuse(wrong, f"modelrel release {source.label} --target …")


def _refuse(wrong: Sequence[tuple[str, str]], command: str) -> None:
    if not wrong:
        return
    name, detail = wrong[0]
    refusal = Refused(
        f"{name} {detail}{f' (and {len(wrong) - 1} more)' if len(wrong) > 1 else ''}",
        f"Find out who changed the release; to make it again, run: {command}",
    )
    refusal.evidence = [{"path": path, "detail": said} for path, said in wrong]
    raise refusal


def attested(smokes: Sequence[SmokeReport], public_keys: Sequence[str]) -> tuple[Attestation, ...]:
    """Return the attestations about packages, checked against the bytes on disk; packages without one are left out.

    `public_keys` are those (files, or PEM) that may sign. An attestation keeps its `key` only where that is one of
    them and the signature is its own. Raises `Refused` for evidence about other bytes, a broken signature, a missing
    statement or, where there are keys, one that is signed by another.
    """
    there = [smoke for smoke in smokes if (smoke.package.home / layout.FOLDER).is_dir()]
    read = [_attestation(smoke) for smoke in there]
    known: list[PublicKey] = []
    if any(one.key for one in read):
        from modelrel.attestation import keys

        known = [keys.public(name) for name in public_keys]
    return tuple(_checked(one, known) for one in read)


def signed(smoke: SmokeReport) -> Attestation | None:
    """Return what was signed about a package as it is now, None where nothing was."""
    found = records.read(Attestation, smoke.package.home / "Attestation.json", None, smoke=smoke)
    return found if found is not None and found.key else None


def _attestation(smoke: SmokeReport) -> Attestation:
    record = smoke.package.home / "Attestation.json"
    found = records.read(Attestation, record, None, smoke=smoke)
    if found is None:
        wrong = records.differing(Attestation, record, smoke=smoke)
        _refuse([(name, "is not the evidence that was recorded for these bytes") for name in wrong], _AGAIN)
    assert found is not None
    return found


def _checked(found: Attestation, known: Sequence[PublicKey]) -> Attestation:
    package = found.smoke.package
    home = package.home
    trusted = tuple(key for key in known if key.id == found.key)
    if found.key and known and not trusted:
        name = (home / layout.FOLDER).relative_to(package.folder).as_posix()
        said = f"is signed by key {found.key[:16]}…, which is none of those that may sign"
        _refuse([(name, said)], f"{_AGAIN} --key FILE")
    digests = {(package.folder / file.path).relative_to(home).as_posix(): file.sha256 for file in package.files}
    findings = check.package(home, check.Trust(keys=trusted, now=datetime.now(UTC)), digests)
    _refuse([(one.what, one.detail) for one in check.wrong(findings)], _AGAIN)
    return found if trusted else replace(found, key="")


def variants(package: Path, source: SourceModel, label: str) -> tuple[ParityReport, ...]:
    """Return the recorded proofs of the copies that a packaged folder carries beside its model."""
    found = []
    for name in package_step.beside(package):
        at = package.parent / VARIANTS / name
        converted = _recorded(ConvertedModel, at / "ConvertedModel.json", label, source=source)
        found.append(_recorded(ParityReport, at / "ParityReport.json", label, converted=converted))
    return tuple(found)


def _recorded(kind: type[Value], path: Path, label: str, **parents: object) -> Value:
    found = records.read(kind, path, None, **parents)
    if found is not None:
        return found
    if path.is_file():
        names = records.differing(kind, path, **parents)
        wrong = [path if name == path.name else name for name in names]
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        refusal = Refused(
            f"{path} is not about the bytes that are on disk now: {wrong[0]}{more} changed",
            f"Something changed since it was written; run: modelrel release {label} --target …",
        )
        refusal.evidence = [{"path": str(name), "detail": "has other bytes than were recorded"} for name in wrong]
        raise refusal
    raise Refused(
        f"there is no evidence {kind.__name__} for {label} ({path})",
        f"Run first: modelrel release {label} --target docker (or lambda).",
    )

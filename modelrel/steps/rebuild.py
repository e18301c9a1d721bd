"""Rebuild: what was packaged is packaged again from its records, somewhere else, and every digest is compared."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from modelrel import archive, differences, records
from modelrel.delivered import Package
from modelrel.errors import Invalid, Refused
from modelrel.formats import FORMATS
from modelrel.steps import package as package_step
from modelrel.steps.evidence import VARIANTS
from modelrel.steps.stages import Value
from modelrel.targets import TARGETS, payload
from modelrel.targets.delivery import SHARED, Note
from modelrel.values import ConvertedModel, PackageOptions, ParityReport, SourceModel

_RECORD: Final = "Package.json"
_EPOCH: Final = "SOURCE_DATE_EPOCH"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A file that has other bytes than recorded: both digests ("" where there is none), and where they part."""

    path: str
    recorded: str
    again: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """A package that was made again: how many files of how many bytes, which differ, and what was not compared."""

    package: Package
    files: int
    size: int
    differences: tuple[Difference, ...]
    seconds: float
    notes: tuple[str, ...] = ()


def recorded(folder: Path) -> tuple[Package, ...]:
    """Return every package of a release folder, by format and target, with the whole chain behind it.

    Raises `Refused` where a record is missing or is about other bytes than those on disk.
    """
    found = []
    source = _read(SourceModel, folder / "SourceModel.json", folder=folder)
    for form in FORMATS:
        paths = sorted((folder / form).glob(f"*/{_RECORD}"))
        if not paths:
            continue
        converted = _read(ConvertedModel, folder / form / "ConvertedModel.json", source=source)
        parity = _read(ParityReport, folder / form / "ParityReport.json", converted=converted)
        found += [_read(Package, path, parity=parity, variants=_variants(path.parent, source)) for path in paths]
    return tuple(found)


def _variants(made: Path, source: SourceModel) -> tuple[ParityReport, ...]:
    """Return the recorded proofs of the copies that a packaged folder carries beside its model."""
    found = []
    for name in package_step.beside(made):
        at = made.parent / VARIANTS / name
        converted = _read(ConvertedModel, at / "ConvertedModel.json", source=source)
        found.append(_read(ParityReport, at / "ParityReport.json", converted=converted))
    return tuple(found)


def _read(kind: type[Value], path: Path, **parents: object) -> Value:
    found = records.read(kind, path, None, **parents)
    if found is not None:
        return found
    if not path.is_file():
        raise Refused(f"{path} is not there: nothing was released in its folder", "Run first: modelrel release.")
    raise Refused(
        f"{path} is not about the bytes that are on disk now",
        "Something changed since it was written, which is the very thing that --verify looks for; release it again.",
    )


def rebuild(package: Package, templates: Path | None, house: Path | None, note: Note = lambda _: None) -> Rebuilt:
    """Package again in a temporary folder, as recorded, and compare every file; the release is only read.

    `templates` are the user's (they must be those of then), `house` is a wheelhouse. The wheels are those of the
    recorded lock. Raises `Invalid` for other templates, and as the packaging does.
    """
    if package_step.own_templates(package.target, templates) != package.own_templates:
        raise Invalid(
            f"{package.target} was packaged with {'other templates' if package.own_templates else 'ours alone'}",
            "Give --templates as it was then." if package.own_templates else "Leave out --templates.",
        )
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="modelrel-rebuild-") as work:
        top = Path(work) / "release"
        _copy(package, top)
        image, notes = _deployed(package), list[str]()
        options = _options(package, notes)
        with _dated(package.source_date_epoch):
            again = package_step.package(
                _moved(package.parity, top),
                package.target,
                replace(options, templates=templates, wheelhouse=house),
                note,
                image,
                variants=tuple(_moved(one, top) for one in package.variants),
            )
        found = _compared(package, again)
    seconds = round(time.perf_counter() - start, 3)
    size = sum(file.size for file in package.files)
    return Rebuilt(
        package=package, files=len(package.files), size=size, differences=found, seconds=seconds, notes=tuple(notes)
    )


def _copy(package: Package, top: Path) -> None:
    """Copy what a packaging reads: the model in all its forms, and the lock of the package; not the packages."""
    folder = package.folder

    def packages(at: str, names: list[str]) -> list[str]:
        return [name for name in names if Path(at, name, _RECORD).is_file() or name == _RECORD]

    shutil.copytree(folder, top, ignore=packages)
    made = package_step.folder(package.parity, package.target)
    for path in made.rglob(payload.LOCK):
        target = top / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _moved(parity: ParityReport, top: Path) -> ParityReport:
    converted = parity.converted
    return replace(parity, converted=replace(converted, source=replace(converted.source, folder=top)))


def _options(package: Package, notes: list[str]) -> PackageOptions:
    """Return the options of then that can be given, with what decides who builds an image made definite."""
    takes = TARGETS[package.target].OPTIONS
    given = {name: getattr(package.options, name) for name in takes | SHARED | {"values"}}
    options, image = PackageOptions(**given), package.image
    if image is not None and not image.at:
        notes.append(
            "an engine built the image and wrote its own time into it: the context was compared, not the image"
        )
    if image is not None and image.at:
        return replace(options, builder="oci") if "builder" in takes else options
    return replace(options, render_only=True) if "render_only" in takes else options


def _deployed(package: Package) -> Package | None:
    """Return the packaged image that a package deploys, as recorded."""
    if not package.deploys:
        return None
    path = package_step.folder(package.parity, package.deploys) / _RECORD
    return _read(Package, path, parity=package.parity, variants=())


@contextmanager
def _dated(epoch: str) -> Iterator[None]:
    """Set the variable that all tools of a build read to what it was."""
    before = os.environ.pop(_EPOCH, None)
    try:
        if epoch:
            os.environ[_EPOCH] = epoch
        yield
    finally:
        os.environ.pop(_EPOCH, None)
        if before is not None:
            os.environ[_EPOCH] = before


def _compared(package: Package, again: Package) -> tuple[Difference, ...]:
    was = {file.path: file.sha256 for file in package.files}
    now = {file.path: file.sha256 for file in again.files}
    found = []
    for path in sorted(was.keys() | now.keys()):
        if was.get(path) != now.get(path):
            detail = differences.explain(archive.within(package.folder, path), archive.within(again.folder, path))
            found.append(Difference(path=path, recorded=was.get(path, ""), again=now.get(path, ""), detail=detail))
    if package.image is not None and again.image is not None and package.image.manifest != again.image.manifest:
        was_, now_ = package.image.manifest, again.image.manifest
        found.append(Difference(path="image manifest", recorded=was_, again=now_, detail="another image"))
    return tuple(found)

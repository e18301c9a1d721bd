"""What a release folder proves: its records, read from the source to the smoke reports, each about the one before."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from modelrel import records
from modelrel.delivered import Package, SmokeReport
from modelrel.errors import Refused
from modelrel.formats import FORMATS
from modelrel.steps import package as package_step
from modelrel.steps.stages import Value
from modelrel.values import ConvertedModel, ParityReport, SourceModel

VARIANTS: Final = "variants"
"""The folder, beside the copy in a format, of other copies in it: smaller ones that one package carries."""


def of(folder: Path, label: str, form: str) -> tuple[SmokeReport, ...]:
    """Return the smoke reports on disk, one for each packaged target; `form` is the format where none is packaged.

    `label` is the model as the user names it. Raises `Refused` where a record is missing or is about other bytes than
    those on disk.
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
    return tuple(smokes)


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
        raise Refused(
            f"{path} is not about the bytes that are on disk now",
            f"Something changed since it was written; run: modelrel release {label} --target …",
        )
    raise Refused(
        f"there is no evidence {kind.__name__} for {label} ({path})",
        f"Run first: modelrel release {label} --target docker (or lambda).",
    )

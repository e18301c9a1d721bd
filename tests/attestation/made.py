"""A small release with evidence, made once per run by the steps themselves; tests take copies of it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from modelrel import records
from modelrel.attestation import keys
from modelrel.delivered import Attestation, Check, SmokeReport
from modelrel.steps import attest as step
from modelrel.steps.package import package
from tests.targets import tiny

AT = "2026-05-04T03:02:01+00:00"
HOME = "onnx/modelpack"


def pair(name: str = "modelrel") -> tuple[Path, Path]:
    """Return the private and the public key of somebody."""
    return _pair(name)


@cache
def _pair(name: str) -> tuple[Path, Path]:
    return keys.generate(tiny.place() / "keys" / name)


def signer(name: str = "modelrel") -> keys.Signer:
    return keys.signer(str(pair(name)[0]))


@cache
def smoke(target: str = "modelpack") -> SmokeReport:
    """Return the report of the small release, with all records on disk, as if it had been smoke-tested."""
    folder = tiny.place() / f"evident-{target}" / "churn-7"
    parity = tiny.verified(folder)
    made = package(parity, target, tiny.offered(target))
    seen = (Check(name="one row", detail="1 rows, largest error 0"), Check(name="GET /ping", detail="200"))
    report = SmokeReport(
        package=made, runner="process", checks=seen, rows=6, max_abs_error=0.0, first_answer_s=0.4, p50_ms=0.5,
        p99_ms=0.9, memory_bytes=70_000_000,
    )  # fmt: skip
    form = folder / "onnx"
    for value, path in (
        (parity.source, folder / "SourceModel.json"), (parity.converted, form / "ConvertedModel.json"),
        (parity, form / "ParityReport.json"), (made, form / target / "Package.json"),
        (report, form / target / "SmokeReport.json"),
    ):  # fmt: skip
        records.write(value, path, "k")
    return report


def moved(report: SmokeReport, folder: Path) -> SmokeReport:
    """Return a smoke report of a copy of its release, in another folder."""
    parity = report.package.parity
    source = replace(parity.source, folder=folder)
    parity = replace(parity, converted=replace(parity.converted, source=source))
    return replace(report, package=replace(report.package, parity=parity))


@cache
def attested(name: str) -> Attestation:
    """Return the attestation of the small release, signed by somebody ("" nobody); every name has its own folder."""
    folder = tiny.place() / f"evident-{name or 'unsigned'}" / "churn-7"
    shutil.copytree(smoke().package.folder, folder)
    done = step.attest(moved(smoke(), folder), signer(name) if name else None, AT)
    records.write(done, folder / HOME / "Attestation.json", "k")
    return done


def release(into: Path, name: str = "modelrel") -> Path:
    """Return the folder of a copy of the small release, which a test may change."""
    return shutil.copytree(attested(name).smoke.package.folder, into / "churn-7")


def flipped(path: Path, place: int) -> Mapping[Path, bytes]:
    """Change one bit of a file; return what to write to have it as before."""
    content = path.read_bytes()
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    return {path: content}

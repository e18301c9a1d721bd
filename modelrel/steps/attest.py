"""Attest: what is known of a package is stated for others: of which bytes, made from what, and that it was tested."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from modelrel import __version__, archive, records
from modelrel.attestation import layout
from modelrel.attestation.envelope import wrap
from modelrel.attestation.keys import Signer
from modelrel.attestation.statement import PROVENANCE, TEST_RESULT, Json, of_folder, resource, statement, tree
from modelrel.delivered import Attestation, Package, SmokeReport
from modelrel.errors import Invalid, redacted
from modelrel.oci import media
from modelrel.oci.read import Layout
from modelrel.targets import TARGETS, bom, payload
from modelrel.values import File

BUILD: Final = "urn:modelrel:build:v1"
"""The type of the build in a provenance; README says what its parameters are."""

_BUILDER: Final = "pkg:pypi/modelrel"
_EPOCH: Final = "SOURCE_DATE_EPOCH"
_IMAGE: Final = media.OCI_MANIFEST
_CONFIG: Final = media.OCI_CONFIG


def now() -> str:
    """Return the time that statements carry, ISO 8601 in UTC: that of SOURCE_DATE_EPOCH, where it is set."""
    epoch = os.environ.get(_EPOCH, "")
    if not epoch:
        return datetime.now(UTC).isoformat(timespec="seconds")
    try:
        return datetime.fromtimestamp(int(epoch), UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError) as error:
        raise Invalid(f"{_EPOCH} is {epoch!r}, not seconds since 1970", "Correct the variable.") from error


def attest(smoke: SmokeReport, signer: Signer | None, at: str) -> Attestation:
    """Write the statements about a package into `evidence/` beside it, which is replaced as a whole.

    `at` is when its tests were passed, ISO 8601 in UTC. Without a signer the statements are the same, and nobody's.
    """
    package = smoke.package
    top = package.home
    card = bom.bill(package.parity, bom.Contents(kind="machine-learning-model"))
    subjects = list(_subjects(package, top))
    said = {
        "provenance": (PROVENANCE, _provenance(smoke, top, card, at)),
        "parity": (TEST_RESULT, _parity(package)),
        "smoke": (TEST_RESULT, _smoke(smoke, top)),
    }
    suffix = layout.SIGNED if signer else layout.UNSIGNED
    with archive.fresh_folder(top / layout.FOLDER) as into:
        for name in layout.STATEMENTS:
            kind, predicate = said[name]
            (into / f"{name}{suffix}").write_bytes(wrap(statement(subjects, kind, predicate), signer))
        (into / layout.BOM).write_bytes(card)
        if signer:
            ignored = (*layout.RECORDS, layout.FOLDER)
            whole = of_folder(package.parity.source.name, _digests(package, top), ignored)
            # model_signing looks for the digest of the key's PEM
            (into / layout.MODEL).write_bytes(wrap(whole, signer, signer.public.pem_id))
    files = archive.describe_tree(top / layout.FOLDER, package.folder)
    return Attestation(smoke=smoke, files=files, key=signer.public.id if signer else "", at=at)


def standing(package: Package) -> tuple[File, ...]:
    """Return the records that a package stands on, from the source to the smoke report, as they are on disk."""
    form = Path(package.converted.format)
    names = [Path("SourceModel.json"), form / "ConvertedModel.json", form / "ParityReport.json"]
    for variant in package.variants:
        at = Path(variant.converted.file.path).parent
        names += [at / "ConvertedModel.json", at / "ParityReport.json"]
    names += [form / package.target / "Package.json", form / package.target / "SmokeReport.json"]
    return tuple(archive.describe(package.folder / name, package.folder) for name in names)


def _digests(package: Package, top: Path) -> dict[str, str]:
    """Return the sha256 of every packaged file, by its name in the package's folder."""
    start = f"{top.relative_to(package.folder).as_posix()}/"
    return {file.path.removeprefix(start): file.sha256 for file in package.files}


def _subjects(package: Package, top: Path) -> Iterator[Json]:
    """Yield what the statements are about: the artifact first, then every other file, and the image."""
    digests = _digests(package, top)
    first = Path(package.artifact).relative_to(top.relative_to(package.folder)).as_posix()
    for name in sorted(digests, key=lambda name: (name != first, name)):
        yield resource(name, {"sha256": digests[name]})
    image = package.image
    if image is not None:
        name = image.tags[0] if image.tags else package.parity.source.label
        if image.manifest:
            yield resource(name, {"sha256": _hex(image.manifest)}, mediaType=_IMAGE)
        yield resource(f"{name} (config)", {"sha256": _hex(image.id)}, mediaType=_CONFIG)
    elif "push" in TARGETS[package.target].OPTIONS and (top / first).is_file():
        with Layout.at(top / first) as artifact:  # what a registry will know it by
            part = artifact.index
        yield resource(package.parity.source.label, {"sha256": _hex(part.digest)}, mediaType=part.media_type)


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")


def _provenance(smoke: SmokeReport, top: Path, card: bytes, at: str) -> Json:
    package = smoke.package
    source, made = package.parity.source, package.converted
    here = top.relative_to(package.folder).as_posix()
    tools = {**made.tools, **package.parity.tools, **package.tools}
    named = {name: value for name, value in tools.items() if name not in _NO_VERSIONS and value}
    digested = {"sha256": hashlib.sha256(card).hexdigest()}
    byproducts = [resource(file.path, {"sha256": file.sha256}) for file in standing(package)]
    return {
        "buildDefinition": {
            "buildType": BUILD,
            "externalParameters": {
                "model": source.uri,
                "format": made.format,
                "target": package.target,
                "options": _options(package),
            },
            "internalParameters": {name: value for name, value in _inner(package).items() if value},
            "resolvedDependencies": list(_dependencies(package)),
        },
        "runDetails": {
            "builder": {"id": _BUILDER, "version": {**dict(sorted(named.items())), "modelrel": __version__}},
            "metadata": {"finishedOn": at},
            "byproducts": [*byproducts, resource(f"{here}/{layout.FOLDER}/{layout.BOM}", digested)],
        },
    }  # fmt: skip


def _inner(package: Package) -> Json:
    """Return what else decided the result."""
    made = package.converted
    return {
        "python": package.python,
        "platform": package.platform,
        _EPOCH: package.source_date_epoch,
        "quantize": made.quantize,
        "signature": made.served,
        "copy": "handed in" if made.handed_in else "",
        "allowedPickle": list(made.allowed_pickle),
    }


_NO_VERSIONS: Final = frozenset({"serving", "templates", "python", "platform", _EPOCH})
"""Of a package's tools: what is a digest, or said elsewhere."""


def _options(package: Package) -> Json:
    """Return the options that were given; what may be a path of this machine is left out."""
    given = {one.name: getattr(package.options, one.name) for one in fields(package.options)}
    default = {one.name: getattr(type(package.options)(), one.name) for one in fields(package.options)}
    told = {name: value for name, value in given.items() if value != default[name]}
    plain: Json = records.own_fields(package.options)
    return {name: _clean(plain[name]) for name in told if not (name == "base_image" and _is_path(plain[name]))}


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {name: _clean(one) for name, one in value.items()}
    return [_clean(one) for one in value] if isinstance(value, list) else value


def _is_path(name: str) -> bool:
    return name.startswith(("/", ".", "~"))


def _dependencies(package: Package) -> Iterator[Json]:
    """Yield everything that went in."""
    source, image = package.parity.source, package.image
    files = {file.path.removeprefix("source/"): file.sha256 for file in source.files}
    registry = source.registry if source.registry.startswith("http") else ""
    said = {"registry": redacted(registry)} if registry else {}
    yield resource("model", {"dirHash": tree(files)}, uri=source.uri, annotations={**said, "flavor": source.flavor})
    if source.model_id:
        yield resource("logged model", uri=f"models:/{source.model_id}")
    if source.run_id:
        yield resource("run", uri=f"runs:/{source.run_id}")
    if source.git_commit:
        yield resource("code", {"gitCommit": source.git_commit}, uri=redacted(_repository(source.tags)))
    for one in source.datasets:
        yield resource(one.name, {"mlflow": one.digest}, annotations={"kind": "data set", "context": one.context})
    yield resource(package.converted.file.path, {"sha256": package.converted.file.sha256})
    for file in package.files:
        if Path(file.path).name == payload.LOCK:
            yield resource(file.path, {"sha256": file.sha256}, annotations={"kind": "lock of the Python packages"})
    for name in ("templates", "serving"):
        if name in package.tools:
            yield resource(name, {"sha256": package.tools[name]})
    base, _, digest = (image.base if image else "").partition("@")
    if base and not _is_path(base):
        yield resource(base, {"sha256": _hex(digest)} if digest else {}, annotations={"kind": "base image"})


def _repository(tags: Mapping[str, str]) -> str:
    return tags.get("mlflow.source.git.repoURL", "")


def _parity(package: Package) -> Json:
    """Return that copies answered as the originals did."""
    reports = (package.parity, *package.variants)
    tested, files = [], list(standing(package))
    for report in reports:
        where = report.converted.file.path
        tested += [
            f"{where}: {one.name}: {one.rows} rows, {one.disagreements} differ, largest error {one.max_abs_error:.9g}"
            for one in report.outputs
        ]
    figures = {
        "rows": package.parity.rows,
        "sources": dict(package.parity.sources),
        "disagreements": package.parity.disagreements,
        "maxAbsError": package.parity.max_abs_error,
        "rtol": package.parity.tolerance.rtol,
        "atol": package.parity.tolerance.atol,
    }
    golden = [report.golden for report in reports] + [report.converted.file for report in reports]
    names = {"SourceModel.json", "ConvertedModel.json", "ParityReport.json"}
    used = [file for file in files if Path(file.path).name in names] + golden
    return _passed(tested, used, "ParityReport.json", figures)


def _smoke(smoke: SmokeReport, top: Path) -> Json:
    """Return that the built artifact, started, answered rightly."""
    figures = {
        "runner": smoke.runner,
        "rows": smoke.rows,
        "maxAbsError": smoke.max_abs_error,
        "firstAnswerSeconds": smoke.first_answer_s,
        "p50Ms": smoke.p50_ms,
        "p99Ms": smoke.p99_ms,
        "memoryBytes": smoke.memory_bytes,
    }
    here = top.relative_to(smoke.package.folder)
    used = [file for file in standing(smoke.package) if Path(file.path).parent == here]
    return _passed([f"{one.name}: {one.detail}" for one in smoke.checks], used, "SmokeReport.json", figures)


def _passed(tested: list[str], used: list[File], record: str, figures: Json) -> Json:
    """Return a result of tests; the figures stand at the record that they are from."""
    # JSON has no infinity
    told = {name: value for name, value in figures.items() if not isinstance(value, float) or math.isfinite(value)}
    configuration = [
        resource(file.path, {"sha256": file.sha256}, annotations=told if Path(file.path).name == record else {})
        for file in used
    ]
    return {"result": "PASSED", "configuration": configuration, "passedTests": tested}

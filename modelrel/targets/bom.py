"""The bill of materials of a delivery: CycloneDX 1.6 JSON, with the model, its card, and everything that is inside.

Format: https://cyclonedx.org/docs/1.6/json/ (ECMA-424); package URLs: ECMA-427.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote, unquote

from modelrel import __version__, archive, distributions
from modelrel.distributions import Distribution
from modelrel.targets import payload
from modelrel.values import ParityReport, TensorSpec, digest
from modelrel.wheels import Wheels

NAME: Final = "sbom.cdx.json"
LICENSES: Final = "THIRD_PARTY_LICENSES"

_MODEL: Final = "model"
_TOP: Final = "delivery"
_PREFIX: Final = "modelrel:"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What is delivered besides the model.

    `kind` is what the delivery is, in CycloneDX's words. `wheels` are those inside (with them goes the reference
    server), `own` those of the model's own environment, `base` the image below them (`NAME:TAG`, `NAME@sha256:...`).
    `carries` are package URLs of what else is inside, `needs` of what is not but is installed beside it, for instance
    `pkg:npm/onnxruntime-web@1.27.0`.
    """

    kind: Literal["application", "container", "library", "file", "machine-learning-model"] = "application"
    wheels: Wheels | None = None
    own: Wheels | None = None
    base: str = ""
    carries: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()


def bill(parity: ParityReport, contents: Contents) -> bytes:
    """Return the bill of a delivery; the bytes depend on what is in it alone (and on SOURCE_DATE_EPOCH)."""
    source = parity.source
    installed = [one for one in (contents.own, contents.wheels) if one]
    each = [(one, wheels) for wheels in installed for one in distributions.read(wheels.folder)]
    # what stands in both with one version is one component
    once = {_purl(one): (one, wheels) for one, wheels in each}
    hashes = {wheels.lock: _hashes(wheels.lock) for wheels in installed}
    data = [_data(index, parity) for index in range(len(source.datasets))]
    parts = [_model(parity, [one["bom-ref"] for one in data]), *data]
    if contents.wheels:
        parts.append(_ours())
        inside = sorted(once.values(), key=lambda pair: (pair[0].canonical, pair[0].version))
        parts += [_wheel(one, wheels.folder, hashes[wheels.lock].get(one.canonical, ())) for one, wheels in inside]
    parts += [_base(contents.base)] if contents.base else []
    parts += [_named_by(purl, "") for purl in contents.carries]
    parts += [_named_by(purl, "no, it is installed beside this") for purl in contents.needs]
    date = payload.created(parity)
    document: Json = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            **({"timestamp": date} if date else {}),
            "tools": {"components": [{"type": "application", "name": "modelrel", "version": __version__}]},
            "component": _named({"type": contents.kind, "bom-ref": _TOP}, source.name, source.version),
        },
        "components": parts,
        "dependencies": _dependencies(parts, each),
    }
    # not random: the same contents have the same number
    number = uuid.uuid5(uuid.NAMESPACE_OID, digest(document))
    head = {"$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json", "serialNumber": f"urn:uuid:{number}"}
    return (json.dumps({**head, **document}, indent=1, ensure_ascii=False) + "\n").encode()


def _named(start: Json, name: str, version: str) -> Json:
    return {**start, "name": name, **({"version": version} if version else {})}


def _sha256(value: str) -> list[Json]:
    return [{"alg": "SHA-256", "content": value}]


def _properties(said: Mapping[str, str]) -> list[Json]:
    return [{"name": f"{_PREFIX}{name}", "value": value} for name, value in said.items() if value]


def _model(parity: ParityReport, datasets: Iterable[str]) -> Json:
    source, copy = parity.source, parity.converted
    found = _named({"type": "machine-learning-model", "bom-ref": _MODEL}, source.name, source.version)
    said = {
        "format": copy.format,
        "flavor": source.flavor,
        "run-id": source.run_id,
        "source-sha256": source.digest,
        "git-commit": source.git_commit,
        "quantized": copy.quantize,
    }
    return {
        **found,
        "description": f"{copy.estimator or source.flavor} as {copy.format}, {parity.rows} rows compared",
        "hashes": _sha256(copy.file.sha256),
        "modelCard": {
            "modelParameters": {
                **({"task": task} if (task := _task(parity)) else {}),
                **({"architectureFamily": copy.estimator} if copy.estimator else {}),
                "datasets": [{"ref": ref} for ref in datasets],
                "inputs": [{"format": _tensor(spec)} for spec in copy.inputs],
                "outputs": [{"format": _tensor(spec)} for spec in copy.outputs],
            },
            "quantitativeAnalysis": {"performanceMetrics": [*_metrics(parity)]},
        },
        "properties": _properties(said),
    }  # fmt: skip


def _task(parity: ParityReport) -> str:
    """Return what the model does, where its answers tell: one number a row may be an estimate or a score."""
    copy = parity.converted
    if copy.classes:
        return "classification"
    return "regression" if re.search("Regress(or|ion)$", copy.estimator) else ""


def _tensor(spec: TensorSpec) -> str:
    return f"{spec.name}: {spec.datatype} [{', '.join('N' if size < 0 else str(size) for size in spec.shape)}]"


def _metrics(parity: ParityReport) -> Iterable[Json]:
    for name, value in sorted(parity.source.metrics.items()):
        yield {"type": name, "value": f"{value:.9g}"}
    for output in parity.outputs:
        yield {"type": "largest error of the copy", "value": f"{output.max_abs_error:.3g}", "slice": output.name}


def _data(index: int, parity: ParityReport) -> Json:
    one = parity.source.datasets[index]
    # where its rows lie is this machine's business
    return {
        "type": "data",
        "bom-ref": f"data:{index}",
        "name": one.name,
        "data": [{"type": "dataset", "name": one.name}],
        "properties": _properties({"digest": one.digest, "context": one.context}),
    }


def _ours() -> Json:
    return {
        "type": "library",
        "bom-ref": f"pkg:pypi/modelrel@{__version__}",
        "name": "modelrel",
        "version": __version__,
        "description": "the reference server",
        "licenses": [{"expression": "Apache-2.0"}],
        "purl": f"pkg:pypi/modelrel@{__version__}",
    }


def _wheel(one: Distribution, folder: Path, hashes: Iterable[str]) -> Json:
    purl = _purl(one)
    found: Json = {"type": "library", "bom-ref": purl, "name": one.name, "version": one.version}
    if one.license:
        found["licenses"] = [{"expression": one.license, "acknowledgement": "declared"}]
    elif one.stated:
        found["licenses"] = [{"license": {"name": one.stated, "acknowledgement": "declared"}}]
    found["purl"] = purl
    listed = [content for value in hashes for content in _sha256(value)]
    if listed:
        # one of these files, by platform: the lock admits them all
        found["externalReferences"] = [{"type": "distribution", "url": purl, "hashes": listed}]
    brought = [
        {"type": "file", "name": path.relative_to(folder).as_posix(), "hashes": _sha256(archive.sha256(path))}
        for path in one.libraries
    ]
    return {**found, **({"components": brought} if brought else {})}


def _base(base: str) -> Json:
    name, _, sha256 = base.partition("@sha256:")
    path, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        path, tag = name, ""
    version = f"sha256:{sha256}" if sha256 else tag
    found = _named({"type": "container", "bom-ref": "base", "description": "the base image"}, path, version)
    if not sha256:
        return found
    where = f"?repository_url={quote(path, safe='/')}" + (f"&tag={tag}" if tag else "")
    last = quote(path.rpartition("/")[2].lower(), safe="._-")
    return {**found, "hashes": _sha256(sha256), "purl": f"pkg:oci/{last}@sha256%3A{sha256}{where}"}


def _named_by(purl: str, delivered: str) -> Json:
    name, _, version = purl.partition("?")[0].removeprefix("pkg:").rpartition("@")
    name = unquote((name or version).partition("/")[2])
    found = _named({"type": "library", "bom-ref": purl}, name, version if "@" in purl else "")
    said = _properties({"delivered": delivered})
    return {**found, "purl": purl, **({"properties": said} if said else {})}


def _dependencies(parts: Iterable[Json], each: Iterable[tuple[Distribution, Wheels]]) -> list[Json]:
    refs = {one["bom-ref"] for one in parts if one["type"] != "data"}
    of = {(wheels.lock, one.canonical): _purl(one) for one, wheels in each}
    needs: dict[str, set[str]] = {}
    for one, wheels in each:
        found = {of[wheels.lock, name] for name in one.needs if (wheels.lock, name) in of} - {_purl(one)}
        needs.setdefault(_purl(one), set()).update(found)
    listed = [{"ref": ref, "dependsOn": sorted(needs[ref])} for ref in sorted(needs) if needs[ref]]
    return [{"ref": _TOP, "dependsOn": sorted(refs)}, *listed]


def _purl(one: Distribution) -> str:
    return f"pkg:pypi/{one.canonical}@{quote(one.version, safe='.-_')}"


def _hashes(lock: str) -> dict[str, tuple[str, ...]]:
    """Return the sha256 digests that a lock admits, by the name of the distribution."""
    found: dict[str, tuple[str, ...]] = {}
    name = ""
    for line in lock.splitlines():
        if started := re.match(r"([A-Za-z0-9][\w.-]*)(?:\[[^]]*\])?==", line):
            name = re.sub(r"[-_.]+", "-", started[1]).lower()
        if name:
            found[name] = (*found.get(name, ()), *re.findall(r"--hash=sha256:([0-9a-f]{64})", line))
    return found

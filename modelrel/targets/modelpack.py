"""A ModelPack artifact (CNCF): the model and what describes it in an OCI layout, its evidence as referrers.

Source: model-spec, docs/spec.md, docs/config.md and schema/config-schema.json; OCI image-spec, manifest.md (`subject`).
"""

from __future__ import annotations

import json
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from modelrel import archive, originals, records, render
from modelrel.delivered import Check, Package
from modelrel.errors import Invalid, Refused
from modelrel.oci import layout, media
from modelrel.oci.content import Descriptor, canonical
from modelrel.oci.read import Layout, document
from modelrel.oci.referrer import referrer
from modelrel.oci.tars import Place
from modelrel.targets import bom, payload
from modelrel.targets.delivery import Draft, Note, Places, Running, always
from modelrel.targets.process import Program, run_server
from modelrel.values import PackageOptions, ParityReport

TOOLS: Final = ("modelrel", "jinja2")
FORMATS: Final = ("onnx", "tflite", "pmml", "python")
OPTIONS: Final = frozenset({"push"})
VALUES: Final[Mapping[str, str]] = {}
IMAGES: Final[tuple[str, ...]] = ()
stands = always  # the tar is all there is

ARTIFACT: Final = "application/vnd.cncf.model.manifest.v1+json"
CONFIG: Final = "application/vnd.cncf.model.config.v1+json"
WEIGHT: Final = "application/vnd.cncf.model.weight.v1.raw"
WEIGHT_CONFIG: Final = "application/vnd.cncf.model.weight.config.v1.raw"
DATASET: Final = "application/vnd.cncf.model.dataset.v1.raw"
FILEPATH: Final = "org.cncf.model.filepath"
METADATA: Final = "org.cncf.model.file.metadata+json"
TITLE: Final = "org.opencontainers.image.title"

EVIDENCE: Final = {
    "ParityReport.json": "application/vnd.modelrel.parity-report.v1+json",
    "golden.json": "application/vnd.modelrel.golden.v1+json",
    payload.MANIFEST: "application/vnd.modelrel.manifest.v1+json",
    bom.NAME: "application/vnd.cyclonedx+json",
}
"""What is attached to the artifact: name -> artifact type of the manifest that has it as its only layer."""

_SETTINGS: Final = "config.json"
_ANY: Final = "any"
_LONG_AGO: Final = "1970-01-01T00:00:00Z"
_REGULAR: Final = 48  # "0", a tar's flag for a regular file
_LISTS: Final = frozenset({"authors", "licenses", "datasetsURL"})
_KNOWN: Final = {
    "descriptor": frozenset({
        "createdAt", "authors", "family", "name", "docURL", "sourceURL", "datasetsURL", "version", "revision", "vendor",
        "licenses", "title", "description",
    }),
    "config": frozenset({"architecture", "format", "paramSize", "precision", "quantization", "capabilities"}),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class PackSpec:
    """What the templates are about; they know it as `pack`. What is empty is not known."""

    name: str
    version: str
    title: str
    file: str
    format: str
    created: str
    revision: str
    source_url: str
    architecture: str
    quantization: str
    takes_images: bool


def options(given: PackageOptions) -> PackageOptions:
    """Return the options: the artifact is for any machine."""
    return replace(given, python=_ANY, platform=_ANY)


def variables(parity: ParityReport, options: PackageOptions, licenses: str = "") -> Mapping[str, object]:
    """Return what the templates know: `pack` and `parity`."""
    del options, licenses
    source, copy = parity.source, parity.converted
    name, version = payload.slug(source.name), payload.version_slug(parity)
    pack = PackSpec(
        name=name,
        version=version,
        title=source.label,
        file=f"{name}-{version}.tar",
        format=copy.format,
        created=payload.created(parity),
        revision=source.git_commit,
        source_url=source.tags.get("mlflow.source.git.repoURL", ""),
        architecture=copy.estimator,
        quantization=copy.quantize,
        takes_images=bool(copy.interface.image),
    )
    return {"pack": pack, "parity": parity}


def assemble(parity: ParityReport, options: PackageOptions, places: Places, note: Note) -> Draft:
    """Write the artifact and its evidence as one OCI layout in a tar."""
    known = variables(parity, options)
    pack = known["pack"]
    assert isinstance(pack, PackSpec)
    files = {path.name: path for path in payload.model_files(parity)}
    render.render("modelpack", places.into, known, options.templates)
    settings = _settings(places.into / _SETTINGS)
    (places.into / _SETTINGS).unlink()
    contents: dict[str, bytes | Place] = {}
    top = _artifact(parity, pack, (files, settings), contents)
    evidence = _evidence(parity, files)
    beside = [_referrer(name, content, top, contents) for name, content in evidence.items()]
    note(f"writing {pack.file}")
    named = replace(top, annotations={layout.REF: pack.version})
    layout.write(places.into / pack.file, named, contents, beside=beside)
    size = (places.into / pack.file).stat().st_size
    return Draft(
        artifact=pack.file,
        python=options.python,
        platform=options.platform,
        size=size,
        parts={
            "model": files[parity.converted.path.name].stat().st_size,
            "evidence": sum(len(content) for content in evidence.values()),
        },
        notes=(
            f"push it with: modelrel push {pack.title} --target modelpack --to REGISTRY/{pack.name}:{pack.version}",
        ),
    )


def _settings(path: Path) -> dict[str, dict[str, Any]]:
    """Return the rendered config; raises `Invalid` where it is not as the schema of ModelPack wants it."""
    hint = "Correct your template of config.json; the schema is model-spec's schema/config-schema.json."
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise Invalid(f"the rendered config.json is no JSON: {error}", hint) from error
    if not isinstance(found, dict) or found.keys() != _KNOWN.keys():
        raise Invalid("the rendered config.json has not just the members descriptor and config", hint)
    for member, keys in _KNOWN.items():
        said = found[member]
        unknown = sorted(said.keys() - keys) if isinstance(said, dict) else [member]
        if unknown:
            raise Invalid(f"the rendered config.json has an unknown member {unknown[0]!r} in {member}", hint)
        for key, value in said.items():
            texts = isinstance(value, list) and all(isinstance(one, str) for one in value)
            fine = texts if key in _LISTS else isinstance(value, dict if key == "capabilities" else str)
            if not fine:
                raise Invalid(f"{key} in the rendered config.json is {repr(value)[:80]}", hint)
    return found


def _artifact(
    parity: ParityReport,
    pack: PackSpec,
    inside: tuple[Mapping[str, Path], Mapping[str, Any]],
    contents: dict[str, bytes | Place],
) -> Descriptor:
    """Add config, layers and manifest to the contents; return the manifest."""
    files, settings = inside
    layers = [_layer(parity, files[name], pack) for name in _order(parity, files)]
    for layer in layers:
        contents[layer.digest] = Place.of(files[layer.annotations[FILEPATH]])
    diff_ids = [layer.digest for layer in layers]  # raw layers: what is inside is the layer itself
    config = canonical({**settings, "modelfs": {"type": "layers", "diffIds": diff_ids}})
    facts = {TITLE: pack.title, "org.opencontainers.image.version": pack.version,
             "org.opencontainers.image.created": pack.created,
             "org.opencontainers.image.revision": pack.revision}  # fmt: skip
    manifest = canonical({
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "artifactType": ARTIFACT,
        "config": Descriptor.of(config, CONFIG).plain(),
        "layers": [layer.plain() for layer in layers],
        "annotations": {key: value for key, value in facts.items() if value},
    })  # fmt: skip
    top = Descriptor.of(manifest, media.OCI_MANIFEST, artifact_type=ARTIFACT)
    contents.update({Descriptor.of(config, CONFIG).digest: config, top.digest: manifest})
    return top


def _order(parity: ParityReport, files: Mapping[str, Path]) -> list[str]:
    """Return the names of the files, the weights first."""
    first = parity.converted.path.name
    return [first, *sorted(files.keys() - {first})]


def _layer(parity: ParityReport, path: Path, pack: PackSpec) -> Descriptor:
    kinds = {parity.converted.path.name: WEIGHT, Path(parity.golden.path).name: DATASET}
    size = path.stat().st_size
    metadata = {
        "name": path.name, "mode": 0o644, "uid": 0, "gid": 0, "size": size, "mtime": pack.created or _LONG_AGO,
        "typeflag": _REGULAR,
    }  # fmt: skip
    return Descriptor(
        media_type=kinds.get(path.name, WEIGHT_CONFIG),
        digest=f"sha256:{archive.sha256(path)}",
        size=size,
        annotations={FILEPATH: path.name, METADATA: canonical(metadata).decode()},
    )


def _evidence(parity: ParityReport, files: Mapping[str, Path]) -> dict[str, bytes]:
    """Return what proves the artifact: name -> content."""
    source = parity.source
    report = {
        "record": "ParityReport",
        "model": {"name": source.name, "version": source.version, "run_id": source.run_id},
        "source_sha256": source.digest,
        "model_sha256": parity.converted.file.sha256,
        "value": records.own_fields(parity),
    }
    golden = archive.within(source.folder, parity.golden.path)
    contents = (
        (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode(),
        golden.read_bytes(),
        payload.manifest(parity, files).encode(),
        bom.bill(parity, bom.Contents(kind="machine-learning-model")),
    )
    return dict(zip(EVIDENCE, contents, strict=True))


def _referrer(name: str, content: bytes, top: Descriptor, contents: dict[str, bytes | Place]) -> Descriptor:
    """Add a manifest with `top` as its subject to the contents, and return it as a list of referrers names it."""
    part, parts = referrer(content, EVIDENCE[name], top, {TITLE: name}, {TITLE: name})
    contents.update(parts)
    return part


@contextmanager
def launch(package: Package, note: Note) -> Iterator[Running]:
    """Take the model out of the tar by its descriptors, and start the reference server on it in a process of its own.

    Raises `Refused` where a part has not its digest, or the artifact is not one of ModelPack.
    """
    with (
        Layout.at(archive.within(package.folder, package.artifact)) as found,
        tempfile.TemporaryDirectory(prefix="modelrel-") as work,
    ):
        top = Path(work)
        count = unpack(found, top / "model")
        payload.copy({f"serving/{name}": path for name, path in payload.serving_files().items()}, top)
        libraries = tuple(dict.fromkeys(sysconfig.get_path(name) for name in ("platlib", "purelib")))
        arguments = ("-m", "serving", "model", "--host", "127.0.0.1", *_means(package, note), "--port")
        note(f"{count} files taken out by their digests: starting the reference server on them")
        program = Program(python=Path(sys.executable), arguments=arguments, paths=("", *libraries))
        with run_server(top, program) as running:
            yield replace(running, runner="process on the unpacked artifact", examined=lambda: _examined(found))


def _means(package: Package, note: Note) -> tuple[str, ...]:
    """Return what the server is told of where a model runs that is released as it is."""
    if package.converted.format != "python":
        return ()
    own = originals.wanted(package.converted.source, "auto")
    return ("--python", str(originals.ready(own, note) if own else sys.executable))


def unpack(artifact: Layout, into: Path) -> int:
    """Write the files of an artifact into a folder, by the names that its layers state; return how many.

    Raises `Refused` for what is no ModelPack artifact, or a part without its digest; `Invalid` for a name that leads
    out of the folder.
    """
    manifest = document(artifact, artifact.index)
    if manifest.get("artifactType") != ARTIFACT:
        raise Refused(f"{artifact.path} is no ModelPack artifact but {str(manifest.get('artifactType'))[:80]!r}", "")
    into.mkdir()
    layers = [Descriptor.read(one) for one in manifest["layers"]]
    for layer in layers:
        name = layer.annotations.get(FILEPATH, "")
        path = archive.within(into, name)
        if path.exists() or not layer.media_type.endswith(".raw"):
            raise Refused(f"the layer {name[:80]!r} is there twice, or of a kind that is not ours", "Package again.")
        path.parent.mkdir(parents=True, exist_ok=True)
        with artifact.open(layer) as stream, path.open("wb") as file:
            while chunk := stream.read(1 << 20):
                file.write(chunk)
    return len(layers)


def _examined(artifact: Layout) -> Iterator[Check]:
    """Yield what is seen of the artifact beside its model: its config, and each piece of evidence."""
    manifest = document(artifact, artifact.index)
    config = document(artifact, Descriptor.read(manifest["config"]))
    stated = config.get("modelfs", {}).get("diffIds")
    if stated != [layer["digest"] for layer in manifest["layers"]]:
        raise Refused("the config of the artifact names other layers than its manifest", "Package again with --force.")
    yield Check(name="config", detail=f"{len(stated)} layers, format {config['config'].get('format')}")
    found = {}
    for part in artifact.referrers():
        about = document(artifact, part)
        layer = Descriptor.read(about["layers"][0])
        with artifact.open(layer) as stream:
            found[layer.annotations.get(TITLE, "")] = len(stream.read())
    if found.keys() != EVIDENCE.keys():
        missing = ", ".join(sorted(EVIDENCE.keys() - found.keys())) or "more than there should be"
        raise Refused(f"the evidence of the artifact lacks {missing}", "Package again with --force.")
    yield Check(name="evidence", detail=", ".join(f"{name} {size:,} bytes" for name, size in sorted(found.items())))

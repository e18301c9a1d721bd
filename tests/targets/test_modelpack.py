"""ModelPack artifacts: valid by the schema, proved by their referrers, run from what was built."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from modelrel import archive
from modelrel.delivered import Package
from modelrel.errors import Invalid, Refused
from modelrel.oci.content import Descriptor, canonical
from modelrel.oci.read import Layout, document
from modelrel.steps.package import package
from modelrel.steps.smoke import smoke
from modelrel.targets import modelpack
from modelrel.values import PackageOptions
from tests import registries
from tests.targets import tiny

TEXTS = {"type": "array", "items": {"type": "string"}}
MODALITIES = {"type": "array", "items": {"enum": ["text", "image", "audio", "video", "embedding", "other"]}}


def closed(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False, "required": required}


def texts(*names: str) -> dict[str, Any]:
    return {name: {"type": "string"} for name in names}


# model-spec, schema/config-schema.json, in words of our own
SCHEMA = closed(
    ["descriptor", "config", "modelfs"],
    descriptor=closed(
        [],
        createdAt={"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$"},
        name={"type": "string", "minLength": 1},
        authors=TEXTS,
        licenses=TEXTS,
        datasetsURL=TEXTS,
        **texts("family", "docURL", "sourceURL", "version", "revision", "vendor", "title", "description"),
    ),
    config=closed(
        [],
        **texts("architecture", "format", "paramSize", "precision", "quantization"),
        capabilities=closed(
            [],
            inputTypes=MODALITIES,
            outputTypes=MODALITIES,
            languages={"type": "array", "items": {"type": "string", "pattern": "^[a-z]{2}$"}},
            knowledgeCutoff={"type": "string"},
            reasoning={"type": "boolean"},
            toolUsage={"type": "boolean"},
            reward={"type": "boolean"},
        ),
    ),
    modelfs=closed(["type", "diffIds"], type={"enum": ["layers"]}, diffIds={**TEXTS, "minItems": 1}),
)


def opened(found: Package) -> Layout:
    return Layout.at(found.folder / found.artifact)


def built(tmp_path: Path, **changes: Any) -> Package:
    parity = tiny.verified(tmp_path / "churn-7")
    if changes:
        parity = replace(parity, converted=replace(parity.converted, **changes))
    return package(parity, "modelpack", PackageOptions())


def test_the_config_is_valid_by_the_schema() -> None:
    artifact = opened(tiny.delivered("modelpack"))
    manifest = document(artifact, artifact.index)
    assert manifest["config"]["mediaType"] == "application/vnd.cncf.model.config.v1+json"
    config = document(artifact, Descriptor.read(manifest["config"]))
    jsonschema.validate(config, SCHEMA)
    assert config["config"]["format"] == "onnx"
    assert config["descriptor"]["title"] == "churn/7"
    assert config["modelfs"]["diffIds"] == [layer["digest"] for layer in manifest["layers"]]


def test_everything_that_is_known_fits_the_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1777777777")
    artifact = opened(built(tmp_path, estimator='Pipe"line<\\>', quantize="float16"))
    config = document(artifact, Descriptor.read(document(artifact, artifact.index)["config"]))
    jsonschema.validate(config, SCHEMA)
    assert config["config"]["architecture"] == 'Pipe"line<\\>'
    assert config["config"]["quantization"] == "float16"


def test_the_model_is_a_layer_of_its_own_bytes() -> None:
    found = tiny.delivered("modelpack")
    artifact = opened(found)
    manifest = document(artifact, artifact.index)
    assert manifest["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    first = manifest["layers"][0]
    assert first["mediaType"] == "application/vnd.cncf.model.weight.v1.raw"
    assert first["digest"] == f"sha256:{found.converted.file.sha256}"
    named = {layer["annotations"]["org.cncf.model.filepath"] for layer in manifest["layers"]}
    assert named == {"model.onnx", "modelrel.json", "golden.json"}
    stated = json.loads(first["annotations"]["org.cncf.model.file.metadata+json"])
    assert (stated["name"], stated["size"], stated["mode"]) == ("model.onnx", first["size"], 0o644)


def test_the_evidence_is_about_the_artifact() -> None:
    found = tiny.delivered("modelpack")
    artifact = opened(found)
    seen = {}
    for part in artifact.referrers():
        about = document(artifact, part)
        assert about["subject"]["digest"] == artifact.index.digest
        assert about["artifactType"] == part.artifact_type
        layer = Descriptor.read(about["layers"][0])
        seen[layer.annotations["org.opencontainers.image.title"]] = document(artifact, layer)
    assert seen.keys() == modelpack.EVIDENCE.keys()
    assert seen["ParityReport.json"]["value"]["rows"] == 1000
    assert seen["ParityReport.json"]["model_sha256"] == found.converted.file.sha256
    assert seen["manifest.json"]["files"]["model.onnx"] == found.converted.file.sha256
    assert seen["sbom.cdx.json"]["bomFormat"] == "CycloneDX"


def test_skopeo_reads_it_and_copies_it(tmp_path: Path) -> None:
    found = tiny.delivered("modelpack")
    source = f"oci-archive:{found.folder / found.artifact}:7"
    raw = registries.skopeo("inspect", "--raw", source)
    artifact = opened(found)
    assert raw == artifact.open(artifact.index).read()
    registries.skopeo("copy", source, f"oci:{tmp_path / 'copy'}:7")
    with Layout.at(tmp_path / "copy") as copy:
        assert copy.index.digest == artifact.index.digest


def test_the_smoke_test_runs_what_is_in_the_tar() -> None:
    found = tiny.delivered("modelpack")
    report = smoke(found)
    assert report.runner == "process on the unpacked artifact"
    assert {"golden rows by V2 infer", "config", "evidence"} <= {check.name for check in report.checks}


@pytest.mark.parametrize("what", ["model.onnx", "golden.json"])
def test_a_layer_with_other_bytes_is_refused(tmp_path: Path, what: str) -> None:
    found = built(tmp_path)
    path = found.folder / found.artifact
    content = (found.folder / "onnx" / what).read_bytes()
    whole = path.read_bytes()
    at = whole.index(content)
    path.write_bytes(whole[: at + 8] + bytes([whole[at + 8] ^ 1]) + whole[at + 9 :])
    with opened(found) as artifact, pytest.raises(Refused, match="holds other bytes than"):
        modelpack.unpack(artifact, tmp_path / "out")


def layout_of(tmp_path: Path, *names: str, kind: str = modelpack.ARTIFACT) -> Layout:
    """An artifact whose layers state these names."""
    blobs = tmp_path / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def keep(content: bytes, media_type: str, **annotations: str) -> dict[str, Any]:
        part = Descriptor.of(content, media_type, annotations=annotations)
        (blobs / part.digest.removeprefix("sha256:")).write_bytes(content)
        return part.plain()

    layers = [keep(b"a model", modelpack.WEIGHT, **{modelpack.FILEPATH: name}) for name in names]
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": kind,
                "config": keep(b"{}", modelpack.CONFIG), "layers": layers}  # fmt: skip
    top = keep(canonical(manifest), str(manifest["mediaType"]))
    (tmp_path / "index.json").write_bytes(canonical({"schemaVersion": 2, "manifests": [top]}))
    (tmp_path / "oci-layout").write_bytes(b'{"imageLayoutVersion": "1.0.0"}')
    return Layout.at(tmp_path)


@pytest.mark.parametrize("name", ["../model.onnx", "/etc/passwd", "a/../../b", "", "a\nb"])
def test_a_name_that_leads_elsewhere_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(Invalid, match="leads outside its folder"):
        modelpack.unpack(layout_of(tmp_path / "layout", name), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_two_layers_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="is there twice"):
        modelpack.unpack(layout_of(tmp_path / "layout", "model.onnx", "model.onnx"), tmp_path / "out")


def test_another_kind_of_artifact_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="is no ModelPack artifact but 'text/plain'"):
        modelpack.unpack(layout_of(tmp_path / "layout", "model.onnx", kind="text/plain"), tmp_path / "out")


def test_other_formats_are_delivered(tmp_path: Path) -> None:
    made = tiny.phone()
    found = package(made, "modelpack", PackageOptions(format="tflite"))
    manifest = document(opened(found), opened(found).index)
    assert manifest["layers"][0]["annotations"][modelpack.FILEPATH] == "model.tflite"
    assert smoke(found).rows > 0


@pytest.mark.parametrize(
    ("block", "sentence"),
    [
        (', "vendor": 7', "vendor in the rendered config.json is 7"),
        (', "colour": "red"', "unknown member 'colour' in descriptor"),
        (', "licenses": "MIT"', "licenses in the rendered config.json is 'MIT'"),
        (",", "the rendered config.json is no JSON"),
    ],
)
def test_a_template_that_breaks_the_schema_is_one_sentence(tmp_path: Path, block: str, sentence: str) -> None:
    with pytest.raises(Invalid, match=sentence):
        templated(tmp_path, block)


def templated(tmp_path: Path, block: str) -> Package:
    own = tmp_path / "own" / "modelpack"
    own.mkdir(parents=True)
    extended = f'{{% extends "builtin/modelpack/config.json.j2" %}}{{% block more %}}{block}{{% endblock %}}'
    (own / "config.json.j2").write_text(extended)
    return package(tiny.verified(tmp_path / "churn-7"), "modelpack", PackageOptions(templates=tmp_path / "own"))


def test_a_user_adds_a_vendor_and_licenses(tmp_path: Path) -> None:
    artifact = opened(templated(tmp_path, ', "vendor": "acme", "licenses": ["MIT"], "authors": ["ann@acme.example"]'))
    config = document(artifact, Descriptor.read(document(artifact, artifact.index)["config"]))
    jsonschema.validate(config, SCHEMA)
    assert (config["descriptor"]["vendor"], config["descriptor"]["licenses"]) == ("acme", ["MIT"])


def test_every_reader_of_tars_opens_it() -> None:
    found = tiny.delivered("modelpack")
    with tarfile.open(found.folder / found.artifact) as tar:
        names = tar.getnames()
    assert "manifest.json" not in names  # nothing for `docker load`, which it is not for
    assert {"oci-layout", "index.json"} <= set(names)
    assert archive.sha256(found.converted.path) in {Path(name).name for name in names}

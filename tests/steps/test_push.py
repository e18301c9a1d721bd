"""Push: into a real registry and back, only what is missing, the tag last; by modelrel, or by the engine."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from modelrel import archive, records
from modelrel.delivered import Package
from modelrel.errors import Invalid, Refused, Unavailable
from modelrel.oci import names
from modelrel.oci.content import Descriptor
from modelrel.oci.push import fallback, referrers
from modelrel.oci.read import Layout, document
from modelrel.oci.registry import Registry
from modelrel.steps import push as step
from modelrel.steps.package import package
from modelrel.targets import TARGETS, modelpack
from modelrel.values import PackageOptions
from tests import registries
from tests.oci.fake_registry import serving
from tests.targets import tiny


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registries.running(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture(autouse=True)
def _nobody_is_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)


def changed(tmp_path: Path, target: str) -> Package:
    """The small model with another weight, packaged."""
    parity = tiny.verified(tmp_path / "churn-8")
    path = parity.converted.path
    model = onnx.load(str(path))
    model.doc_string = "trained again"
    onnx.save(model, str(path))
    file = archive.describe(path, parity.source.folder)
    parity = replace(parity, converted=replace(parity.converted, file=file))
    return package(parity, target, tiny.offered(target, render_only=True))


def pulled(name: str) -> dict[str, bytes]:
    """Everything under a name in a registry: digest -> bytes."""
    found = {}
    with Registry.connect(names.parse(name)) as registry:
        waiting = [registry.index]
        while waiting:
            part = waiting.pop()
            found[part.digest] = registry.open(part).read()
            if part.media_type.endswith(("manifest.v1+json", "index.v1+json", "list.v2+json", "manifest.v2+json")):
                plain = json.loads(found[part.digest])
                named = plain.get("manifests") or [plain["config"], *plain["layers"]]
                waiting += [Descriptor.read(one) for one in named]
    return found


def held(found: Package) -> Layout:
    return Layout.at(found.folder / (found.image.at if found.image else found.artifact))


@pytest.mark.parametrize("target", ["oci", "modelpack"])
def test_what_is_pushed_comes_back_byte_for_byte(target: str, address: str) -> None:
    found = tiny.delivered(target)
    pushed = step.push(found, f"{address}/{target}:7")
    back = pulled(pushed.name)
    with held(found) as layout:
        assert pushed.digest == layout.index.digest
        for digest, content in back.items():
            size = len(content)
            assert layout.open(Descriptor(media_type="", digest=digest, size=size)).read() == content
    raw = registries.skopeo("inspect", "--tls-verify=false", "--raw", f"docker://{address}/{target}:7")
    assert raw == back[pushed.digest]


def test_an_image_for_two_processors_is_an_index_there(address: str, tmp_path: Path) -> None:
    options = tiny.offered("oci", platform="linux/amd64,linux/arm64", render_only=True)
    found = package(tiny.verified(tmp_path / "churn-7"), "oci", options)
    pushed = step.push(found, f"{address}/both:7")
    plain = json.loads(pulled(pushed.name)[pushed.digest])
    assert [one["platform"]["architecture"] for one in plain["manifests"]] == ["amd64", "arm64"]
    for machine in ("amd64", "arm64"):
        words = (f"--override-arch={machine}", "inspect", "--tls-verify=false", f"docker://{pushed.name}")
        assert json.loads(registries.skopeo(*words))["Architecture"] == machine


def test_pushing_again_sends_nothing_and_a_changed_model_its_layers(address: str, tmp_path: Path) -> None:
    found = tiny.delivered("oci")
    step.push(found, f"{address}/again:7")
    again = step.push(found, f"{address}/again:7")
    assert (again.sent, again.mounted, again.sent_bytes) == (0, 0, 0)
    assert again.there > 4
    other = changed(tmp_path, "oci")
    assert other.image
    moved = step.push(other, f"{address}/again:8")
    mine = {layer.name: layer.size for layer in other.image.layers}
    config = document(held(other), manifest(other))["config"]["size"]
    assert moved.sent_bytes == mine["model"] + mine["metadata"] + config
    assert moved.sent == 3


def manifest(found: Package) -> Descriptor:
    return held(found).index


def test_another_repository_gets_everything_mounted(address: str) -> None:
    found = tiny.delivered("oci")
    first = step.push(found, f"{address}/first:7")
    moved = step.push(found, f"{address}/second:7", before=(first.name, "elsewhere.example/a:1"))
    assert (moved.sent, moved.sent_bytes) == (0, 0)
    assert moved.mounted == first.sent + first.mounted + first.there


def test_the_evidence_goes_with_the_artifact(address: str) -> None:
    found = tiny.delivered("modelpack")
    pushed = step.push(found, f"{address}/proved:7")
    with Registry.connect(names.parse(pushed.name)) as registry:
        listed = referrers(registry, pushed.digest)
        contents = [document(registry, Descriptor.read(document(registry, one)["layers"][0])) for one in listed]
        assert registry.resolve(fallback(pushed.digest)) is not None  # docker-registry 2.8 has no API for it
    assert {one.artifact_type for one in listed} == set(modelpack.EVIDENCE.values())
    assert len(contents) == len(modelpack.EVIDENCE)


def test_a_pulled_artifact_has_the_files_of_the_release(address: str, tmp_path: Path) -> None:
    found = tiny.delivered("modelpack")
    pushed = step.push(found, f"{address}/pulled:7")
    registries.skopeo("copy", "--src-tls-verify=false", f"docker://{pushed.name}", f"oci:{tmp_path / 'back'}:7")
    with Layout.at(tmp_path / "back") as back:
        modelpack.unpack(back, tmp_path / "model")
    for name in ("model.onnx", "golden.json", "modelrel.json"):
        assert (tmp_path / "model" / name).read_bytes() == (found.folder / "onnx" / name).read_bytes()


def test_a_guarded_registry_lets_in_who_is_logged_in(tmp_path: Path) -> None:
    found = tiny.delivered("modelpack")
    with registries.running(tmp_path / "guarded", guarded=True) as address:
        with pytest.raises(Unavailable, match=r"lets nobody in without credentials \(401\)"):
            step.push(found, f"{address}/churn:7")
        config = Path(os.environ["DOCKER_CONFIG"]) / "config.json"
        config.parent.mkdir()
        for password in ("wrong", registries.PASSWORD):
            login = {"username": registries.USER, "password": password}
            config.write_text(json.dumps({"auths": {address: login}}))
            if password == "wrong":
                with pytest.raises(Unavailable, match="does not take the credentials"):
                    step.push(found, f"{address}/churn:7")
        assert step.push(found, f"{address}/churn:7").sent > 0


def test_the_engine_pulls_and_runs_what_modelrel_pushed(address: str, tmp_path: Path) -> None:
    base = tiny.base_image()
    saved = tmp_path / "base.tar"
    subprocess.run(["docker", "save", "-o", saved, base], check=True)
    options = replace(tiny.image_options(), base_image=str(saved))
    found = package(tiny.verified(tmp_path / "churn-7"), "oci", options)
    pushed = step.push(found, f"{address}/b-pulled:7")
    with tiny.engine() as client:
        try:
            client.images.pull(f"{address}/b-pulled", tag="7")
            image = client.images.get(pushed.name)
            assert found.image
            assert image.id == found.image.id
            python = image.attrs["Config"]["Entrypoint"][0]
            words = ["-c", "import onnxruntime; print(6 * 7)"]
            said = client.containers.run(image.id, words, entrypoint=python, remove=True, network_mode="none")
            assert said.strip() == b"42"
        finally:
            client.images.remove(pushed.name, force=True)


def test_an_image_of_the_engine_is_pushed_by_the_engine(address: str) -> None:
    found = tiny.delivered("docker", image=True)
    assert found.image
    try:
        pushed = step.push(found, f"{address}/b-engine:7")
        assert pushed.sent > 0
        assert step.stands(pushed)
        config = json.loads(pulled(pushed.name)[pushed.digest])["config"]["digest"]
        assert config == found.image.id
        again = step.push(found, f"{address}/b-engine:7")
        assert (again.sent, again.digest) == (0, pushed.digest)
    finally:
        with tiny.engine() as client:
            client.images.remove(f"{address}/b-engine:7")


@pytest.mark.parametrize(
    ("target", "name", "sentence"),
    [
        ("oci", "", "no name to push to"),
        ("oci", "a.example/Churn", "is not the name of an image"),
        ("oci", f"a.example/b@sha256:{'ab' * 32}", "names a digest"),
        ("tflite", "a.example/b:1", "makes nothing that a registry of images takes"),
    ],
)
def test_what_cannot_be_pushed_is_an_error_of_the_command(target: str, name: str, sentence: str) -> None:
    with pytest.raises(Invalid, match=sentence):
        step.checked(target, name)


def test_a_build_context_alone_is_nothing_to_push() -> None:
    with pytest.raises(Unavailable, match="no image was built for docker"):
        step.push(tiny.delivered("docker"), "127.0.0.1:9/churn:7")


def test_every_target_with_a_push_option_is_named() -> None:
    with pytest.raises(Invalid) as caught:
        step.checked("tflite", "a.example/b:1")
    assert all(name in caught.value.hint for name, room in TARGETS.items() if "push" in room.OPTIONS)


def test_a_package_that_changed_on_disk_is_not_pushed(tmp_path: Path) -> None:
    found = package(tiny.verified(tmp_path / "churn-7"), "modelpack", PackageOptions())
    path = found.folder / found.artifact
    path.write_bytes(path.read_bytes() + b"\0")
    with serving() as fake:
        with pytest.raises(Refused, match="is not what Package was recorded for"):
            step.push(found, f"{fake.address}/churn:7")
        assert not fake.seen


def test_a_record_of_a_push_holds_while_the_tag_does() -> None:
    found = tiny.delivered("modelpack")
    with serving() as fake:
        pushed = step.push(found, f"{fake.address}/churn:7")
        assert step.stands(pushed)
        del fake.manifests["churn", "7"]
        assert not step.stands(pushed)


def test_the_record_is_read_back(tmp_path: Path) -> None:
    found = package(tiny.verified(tmp_path / "churn-7"), "modelpack", PackageOptions())
    with serving() as fake:
        pushed = step.push(found, f"{fake.address}/churn:7")
    path = tmp_path / "churn-7" / "onnx" / "modelpack" / "Pushed.json"
    records.write(pushed, path, "key")
    assert records.read(type(pushed), path, "key", package=found) == pushed
    assert step.before(tmp_path) == (pushed.name,)

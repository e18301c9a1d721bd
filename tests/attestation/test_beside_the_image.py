"""Signed statements in a registry of images: beside what they are about, where others look for them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelrel.attestation.envelope import BUNDLE
from modelrel.attestation.statement import PROVENANCE, TEST_RESULT
from modelrel.delivered import Attestation, Image
from modelrel.oci import names
from modelrel.oci.content import Descriptor
from modelrel.oci.push import referrers
from modelrel.oci.read import Layout, document
from modelrel.oci.registry import Registry
from modelrel.steps import attest
from modelrel.steps import push as step
from tests import registries
from tests.attestation import judges, made
from tests.conftest import Run


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registries.running(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture(autouse=True)
def _nobody_is_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)


def statements(name: str, digest: str) -> dict[str, dict[str, Any]]:
    """Return the manifests of the bundles that refer to a digest, by their own digests."""
    with Registry.connect(names.parse(name)) as registry:
        listed = [one for one in referrers(registry, digest) if one.artifact_type == BUNDLE]
        for one in listed:
            assert one.annotations["dev.sigstore.bundle.content"] == "dsse-envelope"
        return {one.digest: document(registry, one) for one in listed}


def content(name: str, manifest: dict[str, Any]) -> bytes:
    with Registry.connect(names.parse(name)) as registry:
        return registry.open(Descriptor.read(manifest["layers"][0])).read()


def test_sigstores_verifier_accepts_what_lies_beside_the_artifact(address: str, tmp_path: Path) -> None:
    found = made.attested("modelrel")
    pushed = step.push(found.smoke.package, f"{address}/signed:7", evidence=found)
    there = statements(pushed.name, pushed.digest)
    assert sorted(there) == sorted(pushed.evidence)
    kinds = sorted(one["annotations"]["dev.sigstore.bundle.predicateType"] for one in there.values())
    assert kinds == sorted([PROVENANCE, TEST_RESULT, TEST_RESULT])
    bundles = []
    for number, manifest in enumerate(there.values()):
        bundles.append(tmp_path / f"{number}.json")
        bundles[-1].write_bytes(content(pushed.name, manifest))
    said = judges.sigstore(made.pair()[1], made.signer().public.id, *bundles, at=tmp_path)
    assert said == ["verified"] * 3
    # what is verified is about the digest that a cluster would pull
    for one in judges.in_toto(*bundles):
        assert {"sha256": pushed.digest.removeprefix("sha256:")} in [digests for _, digests in one["subjects"]]


def test_sigstores_own_library_attaches_the_same_manifest(address: str, tmp_path: Path) -> None:
    found = made.attested("modelrel")
    pushed = step.push(found.smoke.package, f"{address}/alone:7")
    bundle = found.smoke.package.folder / made.HOME / "evidence/provenance.sigstore.json"
    notes = {
        "dev.sigstore.bundle.content": "dsse-envelope", "dev.sigstore.bundle.predicateType": PROVENANCE,
        "org.opencontainers.image.created": made.AT,
    }  # fmt: skip
    theirs = judges.attached(f"{address}/alone", "7", bundle, notes, tmp_path)
    written = statements(pushed.name, pushed.digest)[theirs["digest"]]
    step.push(found.smoke.package, f"{address}/alone:7", evidence=found)
    after = statements(pushed.name, pushed.digest)
    assert len(after) == 4  # theirs stays in the list, and ours says the same
    assert [one for digest, one in after.items() if digest != theirs["digest"] and one == written]


def test_nothing_goes_along_that_nobody_signed(address: str) -> None:
    found = made.attested("")
    pushed = step.push(found.smoke.package, f"{address}/unsigned:7", evidence=found)
    assert (pushed.evidence, statements(pushed.name, pushed.digest)) == ((), {})


def test_statements_go_with_the_image_that_they_name(address: str) -> None:
    image = made.smoke("oci").package
    found = attest.attest(made.smoke("oci"), made.signer(), made.AT)
    pushed = step.push(image, f"{address}/image:7", evidence=found)
    assert len(pushed.evidence) == 3
    assert set(statements(pushed.name, pushed.digest)) == set(pushed.evidence)
    raw = registries.skopeo("inspect", "--tls-verify=false", "--raw", f"docker://{pushed.name}")
    assert isinstance(image.image, Image)
    assert json.loads(raw)["layers"]
    assert pushed.digest == image.image.manifest
    strange = replace(image, image=replace(image.image, manifest=f"sha256:{'ab' * 32}"))
    other: Attestation = attest.attest(replace(found.smoke, package=strange), made.signer(), made.AT)
    assert step.push(image, f"{address}/other:7", evidence=other).evidence == ()


def test_who_signs_later_pushes_the_statements_alone(
    run: Run, sqlite_registry: str, address: str, tmp_path: Path
) -> None:
    shared = ("--registry", sqlite_registry, "--dist", tmp_path / "dist", "--json")
    words = ("push", "flowers/1", "--target", "modelpack", "--to", f"{address}/later:1", *shared)
    first = run(*words)
    assert (first.code, first.json["pushed"]["evidence"]) == (0, []), first.err
    done = run("attest", "flowers/1", "--target", "modelpack", "--key", made.pair()[0], *shared)
    assert done.code == 0, done.err
    later = run(*words)
    assert later.code == 0, later.err
    (folder,) = (tmp_path / "dist").glob("flowers-1")
    with Layout.at(next((folder / "onnx/modelpack").glob("*.tar"))) as artifact:
        assert later.json["pushed"]["digest"] == first.json["pushed"]["digest"] == artifact.index.digest
    assert set(statements(f"{address}/later:1", artifact.index.digest)) == set(later.json["pushed"]["evidence"])
    assert (len(later.json["pushed"]["evidence"]), later.json["pushed"]["sent"]) == (3, 3)
    again = run(*words)
    assert [one["outcome"] for one in again.json["stages"] if one["stage"].startswith("push")] == ["up to date"]

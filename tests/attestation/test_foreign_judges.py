"""Evidence before judges that are not ours: OpenSSF's, Sigstore's, in-toto's and CycloneDX's own programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.attestation import judges, made

STATEMENTS = ("provenance", "parity", "smoke")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made.release(tmp_path) / made.HOME


def bundles(folder: Path) -> list[Path]:
    return [folder / "evidence" / f"{name}.sigstore.json" for name in STATEMENTS]


def test_model_signing_accepts_the_folder_as_it_was_packaged(folder: Path) -> None:
    done = judges.model_signing(folder, folder / "evidence/model.sig", made.pair()[1])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("how", ["changed", "added", "removed", "another key"])
def test_model_signing_refuses_a_folder(how: str, folder: Path) -> None:
    public = made.pair("stranger" if how == "another key" else "modelrel")[1]
    if how == "changed":
        made.flipped(folder / "churn-7.tar", 700)
    elif how == "added":
        (folder / "more.txt").write_text("more")
    elif how == "removed":
        (folder / "README.md").unlink()
    done = judges.model_signing(folder, folder / "evidence/model.sig", public)
    assert done.returncode != 0


def test_sigstores_verifier_accepts_every_bundle(folder: Path, tmp_path: Path) -> None:
    every = [*bundles(folder), folder / "evidence/model.sig"]
    own = made.signer().public
    said = judges.sigstore(made.pair()[1], own.id, *every[:-1], at=tmp_path)
    assert said == ["verified"] * len(STATEMENTS)
    # OpenSSF names keys by their PEM
    assert judges.sigstore(made.pair()[1], own.pem_id, every[-1], at=tmp_path) == ["verified"]


def test_sigstores_verifier_refuses_a_bundle_with_another_statement(folder: Path, tmp_path: Path) -> None:
    for path in bundles(folder):
        document = json.loads(path.read_bytes())
        payload = document["dsseEnvelope"]["payload"]
        document["dsseEnvelope"]["payload"] = payload[:40] + ("A" if payload[40] != "A" else "B") + payload[41:]
        path.write_text(json.dumps(document))
    said = judges.sigstore(made.pair()[1], made.signer().public.id, *bundles(folder), at=tmp_path)
    assert said == ["SIGNATURE_ERROR: signature verification failed"] * len(STATEMENTS)


def test_sigstores_verifier_refuses_the_signature_of_a_stranger(folder: Path, tmp_path: Path) -> None:
    said = judges.sigstore(made.pair("stranger")[1], made.signer().public.id, *bundles(folder), at=tmp_path)
    assert said == ["SIGNATURE_ERROR: signature verification failed"] * len(STATEMENTS)


@pytest.mark.parametrize("name", ["modelrel", ""])
def test_in_totos_own_messages_read_every_statement_to_its_last_member(name: str, tmp_path: Path) -> None:
    evidence = made.release(tmp_path, name) / made.HOME / "evidence"
    suffix = "sigstore" if name else "dsse"
    said = judges.in_toto(*(evidence / f"{one}.{suffix}.json" for one in STATEMENTS))
    assert [one["type"].rpartition("/")[0] for one in said] == [
        "https://slsa.dev/provenance", *["https://in-toto.io/attestation/test-result"] * 2
    ]  # fmt: skip
    assert {one["predicate"].get("result") for one in said} == {None, "PASSED"}
    assert all({name for name, _ in one["subjects"]} == {"churn-7.tar", "README.md", "churn/7"} for one in said)


def test_the_bill_of_materials_is_valid_and_has_the_model_card(folder: Path) -> None:
    content = (folder / "evidence/bom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(content) is None
    (model,) = [one for one in json.loads(content)["components"] if one["type"] == "machine-learning-model"]
    assert model["modelCard"]["modelParameters"]["inputs"][0]["format"] == "plan: BYTES [N, 1]"

"""Keys: made once, never replaced, kept from others, and refused with a sentence where they are none."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from modelrel.attestation import keys
from modelrel.errors import Invalid
from tests.conftest import Run


def pem(key: object) -> str:
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain).decode()


def test_a_private_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    private, public = keys.generate(tmp_path / "release")
    assert (private.name, public.name) == ("release.key", "release.pub")
    assert private.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("end", ["key", "pub"])
def test_a_key_is_never_replaced(end: str, tmp_path: Path) -> None:
    there = tmp_path / f"modelrel.{end}"
    there.write_text("mine")
    with pytest.raises(Invalid, match="never replaced"):
        keys.generate(tmp_path / "modelrel")
    assert there.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == [there.name]


def test_what_a_key_signs_its_public_half_verifies_and_no_other(tmp_path: Path) -> None:
    signer = keys.signer(str(keys.generate(tmp_path / "one")[0]))
    other = keys.public(str(keys.generate(tmp_path / "other")[1]))
    signature = signer.sign(b"said")
    assert signer.public.verifies(signature, b"said")
    assert not signer.public.verifies(signature, b"sajd")
    assert not other.verifies(signature, b"said")


def test_openssl_verifies_what_a_key_signs(tmp_path: Path) -> None:
    private, public = keys.generate(tmp_path / "one")
    (tmp_path / "said").write_bytes(b"said")
    (tmp_path / "sig").write_bytes(keys.signer(str(private)).sign(b"said"))
    words = ["openssl", "dgst", "-sha256", "-verify", public, "-signature", tmp_path / "sig", tmp_path / "said"]
    assert subprocess.run(words, capture_output=True, check=False).returncode == 0


def test_the_id_is_the_sha256_of_the_der_of_the_public_key(tmp_path: Path) -> None:
    _, public = keys.generate(tmp_path / "one")
    words = ["openssl", "pkey", "-pubin", "-in", public, "-outform", "DER"]
    der = subprocess.run(words, capture_output=True, check=True).stdout
    assert keys.public(str(public)).id == hashlib.sha256(der).hexdigest()


def test_a_key_can_be_given_as_the_pem_itself(tmp_path: Path) -> None:
    private, public = keys.generate(tmp_path / "one")
    assert keys.signer(private.read_text()).public.id == keys.public(public.read_text()).id


def test_an_encrypted_key_needs_its_password(tmp_path: Path) -> None:
    private, _ = keys.generate(tmp_path / "one", "open sesame")
    assert keys.signer(str(private), "open sesame").public
    with pytest.raises(Invalid, match="is encrypted"):
        keys.signer(str(private))
    with pytest.raises(Invalid, match="cannot be read with that password"):
        keys.signer(str(private), "sesame")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is no private key"),
        ("-----BEGIN PRIVATE KEY-----\nnone\n-----END PRIVATE KEY-----\n", "cannot be read"),
        (pem(rsa.generate_private_key(65537, 2048)), "not an ECDSA key on the curve P-256"),
        (pem(ec.generate_private_key(ec.SECP384R1())), "not an ECDSA key on the curve P-256"),
    ],
    ids=["empty", "no key", "rsa", "p384"],
)
def test_what_is_no_key_of_ours_is_refused_without_showing_it(content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.key"
    path.write_text(content)
    with pytest.raises(Invalid, match=said) as caught:
        keys.signer(str(path))
    assert content[30:60] not in caught.value.message or not content


def test_a_private_key_is_not_taken_for_a_public_one(tmp_path: Path) -> None:
    private, _ = keys.generate(tmp_path / "one")
    with pytest.raises(Invalid, match="private key"):
        keys.public(str(private))


def test_keygen_encrypts_with_the_password_of_its_variable(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(keys.PASSWORD, "hush")
    done = run("keygen", "--out", "deep/release", "--json")
    assert done.code == 0, done.err
    assert done.json["encrypted"] is True
    assert keys.signer("deep/release.key", "hush").public.id == done.json["id"]
    assert "hush" not in done.out + done.err
    assert run("keygen", "--out", "deep/release").code == 2

"""Keys that sign statements: ECDSA on the curve P-256 with SHA-256, in PEM files as OpenSSL and cosign write them."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from modelrel import archive
from modelrel.errors import Invalid

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

PASSWORD: Final = "MODELREL_KEY_PASSWORD"  # noqa: S105  # the name of the variable, not its value
"""The variable that holds the password of an encrypted key."""

_MAKE: Final = "Make one: modelrel keygen."
_PEM: Final = "-----BEGIN"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that verifies: `id` is the sha256 (hex) of its DER SubjectPublicKeyInfo, `pem_id` that of its PEM."""

    key: EllipticCurvePublicKey
    id: str
    pem_id: str

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Return whether the signature (ASN.1 DER) is of this key over the message."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        try:
            self.key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Signer:
    """A key that signs, and the public half that verifies."""

    key: EllipticCurvePrivateKey
    public: PublicKey

    def sign(self, message: bytes) -> bytes:
        """Return the signature over a message (ASN.1 DER)."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        return self.key.sign(message, ec.ECDSA(hashes.SHA256()))


def generate(prefix: Path, password: str = "") -> tuple[Path, Path]:
    """Write a new key to `PREFIX.key` (mode 0600, encrypted with the password, if any) and `PREFIX.pub`.

    Raises `Invalid` where one of the files is there already: a key is never replaced.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private, public = (prefix.with_name(f"{prefix.name}.{end}") for end in ("key", "pub"))
    for path in (private, public):
        if path.exists() or path.is_symlink():
            raise Invalid(f"{path} is there already, and a key is never replaced", "Choose another name with --out.")
    key = ec.generate_private_key(ec.SECP256R1())
    sealed = (
        serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    )  # fmt: skip
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, sealed)
    _create(private, pem, 0o600)
    _create(public, _pem(key.public_key()), 0o644)
    return private, public


def _create(path: Path, content: bytes, mode: int) -> None:
    with archive.translated(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        except FileExistsError as error:
            raise Invalid(f"{path} is there already, and a key is never replaced", "") from error
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)


def signer(given: str, password: str = "") -> Signer:
    """Return the signer of a private key: a file, or the PEM itself; what is in it is never shown.

    Raises `Invalid` for what is no private key on P-256, or one whose password is missing or wrong.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    content, name = _content(given, "the key")
    if b"PRIVATE KEY" not in content:
        raise Invalid(f"{name} is no private key in PEM", _MAKE)
    locked = b"ENCRYPTED" in content
    if locked and not password:
        raise Invalid(f"{name} is encrypted", f"Say its password in {PASSWORD}.")
    try:
        key = serialization.load_pem_private_key(content, password.encode() if locked else None)
    except (ValueError, TypeError) as error:
        hint = f"Look at {PASSWORD}." if locked else _MAKE
        raise Invalid(f"{name} cannot be read{' with that password' if locked else ''}", hint) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Invalid(f"{name} is not an ECDSA key on the curve P-256", _MAKE)
    return Signer(key, _public(key.public_key()))


def public(given: str) -> PublicKey:
    """Return a public key: a file, or the PEM itself; raises `Invalid` for what is none on P-256."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    content, name = _content(given, "the public key")
    if b"PRIVATE KEY" in content:
        raise Invalid(f"{name} is a private key, which nobody but you should have", "Give the .pub beside it.")
    try:
        key = serialization.load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Invalid(f"{name} is no public key in PEM", _MAKE) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Invalid(f"{name} is not an ECDSA key on the curve P-256", _MAKE)
    return _public(key)


def _content(given: str, what: str) -> tuple[bytes, str]:
    """Return the content of a key, and how it is called in a sentence."""
    if given.lstrip().startswith(_PEM):
        return given.encode(), what
    path = Path(given).expanduser()
    try:
        return path.read_bytes(), str(path)
    except OSError as error:
        raise Invalid(f"{path} cannot be read: {error.strerror or error}", "Check the name of the key.") from error


def _pem(key: EllipticCurvePublicKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _public(key: EllipticCurvePublicKey) -> PublicKey:
    from cryptography.hazmat.primitives import serialization

    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(key, hashlib.sha256(der).hexdigest(), hashlib.sha256(_pem(key)).hexdigest())

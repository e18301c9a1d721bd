"""A statement in its envelope: DSSE, in a Sigstore bundle where it is signed, and back again.

Formats: secure-systems-lab/dsse, protocol.md and envelope.md (1.0); sigstore/protobuf-specs, sigstore_bundle.proto
(v0.3, with a public key by its hint, and no entries of a log).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from modelrel.attestation.keys import PublicKey, Signer

PAYLOAD: Final = "application/vnd.in-toto+json"
BUNDLE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What was in an envelope: the statement, its bytes, and who is said to have signed them ("" nobody)."""

    statement: Mapping[str, Any]
    payload: bytes
    hint: str
    signature: bytes

    def signed_by(self, key: PublicKey) -> bool:
        """Return whether the signature is of this key, and about these bytes."""
        known = self.hint in (key.id, key.pem_id)
        return known and bool(self.signature) and key.verifies(self.signature, pae(PAYLOAD, self.payload))


def pae(kind: str, body: bytes) -> bytes:
    """Return what is signed (DSSE's Pre-Authentication Encoding): type and body, each with its length in bytes."""
    name = kind.encode()
    return b" ".join([b"DSSEv1", str(len(name)).encode(), name, str(len(body)).encode(), body])


def wrap(statement: Mapping[str, Any], signer: Signer | None, hint: str = "") -> bytes:
    """Return a statement as a Sigstore bundle, or without a signer as a DSSE envelope that nobody signed.

    `hint` tells a verifier which key it needs; "" is the `id` of the signer's.
    """
    payload = json.dumps(statement, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    signatures = [{"sig": _text(signer.sign(pae(PAYLOAD, payload)))}] if signer else []
    envelope = {"payload": _text(payload), "payloadType": PAYLOAD, "signatures": signatures}
    if signer is None:
        return _document(envelope)
    material = {"publicKey": {"hint": hint or signer.public.id}, "tlogEntries": []}
    return _document({"mediaType": BUNDLE, "verificationMaterial": material, "dsseEnvelope": envelope})


def unwrap(content: bytes) -> Opened:
    """Return what is in an envelope, or in a bundle; raises ValueError where it is not as `wrap` writes it."""
    try:
        given = json.loads(content)
        bundled = "dsseEnvelope" in given
        envelope = given["dsseEnvelope"] if bundled else given
        signatures = envelope["signatures"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        signature = base64.b64decode(signatures[0]["sig"], validate=True) if signatures else b""
        hint = given["verificationMaterial"]["publicKey"]["hint"] if bundled else ""
        statement = json.loads(payload)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError("it is no envelope with a statement") from error
    again = {"payload": _text(payload), "payloadType": PAYLOAD, "signatures": [{"sig": _text(signature)}]}
    whole: dict[str, Any] = again if signatures else {**again, "signatures": []}
    if bundled:
        material = {"publicKey": {"hint": hint}, "tlogEntries": []}
        whole = {"mediaType": BUNDLE, "verificationMaterial": material, "dsseEnvelope": whole}
    if not isinstance(statement, dict) or not isinstance(hint, str) or _document(whole) != content:
        raise ValueError("it is no envelope as modelrel writes it")
    return Opened(statement=statement, payload=payload, hint=hint, signature=signature)


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _document(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()

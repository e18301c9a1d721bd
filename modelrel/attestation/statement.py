"""in-toto statements: what is said (a predicate) about which bytes (subjects); and OpenSSF's about a folder.

Formats: in-toto/attestation, spec/v1 (statement, resource_descriptor, digest_set) and spec/predicates (test-result);
slsa.dev/spec/v1.0/provenance; sigstore/model-transparency, docs/model_signing_format.md (1.0).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

STATEMENT: Final = "https://in-toto.io/Statement/v1"
PROVENANCE: Final = "https://slsa.dev/provenance/v1"
TEST_RESULT: Final = "https://in-toto.io/attestation/test-result/v0.1"
MODEL_SIGNATURE: Final = "https://model_signing/signature/v1.0"

Json = dict[str, Any]


def statement(subjects: Sequence[Json], kind: str, predicate: Json) -> Json:
    """Return a statement; `kind` is the type of its predicate (a URI)."""
    return {"_type": STATEMENT, "subject": list(subjects), "predicateType": kind, "predicate": predicate}


def resource(name: str, digest: Mapping[str, str] | None = None, **more: Any) -> Json:
    """Return a resource descriptor: a name, digests by algorithm (hex), and what else it has (`uri`, `mediaType`, ...).

    What is empty is left out.
    """
    found = {"name": name, "digest": dict(digest or {}), **more}
    return {key: value for key, value in found.items() if value}


def tree(digests: Mapping[str, str]) -> str:
    r"""Return the digest `dirHash` (hex) of a folder from the sha256 of its files: Go's Hash1 over sorted names.

    `find . -type f | cut -c3- | LC_ALL=C sort | xargs -r sha256sum | sha256sum` in the folder says the same.

    >>> tree({"b": "00", "a": "11"}) == hashlib.sha256(b"11  a\n00  b\n").hexdigest()
    True
    """
    ordered = sorted(digests, key=str.encode)
    return hashlib.sha256("".join(f"{digests[name]}  {name}\n" for name in ordered).encode()).hexdigest()


def of_folder(name: str, digests: Mapping[str, str], ignored: Sequence[str]) -> Json:
    """Return OpenSSF's statement about a folder: sha256 of each file by its name there; `ignored` are left out."""
    ordered = sorted(digests)
    resources = [{"name": one, "algorithm": "sha256", "digest": digests[one]} for one in ordered]
    whole = hashlib.sha256(b"".join(bytes.fromhex(digests[one]) for one in ordered)).hexdigest()
    serialization = {
        "method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": sorted(ignored),
    }  # fmt: skip
    predicate = {"serialization": serialization, "resources": resources}
    return statement([resource(name, {"sha256": whole})], MODEL_SIGNATURE, predicate)

"""Envelopes: what is signed is what DSSE says, and what was changed is not taken."""

from __future__ import annotations

import json

import pytest

from modelrel.attestation import statement
from modelrel.attestation.envelope import BUNDLE, pae, unwrap, wrap
from tests.attestation import made

SAID = statement.statement(
    [statement.resource("a", {"sha256": "ab" * 32})], statement.TEST_RESULT, {"result": "PASSED"}
)


def test_what_is_signed_is_encoded_as_in_the_example_of_dsse() -> None:
    # secure-systems-lab/dsse, protocol.md, "Test vectors"
    signed = pae("http://example.com/HelloWorld", b"hello world")
    assert signed == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_a_statement_comes_out_as_it_went_in() -> None:
    opened = unwrap(wrap(SAID, made.signer()))
    assert opened.statement == SAID
    assert opened.signed_by(made.signer().public)
    assert not opened.signed_by(made.signer("stranger").public)


def test_without_a_signer_it_is_an_envelope_that_nobody_signed() -> None:
    content = wrap(SAID, None)
    assert json.loads(content)["signatures"] == []
    assert not unwrap(content).signed_by(made.signer().public)


def test_a_bundle_is_of_the_version_that_others_read() -> None:
    assert json.loads(wrap(SAID, made.signer()))["mediaType"] == BUNDLE


@pytest.mark.parametrize("name", ["modelrel", ""])
def test_every_bit_of_an_envelope_counts(name: str) -> None:
    content = wrap(SAID, made.signer(name) if name else None)
    taken = []
    for place in range(len(content)):
        other = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        try:
            opened = unwrap(other)
        except ValueError:
            continue
        if name and opened.signed_by(made.signer().public):
            taken.append(place)
        if not name and opened.statement == SAID:
            taken.append(place)
    assert taken == []


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"null", b'{"payload": 1}', b"\xff", b'{"dsseEnvelope": []}'])
def test_what_is_no_envelope_is_said_to_be_none(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        unwrap(content)


def test_the_digest_of_a_folder_is_what_the_shell_computes() -> None:
    digests = {"b/c": "00" * 32, "B": "11" * 32}
    # sha256sum writes "digest, two spaces, name", and LC_ALL=C sorts upper case first
    assert statement.tree(digests) == statement.tree(dict(reversed(digests.items())))

"""Statements that others can check: in-toto in DSSE envelopes, as Sigstore bundles, signed with a key of the user's.

It knows keys, envelopes and statements, and nothing of models; `steps.attest` says what is stated.
"""

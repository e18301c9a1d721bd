"""Names of images: what is short for what, and what is none."""

from __future__ import annotations

import pytest

from modelrel.errors import Invalid
from modelrel.oci import names

HEX = "ab" * 32


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("python", "docker.io/library/python:latest"),
        ("team/churn:7", "docker.io/team/churn:7"),
        ("localhost/churn", "localhost/churn:latest"),
        ("registry.example:5000/a/b_c/d-e:v1.0", "registry.example:5000/a/b_c/d-e:v1.0"),
        ("[::1]:5000/churn", "[::1]:5000/churn:latest"),
        (f"ghcr.io/a/b@sha256:{HEX}", f"ghcr.io/a/b@sha256:{HEX}"),
        (f"ghcr.io/a/b:t@sha256:{HEX}", f"ghcr.io/a/b:t@sha256:{HEX}"),
    ],
)
def test_a_name_is_completed_as_engines_do(text: str, whole: str) -> None:
    assert str(names.parse(text)) == whole


@pytest.mark.parametrize(
    "text", ["", "Churn", "a//b", "a:b:c", "../a", "a b", "a:" + "t" * 129, "a@sha256:12", "https://a.example/b"]
)
def test_what_is_no_name_is_an_error_of_the_command(text: str) -> None:
    with pytest.raises(Invalid):
        names.parse(text)


def test_the_digest_decides_where_there_is_one() -> None:
    assert names.parse(f"a.example/b:t@sha256:{HEX}").reference == f"sha256:{HEX}"

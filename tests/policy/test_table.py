"""`[policy]` of modelrel.toml: what may stand there is said once, read so, in the schema so, and in README."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from modelrel.errors import Invalid
from modelrel.policy import Metric, findings, read, schema
from modelrel.policy.table import POLICY, RUNG

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")

VALUES: list[Any] = [
    [], ["docker"], [1], [""], "docker", 0, 1, 1.5, -1, 1e-4, True, False, "300MB", "3 parsecs", "14d", "14", "",
    {}, {"docker": "300MB"}, {"docker": 50}, {"docker": []}, {"accuracy": 0.01}, {"rmse": {"margin": 0.1}},
    {"rmse": {}}, {"rmse": {"better": "lower", "minimum": -1, "maximum": 2.5}}, {"rmse": {"better": "up"}},
    {"rmse": {"margn": 1}}, {"rmse": {"margin": -1}}, {"rmse": True},
    "none", "safe", "unknown", "compatible", "same", float("inf"),
]  # fmt: skip


@pytest.mark.parametrize("key", [*POLICY, *RUNG])
def test_the_schema_takes_what_is_read_and_nothing_else(key: str) -> None:
    checker = jsonschema.Draft202012Validator(schema())
    for value in VALUES:
        table = {key: value} if key in POLICY else {"champion": {key: value}}
        reads = not findings(table)[1]
        infinite = value == float("inf") and key in ("max_abs_error", "p99_ms")  # JSON has none
        assert checker.is_valid(table) == reads or infinite, (key, value)


def test_everything_is_read() -> None:
    policy = read({
        "ladder": ["a", "b"],
        "public_keys": ["k.pub"],
        "b": {
            "from": ["a"], "smoke": ["docker"], "max_abs_error": 1e-4, "max_disagreements": 0, "min_rows": 5,
            "max_size": "2MB", "p99_ms": {"lambda": 50}, "pickle": "safe", "signature": "same", "max_age": "2h",
            "metrics": {"f1": 0.01, "rmse": {"margin": 1, "maximum": 9}}, "signed": True, "tags": {"ok": "*"},
            "approvals": 2,
        },
    })  # fmt: skip
    rung = policy.rungs["b"]
    assert (policy.ladder, policy.public_keys, rung.holds) == (("a", "b"), ("k.pub",), ("a",))
    assert (rung.max_size, rung.p99_ms, rung.max_age) == ({"": 2_000_000}, {"lambda": 50.0}, 7200.0)
    assert rung.metrics == {
        "f1": Metric(better="higher", margin=0.01), "rmse": Metric(better="lower", margin=1.0, maximum=9.0),
    }  # fmt: skip


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(Invalid) as found:
        read({"leader": ["a"], "champion": {"max_ag": "1d", "min_rows": "many"}})
    assert all(word in found.value.message for word in ("'leader'", "'max_ag'", "'many'"))
    assert "Did you mean ladder?" in found.value.hint


def test_readme_has_every_key() -> None:
    for key, one in RUNG.items():
        assert f"| `{key}` | {one.says} |" in README

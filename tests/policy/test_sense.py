"""A policy that nobody can meet is found before somebody waits for it."""

from __future__ import annotations

from typing import Any

import pytest

from modelrel.policy import examine, read

LADDER = ["candidate", "staging", "champion"]

NONSENSE = {
    "twice on the ladder": ({"ladder": ["a", "b", "a"]}, "a stands on the ladder twice"),
    "from nowhere": ({"ladder": LADDER, "champion": {"from": ["stagin"]}}, "from 'stagin', which is not on the ladder"),
    "off the ladder": ({"ladder": LADDER, "chmpion": {}}, "chmpion is not on the ladder"),
    "a circle": ({"a": {"from": ["b"]}, "b": {"from": ["a"]}}, "no version can come to a"),
    "a circle on the ladder": (
        {"ladder": LADDER, "candidate": {"from": ["champion"]}},
        "no version can come to staging",
    ),
    "from itself": ({"a": {"from": ["a"]}}, "no version can come to a"),
    "no such target": ({"a": {"smoke": ["dokcer"]}}, "'dokcer', which is no target"),
    "the size of no target": ({"a": {"max_size": {"dokcer": "1MB"}}}, "max_size names 'dokcer'"),
    "signed by nobody": ({"a": {"signed": True}}, "no key is trusted"),
    "no bytes": ({"a": {"max_size": "0"}}, "max_size is 0"),
    "no time": ({"a": {"p99_ms": {"docker": 0}}}, "p99_ms of docker is 0"),
    "no age": ({"a": {"max_age": "0s"}}, "evidence is always older"),
    "bounds": ({"a": {"metrics": {"f1": {"minimum": 1, "maximum": 0}}}}, "at least 1 and at most 0"),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_what_nobody_can_meet_is_found(name: str) -> None:
    table, said = NONSENSE[name]
    found = examine(read(table), ["docker", "lambda"])
    assert any(said in one.message for one in found), found
    assert not any(one.wrong for one in found)


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"ladder": LADDER},
        {"ladder": LADDER, "champion": {"from": ["candidate"], "smoke": ["docker"], "max_size": "1MB"}},
        {"champion": {"from": ["made-by-training"]}},
        {"ladder": LADDER, "staging": {"from": []}, "candidate": {"from": ["champion"]}},
        {"public_keys": ["k.pub"], "champion": {"signed": True, "metrics": {"f1": {"minimum": 0, "maximum": 1}}}},
    ],
)
def test_what_can_be_met_is_not_found(table: dict[str, Any]) -> None:
    assert examine(read(table), ["docker", "lambda"]) == ()

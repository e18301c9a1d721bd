"""A policy lists every rule, passed or not, with its figure; what there is no evidence of refuses, too."""

from __future__ import annotations

from typing import Any

import pytest

from modelrel.pickles import Finding
from modelrel.policy import Approval, Holder
from tests.policy.releases import NOW, SIGNATURE, attested, facts, outcome, signed, smoke, source, spec, verdict

LADDER = {"ladder": ["candidate", "staging", "champion"]}


def test_without_a_policy_the_smoke_test_is_the_one_rule() -> None:
    assert {name: rule.outcome for name, rule in verdict({}, facts()).items()} == {"smoke": "passed"}
    assert verdict({}, facts(smokes=()))["smoke"].outcome == "missing"


@pytest.mark.parametrize(
    ("to", "holds", "expected"),
    [
        ("candidate", (), "passed"),
        ("staging", (), "failed"),
        ("staging", ("candidate",), "passed"),
        ("champion", ("candidate",), "failed"),
        ("champion", ("candidate", "staging"), "passed"),
        ("staging", ("champion",), "passed"),  # back down, from higher up
        ("champion", ("champion",), "passed"),
    ],
)
def test_a_version_climbs_one_rung_at_a_time(to: str, holds: tuple[str, ...], expected: str) -> None:
    rule = verdict(LADDER, facts(holds=frozenset(holds)), to=to)["from"]
    assert rule.outcome == expected


def test_what_is_not_on_the_ladder_is_not_promoted_to() -> None:
    assert verdict(LADDER, facts(), to="chmpion")["ladder"].outcome == "failed"


def test_from_says_otherwise_than_the_ladder() -> None:
    table = {**LADDER, "champion": {"from": ["candidate"]}, "staging": {"from": []}}
    assert verdict(table, facts(holds=frozenset({"candidate"})))["from"].outcome == "passed"
    assert verdict(table, facts(), to="staging")["from"].outcome == "passed"


def test_a_stage_is_a_rung_however_it_is_written() -> None:
    table = {"ladder": ["staging", "production"], "production": {"approvals": 1}}
    rules = verdict(table, facts(holds=frozenset({"Staging"})), to="Production", kind="stage")
    assert rules["from"].outcome == "passed"
    assert rules["approvals"].outcome == "failed"


@pytest.mark.parametrize(
    ("rung", "known", "name", "expected"),
    [
        ({"max_abs_error": 1e-4}, {"error": 1e-5}, "max_abs_error", "passed"),
        ({"max_abs_error": 1e-4}, {"error": 1e-3}, "max_abs_error", "failed"),
        ({"max_abs_error": 1e-4}, {"error": float("nan")}, "max_abs_error", "failed"),
        ({"max_disagreements": 0}, {"disagreements": 0}, "max_disagreements", "passed"),
        ({"max_disagreements": 0}, {"disagreements": 1}, "max_disagreements", "failed"),
        ({"min_rows": 1000}, {"rows": 1000}, "min_rows", "passed"),
        ({"min_rows": 1000}, {"rows": 999}, "min_rows", "failed"),
        ({"max_size": "100MB"}, {"size": 100_000_000}, "max_size.docker", "passed"),
        ({"max_size": "99MB"}, {"size": 100_000_000}, "max_size.docker", "failed"),
        ({"max_size": {"lambda": "1MB"}}, {}, "max_size.lambda", "passed"),  # nothing of it is promoted
        ({"p99_ms": 5}, {"p99": 5.0}, "p99_ms.docker", "passed"),
        ({"p99_ms": {"docker": 5}}, {"p99": 5.1}, "p99_ms.docker", "failed"),
        ({"smoke": ["docker"]}, {}, "smoke.docker", "passed"),
        ({"smoke": ["lambda"]}, {}, "smoke.lambda", "missing"),
    ],
)
def test_figures_of_the_evidence_are_held_against_their_limits(
    rung: dict[str, Any], known: dict[str, Any], name: str, expected: str
) -> None:
    assert outcome(rung, facts(smokes=(smoke(**known),)), name) == expected


def test_the_worst_of_several_artifacts_counts() -> None:
    both = facts(smokes=(smoke(error=1e-7), smoke("tflite", error=1e-2, rows=10)))
    rules = verdict({"champion": {"max_abs_error": 1e-4, "min_rows": 1000}}, both)
    assert (rules["max_abs_error"].outcome, rules["min_rows"].outcome) == ("failed", "failed")


NAN = float("nan")


@pytest.mark.parametrize(
    ("asked", "mine", "theirs", "expected"),
    [
        (0.01, 0.95, 0.96, "passed"),
        (0.01, 0.94, 0.96, "failed"),
        (0.0, 0.96, 0.96, "passed"),
        ({"margin": 0.1, "better": "lower"}, 1.1, 1.0, "passed"),
        ({"margin": 0.1, "better": "lower"}, 1.2, 1.0, "failed"),
        (0.01, NAN, 0.9, "failed"),
        (0.01, NAN, NAN, "failed"),
        (0.01, 0.1, NAN, "passed"),
        (0.01, None, 0.9, "missing"),
        (0.01, 0.9, None, "missing"),
        (0.01, float("inf"), float("inf"), "passed"),
        (0.01, float("-inf"), 0.5, "failed"),
        ({"minimum": 0.9}, 0.9, None, "passed"),
        ({"minimum": 0.9}, 0.89, None, "failed"),
        ({"minimum": 0.9}, NAN, None, "failed"),
        ({"maximum": 5}, 6, None, "failed"),
    ],
)
def test_a_metric_is_as_good_as_the_holders_within_the_margin(
    asked: Any, mine: float | None, theirs: float | None, expected: str
) -> None:
    holder = Holder(version="6", metrics={} if theirs is None else {"accuracy": theirs})
    known = facts(holder=holder, metrics={} if mine is None else {"accuracy": mine})
    assert outcome({"metrics": {"accuracy": asked}}, known, "metrics.accuracy") == expected


def test_a_metric_that_is_named_as_a_loss_is_better_when_it_is_lower() -> None:
    known = facts(holder=Holder(version="6", metrics={"val_loss": 0.5}), metrics={"val_loss": 0.7})
    assert outcome({"metrics": {"val_loss": 0.1}}, known, "metrics.val_loss") == "failed"
    assert (
        outcome({"metrics": {"val_loss": {"margin": 0.1, "better": "higher"}}}, known, "metrics.val_loss") == "passed"
    )


@pytest.mark.parametrize("holder", [None, Holder(version="6", gone="version 6 was deleted")])
def test_the_first_holder_and_one_after_a_deleted_one_have_nothing_to_compare_with(holder: Holder | None) -> None:
    known = facts(holder=holder, metrics={"accuracy": 0.5})
    rules = verdict({"champion": {"metrics": {"accuracy": 0.01}, "signature": "same"}}, known)
    assert {rules[name].outcome for name in ("metrics.accuracy", "signature")} == {"passed"}
    assert all("nothing to compare with" in rules[name].found for name in ("metrics.accuracy", "signature"))


OUT = (spec("y", shape=(-1,)),)


@pytest.mark.parametrize(
    ("new", "compatible", "same"),
    [
        (SIGNATURE, True, True),
        (signed(spec("x"), spec("z", required=False), outputs=OUT), True, False),
        (signed(spec("x"), spec("z"), outputs=OUT), False, False),
        (signed(spec("x", "FP64"), outputs=OUT), False, False),
        (signed(spec("x", shape=(-1, -1)), outputs=OUT), True, False),
        (signed(spec("x", shape=(-1, 5)), outputs=OUT), False, False),
        (signed(spec("x", shape=(1, 4)), outputs=OUT), False, False),
        (signed(spec("x", shape=(-1, 4, 1)), outputs=OUT), False, False),
        (signed(spec("x", required=False), outputs=OUT), True, False),
        (signed(spec("w"), outputs=OUT), False, False),
        (signed(spec("x")), False, False),
        (signed(spec("x"), outputs=(*OUT, spec("more"))), True, False),
        (signed(spec("x"), outputs=(spec("y", "INT64", (-1,)),)), False, False),
        (signed(spec("x"), outputs=(spec("y", shape=(8,)),)), True, False),
        (signed(spec("x"), outputs=(spec("y", shape=(-1, -1)),)), False, False),
    ],
)
def test_who_asked_the_holder_can_ask_a_compatible_version(new: Any, compatible: bool, same: bool) -> None:
    known = facts(smokes=(smoke(of=source(signature=new)),), holder=Holder(version="6", signature=SIGNATURE))
    assert outcome({"signature": "compatible"}, known, "signature") == ("passed" if compatible else "failed")
    assert outcome({"signature": "same"}, known, "signature") == ("passed" if same else "failed")


def test_a_signature_that_cannot_be_read_is_missing_and_the_reason_is_said() -> None:
    rule = verdict(
        {"champion": {"signature": "same"}}, facts(holder=Holder(version="6", problem="its artifacts are gone"))
    )["signature"]
    assert rule.outcome == "missing"
    assert "its artifacts are gone" in rule.found


@pytest.mark.parametrize(
    ("asked", "verdicts", "expected"),
    [
        ("none", (), "passed"),
        ("none", ("known",), "failed"),
        ("safe", ("known",), "passed"),
        ("safe", ("known", "unknown"), "failed"),
        ("unknown", ("unknown",), "passed"),
        ("unknown", ("dangerous",), "failed"),
    ],
)
def test_the_pickle_verdict_must_be_reached(asked: str, verdicts: tuple[Any, ...], expected: str) -> None:
    found = tuple(Finding(path=f"source/{one}.pkl", verdict=one) for one in verdicts)
    assert outcome({"pickle": asked}, facts(pickles=found), "pickle") == expected


def test_pickles_that_nobody_looked_at_are_missing() -> None:
    assert outcome({"pickle": "unknown"}, facts(), "pickle") == "missing"


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("2026-11-21T06:00:00+00:00", "passed"),
        ("2026-11-21T05:59:59+00:00", "failed"),
        ("2026-11-22T06:04:00+00:00", "passed"),  # clocks differ
        ("2026-11-22T07:00:00+00:00", "failed"),
    ],
)
def test_evidence_has_an_age(at: str, expected: str) -> None:
    one = smoke()
    assert (
        outcome({"max_age": "1d"}, facts(smokes=(one,), attestations=(attested(one, at=at),)), "max_age.docker")
        == expected
    )


def test_evidence_of_each_artifact_must_be_there_and_the_newest_counts() -> None:
    one, other = smoke(), smoke("lambda", size=5)
    old = attested(one, at="2020-01-01T00:00:00+00:00")
    rules = verdict({"champion": {"max_age": "1d"}}, facts(smokes=(one, other), attestations=(old, attested(one))))
    assert rules["max_age.docker"].outcome == "passed"
    assert rules["max_age.lambda"].outcome == "missing"


def test_evidence_is_signed_by_a_trusted_key() -> None:
    one, rung = smoke(), {"signed": True}
    trusted = {"smokes": (one,), "trusted": frozenset({"a" * 64})}
    for attestations, expected in (
        ((attested(one, "a" * 64),), "passed"),
        ((attested(one, "b" * 64), attested(one, "a" * 64)), "passed"),
        ((attested(one, "b" * 64),), "failed"),
        ((attested(one),), "missing"),
        ((attested(smoke(size=6, target="npm"), "a" * 64),), "missing"),
        ((), "missing"),
    ):
        assert outcome(rung, facts(**trusted, attestations=attestations), "signed.docker") == expected


def test_a_tag_has_its_value_or_any() -> None:
    for tags, expected in (({"reviewed": "yes"}, "passed"), ({"reviewed": "no"}, "failed"), ({}, "missing")):
        assert outcome({"tags": {"reviewed": "yes"}}, facts(tags=tags), "tags.reviewed") == expected
    assert outcome({"tags": {"reviewed": "*"}}, facts(tags={"reviewed": "no"}), "tags.reviewed") == "passed"


def test_others_than_the_author_approve_of_these_very_files() -> None:
    def by(*people: str, about: str = source().digest) -> tuple[Approval, ...]:
        return tuple(Approval(by=one, at=NOW, source=about) for one in people)

    for given, author, needed, expected in (
        (by("ada"), "bob", 1, "passed"),
        (by("bob"), "bob", 1, "failed"),
        (by("ada", "bob"), "bob", 2, "failed"),
        (by("ada", "eve"), "bob", 2, "passed"),
        (by("ada", "ada"), "bob", 2, "failed"),
        (by("ada", about="f" * 64), "bob", 1, "failed"),
        (by("grace"), "", 1, "failed"),  # nobody knows the author: who promotes does not count
        (by("grace"), "bob", 1, "passed"),
        ((), "bob", 1, "failed"),
    ):
        known = facts(approvals=given, author=author)
        assert outcome({"approvals": needed}, known, "approvals") == expected, (given, author)


def test_a_rollback_is_not_compared_again_and_its_bytes_are() -> None:
    rung = {
        "metrics": {"accuracy": 0.01}, "signature": "same", "max_age": "1d", "approvals": 1, "min_rows": 10**6,
        "signed": True, "tags": {"reviewed": "*"},
    }  # fmt: skip
    rules = verdict({**LADDER, "champion": rung}, facts(), rollback=True)
    spared = {name for name, rule in rules.items() if rule.found == "not asked of a rollback"}
    assert spared == {"from", "metrics.accuracy", "signature", "max_age.docker", "approvals"}
    assert {name for name, rule in rules.items() if rule.outcome != "passed"} == {
        "min_rows", "signed.docker", "tags.reviewed",
    }  # fmt: skip


def test_every_rule_is_listed_and_says_what_it_found() -> None:
    rung = {"min_rows": 1, "max_size": "1GB", "p99_ms": 50, "pickle": "safe", "tags": {"a": "*"}, "approvals": 1}
    rules = verdict({**LADDER, "champion": rung}, facts())
    assert set(rules) == {
        "smoke", "from", "approvals", "min_rows", "max_size.docker", "p99_ms.docker", "pickle", "tags.a",
    }  # fmt: skip
    assert rules["max_size.docker"].found == "100 MB"
    assert all(rule.hint for rule in rules.values() if rule.outcome != "passed")


def test_a_policy_that_asks_something_else_has_another_digest() -> None:
    from modelrel.policy import read

    assert read({}).sha256 == ""
    assert read({"champion": {"min_rows": 1}}).sha256 != read({"champion": {"min_rows": 2}}).sha256

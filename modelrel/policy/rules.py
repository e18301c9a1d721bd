"""What a policy says of a change, rule by rule, each with the figure that was found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final, Literal

from modelrel import pickles
from modelrel.delivered import Attestation, SmokeReport
from modelrel.policy import compared
from modelrel.policy.asked import Facts, Policy, Rung
from modelrel.promoted import Change, Rule, Verdict
from modelrel.quantities import shown_span

_PICKLES: Final[Mapping[str, tuple[str, ...]]] = {
    "none": ("none",),
    "safe": ("none", "known"),
    "unknown": ("none", "known", "unknown"),
}
"""What a policy asks -> the verdicts on the pulled files that it takes."""


def judge(policy: Policy, change: Change, facts: Facts) -> Verdict:
    """Return what the policy says of a change: every rule, passed or not, with its figure; never raises.

    A rollback goes to a version that was let through before: what compares it with the holder, asks for the way it
    came, or for fresh evidence, is not asked again. What proves its bytes is.
    """
    rung = policy.rung(change)
    rules = [_proven(change, facts), *_once(policy, rung, change, facts), *_always(rung, facts)]
    return Verdict(policy=policy.sha256, rules=tuple(rules), at=facts.now)


def _proven(change: Change, facts: Facts) -> Rule:
    """The one rule that holds without a policy: what is promoted was verified and smoke-tested as built."""
    targets = ", ".join(smoke.package.target for smoke in facts.smokes)
    return Rule(
        name="smoke",
        outcome="passed" if facts.smokes else "missing",
        wanted=f"before {change.to}: at least one built artifact that was smoke-tested",
        found=targets or "none",
        hint="" if facts.smokes else "Run: modelrel smoke MODEL --target docker (or lambda).",
    )


def _rule(name: str, wanted: str, found: str, passed: bool, hint: str = "") -> Rule:
    return Rule(
        name=name, outcome="passed" if passed else "failed", wanted=wanted, found=found, hint="" if passed else hint
    )


def _once(policy: Policy, rung: Rung, change: Change, facts: Facts) -> Iterator[Rule]:
    """Yield the rules about how a version comes to an alias for the first time."""
    for rule in (
        *_ladder(policy, rung, change, facts),
        *compared.metrics(rung, facts),
        *compared.signature(rung, facts),
        *_age(rung, facts),
        *_approvals(rung, change, facts),
    ):
        yield (
            Rule(name=rule.name, outcome="passed", wanted=rule.wanted, found="not asked of a rollback")
            if change.rollback
            else rule
        )


def _ladder(policy: Policy, rung: Rung, change: Change, facts: Facts) -> Iterator[Rule]:
    """Yield whether the move is allowed: onto the ladder, from the rung below (or as `from` says)."""
    fold = str.lower if change.kind == "stage" else str
    ladder, to = [fold(one) for one in policy.ladder], fold(change.to)
    holds = {fold(one) for one in facts.holds}
    shown = ", ".join(sorted(facts.holds)) or "nothing"
    if ladder and to not in ladder:
        yield _rule(
            "ladder",
            f"a rung of the ladder: {', '.join(policy.ladder)}",
            change.to,
            passed=False,
            hint="Promote to one of them, or add it to the ladder.",
        )
        return
    if rung.holds is not None:
        below = [*rung.holds, *([change.to] if rung.holds else [])]
        enough = {fold(one) for one in below}
        said = " or ".join(rung.holds)
    else:
        place = ladder.index(to) if ladder else 0
        # a version that is higher up was on the rungs below it
        enough = set(ladder[place - 1 :]) if place else set()
        said = policy.ladder[place - 1] if place else ""
    if enough:
        yield _rule(
            "from",
            f"the version holds {said}",
            f"it holds {shown}",
            bool(enough & holds),
            f"Promote it first: modelrel promote MODEL --to {said.partition(' ')[0]}.",
        )
    elif ladder or rung.holds is not None:
        yield _rule("from", "any version may come here", f"it holds {shown}", passed=True)


def _age(rung: Rung, facts: Facts) -> Iterator[Rule]:
    if rung.max_age is None:
        return
    wanted = f"evidence not older than {shown_span(rung.max_age)}"
    for smoke in facts.smokes:
        name = f"max_age.{smoke.package.target}"
        made = [one.at for one in _about(smoke, facts)]
        hint = "Run: modelrel attest MODEL --force, which smoke-tests again."
        if not made:
            yield Rule(name=name, outcome="missing", wanted=wanted, found="no evidence with a date", hint=hint)
            continue
        age = (_moment(facts.now) - max(map(_moment, made))).total_seconds()
        if age < -300:
            yield _rule(
                name,
                wanted,
                f"it is dated {shown_span(-age)} ahead of now",
                passed=False,
                hint="Check the clocks; then run: modelrel attest MODEL --force.",
            )
        else:
            yield _rule(name, wanted, f"{shown_span(max(age, 0))} old", age <= rung.max_age, hint)


def _about(smoke: SmokeReport, facts: Facts) -> list[Attestation]:
    package = smoke.package
    return [
        one for one in facts.attestations
        if (one.smoke.package.target, one.smoke.package.digest) == (package.target, package.digest)
    ]  # fmt: skip


def _moment(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.astimezone()


def _approvals(rung: Rung, change: Change, facts: Facts) -> Iterator[Rule]:
    """Yield whether enough people approved of these bytes; the author (where unknown, who promotes) is none."""
    if not rung.approvals:
        return
    source = facts.smokes[0].package.converted.source.digest if facts.smokes else ""
    own = facts.author or change.by
    about = {one.by for one in facts.approvals if one.source == source}
    others = sorted(about - {own})
    said = [", ".join(others) or "nobody"]
    said += (
        [f"{own} does not count, being the {'author' if facts.author else 'one who promotes'}"] if own in about else []
    )
    stale = sorted({one.by for one in facts.approvals if one.source != source} - about)
    said += [f"{', '.join(stale)} approved other files"] if stale else []
    yield _rule(
        "approvals",
        f"approved by {rung.approvals} other than {own}",
        "; ".join(said),
        len(others) >= rung.approvals,
        "Somebody else runs: modelrel approve MODEL -m WHY.",
    )


def _always(rung: Rung, facts: Facts) -> Iterator[Rule]:
    """Yield the rules about the bytes: what they were proven by, and what is known of them."""
    yield from _smoke(rung, facts)
    yield from _parity(rung, facts)
    yield from _by_target("max_size", rung.max_size, {one.package.target: one.package.size for one in facts.smokes})
    yield from _by_target("p99_ms", rung.p99_ms, {one.package.target: one.p99_ms for one in facts.smokes})
    yield from _pickle(rung, facts)
    yield from _signed(rung, facts)
    for name, value in rung.tags.items():
        wanted = f"the tag {name}" + ("" if value == "*" else f" is {value}")
        hint = f"Set it on the version, once it is so: {name}={'…' if value == '*' else value}."
        if name in facts.tags:
            yield _rule(f"tags.{name}", wanted, facts.tags[name], value in ("*", facts.tags[name]), hint)
        else:
            yield Rule(name=f"tags.{name}", outcome="missing", wanted=wanted, found="no such tag", hint=hint)


def _smoke(rung: Rung, facts: Facts) -> Iterator[Rule]:
    done = {one.package.target: one for one in facts.smokes}
    for target in rung.smoke:
        wanted = "the built artifact was smoke-tested"
        if target in done:
            yield _rule(
                f"smoke.{target}", wanted, f"{len(done[target].checks)} checks by {done[target].runner}", passed=True
            )
        else:
            yield Rule(
                name=f"smoke.{target}",
                outcome="missing",
                wanted=wanted,
                found="no smoke test",
                hint=f"Run: modelrel smoke MODEL --target {target}.",
            )


def _parity(rung: Rung, facts: Facts) -> Iterator[Rule]:
    reports = [smoke.package.parity for smoke in facts.smokes]
    asked: tuple[tuple[str, float | None, float, str, bool], ...] = (
        (
            "max_abs_error",
            rung.max_abs_error,
            max((one.max_abs_error for one in reports), default=0.0),
            "the copy is off by at most",
            True,
        ),
        (
            "max_disagreements",
            rung.max_disagreements,
            max((one.disagreements for one in reports), default=0),
            "rows with another label: at most",
            True,
        ),
        ("min_rows", rung.min_rows, min((one.rows for one in reports), default=0), "rows compared: at least", False),
    )
    for name, limit, found, wanted, most in asked:
        if limit is None:
            continue
        said = f"{wanted} {_figure(limit)}"
        if not reports:
            yield Rule(
                name=name, outcome="missing", wanted=said, found="no parity report", hint="Run: modelrel verify MODEL."
            )
        else:
            # not "found > limit is wrong": what is no number is on neither side
            passed = found <= limit if most else found >= limit
            yield _rule(name, said, _figure(found), passed, "Run: modelrel verify MODEL, and look at its worst row.")


def _figure(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def _by_target(name: str, limits: Mapping[str, float], found: Mapping[str, float]) -> Iterator[Rule]:
    bytes_ = name == "max_size"
    for target in dict.fromkeys([*found, *limits]):
        limit = limits.get(target, limits.get(""))
        if limit is None or not target:
            continue
        wanted = f"at most {_bytes(limit)}" if bytes_ else f"at most {limit:g} ms in the slowest percent"
        called = f"{name}.{target}"
        if target not in found:
            yield _rule(called, wanted, "it is not in this release", passed=True)
            continue
        figure = _bytes(found[target]) if bytes_ else f"{found[target]:.3g} ms"
        hint = (
            f"Make it smaller, or allow more in {name}." if bytes_ else "A smaller or faster model; or another machine."
        )
        yield _rule(called, wanted, figure, found[target] <= limit, hint)


def _bytes(size: float) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.4g} {unit}"
    return f"{size:.0f} B"


def _pickle(rung: Rung, facts: Facts) -> Iterator[Rule]:
    if not rung.pickle:
        return
    wanted = {
        "none": "loading the pulled files runs no pickle",
        "safe": "loading the pulled files runs only what is known to rebuild data",
        "unknown": "loading the pulled files runs nothing dangerous",
    }[rung.pickle]
    if facts.pickles is None:
        yield Rule(
            name="pickle", outcome="missing", wanted=wanted, found="nobody looked", hint="Run: modelrel inspect MODEL."
        )
        return
    verdict = pickles.worst(facts.pickles)
    which = [
        f"{one.path}: {', '.join(one.worst_names[:3] or one.why[:2])}"
        for one in facts.pickles
        if one.verdict == verdict
    ]
    found = verdict if verdict in ("none", "known") else f"{verdict} ({'; '.join(which[:2])})"
    yield _rule(
        "pickle",
        wanted,
        found,
        verdict in _PICKLES[rung.pickle],
        "modelrel inspect MODEL shows all of it; log the model in a format that runs nothing.",
    )


def _signed(rung: Rung, facts: Facts) -> Iterator[Rule]:
    if not rung.signed:
        return
    wanted = "evidence that a trusted key signed"
    for smoke in facts.smokes:
        name = f"signed.{smoke.package.target}"
        about = _about(smoke, facts)
        keys = sorted({one.key for one in about if one.key})
        hint = "Run: modelrel attest MODEL with the key that public_keys names."
        outcome: Literal["failed", "missing"] = "failed" if keys else "missing"
        if facts.trusted.intersection(keys):
            known = next(key for key in keys if key in facts.trusted)
            yield _rule(name, wanted, f"signed by {known[:12]}…", passed=True)
        else:
            other = f"signed by {', '.join(key[:12] + '…' for key in keys)}, which is not trusted"
            found = other if keys else "not signed" if about else "no evidence"
            yield Rule(name=name, outcome=outcome, wanted=wanted, found=found, hint=hint)

"""Whether a policy makes sense: what is well written, and can never be met or contradicts itself."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from modelrel.errors import did_you_mean
from modelrel.policy.asked import Finding, Metric, Policy, Rung


def examine(policy: Policy, targets: Collection[str]) -> tuple[Finding, ...]:
    """Return what of a policy nobody can meet; `targets` are those that can be packaged for."""
    found = list(_climb(policy))
    for name, rung in policy.rungs.items():
        path = ("policy", name)
        found += _targets(path, rung, targets)
        found += _never(path, rung)
        if rung.signed and not policy.public_keys:
            found.append(
                _refused(
                    (*path, "signed"),
                    f"{name} asks for signatures, and no key is trusted",
                    'Name the keys: public_keys = ["release.pub"] in [policy].',
                )
            )
        for metric, asked in rung.metrics.items():
            found += _metric((*path, "metrics", metric), metric, asked)
    return tuple(found)


def _refused(path: tuple[str, ...], message: str, hint: str = "") -> Finding:
    return Finding(path=path, message=message, hint=hint, wrong=False)


def _climb(policy: Policy) -> Iterator[Finding]:
    """Yield rungs that are not on the ladder, and those that no version can come to."""
    known = {*policy.ladder} or {*policy.rungs}
    for name in sorted({one for one in policy.ladder if policy.ladder.count(one) > 1}):
        yield _refused(("policy", "ladder"), f"{name} stands on the ladder twice", "Leave one of them.")
    for name in policy.rungs:
        if name not in known:
            hint = f"{did_you_mean(name, policy.ladder)}Add it to the ladder, or take it away."
            yield _refused(("policy", name), f"{name} is not on the ladder ({', '.join(policy.ladder)})", hint)
    for name, rung in policy.rungs.items():
        for one in rung.holds or ():
            if policy.ladder and one not in known:
                hint = f"{did_you_mean(one, policy.ladder)}The ladder is {', '.join(policy.ladder)}."
                yield _refused(
                    ("policy", name, "from"), f"{name} is reached from {one!r}, which is not on the ladder", hint
                )
    yield from _circles(policy, known)


def _circles(policy: Policy, known: Collection[str]) -> Iterator[Finding]:
    asked: dict[str, tuple[str, ...]] = {}
    for name in known:
        own, place = policy.rungs.get(name, Rung()).holds, policy.ladder.index(name) if policy.ladder else 0
        asked[name] = policy.ladder[max(place - 1, 0) : place] if own is None else own
    reached: set[str] = set()
    while more := {
        name
        for name, below in asked.items()
        if name not in reached and (not below or any(one in reached or one not in known for one in below))
    }:
        reached |= more
    for name in sorted(asked.keys() - reached):
        path = ("policy", name, "from") if name in policy.rungs else ("policy", "ladder")
        yield _refused(
            path,
            f"no version can come to {name}: it is reached from {' or '.join(asked[name])} only, in a circle",
            "Let the first rung be reached from anywhere: from = [].",
        )


def _targets(path: tuple[str, ...], rung: Rung, targets: Collection[str]) -> Iterator[Finding]:
    for key, names in (("smoke", rung.smoke), ("max_size", rung.max_size), ("p99_ms", rung.p99_ms)):
        for name in names:
            if name and name not in targets:
                hint = f"{did_you_mean(name, targets)}Targets: {', '.join(targets)}."
                yield _refused((*path, key), f"{path[-1]} {key} names {name!r}, which is no target", hint)


def _never(path: tuple[str, ...], rung: Rung) -> Iterator[Finding]:
    for key, values in (("max_size", rung.max_size), ("p99_ms", rung.p99_ms)):
        for target, most in values.items():
            if most == 0:
                of = f" of {target}" if target else ""
                yield _refused((*path, key), f"{path[-1]} {key}{of} is 0, which nothing can be")
    if rung.max_age == 0:
        yield _refused((*path, "max_age"), f"{path[-1]} max_age is 0, and evidence is always older")


def _metric(path: tuple[str, ...], name: str, asked: Metric) -> Iterator[Finding]:
    if asked.minimum is not None and asked.maximum is not None and asked.minimum > asked.maximum:
        yield _refused(
            path, f"the metric {name} is to be at least {asked.minimum:g} and at most {asked.maximum:g}", "Swap them."
        )

"""A version against the one that it would replace: its metrics, and what goes in and comes out."""

from __future__ import annotations

import math
from collections.abc import Iterator

from modelrel.policy.asked import Facts, Holder, Metric, Rung
from modelrel.promoted import Rule
from modelrel.values import Signature, TensorSpec


def metrics(rung: Rung, facts: Facts) -> Iterator[Rule]:
    """Yield whether each metric is as good as is asked.

    What is not a number is never good enough, and anything is as good as a holder's that is none. A metric that the
    holder has not is missing, not passed: nobody could tell that it became worse. The first holder of an alias has
    nothing to be compared with.
    """
    for name, asked in rung.metrics.items():
        mine = facts.metrics.get(name)
        if mine is None:
            yield Rule(
                name=f"metrics.{name}",
                outcome="missing",
                wanted=_wanted(asked),
                found="the version has no such metric",
                hint=f"Log it on the run: mlflow.log_metric({name!r}, …).",
            )
            continue
        yield from _bounds(name, asked, mine)
        if asked.margin is not None:
            yield _margin(name, asked, mine, facts.holder)


def _wanted(asked: Metric) -> str:
    if asked.margin is None:
        return "the metric is logged"
    way = "lower" if asked.better == "higher" else "higher"
    return f"at most {asked.margin:g} {way} than the holder's" if asked.margin else f"not {way} than the holder's"


def _bounds(name: str, asked: Metric, mine: float) -> Iterator[Rule]:
    for bound, word, passed in (
        (asked.minimum, "at least", asked.minimum is None or mine >= asked.minimum),
        (asked.maximum, "at most", asked.maximum is None or mine <= asked.maximum),
    ):
        if bound is not None:
            yield Rule(
                name=f"metrics.{name}",
                outcome="passed" if passed else "failed",
                wanted=f"{word} {bound:g}",
                found=f"{mine:g}",
                hint="" if passed else "Train a better one.",
            )


def _margin(name: str, asked: Metric, mine: float, holder: Holder | None) -> Rule:
    wanted = _wanted(asked)
    if math.isnan(mine):
        return Rule(name=f"metrics.{name}", outcome="failed", wanted=wanted, found="not a number", hint="Log it again.")
    if holder is None or holder.gone:
        why = holder.gone if holder else "nobody holds it yet"
        return Rule(
            name=f"metrics.{name}", outcome="passed", wanted=wanted, found=f"{mine:g}; {why}: nothing to compare with"
        )
    theirs = holder.metrics.get(name)
    if theirs is None:
        hint = f"Log it on the run of version {holder.version}, or ask for a minimum or maximum instead of a margin."
        return Rule(
            name=f"metrics.{name}",
            outcome="missing",
            wanted=wanted,
            found=f"{mine:g}; version {holder.version} has no such metric",
            hint=hint,
        )
    found = f"{mine:g}, version {holder.version} has {theirs:g}"
    worse = theirs - mine if asked.better == "higher" else mine - theirs
    # a margin of 0.01 is to take 0.95 for 0.96, which binary fractions put just beyond it
    slack = 1e-12 * max(abs(mine), abs(theirs), 1.0) if math.isfinite(mine) and math.isfinite(theirs) else 0.0
    passed = math.isnan(theirs) or mine == theirs or worse <= asked.margin + slack  # type: ignore[operator]
    hint = "" if passed else f"It is worse than what it replaces; train a better one, or allow more in metrics.{name}."
    return Rule(name=f"metrics.{name}", outcome="passed" if passed else "failed", wanted=wanted, found=found, hint=hint)


def signature(rung: Rung, facts: Facts) -> Iterator[Rule]:
    """Yield whether who asked the holder can ask this version, and finds in its answers what was there."""
    if not rung.signature:
        return
    same = rung.signature == "same"
    wanted = "inputs and outputs " + ("as they were" if same else "that take and give what was there")
    mine = facts.smokes[0].package.converted.source.signature if facts.smokes else None
    holder = facts.holder
    if holder is None or holder.gone:
        why = holder.gone if holder else "nobody holds it yet"
        yield Rule(name="signature", outcome="passed", wanted=wanted, found=f"{why}: nothing to compare with")
    elif holder.signature is None or mine is None:
        which = f"version {holder.version}" if mine else "this version"
        found = f"{which} has no signature: {holder.problem or 'none logged'}"
        yield Rule(name="signature", outcome="missing", wanted=wanted, found=found, hint="Log models with a signature.")
    else:
        other = differences(holder.signature, mine, same=same)
        against = f"against version {holder.version}: "
        yield Rule(
            name="signature",
            outcome="failed" if other else "passed",
            wanted=wanted,
            found=against + ("; ".join(other) or "nothing that matters"),
            hint="Clients have to change with it; give it another name, or leave the rule out once." if other else "",
        )


def differences(old: Signature, new: Signature, *, same: bool = False) -> tuple[str, ...]:
    """Return what of a new signature breaks who used the old one, or (`same`) every difference, as phrases.

    It breaks: another kind, an input or output less, another datatype, a shape that takes less, an input more that is
    required. It does not: an optional input more, an output more, any size where one size was.
    """
    if old.kind != new.kind:
        return (f"rows are {new.kind}, they were {old.kind}",)
    found = [
        *_tensors("input", old.inputs, new.inputs, same=same),
        *_tensors("output", old.outputs, new.outputs, same=same),
    ]
    return tuple(found)


def _tensors(what: str, old: tuple[TensorSpec, ...], new: tuple[TensorSpec, ...], *, same: bool) -> Iterator[str]:
    before, after = {one.name: one for one in old}, {one.name: one for one in new}
    for name in sorted(before.keys() - after.keys()):
        yield f"the {what} {name} is gone"
    for name, one in after.items():
        was = before.get(name)
        if was is None:
            if same or (what == "input" and one.required):
                yield f"the {what} {name} is new{' and required' if what == 'input' and one.required else ''}"
            continue
        if one.datatype != was.datatype:
            yield f"the {what} {name} is {one.datatype}, it was {was.datatype}"
        if one.shape != was.shape and (same or not _wider(was.shape, one.shape, what)):
            yield f"the {what} {name} has the shape {list(one.shape)}, it had {list(was.shape)}"
        if what == "input" and ((one.required and not was.required) or (same and one.required != was.required)):
            yield f"the input {name} is {'required' if one.required else 'optional'} now"


def _wider(old: tuple[int, ...], new: tuple[int, ...], what: str) -> bool:
    """Return whether a shape takes (of an input), or promises (of an output), at least what the old one did."""
    narrow, wide = (old, new) if what == "input" else (new, old)
    return len(old) == len(new) and all(b in (-1, a) for a, b in zip(narrow, wide, strict=True))

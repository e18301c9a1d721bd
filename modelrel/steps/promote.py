"""Promote: move a registry alias (or stage) to a version, on evidence about the bytes that are on disk."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, Literal

from modelrel import __version__, records
from modelrel.delivered import Attestation, Package, Promotion, Pushed, SmokeReport
from modelrel.errors import Conflict, Invalid, ModelrelError, Refused
from modelrel.policy import Policy, judge
from modelrel.promoted import Change, Entry
from modelrel.registry import Registry, history, turns
from modelrel.registry.reference import STAGES, stage_name
from modelrel.steps import grounds
from modelrel.steps.into import Route, same, within
from modelrel.values import SourceModel

_RULES: Final = 12
_RULE: Final = 200
"""How many rules of a refusal the history tells, and how many characters of each."""

_LONGEST: Final = 200
"""Characters of an alias: MLflow takes 255, but 250 for the key of the audit tag that has it at its end."""


def check_target(kind: Literal["alias", "stage"], to: str) -> str:
    """Return the alias or stage as the registry spells it.

    Raises `Invalid` for what MLflow refuses: an alias with other characters than letters, digits, `_` and `-`,
    `latest`, or `v` with a number (`mlflow.utils.validation`); a stage that it does not have.
    """
    if kind == "stage":
        stage = stage_name(to)
        if stage is None:
            raise Invalid(f"{to!r} is not a stage", f"The stages are {', '.join(STAGES)}; or use an alias.")
        return stage
    if not re.fullmatch(r"[\w-]+", to, re.ASCII) or len(to) > _LONGEST:
        raise Invalid(
            f"{to!r} cannot be an alias",
            f"MLflow takes letters, digits, _ and - (at most {_LONGEST}): for example champion.",
        )
    if to.lower() == "latest" or re.fullmatch(r"v\d+", to, re.IGNORECASE):
        raise Invalid(f"{to!r} cannot be an alias: MLflow reserves it", "Take another name: for example champion.")
    return to


def plan(
    smokes: tuple[SmokeReport, ...],
    where: Registry | Route,
    change: Change,
    policy: Policy,
    attestations: tuple[Attestation, ...] = (),
) -> Promotion:
    """Return what a promotion would write, judged by the policy; nothing is changed, and nothing is refused for a rule.

    `where` is the registry, or the way into another one. `previous` is the version that holds the alias now ("" where
    none does). Raises `Refused` where a report is about other bytes than those on disk, `Invalid` where the version is
    not in the registry.
    """
    if not smokes:
        raise Refused(
            "there is no smoke evidence for this version",
            "Run: modelrel smoke MODEL --target docker (or lambda).",
        )
    source = smokes[0].package.converted.source
    for smoke in smokes:
        for value in (smoke.package, smoke.package.parity, smoke.package.converted, source):
            records.intact(value)
    route = where if isinstance(where, Route) else within(where, source)
    if route.origin is None:
        same(source, route)
    else:
        _registered(source, route.origin)
    target = check_target(change.kind, change.to)
    previous = _previous(route, replace(change, to=target))
    known = grounds.gathered(smokes, route, change, policy, previous)
    known = replace(known, attestations=attestations, now=datetime.now(UTC).isoformat(timespec="seconds"))
    return Promotion(
        smokes=smokes,
        registry=route.registry.shown,
        name=route.name,
        version=route.version,
        kind=change.kind,
        to=target,
        previous=previous,
        by=change.by,
        at="",
        verdict=judge(policy, change, known),
        message=change.message,
        event="rolled back" if change.rollback else "promoted",
    )


def _registered(source: SourceModel, registry: Registry) -> None:
    """Raise where the registry has not the version that was pulled."""
    if not source.uri.startswith(f"models:/{source.name}/"):
        raise Invalid(
            f"{source.uri} is not a registered version, so it has no aliases",
            "Register it, then release NAME/VERSION.",
        )
    found = registry.version(source.name, source.version)
    if found is None:
        raise Invalid(f"the registry {registry.shown} has no version {source.label} (any more)", "Check --registry.")
    if found.run_id and source.run_id and found.run_id != source.run_id:
        raise Refused(
            f"{source.label} in the registry {registry.shown} is of run {found.run_id}, but the evidence is about "
            f"run {source.run_id}",
            "Check --registry: this is another registry than the model was pulled from, or the version was made anew.",
        )


def refused(planned: Promotion) -> None:
    """Raise `Refused` with every rule that did not pass, where there is one."""
    wrong = planned.verdict.refused
    if not wrong:
        return
    said = "; ".join(f"{rule.name}: {rule.found} ({rule.wanted} is wanted)" for rule in wrong)
    refusal = Refused(
        f"{planned.name}/{planned.version} may not become {planned.to}: {said}",
        " ".join(dict.fromkeys(rule.hint for rule in wrong if rule.hint)),
    )
    refusal.evidence = records.plain(planned.verdict)
    raise refusal


def _holder(registry: Registry, name: str, kind: str, to: str, version: str) -> str:
    if kind == "alias":
        return registry.holder(name, alias=to)
    # a stage can hold several versions: ours counts first
    mine = registry.version(name, version) if version else None
    return version if mine and mine.stage == to else registry.holder(name, stage=to)


def _previous(route: Route, change: Change) -> str:
    """Return who holds the alias of a change now ("" for nobody).

    Raises `Conflict` where that is another version than the user said; what it is to become it may be already.
    """
    registry, name = route.registry, route.name
    holder = _holder(registry, name, change.kind, change.to, route.version)
    wanted = "" if change.expect == "nobody" else change.expect
    if not change.expect or holder == wanted or (holder and holder == route.version):
        return holder
    found = registry.model(name)
    moves = history.moves(found, change.kind, change.to) if found else []
    moved = f", moved there {turns.who(moves[-1] if moves else None, holder)}" if holder else ""
    raise Conflict(
        f"{change.kind} {change.to} of {name} is at {turns.shown(holder)}{moved}, but "
        f"{turns.shown(wanted)} is expected to hold it",
        f"Look at why (modelrel history {name}), then decide again.",
    )


def recorded(planned: Promotion, registry: Registry) -> bool:
    """Return whether the registry already says this promotion: the alias is there, and so is its history."""
    found = registry.model(planned.name) if planned.previous == planned.version else None
    moves = history.moves(found, planned.kind, planned.to) if found else []
    return bool(moves) and moves[-1].version == planned.version


def promote(planned: Promotion, registry: Registry, note: Callable[[str], None] = lambda _: None) -> Promotion:
    """Do what `plan` returned, in turns with whoever else does (`registry.turns`): alias, audit tag, history.

    Raises `Refused` where the policy does not let it through (which the history keeps, too), `Conflict` where
    somebody else moved it meanwhile.
    """
    wrong = planned.verdict.refused
    entry = Entry(
        id="", event=planned.event, kind=planned.kind, to=planned.to, version=planned.version,
        previous=planned.previous, by=planned.by, at=datetime.now(UTC).isoformat(timespec="seconds"),
        message=planned.message, modelrel=__version__,
        evidence={smoke.package.target: smoke.package.digest for smoke in planned.smokes},
        rules=tuple(f"{rule.name}: {rule.found}"[:_RULE] for rule in wrong[:_RULES]),
    )  # fmt: skip
    if wrong and planned.event == "promoted":
        refusal = replace(entry, id=history.new_id(), event="refused")
        with suppress(ModelrelError):  # who may not write there is refused all the same
            registry.writer.set_model_tag(planned.name, *history.tag(refusal))
    refused(planned)
    details = _details(planned)
    done = turns.Mover(registry, planned.name, entry, note).move(details)
    return replace(planned, at=done.at, tags=history.audit(done, details), entry=done.id)


def _pushed(package: Package) -> str:
    """Return what a registry of images has of a package (`NAME:TAG@DIGEST`), "" where it was not pushed."""
    found = records.read(Pushed, package.home / "Pushed.json", None, package=package)
    return f"{found.name}@{found.digest}" if found else ""


def _details(planned: Promotion) -> dict[str, Any]:
    """Return what the audit tag of the version says beside its move: what was proven, and what was built."""
    parity = planned.smokes[0].package.parity
    return {
        "source_sha256": parity.source.digest,
        "model_sha256": parity.converted.file.sha256,
        "parity": {
            "rows": parity.rows,
            "max_abs_error": parity.max_abs_error,
            "disagreements": parity.disagreements,
        },
        "artifacts": {
            smoke.package.target: {
                "sha256": smoke.package.digest,
                "image": smoke.package.image.id if smoke.package.image else "",
                "pushed": _pushed(smoke.package),
                "smoke": smoke.runner,
                "checks": len(smoke.checks),
            }
            for smoke in planned.smokes
        },
    }

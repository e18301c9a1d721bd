"""Promote: move a registry alias (or stage) to a version, on evidence about the bytes that are on disk."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Literal

from modelrel import __version__, archive, records
from modelrel.delivered import Package, Promotion, Pushed, SmokeReport
from modelrel.errors import Conflict, Invalid, Refused
from modelrel.registry import Registry
from modelrel.registry.reference import STAGES, stage_name

TAG: Final = "modelrel.promotion."
"""Prefix of the audit tag on a version; the alias or stage follows, the value is JSON."""


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
    if not re.fullmatch(r"[\w-]+", to, re.ASCII) or len(to) > 255:
        raise Invalid(
            f"{to!r} cannot be an alias",
            "MLflow takes letters, digits, _ and - (at most 255): for example champion.",
        )
    if to.lower() == "latest" or re.fullmatch(r"v\d+", to, re.IGNORECASE):
        raise Invalid(f"{to!r} cannot be an alias: MLflow reserves it", "Take another name: for example champion.")
    return to


def plan(smokes: tuple[SmokeReport, ...], registry: Registry, kind: Literal["alias", "stage"], to: str) -> Promotion:
    """Return what a promotion would write, having checked the evidence; nothing is changed.

    `previous` is the version that holds the alias now ("" where none does). Raises `Refused` where a smoke report
    is missing or is about other bytes than those on disk, `Invalid` where the version is not in the registry.
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
    target = check_target(kind, to)
    return Promotion(
        smokes=smokes,
        registry=registry.shown,
        name=source.name,
        version=source.version,
        kind=kind,
        to=target,
        previous=_holder(registry, source.name, kind, target, source.version),
        by="",
        at="",
    )


def _holder(registry: Registry, name: str, kind: str, to: str, version: str) -> str:
    if kind == "alias":
        return registry.holder(name, alias=to)
    # a stage can hold several versions: ours counts first
    mine = registry.version(name, version)
    return version if mine and mine.stage == to else registry.holder(name, stage=to)


def recorded(planned: Promotion, registry: Registry) -> bool:
    """Return whether the registry already says this promotion: the alias is there, and so is its audit tag."""
    if planned.previous != planned.version:
        return False
    found = registry.version(planned.name, planned.version)
    return found is not None and TAG + planned.to in found.tags


def promote(planned: Promotion, registry: Registry, by: str, note: Callable[[str], None] = lambda _: None) -> Promotion:
    """Do what `plan` returned: set the alias (or stage), read it again, and tag the version.

    Raises `Conflict` where somebody else moved it meanwhile.
    """
    name, version, to = planned.name, planned.version, planned.to
    now = _holder(registry, name, planned.kind, to, version)
    if now != planned.previous:
        raise Conflict(
            f"{planned.kind} {to} of {name} was moved from {_shown(planned.previous)} to {_shown(now)} meanwhile",
            "Look at who moved it, then promote again.",
        )
    if now != version:
        note(f"setting {planned.kind} {to}")
        if planned.kind == "alias":
            registry.mlflow.set_alias(name, to, version)
        else:
            registry.mlflow.set_stage(name, version, to)
        after = _holder(registry, name, planned.kind, to, version)
        if after != version:
            raise Conflict(
                f"{planned.kind} {to} of {name} was set to version {version}, but it is {_shown(after)} now",
                "Somebody else promoted at the same moment; look at who, then promote again.",
            )
    at = datetime.now(UTC).isoformat(timespec="seconds")
    tags = _tags(planned, by, at)
    note("writing the audit tags")
    registry.mlflow.set_tags(name, version, tags)
    return Promotion(
        smokes=planned.smokes, registry=planned.registry, name=name, version=version, kind=planned.kind, to=to,
        previous=planned.previous, by=by, at=at, tags=tags,
    )  # fmt: skip


def _shown(version: str) -> str:
    return f"version {version}" if version else "nobody"


def _pushed(package: Package) -> str:
    """Return what a registry of images has of a package (`NAME:TAG@DIGEST`), "" where it was not pushed."""
    record = archive.within(package.folder, package.artifact).parent / "Pushed.json"
    found = records.read(Pushed, record, None, package=package)
    return f"{found.name}@{found.digest}" if found else ""


def _tags(planned: Promotion, by: str, at: str) -> dict[str, str]:
    parity = planned.smokes[0].package.parity
    entry = {
        "at": at,
        "by": by,
        "from": planned.previous,
        "kind": planned.kind,
        "modelrel": __version__,
        "source_sha256": parity.source.digest,
        "model_sha256": parity.converted.file.sha256,
        "parity": {
            "rows": parity.rows,
            "max_abs_error": max((output.max_abs_error for output in parity.outputs), default=0.0),
            "disagreements": sum(output.disagreements for output in parity.outputs),
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
    return {
        TAG + planned.to: json.dumps(entry, sort_keys=True),
        "modelrel.promoted_at": at,
        "modelrel.promoted_by": by,
        "modelrel.promoted_to": planned.to,
        "modelrel.promoted_from": planned.previous,
    }

"""The facts that a policy is held against: what the registry, the release folder and the evidence say of a version."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from modelrel import pickles
from modelrel.delivered import SmokeReport
from modelrel.errors import Invalid, Unavailable
from modelrel.policy import Approval, Facts, Holder, Policy
from modelrel.promoted import Change
from modelrel.registry import Registry, VersionInfo, mlmodel
from modelrel.steps.into import Route
from modelrel.values import SourceModel

APPROVAL: Final = "modelrel.approval."
"""Prefix of the tag by which somebody approves of a version; who follows, the value is JSON."""

_LONGEST: Final = 200


def gathered(
    smokes: tuple[SmokeReport, ...],
    route: Route,
    change: Change,
    policy: Policy,
    previous: str,
) -> Facts:
    """Return what the policy asks about; what it does not ask about is not looked up. Evidence comes on top.

    `previous` is the version that holds the alias now, "" where none does. `now` is left "".
    """
    source, rung = smokes[0].package.converted.source, policy.rung(change)
    registry, name, own = route.told(source)
    found, info = registry.version(name, own), registry.model(name)
    held = {alias for alias, version in (info.aliases if info else {}).items() if version == own}
    stage = {found.stage} if found and found.stage not in ("", "None") else set()
    compare = previous not in ("", route.version) and not change.rollback
    tags = dict(found.tags) if found else {}
    return Facts(
        smokes=smokes,
        trusted=frozenset(map(key_id, policy.public_keys)) if rung.signed else frozenset(),
        holder=_holder(route.registry, route.name, previous) if compare and (rung.metrics or rung.signature) else None,
        holds=frozenset(held | stage),
        metrics=_metrics(registry, found, source.model_id) if rung.metrics and found else {},
        tags=tags,
        approvals=approvals(tags),
        author=source.tags.get("mlflow.user", ""),
        pickles=pickled(source) if rung.pickle else None,
        now="",
    )


def pickled(source: SourceModel) -> tuple[pickles.Finding, ...]:
    """Return what loading a pulled model would run, by its files; nothing is loaded."""
    return pickles.examine({file.path: source.folder / file.path for file in source.files})


def _metrics(registry: Registry, found: VersionInfo, model_id: str) -> dict[str, float]:
    """Return the metrics of the run as they are now; those of the logged model win, for a run can log several."""
    return {**registry.run(found.run_id).metrics, **registry.measured(model_id)}


def _holder(registry: Registry, name: str, version: str) -> Holder:
    """Return what is known of the version that a promotion would replace."""
    found = registry.version(name, version)
    if found is None:
        return Holder(version=version, gone=f"version {version} was deleted")
    said, problem = _mlmodel(registry, name, version)
    return Holder(
        version=version,
        metrics=_metrics(registry, found, said.model_id if said else ""),
        signature=said.signature if said else None,
        problem=problem or (said.problem if said else ""),
    )


def _mlmodel(registry: Registry, name: str, version: str) -> tuple[mlmodel.MLmodel | None, str]:
    """Return what the MLmodel file of a version says, or why that cannot be read; no other file is fetched."""
    with tempfile.TemporaryDirectory(prefix="modelrel-holder-") as work:
        try:
            Path(work, "MLmodel").write_bytes(registry.file(f"models:/{name}/{version}", "MLmodel"))
            return mlmodel.read(Path(work)), ""
        except (Invalid, Unavailable) as error:
            return None, error.message


def key_id(path: str) -> str:
    """Return the id of a public key in a PEM file (see `attestation.keys`); raises `Invalid` where there is none."""
    from modelrel.attestation import keys

    return keys.public(path).id


def approvals(tags: Mapping[str, str]) -> tuple[Approval, ...]:
    """Return who approved of a version, by its tags; what is none is passed over."""
    found = []
    for key, text in sorted(tags.items()):
        if not key.startswith(APPROVAL):
            continue
        try:
            said = json.loads(text)
            found.append(Approval(**{name: str(said.get(name, "")) for name in ("by", "at", "source", "message")}))
        except (ValueError, AttributeError):
            continue
    return tuple(one for one in found if one.by and approval_key(one.by) in tags)


def approval(one: Approval) -> tuple[str, str]:
    """Return key and value of the tag by which somebody approves."""
    said = {"by": one.by, "at": one.at, "source": one.source, "message": one.message[:1000]}
    return approval_key(one.by), json.dumps(said, sort_keys=True)


def approval_key(by: str) -> str:
    """Return the key of somebody's tag; characters that MLflow does not take are replaced, and told apart by a digest.

    >>> approval_key("ada"), approval_key("ada@example.org")
    ('modelrel.approval.ada', 'modelrel.approval.ada_example.org-1b2cd6f8')
    """
    plain = re.sub(r"[^\w.-]", "_", by, flags=re.ASCII)[:_LONGEST]
    return APPROVAL + plain + ("" if plain == by else f"-{hashlib.sha256(by.encode()).hexdigest()[:8]}")


def approve(source: SourceModel, one: Approval, registry: Registry) -> None:
    """Write an approval on the version in the registry; raises `Invalid` where it is none of the registry."""
    if not source.uri.startswith(f"models:/{source.name}/"):
        raise Invalid(
            f"{source.uri} is not a registered version, so nobody can approve of it",
            "Register it, then approve of NAME/VERSION.",
        )
    registry.writer.set_tags(source.name, source.version, dict([approval(one)]))

"""Inspect: what a pulled model can become, and why not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final, Literal

from modelrel import records
from modelrel.errors import ModelrelError, Unavailable
from modelrel.formats import FORMATS
from modelrel.probes import evidence
from modelrel.targets import TARGETS
from modelrel.values import ConvertedModel, ParityReport, SourceModel

Told = Literal["flavor", "trial", "copy", "proof"]

_CONVERT: Final = "`modelrel convert` tells"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a model can become a format, and what tells it.

    `told_by` is its flavor and signature alone, a trial conversion, the copy that is in the release folder, or its
    comparison with the original. `why` is why not, or why that is not known.
    """

    can: Literal["yes", "no", "unknown"]
    told_by: Told
    why: str = ""
    estimator: str = ""
    targets: tuple[str, ...] = ()
    seconds: float = 0.0


def by_flavor(source: SourceModel, form: str) -> Verdict:
    """Return what the flavor and the signature tell, which is "no" or nothing."""
    flavors = FORMATS[form].FLAVORS
    if source.flavor not in flavors:
        why = f"the flavor is {source.flavor}, and {form} is written from {', '.join(sorted(flavors))}"
        return Verdict(can="no", told_by="flavor", why=why)
    if not source.signatures and (source.signature is None or not source.signature.inputs):
        return Verdict(can="no", told_by="flavor", why="it was logged without a signature that a copy can keep")
    why = f"the flavor can, and whether this estimator can is not looked at; {_CONVERT}"
    return Verdict(can="unknown", told_by="flavor", why=why)


def not_at_hand(source: SourceModel) -> Verdict:
    """Return what is known of a model whose own environment is still to be made."""
    why = f"the environment that {source.label} was trained in is not here yet; {_CONVERT}, and makes it"
    return Verdict(can="unknown", told_by="flavor", why=why)


def by_record(source: SourceModel, form: str) -> Verdict | None:
    """Return what the records of a former conversion and verification tell; None where there are none that hold."""
    folder = source.folder / form
    converted = records.read(ConvertedModel, folder / "ConvertedModel.json", source=source)
    if converted is None:
        return None
    if wrong := _refused(converted):
        return Verdict(can="no", told_by="proof", why=wrong, estimator=converted.estimator)
    proven = records.read(ParityReport, folder / "ParityReport.json", converted=converted)
    return _yes("copy" if proven is None else "proof", form, converted.estimator)


def _refused(converted: ConvertedModel) -> str:
    """Return why this very copy was refused, or "" where it was not."""
    try:
        said = json.loads((converted.folder / converted.format / evidence.REFUSED).read_text(encoding="utf-8"))
        same = said["model_sha256"] == converted.file.sha256
        return "; ".join(map(str, said["refused"])) if same else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def by_trial(form: str, estimator: str, seconds: float) -> Verdict:
    """Return what a conversion that went well tells."""
    return _yes("trial", form, estimator, seconds)


def by_refusal(stop: ModelrelError, seconds: float) -> Verdict:
    """Return what a conversion that stopped tells; a library that is missing says nothing about the model."""
    can: Literal["no", "unknown"] = "unknown" if isinstance(stop, Unavailable) else "no"
    return Verdict(can=can, told_by="trial", why=f"{stop.message} ({stop.hint.rstrip('.')})", seconds=seconds)


def _yes(told_by: Told, form: str, estimator: str, seconds: float = 0.0) -> Verdict:
    targets = tuple(name for name, target in TARGETS.items() if form in target.FORMATS)
    return Verdict(can="yes", told_by=told_by, estimator=estimator, targets=targets, seconds=seconds)


def sentence(verdict: Verdict) -> str:
    """Return a verdict for people."""
    if verdict.can != "yes":
        return f"{verdict.can}: {verdict.why}"
    told = {
        "trial": f"converted for a look in {verdict.seconds:.1f} s; `modelrel convert` proves it",
        "copy": "converted, not compared yet",
        "proof": "converted, and compared with the original",
    }
    where = f", for {', '.join(verdict.targets)}" if verdict.targets else ""
    return f"yes: {verdict.estimator}{where} ({told[verdict.told_by]})"

"""What is known of a stage of a release: the record it leaves, how it ended, and its result in half a line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, Protocol, TypeVar

from modelrel import archive
from modelrel.delivered import Attestation, Package, Pushed, SmokeReport
from modelrel.errors import Invalid
from modelrel.measured import Loss
from modelrel.values import ConvertedModel, ConvertOptions, ParityReport, SourceModel

Value = TypeVar("Value")
Outcome = Literal["done", "up to date", "would change", "would be refused"]


class Listener(Protocol):
    """Whoever wants to know what happens while it happens."""

    def begin(self, stage: str) -> None:
        """Say that a stage starts."""

    def note(self, text: str) -> None:
        """Say what the stage is doing now."""

    def end(self, result: StageResult) -> None:
        """Say how it ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """One line of the table at the end: `size` is what the stage made, in bytes (0: nothing to weigh)."""

    stage: str
    outcome: Outcome
    detail: str
    seconds: float
    size: int = 0


@dataclass(frozen=True, slots=True)
class Stage(Generic[Value]):
    """What the machinery has to know of a stage: its record, and what the record must have been made from."""

    name: str
    record: Path
    kind: type[Value]
    key: str
    parents: Mapping[str, object]
    holds: Callable[[Value], bool] = lambda _: True


def describe(value: object) -> str:
    """Return what a stage's value says, in half a line."""
    match value:
        case SourceModel():
            return f"{value.label}, {value.flavor}, {len(value.files)} files"
        case ConvertedModel():
            taken = ", handed in" if value.handed_in else ""
            opset = value.opsets.get("ai.onnx", value.opsets.get(""))
            small = f", {value.quantize} ({value.exact_size:,} bytes without)" if value.quantize else ""
            return f"{value.estimator} → {value.format}{taken}{f', opset {opset}' if opset else ''}{small}"
        case ParityReport() if value.loss:
            return f"{value.rows:,} rows, {'; '.join(lost(value.loss))}"
        case ParityReport():
            return f"{value.rows:,} rows, {value.disagreements} labels differ, largest error {value.max_abs_error:.2g}"
        case Package():
            image = f"image {value.image.tags[0]}" if value.image and value.image.tags else value.artifact
            python = "" if value.python == "any" else f", Python {value.python}"
            return f"{image} ({value.platform} machine)" if not python else f"{image} ({value.platform}{python})"
        case SmokeReport():
            how = f"{len(value.checks)} checks by {value.runner}"
            return f"{how}, first answer {value.first_answer_s:.2f} s, p99 {value.p99_ms:.1f} ms"
        case Attestation():
            who = f"signed by key {value.key[:16]}…" if value.key else "not signed: digests, and nobody who vouches"
            return f"{len(value.files)} files of evidence, {who}"
        case Pushed():
            count = value.sent + value.mounted + value.there
            wire = f"{value.sent} of {count} blobs sent ({value.sent_bytes / 1e6:.1f} MB)"
            return f"{value.name} is {value.digest[:19]}, {wire}, {value.mounted} mounted, {value.there} there already"
        case _:
            return ""


def lost(loss: Loss) -> list[str]:
    """Return what a smaller copy loses, in parts of a sentence: agreement, errors, metrics."""
    agreed = [] if loss.agreement is None else [f"{loss.agreement:.2%} of {loss.rows:,} labels agree"]
    off = [f"{one.name} off by {one.mean_error:.2g} on average" for one in loss.outputs]
    return agreed + off + [f"{one.name} {one.original:.4f} → {one.copy:.4f}" for one in loss.metrics]


def weigh(value: object) -> int:
    """Return the size in bytes of what a stage made."""
    match value:
        case SourceModel():
            return sum(file.size for file in value.files)
        case ConvertedModel():
            return value.file.size
        case Package():
            return value.image.added if value.image else value.size
        case Pushed():
            return value.sent_bytes
        case _:
            return 0


def same(chosen: ConvertedModel, asked: ConvertOptions) -> bool:
    """Whether a copy is of the signature that is asked for; raises `Invalid` where it has another interface."""
    if chosen.handed_in and chosen.interface != asked.interface:
        raise Invalid(
            f"the {chosen.format} copy was handed in with another [interface] in modelrel.toml",
            "Hand it in again with --copy, or convert with --force.",
        )
    return asked.signature in ("", chosen.served) and chosen.interface == asked.interface


def sha256(path: Path | None) -> str:
    """Return the digest of a file that an option may name, "" without one."""
    if path is None:
        return ""
    return archive.sha256(path) if path.is_file() else "missing"  # the step says so

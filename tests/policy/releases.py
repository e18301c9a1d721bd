"""Releases as values, without files: what a policy is judged on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelrel.delivered import Attestation, Check, Package, SmokeReport
from modelrel.measured import OutputParity, Tolerance
from modelrel.policy import Facts, judge, read
from modelrel.promoted import Change, Rule
from modelrel.values import ConvertedModel, File, ParityReport, Signature, SourceModel, TensorSpec

NOW = "2026-11-22T06:00:00+00:00"
FILE = File(path="onnx/model.onnx", sha256="0" * 64, size=1)


def spec(name: str, datatype: str = "FP32", shape: tuple[int, ...] = (-1, 4), *, required: bool = True) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape, required=required)


def signed(*inputs: TensorSpec, outputs: tuple[TensorSpec, ...] = ()) -> Signature:
    return Signature(kind="tensor", inputs=inputs, outputs=outputs)


SIGNATURE = signed(spec("x"), outputs=(spec("y", shape=(-1,)),))


def source(**other: Any) -> SourceModel:
    given: dict[str, Any] = {
        "folder": Path(), "name": "churn", "version": "7", "uri": "models:/churn/7", "registry": "sqlite:///x.db",
        "flavor": "sklearn", "flavors": (), "signature": SIGNATURE, "files": (FILE,),
    }  # fmt: skip
    return SourceModel(**(given | other))


def smoke(
    target: str = "docker", *, of: SourceModel | None = None, size: int = 100_000_000, p99: float = 5.0, **parity: Any
) -> SmokeReport:
    """Return the report on an artifact; `parity` has error, disagreements and rows, where they matter."""
    converted = ConvertedModel(source=of or source(), format="onnx", file=FILE, inputs=(), outputs=(), predict="y")
    output = OutputParity(
        name="y", datatype="FP32", rows=10, disagreements=parity.get("disagreements", 0),
        max_abs_error=parity.get("error", 1e-7), max_rel_error=0.0, worst_row=0, worst_source="", worst_input={},
        worst_original=0, worst_copy=0,
    )  # fmt: skip
    report = ParityReport(
        converted=converted, tolerance=Tolerance(), rows=parity.get("rows", 2000), sources={}, batch_sizes=(),
        outputs=(output,), batch_max_abs_error=0.0, original_us_per_row=1.0, copy_us_per_row=1.0, golden=FILE,
        manifest=FILE,
    )  # fmt: skip
    package = Package(
        parity=report, target=target, platform="linux/amd64", python="3.12", files=(FILE,), artifact=target, size=size
    )
    return SmokeReport(
        package=package, runner="process", checks=(Check(name="live", detail=""),), rows=1, max_abs_error=0.0,
        first_answer_s=0.1, p50_ms=1.0, p99_ms=p99, memory_bytes=1,
    )  # fmt: skip


def attested(about: SmokeReport, key: str = "", at: str = NOW) -> Attestation:
    return Attestation(smoke=about, files=(), key=key, at=at)


def facts(**other: Any) -> Facts:
    return Facts(**({"smokes": (smoke(),), "now": NOW} | other))


def verdict(table: dict[str, Any], known: Facts, *, to: str = "champion", **change: Any) -> dict[str, Rule]:
    """Return name -> rule of what a policy says of promoting to an alias."""
    asked = Change(**({"kind": "alias", "to": to, "by": "grace"} | change))
    return {rule.name: rule for rule in judge(read(table), asked, known).rules}


def outcome(rung: dict[str, Any], known: Facts, name: str, **change: Any) -> str:
    """Return how one rule of `[policy.champion]` ends."""
    return verdict({"champion": rung}, known, **change)[name].outcome

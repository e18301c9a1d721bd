"""Versions of a small model as `facts.of` tells of them, made without a registry: an ONNX file, a proof, a package."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from modelrel import archive
from modelrel.delivered import Check, Package, SmokeReport
from modelrel.measured import Far, OutputParity, Spread
from modelrel.steps.facts import Copy, Delivery, Known
from modelrel.values import Dataset, ParityReport, SourceModel
from tests.targets import tiny

HOSTILE = "</style><script>window.hacked=1</script><img src=x onerror=window.hacked=1>\"'&lt; | `x` *b* @team #12"

SPREAD = Spread(
    exact=900,
    halves=((-15, 3), (-14, 90), (-13, 7)),
    pairs=tuple((value / 10, value / 10 + 1e-8) for value in range(11)),
    far=(Far(row=17, source="ranged", error=1.5e-7, column=1, original="0.5", copy="0.50000015", given="calls 3.5"),),
)


def known(folder: Path, version: str = "7", *, name: str = "churn", shift: float = 0.0, **changes: Any) -> Known:
    """Return a version with a verified copy; `shift` moves its weights, `changes` are those of its source."""
    parity = _shifted(tiny.verified(folder, name=name, version=version), shift)
    source = _source(parity.source, changes)
    output = replace(parity.outputs[0], spread=SPREAD)
    label = OutputParity(
        name="label", datatype="BYTES", rows=1000, disagreements=0, max_abs_error=0.0, max_rel_error=0.0, worst_row=0,
        worst_source="example", worst_input={}, worst_original="stays", worst_copy="stays",
    )  # fmt: skip
    converted = replace(parity.converted, source=source, estimator="Softmax", notes=("computes in float32",))
    parity = replace(parity, converted=converted, outputs=(label, output))
    return Known(source=source, size=3000, copies=(Copy(converted=converted, parity=parity),))


def _source(plain: SourceModel, changes: Mapping[str, Any]) -> SourceModel:
    said: dict[str, Any] = {
        "metrics": {"accuracy": 0.9, "log_loss": 0.3}, "params": {"depth": "3"}, "python_version": "3.11.2",
        "requirements": ("scikit-learn==1.5.0", "numpy>=2,<3"), "experiment": "churn", "tags": {"team": "growth"},
        "datasets": (Dataset(name="calls", digest="aa11", context="training"),),
    }  # fmt: skip
    return replace(plain, **{**said, **changes})


def _shifted(parity: ParityReport, shift: float) -> ParityReport:
    """Return the proof of the same model with other weights, whose golden rows are asked again by nobody."""
    if not shift:
        return parity
    path = parity.converted.path
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name == "bias":
            moved = numpy_helper.to_array(tensor) + np.array([-shift, shift], np.float32)
            tensor.CopyFrom(numpy_helper.from_array(moved, "bias"))
    onnx.save(model, str(path))
    file = archive.describe(path, parity.source.folder)
    return replace(parity, converted=replace(parity.converted, file=file))


def packaged(one: Known, target: str = "docker", p99_ms: float = 4.0, licence: str = "MIT") -> Known:
    """Return the version with one more package, which was smoke-tested."""
    (copy,) = one.copies
    assert copy.parity is not None
    folder = one.source.folder
    bill = folder / "onnx" / target / "sbom.cdx.json"
    bill.parent.mkdir(parents=True)
    parts = [
        {"type": "machine-learning-model", "name": one.source.name, "version": one.source.version},
        {"type": "library", "name": "numpy", "version": "2.4.6", "licenses": [{"expression": licence}]},
    ]
    bill.write_text(json.dumps({"components": parts}))
    package = Package(
        parity=copy.parity, target=target, platform="linux/amd64", python="3.11", artifact=f"onnx/{target}",
        files=(archive.describe(bill, folder),), size=30_000_000,
        parts={"numpy": 20_000_000, "serving": 9_000_000, "model": 1_000_000},
    )  # fmt: skip
    smoke = SmokeReport(
        package=package, runner="process", checks=(Check(name="one row", detail="1 rows"),), rows=205,
        max_abs_error=0.0, first_answer_s=0.4, p50_ms=0.5, p99_ms=p99_ms, memory_bytes=80_000_000,
    )  # fmt: skip
    made = Delivery(package=package, smoke=smoke)
    return replace(one, copies=(replace(copy, deliveries=(*copy.deliveries, made)),))

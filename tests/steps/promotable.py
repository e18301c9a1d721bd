"""What tests of promotions need: a real server with a model of several versions, and evidence made by hand of each."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelrel import records
from modelrel.delivered import Check, SmokeReport
from modelrel.steps.package import package
from modelrel.values import PackageOptions
from tests.registry.services import mlflow_server
from tests.targets import tiny

NAME = "churn"


@contextmanager
def server(folder: Path, versions: int) -> Iterator[str]:
    """Give the address of a real `mlflow server` with a database of its own, where `NAME` has so many versions."""
    folder.mkdir(parents=True, exist_ok=True)
    options = ("--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", f"{folder}/artifacts")
    with mlflow_server(folder, *options) as url:
        register(url, versions)
        yield url


def ask(url: str, method: str, path: str, **body: object) -> Any:
    """Return what a server answers, as a client that is not modelrel asks it."""
    request = urllib.request.Request(
        f"{url}/api/2.0/mlflow/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}, method=method
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def register(url: str, versions: int, name: str = NAME) -> None:
    """Register a model whose versions have no files: what is promoted is on disk already."""
    ask(url, "POST", "registered-models/create", name=name)
    for number in range(1, versions + 1):
        ask(url, "POST", "model-versions/create", name=name, source=f"s3://elsewhere/{name}/{number}")


def released(dist: Path, version: str, name: str = NAME, more: str = "") -> Path:
    """Lay out the release folder of a version, smoke-tested by word alone; return it. `more`: see `tiny.verified`."""
    folder = dist / f"{name}-{version}"
    parity = tiny.verified(folder, name=name, version=version, more=more)
    records.write(parity.source, folder / "SourceModel.json", "source")
    records.write(parity.converted, folder / "onnx/ConvertedModel.json", "converted")
    records.write(parity, folder / "onnx/ParityReport.json", "parity")
    made = package(parity, "modelpack", PackageOptions())
    records.write(made, folder / "onnx/modelpack/Package.json", "package")
    smoke = SmokeReport(
        package=made, runner="process", checks=(Check(name="asked", detail="answered"),), rows=5, max_abs_error=0.0,
        first_answer_s=0.1, p50_ms=1.0, p99_ms=2.0, memory_bytes=10_000_000,
    )  # fmt: skip
    records.write(smoke, folder / "onnx/modelpack/SmokeReport.json", "smoke")
    return folder

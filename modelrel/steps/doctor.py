"""Doctor: which tools, libraries and services are there, and what each missing one costs."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from modelrel import extras, interpreters, wheels
from modelrel.errors import ModelrelError
from modelrel.registry import Registry

_NEEDED: Final = (
    "mlflow", "onnx", "onnxruntime", "skl2onnx", "scikit-learn", "numpy", "docker", "jinja2",
)  # fmt: skip
_OPTIONAL: Final = {
    "xgboost": "models of the flavor xgboost cannot be converted",
    "lightgbm": "models of the flavor lightgbm cannot be converted",
    "catboost": "models of the flavor catboost cannot be converted",
    "torch": "models of the flavor pytorch cannot be converted",
    "transformers": "models of the flavor transformers cannot be converted",
    "sklearn2pmml": "PMML copies are written by modelrel alone, which refuses some estimators",
    "awslambdaric": "nothing: the smoke test of lambda fetches it when it needs it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked for. `cost` says what cannot be done without it."""

    name: str
    state: Literal["ok", "missing", "broken"]
    detail: str
    cost: str = ""


def examine(registry_uri: str, dist: Path) -> tuple[Finding, ...]:
    """Look at this machine; nothing is changed and no model is touched."""
    version = platform.python_version()
    return (
        Finding(name="python", state="ok" if sys.version_info >= (3, 11) else "broken", detail=version),
        *(_library(name, "broken", "modelrel does not work without it") for name in _NEEDED),
        *(_library(name, "missing", cost) for name, cost in _OPTIONAL.items()),
        _java(),
        _uv(),
        _engine(),
        _lambda_python(),
        _registry(registry_uri),
        _disk(dist),
    )


def _library(name: str, without: Literal["missing", "broken"], cost: str) -> Finding:
    found = extras.version(name)
    hint = f"{cost}; {extras.missing(name).hint.removeprefix('Install it: ')}"
    return Finding(name=name, state="ok" if found else without, detail=found or "not installed", cost=hint)


def _java() -> Finding:
    cost = "PMML copies cannot be checked; on Debian: apt-get install default-jre-headless"
    path = shutil.which("java")
    if not path:
        return Finding(name="java", state="missing", detail="none on the PATH", cost=cost)
    try:
        # Java says its version on stderr: openjdk version "17.0.19" 2026-04-21
        done = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return Finding(name="java", state="broken", detail=f"{path} does not start: {error}", cost=cost)
    said = re.search(r'version "([^"]+)"', done.stderr)
    return Finding(name="java", state="ok", detail=f"{said[1] if said else 'of unknown version'} ({path})", cost=cost)


def _uv() -> Finding:
    cost = "no target can be packaged: uv resolves the wheels"
    try:
        return Finding(name="uv", state="ok", detail=wheels.uv(), cost=cost)
    except ModelrelError as error:
        return Finding(name="uv", state="broken", detail=error.message, cost=cost)


def _engine() -> Finding:
    cost = "the target docker stops after the build context, and its smoke test runs as a plain process"
    try:
        import docker

        client = docker.from_env(timeout=5)
        found = client.version()
        client.close()
    except Exception as error:  # noqa: BLE001  # the SDK lets errors of requests and urllib3 through
        first = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        return Finding(name="docker engine", state="missing", detail=f"does not answer: {first}", cost=cost)
    return Finding(name="docker engine", state="ok", detail=f"{found['Version']} ({found['Os']}/{found['Arch']})")


def _lambda_python() -> Finding:
    cost = "the smoke test of lambda needs one of them, or an engine; try: uv python install 3.13"
    found = [f"{version} ({path})" for version in ("3.12", "3.13", "3.14") if (path := interpreters.find(version))]
    state: Literal["ok", "missing"] = "ok" if found else "missing"
    return Finding(name="python of lambda", state=state, detail=", ".join(found) or "none of 3.12 to 3.14", cost=cost)


def _registry(uri: str) -> Finding:
    registry, cost = Registry(uri), "nothing can be pulled or promoted; name yours with --registry"
    try:
        names = registry.names()
    except ModelrelError as error:
        return Finding(name="registry", state="missing", detail=error.message, cost=cost)
    return Finding(name="registry", state="ok", detail=f"{registry.shown}: {len(names)} models", cost=cost)


def _disk(dist: Path) -> Finding:
    top = next(path for path in (dist.resolve(), *dist.resolve().parents) if path.exists())
    free = shutil.disk_usage(top).free
    state: Literal["ok", "missing"] = "ok" if free > 2 * 10**9 else "missing"
    return Finding(
        name="disk", state=state, detail=f"{free / 10**9:.1f} GB free at {top}", cost="a release takes about 1 GB"
    )

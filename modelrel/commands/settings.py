"""What the user set, and where: command line, environment, `modelrel.toml`, in this order of weight."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from modelrel.errors import Invalid, did_you_mean

FILE: Final = "modelrel.toml"

_DEPLOYED: Final[dict[str, type]] = {
    "to": str,
    "image": str,
    "max_size": str,
    "name": str,
    "canary": int,
    "startup_seconds": int,
}
"""What all deploy files have."""

TABLE: Final[dict[str, dict[str, type]]] = {
    "release": {
        "registry": str,
        "dist": str,
        "target": list,
        "promote": str,
        "stage": str,
        "templates": str,
        "opset": int,
        "operators": str,
        "quantize": str,
        "seconds": float,
        "memory": str,
        "env": str,
        "signature": str,
        "with": str,
        "wheelhouse": str,
    },
    "interface": {
        "outputs": list,
        "pass_through": list,
        "image": str,
        "resize": str,
        "scale": str,
        "offset": str,
    },
    "docker": {
        "to": str,
        "base_image": str,
        "python": str,
        "platform": str,
        "tag": list,
        "render_only": bool,
        "builder": str,
        "manifest": str,
        "push": str,
        "max_size": str,
        "allow_pickle": str,
        "mlflow": str,
    },
    "oci": {
        "to": str,
        "base_image": str,
        "python": str,
        "platform": str,
        "tag": list,
        "manifest": str,
        "push": str,
        "max_size": str,
        "allow_pickle": str,
        "mlflow": str,
    },
    "lambda": {
        "python": str,
        "arch": str,
        "max_size": str,
        "memory": str,
        "timeout": str,
        "snapstart": str,
        "provisioned": str,
        "auth": str,
        "api": str,
        "slim": str,
    },
    "lambda-image": {
        "base_image": str,
        "python": str,
        "arch": str,
        "tag": list,
        "render_only": bool,
        "builder": str,
        "push": str,
        "max_size": str,
        "memory": str,
        "timeout": str,
        "snapstart": str,
        "provisioned": str,
        "auth": str,
        "api": str,
        "slim": str,
        "to": str,
        "allow_pickle": str,
        "mlflow": str,
    },
    "modelpack": {"to": str, "push": str, "max_size": str},
    "tflite": {"micro": bool, "variants": str, "max_size": str},
    "kserve": {
        **_DEPLOYED,
        "namespace": str,
        "mode": str,
        "replicas": int,
        "max_replicas": int,
        "cpu": str,
        "memory": str,
        "storage": str,
        "user": str,
        "timeout": int,
        "pull_secret": str,
        "service_account": str,
    },
    "kubernetes": {
        **_DEPLOYED,
        "namespace": str,
        "replicas": int,
        "max_replicas": int,
        "cpu": str,
        "memory": str,
        "storage": str,
        "user": str,
        "grace": int,
        "gateway": str,
        "host": str,
        "pull_secret": str,
        "service_account": str,
    },
    "sagemaker": {
        **_DEPLOYED,
        "role": str,
        "region": str,
        "instance_type": str,
        "instances": int,
        "serverless": int,
        "concurrency": int,
        "stable": str,
    },
    "vertex": {
        **_DEPLOYED,
        "project": str,
        "region": str,
        "machine_type": str,
        "replicas": int,
        "max_replicas": int,
        "service_account": str,
        "stable": str,
    },
    "azureml": {
        **_DEPLOYED,
        "deployment": str,
        "resource_group": str,
        "workspace": str,
        "auth": str,
        "instance_type": str,
        "instances": int,
        "timeout": int,
        "stable": str,
    },
    "ios": {"module": str, "onnxruntime": str, "max_size": str},
    "npm": {"name": str, "license": str, "runtime": str, "max_size": str},
    "android": {"to": str, "namespace": str, "runtime": str, "max_size": str},
    "verify": {
        "rtol": float,
        "atol": float,
        "rows": int,
        "seed": int,
        "budget": float,
        "data": str,
        "label": str,
        "agreement": float,
        "max_error": float,
        "mean_error": float,
        "drop": float,
    },
}
"""Every setting: section -> key -> type. README's table and the check of the file are made from it."""

Given = TypeVar("Given")


def variable(section: str, key: str) -> str:
    """Return the environment variable of a setting.

    >>> variable("release", "dist"), variable("docker", "base_image")
    ('MODELREL_DIST', 'MODELREL_DOCKER_BASE_IMAGE')
    """
    middle = "" if section == "release" else f"{section.upper()}_"
    return f"MODELREL_{middle}{key.upper()}".replace("-", "_")


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of environment and file; the command line comes on top in `pick`."""

    values: dict[tuple[str, str], Any]

    def pick(self, section: str, key: str, given: Given | None, default: Given) -> Given:
        """Return what the command line says, else environment or file, else the default."""
        if given is not None and given != []:
            return given
        found: Given = self.values.get((section, key), default)
        return found


def read(folder: Path, environment: dict[str, str] | None = None) -> Settings:
    """Read `modelrel.toml` in `folder` (if there is one) and the `MODELREL_...` variables.

    Raises `Invalid` for a file that is not TOML, an unknown section or key (naming the nearest right one), or a
    value of another type.
    """
    values: dict[tuple[str, str], Any] = {}
    path = folder / FILE
    if path.is_file():
        for (section, key), value in _file(path).items():
            values[section, key] = _typed(value, TABLE[section][key], f"{FILE}: [{section}] {key}")
    environment = dict(os.environ) if environment is None else environment
    for section, keys in TABLE.items():
        for key, kind in keys.items():
            name = variable(section, key)
            if environment.get(name):
                values[section, key] = _parsed(environment[name], kind, name)
    return Settings(values)


def _file(path: Path) -> dict[tuple[str, str], Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"{FILE} is not valid TOML: {error}", "Correct the file.") from error
    found = {}
    for section, keys in content.items():
        if section not in TABLE or not isinstance(keys, dict):
            raise _unknown(f"the section [{section}]", section, list(TABLE))
        for key, value in keys.items():
            if key not in TABLE[section]:
                raise _unknown(f"the key {key!r} in [{section}]", key, list(TABLE[section]))
            found[section, key] = value
    return found


def _unknown(what: str, name: str, known: list[str]) -> Invalid:
    hint = f"{did_you_mean(name, known)}Known: {', '.join(known)}."
    return Invalid(f"{FILE} has {what}, which modelrel does not know", hint)


def _typed(value: Any, kind: type, where: str) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if kind is list and isinstance(value, str):
        return [value]
    fits = isinstance(value, kind) and (kind is bool) == isinstance(value, bool)
    if kind is list and fits:
        fits = all(isinstance(item, str) for item in value)
    if not fits:
        words = {
            str: "a text",
            int: "a whole number",
            float: "a number",
            bool: "true or false",
            list: "a list of texts",
        }
        raise Invalid(f"{where} is {value!r}, not {words[kind]}", "Correct the value.")
    return value


def _parsed(text: str, kind: type, where: str) -> Any:
    if kind is bool:
        lowered = text.lower()
        if lowered in {"1", "true", "yes", "on"}:
            return True
        if lowered in {"0", "false", "no", "off"}:
            return False
        raise Invalid(f"{where} is {text!r}, not true or false", "Correct the variable.")
    if kind is list:
        return [item.strip() for item in text.split(",") if item.strip()]
    try:
        return kind(text)
    except ValueError as error:
        raise Invalid(f"{where} is {text!r}, not a number", "Correct the variable.") from error


def size(text: str, where: str) -> int:
    """Return a number of bytes.

    >>> size("2GB", "x"), size("512 MiB", "x"), size("1000", "x")
    (2000000000, 536870912, 1000)
    """
    units = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
    digits = text.strip().rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    unit = text.strip()[len(digits) :].strip().lower()
    try:
        return int(float(digits) * units[unit])
    except (ValueError, KeyError) as error:
        raise Invalid(f"{where} is {text!r}, not a size", "Write for example 4GB or 512MiB.") from error

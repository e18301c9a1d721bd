"""What the user set, and where: command line, environment, `modelrel.toml`, in this order of weight."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from modelrel.errors import Invalid, did_you_mean

if TYPE_CHECKING:
    from modelrel.policy import Policy

FILE: Final = "modelrel.toml"
RULES: Final = "policy"
"""The section of the file that is not settings but rules; `modelrel.policy` reads it."""

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
        "key": str,
        "templates": str,
        "opset": int,
        "operators": str,
        "quantize": str,
        "seconds": float,
        "memory": str,
        "env": str,
        "signature": str,
        "allow_pickle": list,
        "with": str,
        "wheelhouse": str,
        "junit": str,
        "dotenv": str,
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
    "webhook": {"alias": list, "created": bool, "tolerance": float},
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
    rules: Mapping[str, Any] = field(default_factory=dict)

    @property
    def policy(self) -> Policy:
        """The rules of promotion, from `[policy]` in the file; raises `Invalid` where they are none."""
        from modelrel import policy

        return policy.read(self.rules)

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
    content = _file(path) if path.is_file() else {}
    rules = content.pop(RULES, {})
    for _, fault in faults(content):
        raise fault
    for section, keys in content.items():
        for key, value in keys.items():
            values[section, key] = _as(value, TABLE[section][key])
    environment = dict(os.environ) if environment is None else environment
    for section, keys in TABLE.items():
        for key, kind in keys.items():
            name = variable(section, key)
            if environment.get(name):
                values[section, key] = _parsed(environment[name], kind, name)
    return Settings(values, rules)


def faults(content: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Invalid]]:
    """Yield what is wrong in the sections of settings, and where: sections and keys that nobody knows, other types."""
    for section, keys in content.items():
        if section not in TABLE or not isinstance(keys, dict):
            yield (section,), _unknown(f"the section [{section}]", section, [*TABLE, RULES])
            continue
        for key, value in keys.items():
            where = (section, key)
            if key not in TABLE[section]:
                yield where, _unknown(f"the key {key!r} in [{section}]", key, list(TABLE[section]))
            elif not _fits(value, TABLE[section][key]):
                words = _WORDS[TABLE[section][key]]
                yield where, Invalid(f"{FILE}: [{section}] {key} is {value!r}, not {words}", "Correct the value.")


def _file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"{FILE} is not valid TOML: {error}", "Correct it: modelrel check shows where.") from error


def _unknown(what: str, name: str, known: list[str]) -> Invalid:
    hint = f"{did_you_mean(name, known)}Known: {', '.join(known)}."
    return Invalid(f"{FILE} has {what}, which modelrel does not know", hint)


_WORDS: Final = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list of texts",
}


def _fits(value: Any, kind: type) -> bool:
    value = _as(value, kind)
    fits = isinstance(value, kind) and (kind is bool) == isinstance(value, bool)
    return fits and (kind is not list or all(isinstance(item, str) for item in value))


def _as(value: Any, kind: type) -> Any:
    """Return a value as its kind where the file may say it shorter: a whole number for any, one text for a list."""
    if kind is float and type(value) is int:
        return float(value)
    return [value] if kind is list and isinstance(value, str) else value


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

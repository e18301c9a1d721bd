"""The Python environment that a model was trained in, made again by uv from what the model recorded, and kept.

A model is untrusted, and so are its requirements: only wheels are installed (nothing is built here), nothing that
is installed is started except by the worker, and only names and versions reach uv, no options, paths or addresses.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from modelrel import archive, complaints, extras, interpreters, wheels
from modelrel.errors import Invalid, Refused, Unavailable
from modelrel.values import EnvChoice, SourceModel, digest

LIBRARIES: Final = {
    "sklearn": "scikit-learn",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "catboost": "catboost",
    "pytorch": "torch",
    "transformers": "transformers",
    "tensorflow": "tensorflow",
    "keras": "tensorflow",
}
"""Flavor -> the distribution that its models are made of."""

_OWN: Final = frozenset({*LIBRARIES, "pyfunc"})
"""Flavors whose originals may run in an environment of their own; a Python model needs all that it names."""

_RECORDED: Final = {
    "sklearn": "sklearn_version",
    "xgboost": "xgb_version",
    "lightgbm": "lgb_version",
    "catboost": "catboost_version",
    "pytorch": "pytorch_version",
    "transformers": "transformers_version",
    "tensorflow": "keras_version",  # so called, and TensorFlow's
}
"""Flavor -> where MLmodel says the version of that distribution."""

_LARGE: Final = frozenset({"torch", "transformers", "tensorflow"})
"""Made for another version only when asked for: gigabytes, and newer versions read what older ones wrote."""

_WORKER: Final = ("numpy", "pandas", "PyYAML")
"""What the worker reads a model's files and makes its rows with; MLflow brings them, so models seldom name them."""

_READERS: Final = frozenset({"skops", "cloudpickle"})
"""What MLflow's scikit-learn models may be written by: whoever names requirements may not know, and leave it out."""

_NUMPY_2: Final = {"scikit-learn": (1, 5), "xgboost": (2, 1), "lightgbm": (4, 4)}
"""The first versions whose wheels all run with NumPy 2; older ones do not say that they do not."""

_OLD: Final = {"numpy": "numpy<2", "pandas": "pandas<3"}
"""What goes with those older ones, where the model does not name a version itself."""

_OLDEST_PYTHON: Final = 9  # Python 3.x that the worker runs on
_OLDEST_TOOLS_PYTHON: Final = 10  # ... and the converters
_PLAIN: Final = re.compile(
    r"[A-Za-z0-9][\w.-]*(\[[\w., -]*\])?\s*\(?([<>=!~][\w.,*+!<>=~ ]*)?\)?\s*(;[\w.,<>=!~'\"() +-]*)?"
)
"""Name, extras, versions, marker (PEP 508), and nothing that leads to a file, an address or an option."""

_NOT_NEEDED: Final = frozenset({"mlflow", "mlflow-skinny", "mlflow-tracing"})
_SETUPTOOLS: Final = "setuptools<81"
"""The last with pkg_resources, which MLflow 2.9 imports without naming it, as others of 2 may."""

_MARK: Final = "modelrel-complete"
_CURRENT: Final = "--env current tries the environment of modelrel itself."

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An environment by its contents: `python` (`3.10`), and the lines that uv is asked for."""

    label: str
    python: str
    requirements: tuple[str, ...]

    @property
    def digest(self) -> str:
        """What tells it from others: 32 hex digits over Python, requirements and kind of machine."""
        machine = [os.uname().machine, sys.platform]
        return digest([self.python, sorted(self.requirements), machine])[:32]

    @property
    def folder(self) -> Path:
        """Where it is kept."""
        return wheels.cache_dir() / "environments" / self.digest

    @property
    def made(self) -> bool:
        """Whether it is there, whole."""
        return (self.folder / _MARK).is_file()


def wanted(source: SourceModel, choice: EnvChoice, tools: tuple[str, ...] = ()) -> Wanted | None:
    """Return the environment that loads the original, or None for the one that runs modelrel.

    `auto` takes this one where its scikit-learn, XGBoost and LightGBM have the recorded major and minor version, and
    for models of PyTorch, transformers and TensorFlow.
    `tools` are installed beside the model's requirements. Raises `Invalid` where the requirements cannot be used.
    """
    if choice == "current" or source.flavor not in _OWN:
        return None
    recorded = versions(source)
    small = {name: version for name, version in recorded.items() if name not in _LARGE}
    if choice == "auto" and (LIBRARIES.get(source.flavor) in _LARGE or not differing(small)):
        return None
    lines = (line.partition(" #")[0].strip() for line in source.requirements)
    python_model = source.flavor == "pyfunc"
    plain = [line for line in lines if python_model or _name(line) not in _NOT_NEEDED]
    named = {_name(line) for line in plain}
    if python_model:
        plain += _mlflow(source, plain)
    plain += [f"{name}=={version}" for name, version in recorded.items() if name not in named]
    plain += _beside(source, recorded, named)
    # How Python models and TensorFlow's are loaded is written for the same Pythons as the converters.
    newer = tools or python_model or LIBRARIES.get(source.flavor) == "tensorflow"
    oldest = _OLDEST_TOOLS_PYTHON if newer else _OLDEST_PYTHON
    return Wanted(
        label=source.label, python=_python(source, oldest), requirements=tuple(dict.fromkeys([*plain, *tools]))
    )


def _mlflow(source: SourceModel, plain: list[str]) -> list[str]:
    """Return what a Python model needs beside its requirements: MLflow, and what an old one needs itself."""
    pinned = [line.partition("==")[2].strip() for line in plain if _name(line) in _NOT_NEEDED]
    version = pinned[0] if pinned else source.mlflow_version
    found = [] if pinned else [f"mlflow=={version}" if version else "mlflow"]
    old = version and _short(version) < (3,) and not any(_name(line) == "setuptools" for line in plain)
    return [*found, _SETUPTOOLS] if old else found


def carried(source: SourceModel, *, whole: bool) -> tuple[str, ...]:
    """Return what a server needs to run the original by MLflow, wherever it is: what the model recorded, and MLflow.

    A model of a library needs none of MLflow's own dependencies (mlflow-skinny), unless `whole` asks for them; a Python
    model may use any. Raises `Invalid` where the requirements cannot be used.
    """
    lines = [line.partition(" #")[0].strip() for line in source.requirements]
    lines = [line for line in lines if line and not line.startswith("#")]
    recorded = versions(source)
    whole = whole or source.flavor == "pyfunc"
    plain = [line for line in lines if whole or _name(line) not in _NOT_NEEDED]
    mlflow = _mlflow(source, lines)
    if whole:
        plain += mlflow
    else:
        own = [line for line in (*lines, *mlflow) if _name(line) in _NOT_NEEDED]
        plain += [re.sub(r"^[\w.-]+(\[[^]]*\])?", "mlflow-skinny", line) for line in own[:1]]
        plain += [line for line in mlflow if _name(line) not in _NOT_NEEDED]
    named = {_name(line) for line in plain}
    plain += [f"{name}=={version}" for name, version in recorded.items() if name not in named]
    plain += _beside(source, recorded, named)
    _check(source.label, plain)
    return tuple(dict.fromkeys(plain))


def python(source: SourceModel, oldest: int) -> str:
    """Return the Python that the model was made with (`3.12`), or 3.`oldest` where that is newer."""
    return _python(source, oldest)


def _beside(source: SourceModel, recorded: Mapping[str, str], named: set[str]) -> list[str]:
    """Return what a model's rows are made with and its file is read with, where it does not name that itself."""
    old = any(_short(recorded[name]) < first for name, first in _NUMPY_2.items() if name in recorded)
    reader = str(_said(source).get("serialization_format", ""))
    needed = (*_WORKER, reader) if reader in _READERS else _WORKER
    return [_OLD.get(name, name) if old else name for name in needed if name.lower() not in named]


def _said(source: SourceModel) -> dict[str, Any]:
    """Return what MLmodel says of the model's flavor."""
    return _yaml(source.model_dir / "MLmodel").get("flavors", {}).get(source.flavor) or {}


def versions(source: SourceModel) -> dict[str, str]:
    """Return distribution -> version of the model's own libraries, as recorded: requirements first, then MLmodel.

    Those of a Python model are all that it names with a version, but for MLflow.
    """
    found = {}
    for line in source.requirements:
        pinned = re.match(r"([\w.-]+)(?:\[[^]]*\])?\s*==\s*([\w.]+)", line)
        known = _name(line) not in _NOT_NEEDED if source.flavor == "pyfunc" else _name(line) in LIBRARIES.values()
        if pinned and known:
            found[_name(line)] = pinned.group(2)
    own = LIBRARIES.get(source.flavor, "")
    if own and own not in found and (version := str(_said(source).get(_RECORDED.get(source.flavor, ""), ""))):
        found[own] = version.partition("+")[0]  # torch says 2.13.0+cpu, which no index has
    return found


def differing(recorded: Mapping[str, str]) -> dict[str, str]:
    """Return those of the recorded versions whose major or minor number is not the installed one's."""
    return {name: said for name, said in recorded.items() if _short(said) != _short(extras.version(name))}


def ready(environment: Wanted, note: Note = lambda _: None) -> Path:
    """Return the interpreter of the environment, made now or taken from the cache.

    Raises `Unavailable` where its Python is missing or uv cannot install what the model recorded.
    """
    folder = environment.folder
    if not environment.made:
        with wheels.alone(folder.parent):
            if not environment.made:
                note(f"making {environment.label}'s own environment: Python {environment.python}")
                _make(environment)
    return folder / "bin" / "python"


def installed(environment: Wanted, names: tuple[str, ...]) -> dict[str, str]:
    """Return name -> version of those distributions that are in a ready environment; nothing of it is run."""
    places = [str(path) for path in environment.folder.glob("lib*/python*/site-packages")]
    found = {_name(one.name): one.version for one in importlib.metadata.distributions(path=places) if one.name}
    return {name: found[_name(name)] for name in names if _name(name) in found}


def described(environment: Wanted, names: tuple[str, ...]) -> str:
    """Return `Python 3.10 with scikit-learn 1.2.2`, for a ready environment."""
    found = installed(environment, names)
    return f"Python {environment.python} with {', '.join(f'{name} {version}' for name, version in found.items())}"


def _make(environment: Wanted) -> None:
    """Make the environment under another name, and give it its own when it is whole."""
    _check(environment.label, environment.requirements)
    python = interpreters.find(environment.python) or interpreters.install(environment.python, wheels.uv())
    if python is None:
        raise Unavailable(
            f"{environment.label} was trained with Python {environment.python}, which is not on this machine and "
            "cannot be fetched",
            f"Install it (uv python install {environment.python}); {_CURRENT}",
        )
    folder = environment.folder
    with archive.translated(folder):
        work = Path(tempfile.mkdtemp(prefix=archive.UNFINISHED, dir=folder.parent))
        try:
            asked = work / "requirements.txt"
            place = work / "made"
            asked.write_text("".join(f"{line}\n" for line in environment.requirements), encoding="utf-8")
            _uv(environment, "venv", "--no-project", "--python", str(python), str(place))
            # uv starts the interpreter it installs for, so nothing may be in it yet: all goes in at once.
            target = ["--python", str(place / "bin" / "python"), "--requirement", str(asked)]
            _uv(environment, "pip", "install", "--only-binary", ":all:", "--no-compile-bytecode", *target)
            (place / _MARK).write_text("".join(sorted(f"{line}\n" for line in environment.requirements)))
            os.sync()
            shutil.rmtree(folder, ignore_errors=True)
            place.rename(folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _check(label: str, requirements: Sequence[str]) -> None:
    """Raise `Invalid` for a line that is more than a name and versions: it could name a file or a program."""
    for line in requirements:
        if not _PLAIN.fullmatch(line):
            raise Invalid(
                f"{label} requires {line!r}, which is no plain package of an index",
                f"Log it again with plain requirements; {_CURRENT}",
            )


def _uv(environment: Wanted, *words: str) -> None:
    given = {**os.environ, "UV_PYTHON_DOWNLOADS": "never", "NO_COLOR": "1", "UV_NO_PROGRESS": "1"}
    given.pop("VIRTUAL_ENV", None)
    done = subprocess.run(
        [wheels.uv(), *words, "--quiet"],
        capture_output=True, text=True, env=given, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    if not done.returncode:
        return
    line = complaints.essential(done.stderr)
    if complaints.unanswered(done.stderr):
        raise Unavailable(
            f"the environment of {environment.label} cannot be made, no package index answers: {line}",
            f"Check the network, or uv's own settings for an index and a proxy; {_CURRENT}",
        )
    raise Unavailable(
        f"the environment of {environment.label} (Python {environment.python}) cannot be made: {line}",
        f"Let uv see an index that has it (UV_DEFAULT_INDEX); {_CURRENT}",
    )


def _python(source: SourceModel, oldest: int) -> str:
    """Return the recorded Python (`3.10`), or the oldest that our code runs on: a pickle asks for no exact one."""
    said = source.python_version or str(_yaml(source.model_dir / "python_env.yaml").get("python", ""))
    found = re.match(r"3\.(\d+)", said)
    minor = int(found.group(1)) if found else sys.version_info.minor
    return f"3.{max(minor, oldest)}"


def _yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Refused(f"{path.name} is not valid YAML", "Log the model again with MLflow.") from error
    return content if isinstance(content, dict) else {}


def _name(line: str) -> str:
    found = re.match(r"[\w.-]+", line)
    return re.sub(r"[-_.]+", "-", found.group()).lower() if found else ""


def _short(version: str) -> tuple[int, ...]:
    """Return major and minor number; () for no version."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])

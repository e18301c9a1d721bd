"""The files of a logged model: its MLmodel configuration, and its pickle, read without MLflow."""

from __future__ import annotations

import importlib.util
import pickle
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from modelrel.errors import Invalid, ModelrelError, Refused, Unavailable

Loaded = TypeVar("Loaded")

_DISTRIBUTIONS: Final = {"sklearn": "scikit-learn", "yaml": "PyYAML", "cv2": "opencv-python", "PIL": "Pillow"}
"""Modules that are called otherwise on the package index."""


def configuration(folder: Path, flavor: str) -> dict[str, Any]:
    """Return what the MLmodel file in `folder` says about one flavor, its code folder put on the import path.

    Raises `Invalid` where the file is missing, is no YAML, or does not name the flavor.
    """
    import yaml

    try:
        content = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
        found = dict(content["flavors"][flavor] or {})
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise Invalid(f"MLmodel does not describe a {flavor} model", "Log the model again with MLflow.") from error
    if found.get("code"):
        sys.path.insert(0, str(inside(folder, str(found["code"]))))
    return found


def inside(folder: Path, name: str) -> Path:
    """Return a file that MLmodel names; raises `Invalid` where it is missing or outside `folder`."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.exists():
        raise Invalid(f"MLmodel names {name!r}, which is not among the model's files", "Log the model again.")
    return path


def opened(load: Callable[[], Loaded], path: Path) -> Loaded:
    """Return what `load` makes of the model file at `path`.

    Raises `Unavailable` where a library is missing, and `Invalid` where the file is damaged or no model.
    """
    try:
        return load()
    except ModelrelError:
        raise
    except ModuleNotFoundError as error:
        raise _missing(error, path) from error
    except AttributeError as error:
        raise _outdated(error, path) from error
    except (MemoryError, RecursionError):
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        raise Invalid(
            f"the model file {path.name} cannot be loaded: {type(error).__name__}: {said}",
            "It is damaged (fetch it again with --force), or of another version of its library (try --env model).",
        ) from error


def unpickled(path: Path, serialization: str, trusted: list[str] | None) -> object:
    """Load what MLflow's sklearn flavor saved: `pickle`, `cloudpickle` or `skops`."""

    def load() -> object:
        if serialization == "skops":
            return _skops().load(path, trusted=trusted)
        with path.open("rb") as stream:
            # Cloudpickle writes plain pickles; the library is only needed while its own functions are rebuilt.
            return pickle.load(stream)  # noqa: S301 - running it is what this process is for

    return opened(load, path)


def _skops() -> Any:
    """Return `skops.io`, without the seconds that PyTorch would cost where it is installed.

    It walks through every package of scikit-learn for the names of estimators, and so through one that wraps PyTorch
    (and has none). What cannot be imported is passed over by that walk; afterwards it can be imported as before.
    """
    wrapped = "sklearn.externals.array_api_compat.torch"
    held = wrapped not in sys.modules
    if held:
        sys.modules[wrapped] = None  # type: ignore[assignment] # what makes an import of it fail
    try:
        import skops.io
    finally:
        if held:
            del sys.modules[wrapped]
    return skops.io


def _missing(error: ModuleNotFoundError, path: Path) -> ModelrelError:
    module = (error.name or str(error)).partition(".")[0]
    if error.name and "." in error.name and _installed(module):
        return Unavailable(
            f"the model needs {error.name}, which the installed {module} does not have",
            f"Install the version it was trained with: pip install {_requirement(module, path.parent)}",
        )
    return Unavailable(
        f"the model needs the library {module}, which is not installed here",
        f"Install it: pip install {_requirement(module, path.parent)}",
    )


def _outdated(error: AttributeError, path: Path) -> ModelrelError:
    """An attribute that is not where the pickle says: a class of the training script, or another version."""
    found = re.search(r"[Cc]an't get attribute '([^']+)' on <module '([^']+)'", str(error))
    if found is None:
        return Invalid(
            f"the model file {path.name} cannot be loaded: {error}",
            "It was made with other versions of its libraries; install those of its requirements.txt.",
        )
    name, module = found.groups()
    if module in ("__main__", "modelrel.worker"):  # the worker is the main module here
        return Refused(
            f"the model uses {name}, which was defined in its training script",
            "Move it to a module and log the model with code_paths=[...].",
        )
    top = module.partition(".")[0]
    return Unavailable(
        f"the model needs {module}.{name}, which the installed {top} does not have",
        f"Install the version it was trained with: pip install {_requirement(top, path.parent)}",
    )


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _requirement(module: str, folder: Path) -> str:
    """Return the pip requirement for a module, with the version of the logged requirements where there is one."""
    wanted = _DISTRIBUTIONS.get(module, module)
    try:
        lines = (folder / "requirements.txt").read_text(encoding="utf-8").splitlines()
    except OSError:
        return wanted
    for line in lines:
        name = re.split(r"[<>=!~\[; ]", line.strip(), maxsplit=1)[0]
        if name.lower().replace("_", "-") == wanted.lower().replace("_", "-"):
            return line.strip()
    return wanted

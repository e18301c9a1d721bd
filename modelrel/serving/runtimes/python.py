"""Models as they are: loaded by MLflow in worker processes, in an environment of their own.

Their file is a zip, or the ``modelrel-origin.json`` of one that is unpacked already, as images have it: those cannot
write, and need not.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from ..manifest import BrokenModel
from .processes import Start
from .unpacking import DESCRIPTION, Place, unpack
from .workers import Workers, asked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..manifest import Manifest
    from . import Means

PLATFORM: Final = "mlflow_pyfunc"


class _Described(msgspec.Struct):
    """What the server wants of ``modelrel-origin.json``: what the model was logged with."""

    flavor: str


def load(path: Path, manifest: Manifest, means: Means) -> Workers:
    """Load a model in worker processes. Raises ``BrokenModel``."""
    try:
        place = Place()
    except OSError as error:
        raise BrokenModel(f"{path} cannot be unpacked: {error.strerror}") from error
    try:
        laid_out = path.name == DESCRIPTION
        top = path.resolve().parent if laid_out else place.path
        described = path.read_bytes() if laid_out else unpack(path, place.path)
        flavor = msgspec.json.decode(described, type=_Described).flavor
        said = {**asked(manifest), "folder": str(top / "model"), "flavor": flavor}
        python, packages = _interpreter(manifest.name, means.python)
        start = Start(python, place.path, said, means.threads or 1, packages=packages)
        return Workers(manifest, means, start, place)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        place.remove()
        raise BrokenModel(f"{path} does not say how its model is run: {error}") from error
    except BaseException:
        place.remove()
        raise


def _interpreter(name: str, said: Sequence[str]) -> tuple[str, str]:
    """Return the interpreter for a model: its own, else that for all, else the server's.

    Where a folder of packages is named, it is the server's, with these packages alone; "" for no such folder.
    """
    own = [program for model, equals, program in (one.partition("=") for one in said) if equals and model == name]
    everyone = [one for one in said if "=" not in one]
    found = (own or everyone or [sys.executable])[-1]
    return (sys.executable, str(Path(found).resolve())) if Path(found).is_dir() else (found, "")

"""Models as they are: loaded by MLflow in worker processes, in an environment of their own."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import msgspec

from ..manifest import BrokenModel
from .processes import Start
from .unpacking import Place, unpack
from .workers import Workers, asked

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

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
        described = unpack(path, place.path)
        flavor = msgspec.json.decode(described, type=_Described).flavor
        said = {**asked(manifest), "folder": str(place.path / "model"), "flavor": flavor}
        python = _interpreter(manifest.name, means.python)
        return Workers(manifest, means, Start(python, place.path, said, means.threads or 1), place)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        place.remove()
        raise BrokenModel(f"{path} does not say how its model is run: {error}") from error
    except BaseException:
        place.remove()
        raise


def _interpreter(name: str, said: Sequence[str]) -> str:
    """Return the interpreter for a model: its own, else that for all, else the server's."""
    own = [program for model, equals, program in (one.partition("=") for one in said) if equals and model == name]
    everyone = [one for one in said if "=" not in one]
    return (own or everyone or [sys.executable])[-1]

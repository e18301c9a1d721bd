"""PMML files, by PMML4S in a Java process of a worker process."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from typing import TYPE_CHECKING, Final

from ..manifest import BrokenModel
from .processes import Start
from .unpacking import Place
from .workers import Workers, asked

if TYPE_CHECKING:
    from pathlib import Path

    from ..manifest import Manifest
    from . import Means

PLATFORM: Final = "pmml4s_pmml"


def load(path: Path, manifest: Manifest, means: Means) -> Workers:
    """Load a PMML file in worker processes. Raises ``BrokenModel``, also where pypmml or Java is missing."""
    if importlib.util.find_spec("pypmml") is None:
        raise BrokenModel(f"{path} needs pypmml, which is not installed here: pip install pypmml")
    if shutil.which("java") is None:
        raise BrokenModel(f"{path} needs Java, and there is no java on the PATH")
    try:
        place = Place()
    except OSError as error:
        raise BrokenModel(f"{path} needs a folder for temporary files: {error.strerror}") from error
    said = {**asked(manifest), "path": str(path)}
    try:
        start = Start(sys.executable, place.path, said, means.threads or 1, "pmml_scorer")
        return Workers(manifest, means, start, place)
    except BaseException:
        place.remove()
        raise

"""The interpreters that served Python models run by: environments as those in which `verify` asks the originals."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from modelrel.formats import python
from modelrel.serving.manifest import BrokenModel, inside, read_manifest

_VARIABLE: Final = "MODELREL_PYTHON"


def variables(folders: Sequence[Path]) -> dict[str, str]:
    """Return the variable that tells a server of these model folders which interpreter is whose.

    {} where every model runs by this one, or the user has named interpreters. Environments are made where they are
    missing; raises `Unavailable` where they cannot be. A folder that cannot be served is left to the server.
    """
    if os.environ.get(_VARIABLE):
        return {}
    found = []
    for folder in folders:
        try:
            manifest = read_manifest(folder)
            path = inside(folder, manifest.file)
        except BrokenModel:
            continue
        own = python.interpreter(path) if manifest.format == "python" else ""
        found += [f"{manifest.name}={own}"] if own else []
    return {_VARIABLE: ",".join(found)} if found else {}

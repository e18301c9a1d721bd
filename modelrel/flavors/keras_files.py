"""The files of Keras models (.keras archives, .h5), looked at before anything in them is loaded.

Formats: the `.keras` archive (a zip of metadata.json, config.json, model.weights.h5 and assets) and HDF5.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any, Final

from modelrel import extras
from modelrel.errors import Refused

_MOST: Final = 2**36  # bytes that an archive may unpack to
_WEIGHTS: Final = "model.weights.h5"


def library(path: Path) -> Any:
    """Return the Keras that wrote the file, 3 or 2 (tf_keras).

    Raises `Refused` where the file reaches outside of itself, `Unavailable` where that Keras is not installed.
    """
    if path.suffix == ".h5":
        version = _looked_at(path)
    else:
        with zipfile.ZipFile(path) as archive:
            _inside(archive)
            version = str(json.loads(archive.read("metadata.json")).get("keras_version", ""))
            if _WEIGHTS in archive.namelist():
                _looked_at(io.BytesIO(archive.read(_WEIGHTS)))
    return extras.load("tf_keras" if version.startswith("2.") else "keras")


def _inside(archive: zipfile.ZipFile) -> None:
    """Raise `Refused` for a name that leads out of the archive, or an archive that unpacks to far more than it is."""
    size = 0
    for entry in archive.infolist():
        size += entry.file_size
        path = PurePosixPath(entry.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            raise Refused(
                f"the Keras archive holds {entry.filename!r}, which leads out of it",
                "Do not load it: save the model again.",
            )
    if size > _MOST:
        raise Refused(
            f"the Keras archive claims to unpack to {size:,} bytes, and {_MOST:,} are the most",
            "Do not load it: save the model again.",
        )


def _looked_at(file: Any) -> str:
    """Return the Keras version that an HDF5 file names; raises `Refused` where it takes data from other files."""
    import h5py

    with h5py.File(file, "r") as content:
        _followed(content)
        return str(content.attrs.get("keras_version", ""))


def _followed(group: Any) -> None:
    import h5py

    for name in group:
        link = group.get(name, getlink=True)
        found = None if isinstance(link, h5py.ExternalLink) else group.get(name)
        if isinstance(link, h5py.ExternalLink) or (
            isinstance(found, h5py.Dataset) and (found.external or found.is_virtual)
        ):
            raise Refused(
                f"the weights {group.name.rstrip('/')}/{name} lie in another file, by a link inside the model",
                "Do not load it: save the model again.",
            )
        if isinstance(found, h5py.Group) and isinstance(link, h5py.HardLink):
            _followed(found)

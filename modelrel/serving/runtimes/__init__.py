"""What computes a model's file: one module for each format, imported when the first such file is loaded."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Executor
    from pathlib import Path

    import numpy as np

    from ..manifest import Manifest

    Array = np.ndarray[Any, np.dtype[Any]]

__all__ = ["FORMATS", "Loaded", "Means", "Runtime", "runtime"]

FORMATS: Final = ("onnx", "tflite", "python", "pmml")
"""The formats that there is a module for, of the same name."""


class Means(NamedTuple):
    """What a runtime may use, as the server's operator says; nothing of it comes from a model.

    ``threads`` compute one request (None: the runtime's default, one). ``python`` are interpreters for models of the
    format python: ``PROGRAM`` for all, ``NAME=PROGRAM`` for one; where none is named, it is the server's own.
    ``python_workers`` is the number of processes of each such model. ``timeout_s`` is what a request may take in
    another process, 0 for any time.
    """

    threads: int | None = None
    python: Sequence[str] = ()
    python_workers: int = 1
    timeout_s: float = 60.0


class Loaded(Protocol):
    """A model's file in memory.

    ``inputs`` and ``outputs`` are name -> Open Inference datatype as the file has them; None where it does not say.
    ``blocks`` is True where ``run`` waits for another process, so that it must never be called on the event loop;
    ``pool`` are threads to wait on then, which belong to this model alone, so that no other model waits for it.
    ``ready`` is False while it could answer nothing, since the process that does is being started again.
    """

    inputs: Mapping[str, str] | None
    outputs: Mapping[str, str] | None
    blocks: bool
    pool: Executor | None

    @property
    def ready(self) -> bool:
        """Whether a request would be computed now."""

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Array], params: Mapping[str, Any] | None) -> list[Array]:
        """Compute the named outputs, in that order. Safe from several threads at once.

        Raises ``Refused`` with what a client may know (503 and 504 of other processes), and anything else.
        """

    def close(self) -> None:
        """Give back what it holds beyond memory; nothing runs then, and nothing is asked of it after."""


class Runtime(Protocol):
    """What a module of this folder offers. ``PLATFORM`` is what V2 metadata calls it."""

    @property
    def PLATFORM(self) -> str:  # noqa: N802 - a constant of the module
        """The runtime's name in V2 metadata, as ``<framework>_<format>`` where one is in use."""

    def load(self, path: Path, manifest: Manifest, means: Means) -> Loaded:
        """Load the model's file. Raises ``BrokenModel``, also where the library is not installed."""


def runtime(format: str) -> Runtime:  # noqa: A002 (the manifest's word)
    """Return the module for a format of ``FORMATS``."""
    return cast("Runtime", import_module(f".{format}", __name__))

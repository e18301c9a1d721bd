"""A model that is computed in worker processes, as the server sees it."""

from __future__ import annotations

import atexit
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from ..frames import Misfit
from ..manifest import BrokenModel
from ..tensors import DTYPES
from .processes import ModelRaised, Processes, Start

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..manifest import Manifest, TensorSpec
    from ..tensors import Array
    from . import Means
    from .unpacking import Place

_WAITING: Final = 64
"""Requests of one model that wait for a process at once; more wait in a queue before them."""


def asked(manifest: Manifest) -> dict[str, object]:
    """Return what a worker must know of a manifest: the names, datatypes and shapes of its file's tensors."""
    interface = manifest.interface
    passed = interface.passed if interface else ()
    own = interface.outputs if interface else {}
    return {
        "kind": manifest.kind,
        "predict": own.get(manifest.predict, manifest.predict),
        "inputs": [_plain(spec, spec.name) for spec in manifest.inputs if spec.name not in passed],
        "outputs": [_plain(spec, name) for name, spec in given(manifest).items()],
    }


def given(manifest: Manifest) -> dict[str, TensorSpec]:
    """Return the outputs of the file by its own names."""
    specs = {spec.name: spec for spec in manifest.outputs}
    return {own: specs[name] for name, own in manifest.interface.outputs.items()} if manifest.interface else specs


def _plain(spec: TensorSpec, name: str) -> list[object]:
    return [name, spec.datatype, list(spec.shape)]


class Workers:
    """The worker processes of one model."""

    inputs = None
    outputs = None
    blocks = True

    def __init__(self, manifest: Manifest, means: Means, start: Start, place: Place) -> None:
        """Wait until a process has loaded the model; ``place`` is removed at the end. Raises ``BrokenModel``."""
        self._seconds = means.timeout_s
        self._specs = given(manifest)
        self._place = place
        label = f"{manifest.name}/{manifest.version}"
        self._processes = Processes(start, means.python_workers, label)
        if why := self._processes.wait():
            self._processes.close()
            raise BrokenModel(f"{label} cannot be loaded by {start.python}: {why}")
        self.pool = ThreadPoolExecutor(max_workers=_WAITING, thread_name_prefix=f"{label} waits")
        atexit.register(self.close)

    @property
    def ready(self) -> bool:
        """Whether a process has the model loaded."""
        return self._processes.ready

    @property
    def pids(self) -> list[int]:
        """The numbers of the processes that run."""
        return self._processes.pids

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Array], params: Mapping[str, Any] | None) -> list[Array]:
        """Have a worker compute the named outputs.

        Raises ``Refused``: 503 and 504 as ``Processes.ask``, 400 for params that MLflow does not take; ``ModelRaised``
        where the model raises, ``ValueError`` where its process answers nonsense.
        """
        said = {"outputs": list(outputs), "params": params}
        try:
            found = self._processes.ask(said, feeds, self._seconds)
        except ModelRaised as error:
            if params and error.kind == "MlflowException":
                raise Misfit("the model does not take these params") from error
            raise
        if list(found) != list(outputs):
            raise ValueError(f"the model's process answers {list(found)[:8]}")
        for name, array in found.items():
            if array.dtype != DTYPES[self._specs[name].datatype]:
                raise ValueError(f"the model's process answers {name} as {array.dtype}")
        return list(found.values())

    def close(self) -> None:
        """End the processes and delete the unpacked model."""
        atexit.unregister(self.close)
        self.pool.shutdown(wait=False, cancel_futures=True)
        self._processes.close()
        self._place.remove()

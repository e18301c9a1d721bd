"""A model folder, loaded and warm: named arrays in, named arrays out."""

from __future__ import annotations

import itertools
import threading
import time
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from .answers import Refused, named
from .manifest import DEFAULT_SIGNATURE, BrokenModel, Golden, Interface, Manifest, TensorSpec, inside, read_manifest
from .runtimes import FORMATS, Loaded, Means, runtime
from .tensors import DTYPES, Array

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from . import adapters

    Params = Mapping[str, Any] | None

__all__ = ["BrokenModel", "InferenceFailed", "Model", "load_model"]

WARM_UP_RUNS: Final = 3

INLINE_MS: Final = 5.0
"""What a request may hold up the event loop, and so the health checks, for. Longer ones go to a thread."""

INLINE_BYTES: Final = 64 * 1024
"""A body beyond this size goes to a thread whatever the model costs, because reading it takes a millisecond too."""


_NUMBERS: Final = itertools.count()


class InferenceFailed(Exception):
    """The runtime could not compute a request that looked right; the cause is chained."""


class _Users:
    """How many requests use a model, and what it holds for them."""

    def __init__(self, held: list[Loaded]) -> None:
        self.lock = threading.Lock()
        self.count = 0
        self.retired = False
        self._held = held

    def close(self) -> None:
        for loaded in self._held:
            loaded.close()


class Model:
    """One loaded model.

    ``name``, ``version``, ``kind``, ``inputs``, ``outputs``, ``metadata``, ``format`` are the manifest's, ``platform``
    is V2's name of the runtime, ``golden`` the examples of the folder where there are any; ``row_ms`` is how long the
    warm-up inference took per row, in milliseconds, once the first-run costs were paid. ``blocks`` is True where it
    is computed in another process, so that whoever calls it waits; ``pool`` are the threads to do so, or None.
    ``images`` names the inputs that are encoded images, as base64 text. ``signatures`` has every signature of the model
    by name, this one (``signature``) too, and ``default`` is the one that answers where a request names none; they are
    used and given back together. ``number`` is another one for each model that was ever loaded, also of the same name
    and version. ``batches`` is True where requests may be computed together.
    """

    def __init__(self, manifest: Manifest, loaded: Loaded, adapter: adapters.Adapter | None = None) -> None:
        self.name = manifest.name
        self.version = manifest.version
        self.signature = manifest.signature
        self.signatures: Mapping[str, Model] = {self.signature: self}
        self.default = self
        self.kind = manifest.kind
        self.inputs = manifest.inputs
        self.outputs = manifest.outputs
        self.predict_output = manifest.predict
        self.classes = manifest.classes
        self.metadata = manifest.metadata
        self.format = manifest.format
        self.platform = runtime(manifest.format).PLATFORM
        self.blocks = loaded.blocks
        self.pool = loaded.pool
        self.row_ms = 0.0
        self.number = next(_NUMBERS)
        self.batches = False
        self.headers = named(self.name, self.version)
        self.folder = Path()
        self.golden_file: Path | None = None
        self._loaded = loaded
        self._users = _Users([loaded])
        self._run = loaded.run
        self._adapter = adapter
        self.images = adapter.images if adapter else frozenset()
        self._interface = manifest.interface
        self._output_names = [spec.name for spec in manifest.outputs]

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute every output.

        ``inputs`` holds one array per input of the model, of its dtype and rank (strings as object arrays of ``str``).
        Raises ``InferenceFailed`` when the runtime refuses them.
        """
        return dict(zip(self._output_names, self.run(self._output_names, inputs), strict=True))

    @property
    def ready(self) -> bool:
        """Whether a request would be computed now; False while the process that does is being started again."""
        return self._loaded.ready

    @property
    def inline_bytes(self) -> int:
        """The size up to which a body is answered on the event loop; -1 where it never is.

        A hop to a thread and back takes some 70 microseconds, more than most answers. So a request stays if
        it cannot hold so many rows that they take longer than ``INLINE_MS``: a value is at least a digit and a comma.
        """
        if self.blocks:
            return -1
        row_bytes = sum(2 * prod(max(size, 1) for size in spec.shape) for spec in self.inputs)
        return min(INLINE_BYTES, int(INLINE_MS / max(self.row_ms, 1e-3) * row_bytes))

    def enter(self) -> bool:
        """Note that a request is about to use the model, and ``retire`` has to wait; False where it is too late."""
        users = self._users
        with users.lock:
            if users.retired and not users.count:
                return False
            users.count += 1
            return True

    def leave(self) -> None:
        """Note that the request is through."""
        users = self._users
        with users.lock:
            users.count -= 1
            last = users.retired and not users.count
        if last and self.blocks:  # this may be the event loop, and the end of a process takes its time
            threading.Thread(target=users.close, name=f"{self.name} ends").start()
        elif last:
            users.close()

    def retire(self) -> None:
        """Give back what the runtime holds as soon as no request uses the model any more."""
        users = self._users
        with users.lock:
            last = not users.retired and not users.count
            users.retired = True
        if last:
            users.close()

    def golden(self) -> Golden | None:
        """Read the golden examples, inputs and outputs; None where the folder has none. Raises ``BrokenModel``."""
        path = self.golden_file
        if path is None:
            return None
        try:
            return msgspec.json.decode(path.read_bytes(), type=Golden)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BrokenModel(f"{path} does not fit the model: {_first_line(error)}") from error

    def run(
        self, outputs: Sequence[str], feeds: Mapping[str, Array], params: Mapping[str, Any] | None = None
    ) -> list[Array]:
        """Compute the named outputs only, in that order. ``params`` are MLflow's, for formats that take any.

        Raises ``InferenceFailed``, and ``Refused`` (400) for values that the model's adapter makes nothing of.
        """
        if self._interface is not None:
            return self._dressed(self._interface, outputs, feeds, params)
        return self._bare(outputs, feeds, params)

    def _dressed(
        self, interface: Interface, outputs: Sequence[str], feeds: Mapping[str, Array], params: Params
    ) -> list[Array]:
        """Compute outputs by their served names; what is passed through is not shown to the graph."""
        own = {name: array for name, array in feeds.items() if name not in interface.passed}
        computed = [name for name in outputs if name in interface.outputs]
        found = dict(
            zip(computed, self._bare([interface.outputs[name] for name in computed], own, params), strict=True)
        )
        return [found[name] if name in found else feeds[name] for name in outputs]

    def _bare(self, outputs: Sequence[str], feeds: Mapping[str, Array], params: Params) -> list[Array]:
        if self._adapter is not None:
            return self._adapted(self._adapter, outputs, feeds)
        return self._computed(outputs, feeds, params)

    def _adapted(self, adapter: adapters.Adapter, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """Compute some rows after others, as the adapter asks for: what it makes of them is large."""
        from .adapters import BadInput

        count = len(next(iter(feeds.values())))
        found = []
        for at in range(0, max(count, 1), adapter.rows):
            try:
                some = adapter({name: array[at : at + adapter.rows] for name, array in feeds.items()})
            except BadInput as error:
                raise Refused(400, str(error)) from error
            found.append(self._computed(outputs, some))
        return found[0] if len(found) == 1 else [np.concatenate(parts) for parts in zip(*found, strict=True)]

    def _computed(self, outputs: Sequence[str], feeds: Mapping[str, Array], params: Params = None) -> list[Array]:
        try:
            return self._run(outputs, feeds, params)
        except Refused:
            raise
        except Exception as error:  # onnxruntime raises a dozen unrelated classes, ValueError and RuntimeError too
            raise InferenceFailed(f"the runtime refused a request to {self.name}/{self.version}") from error


def joined(model: Model, other: Model) -> Model:
    """Make another signature of a model one with it, and return the one that answers where a request names none.

    That is ``serving_default`` or else the first. Both have the same name and version, and no request uses them yet.
    """
    known = {**model.signatures, **other.signatures}
    users = _Users([one._loaded for one in known.values()])  # noqa: SLF001 (of a model's own)
    default = known.get(DEFAULT_SIGNATURE, next(iter(known.values())))
    for one in known.values():
        one.signatures, one.default, one._users = known, default, users  # noqa: SLF001
    return default


def load_model(
    folder: str | Path, threads: int | None = None, means: Means | None = None, runs: int = WARM_UP_RUNS
) -> Model:
    """Load a model folder and run it once, so that the first request is as quick as the thousandth.

    ``threads`` is how many threads compute one request. The default is one: it is the fastest for single rows (a forest
    of 100 trees: 5.5 against 7.1 microseconds with two), and leaves the other cores to other requests. Two are faster
    from some hundred rows a request on. ``means`` is what formats of other processes may use. ``runs`` more tell what
    a row costs (``Model.row_ms``), which only a server with an event loop wants to know. Raises ``BrokenModel``.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BrokenModel(f"{folder} is not a folder")
    manifest = read_manifest(folder)
    adapter = _adapter(inside(folder, manifest.adapter)) if manifest.adapter else None
    if manifest.format not in FORMATS:
        raise BrokenModel(f"{folder} is of the format {manifest.format!r}; this server runs {', '.join(FORMATS)}")
    path = inside(folder, manifest.file)
    golden = inside(folder, manifest.golden) if manifest.golden else None
    loaded = runtime(manifest.format).load(path, manifest, (means or Means())._replace(threads=threads))
    try:
        _check_signature(manifest, loaded, adapter)
        model = Model(manifest, loaded, adapter)
        model.folder = folder
        model.golden_file = golden
        if golden is not None or adapter is None:  # zeros and empty strings are nothing to an adapter
            _warm_up(model, _example(model), runs)
    except BaseException:
        loaded.close()
        raise
    return model


def _adapter(path: Path) -> adapters.Adapter:
    from . import adapters  # here, because most models have none

    try:
        return adapters.load(path)
    except adapters.BrokenAdapter as error:
        raise BrokenModel(str(error)) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _check_signature(manifest: Manifest, loaded: Loaded, adapter: adapters.Adapter | None) -> None:
    """Compare what the manifest, or the adapter, promises with what the model file has. Raises ``BrokenModel``."""
    interface = manifest.interface or Interface({spec.name: spec.name for spec in manifest.outputs})
    sent = {spec.name: spec.datatype for spec in manifest.inputs if spec.name not in interface.passed}
    fed: Mapping[str, str] = adapter.gives if adapter else sent
    datatypes = {spec.name: spec.datatype for spec in manifest.outputs}
    given = {own: datatypes[name] for name, own in interface.outputs.items()}
    found_inputs = fed if loaded.inputs is None else loaded.inputs
    found_outputs = given if loaded.outputs is None else loaded.outputs
    who = "adapter" if adapter else "manifest"
    for direction, by, expected, found in (
        ("input", who, fed, found_inputs),
        ("output", "manifest", given, found_outputs),
    ):
        for name, datatype in expected.items():
            if name not in found:
                raise BrokenModel(f"{manifest.file} has no {direction} {name!r}, which the {by} names")
            if found[name] != datatype:
                raise BrokenModel(
                    f"{manifest.file} has the {direction} {name!r} as {found[name]}, the {by} says {datatype}"
                )
    unnamed = sorted(found_inputs.keys() - fed.keys())
    if unnamed:
        raise BrokenModel(f"{manifest.file} needs the input {unnamed[0]!r}, which the {who} does not name")


def _example(model: Model) -> dict[str, Array]:
    """Return inputs to warm up with: the golden ones, or one row of zeros and empty strings."""
    golden = model.golden()
    if golden is None:
        return {spec.name: _zeros(spec) for spec in model.inputs}
    given = golden.inputs
    try:
        return {
            spec.name: np.array(given[spec.name], DTYPES[spec.datatype]).reshape(spec.shape) for spec in model.inputs
        }
    except KeyError as error:
        raise BrokenModel(f"{model.golden_file} has no value for the input {error}") from error
    except (ValueError, TypeError, OverflowError) as error:
        raise BrokenModel(f"{model.golden_file} does not fit the model: {_first_line(error)}") from error


def _zeros(spec: TensorSpec) -> Array:
    shape = [1 if size < 0 else size for size in spec.shape]
    dtype: np.dtype[Any] = DTYPES[spec.datatype]
    return np.full(shape, "", dtype) if spec.datatype == "BYTES" else np.zeros(shape, dtype)


def _warm_up(model: Model, example: Mapping[str, Array], runs: int) -> None:
    """Run once to pay for allocation and lazy code, then some more to learn what a row costs."""
    rows = max(len(array) if array.ndim else 1 for array in example.values())
    try:
        model.predict(example)
        times = []
        for _ in range(runs):  # the quickest counts: a machine that is starting a server is often busy
            started = time.perf_counter()
            model.predict(example)
            times.append(time.perf_counter() - started)
        model.row_ms = min(times, default=0.0) * 1e3 / max(rows, 1)
    except Refused as error:
        raise BrokenModel(f"{model.name}/{model.version} refuses the golden rows: {error}") from error
    except InferenceFailed as error:
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise BrokenModel(f"{model.name}/{model.version} fails its first inference: {_first_line(cause)}") from error

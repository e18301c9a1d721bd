"""TFLite files, by LiteRT on the CPU: interpreters that share the mapped file, one for each request at a time."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from ..manifest import BrokenModel
from ..tensors import DTYPES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from ..manifest import Manifest
    from ..tensors import Array
    from . import Means

PLATFORM: Final = "litert_tflite"

SIGNATURE: Final = "serving_default"
"""The signature that is served, by TensorFlow's name for the usual one."""

_heard = False
"""Whether LiteRT has said what it says once in a process."""

_AT_ONCE: Final = 4096  # rows; a step of a forest holds a number for each row and tree
_NAMES: Final = {dtype: name for name, dtype in DTYPES.items()}


class _Tensor(NamedTuple):
    """An input or output of the file; where ``scale`` is not 0, its whole numbers stand for real ones."""

    place: int
    dtype: np.dtype[Any]
    scale: float
    zero_point: int
    row: tuple[int, ...]

    @property
    def datatype(self) -> str:
        """What a server takes or gives: real numbers as FP32, however the file holds them."""
        return "FP32" if self.scale else _NAMES.get(self.dtype, str(self.dtype))

    def entered(self, array: Array) -> Array:
        """Return an array as the file takes it: the nearest whole number within its datatype, NaN as 0."""
        if not self.scale:
            return np.ascontiguousarray(array, self.dtype)
        limits = np.iinfo(self.dtype)
        with np.errstate(over="ignore"):
            scaled = np.rint(np.nan_to_num(array.astype(np.float64), nan=0.0) / self.scale) + self.zero_point
        return np.asarray(np.clip(scaled, limits.min, limits.max), self.dtype)

    def left(self, array: Array) -> Array:
        """Return an array of the file as a server gives it."""
        if self.scale:
            return ((array.astype(np.float64) - self.zero_point) * self.scale).astype(np.float32)
        if array.dtype != object:
            return array
        found = np.empty(array.shape, object)
        found.ravel()[:] = [item.decode() for item in array.ravel()]
        return found


class _Interpreter:
    """One interpreter of LiteRT; not for two threads at once."""

    def __init__(self, path: Path, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        # A path, not the content: the file is mapped, and its pages are those of every other interpreter's.
        self._interpreter: Any = Interpreter(model_path=str(path), num_threads=threads)
        runner = self._interpreter.get_signature_runner(SIGNATURE)
        self.inputs = {name: _tensor(said) for name, said in runner.get_input_details().items()}
        self.outputs = {name: _tensor(said) for name, said in runner.get_output_details().items()}
        # The runner of a signature sizes its inputs anew for each call. Where the signature is that of the first
        # subgraph, which is nearly always, the interpreter's own methods do the same, and only when a size changes;
        # but they refuse to while a runner is there.
        self._runner = runner if getattr(runner, "_subgraph_index", None) != 0 else None
        self._shapes: dict[str, tuple[int, ...]] | None = None

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """Compute the named outputs of rows. Raises what LiteRT raises."""
        given = {name: tensor.entered(feeds[name]) for name, tensor in self.inputs.items()}
        if self._runner is not None:
            found = self._runner(**given)
            return [self.outputs[name].left(found[name]) for name in outputs]
        shapes = {name: array.shape for name, array in given.items()}
        if shapes != self._shapes:
            self._shapes = None  # unknown, should one of the next lines raise
            for name, shape in shapes.items():
                self._interpreter.resize_tensor_input(self.inputs[name].place, shape)
            self._interpreter.allocate_tensors()
            self._shapes = shapes
        for name, array in given.items():
            self._interpreter.set_tensor(self.inputs[name].place, array)
        self._interpreter.invoke()
        return [self.outputs[name].left(self._interpreter.get_tensor(self.outputs[name].place)) for name in outputs]

    def rehearse(self) -> None:
        """Compute one row of zeros, where LiteRT lets it: it hands some graphs to XNNPACK only then, and says so."""
        if any(tensor.dtype == object for tensor in self.inputs.values()):
            return
        zeros = {name: np.zeros(tensor.row, tensor.dtype) for name, tensor in self.inputs.items()}
        with suppress(ValueError, RuntimeError):
            self.run([], zeros)


class Interpreters:
    """The interpreters of one file: as many as are in use at once, at most one more than there are cores."""

    blocks = False
    pool = None
    ready = True

    def __init__(self, path: Path, threads: int) -> None:
        """Make the first one. Raises what LiteRT raises for a file that it does not take."""
        self._path, self._threads = path, threads
        first = _Interpreter(path, threads)
        first.rehearse()
        self.inputs: Mapping[str, str] = {name: tensor.datatype for name, tensor in first.inputs.items()}
        self.outputs: Mapping[str, str] = {name: tensor.datatype for name, tensor in first.outputs.items()}
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._lock = threading.Condition()
        self._free = [first]
        self._left = cores  # one thread for each core, and the event loop

    def run(
        self,
        outputs: Sequence[str],
        feeds: Mapping[str, Array],
        params: Mapping[str, Any] | None,  # noqa: ARG002 (a graph has no parameters)
    ) -> list[Array]:
        """Compute the named outputs, some thousand rows after the others. Raises what LiteRT raises."""
        interpreter = self._taken()
        try:
            count = max(map(len, feeds.values()), default=0)
            if count <= _AT_ONCE:
                return interpreter.run(outputs, feeds)
            parts = [
                interpreter.run(outputs, {name: array[at : at + _AT_ONCE] for name, array in feeds.items()})
                for at in range(0, count, _AT_ONCE)
            ]
            return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
        finally:
            with self._lock:
                self._free.append(interpreter)
                self._lock.notify()

    def _taken(self) -> _Interpreter:
        with self._lock:
            while not self._free and not self._left:
                self._lock.wait()
            if self._free:
                return self._free.pop()
            self._left -= 1
        try:
            return _Interpreter(self._path, self._threads)
        except BaseException:
            with self._lock:
                self._left += 1
                self._lock.notify()
            raise

    def close(self) -> None:
        """Let the interpreters go, and with them the mapped file."""
        with self._lock:
            self._free.clear()


def load(path: Path, manifest: Manifest, means: Means) -> Interpreters:  # noqa: ARG001 (other formats need it)
    """Load a TFLite file. Raises ``BrokenModel``, also where LiteRT is not installed."""
    global _heard  # noqa: PLW0603 (so does the library)
    with _silent() if not _heard else nullcontext():
        try:
            found = Interpreters(path, means.threads or 1)
            _heard = True
        except ModuleNotFoundError as error:
            raise BrokenModel(
                f"{path} needs LiteRT, which is not installed here: pip install ai-edge-litert"
            ) from error
        except Exception as error:  # whatever LiteRT makes of a file that is none: ValueError, RuntimeError, others
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise BrokenModel(f"{path} cannot be loaded: {reason}") from error
    return found


def _tensor(said: Mapping[str, Any]) -> _Tensor:
    scale, zero_point = said["quantization"]
    # LiteRT calls text numpy.bytes_, and gives it as an object array of bytes.
    dtype = np.dtype(said["dtype"])
    row = tuple(max(int(size), 1) for size in said["shape_signature"])
    text = dtype.kind in "SO"
    return _Tensor(int(said["index"]), np.dtype(object) if text else dtype, float(scale), int(zero_point), row)


@contextmanager
def _silent() -> Iterator[None]:
    """Keep off the terminal what LiteRT prints once in a process ("Created TensorFlow Lite XNNPACK delegate")."""
    sys.stderr.flush()
    kept = os.dup(2)
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)

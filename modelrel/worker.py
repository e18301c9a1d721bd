"""The process in which a model's own code runs: it loads one model, then converts it or predicts with it.

Requests come on stdin, one JSON object a line; replies leave on what stdout was at the start, one a line:
`{"outcome": "done", "value": {...}}` or `{"outcome": "error", "value": {"kind", "message", "hint"}}`. Arrays
travel in .npz files whose names the request gives. Everything printed goes to stderr.

| action | fields | answers |
|---|---|---|
| load | flavor, model_dir, signature, example (its file in model_dir, or "") | how it answers (`values.Answers`) |
| convert | format, path, copy (or ""), opset, operators, quantize, tool, signature, metadata, arrays | what it is |
| predict | signature, arrays, repeat (timed runs) | outputs; `kept` rows, `raised` sentences, `seconds` |
| interpret | signature, arrays | outputs of the model's trees as modelrel reads them; `known`: whether it has some |
| knots | signature, arrays, seconds | rows at bends of inner curves; `reached`, `missed`, `left`, `steep`; `raised` |
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from modelrel import networks, tensors
from modelrel.errors import ModelrelError, Refused
from modelrel.flavors import FLAVORS, Flavor, calibrated, pyfunc
from modelrel.tensors import Array, Tensors
from modelrel.values import Answers, Signature, TensorSpec, signature

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_MAX_SENTENCES: Final = 5
_LOOKED_AT: Final = 64
"""Rows that tell what a Python model is."""


class Loaded:
    """The one model of this process, and what can be asked of it."""

    def __init__(self) -> None:
        """Start without a model."""
        self._native: object = None
        self._whole: object = None  # before one of its signatures was chosen
        self._folder = Path()
        self._flavor: Flavor | None = None
        self._answers: Answers | None = None

    def load(self, request: Mapping[str, Any]) -> dict[str, object]:
        """Load the model, and say how it answers."""
        flavor = FLAVORS[request["flavor"]]
        folder = Path(request["model_dir"])
        self._native = self._whole = flavor.load(folder)
        self._flavor, self._folder = flavor, folder
        if request["flavor"] == "pyfunc" and request["signature"] is not None:
            self._look(folder, request["example"], signature(request["signature"]))
        self._answers = flavor.answers(self._native, folder)
        return asdict(self._answers)

    def _look(self, folder: Path, example: str, shape: Signature) -> None:
        """Let a Python model be asked some rows, for only its answers tell what it is."""
        # Here, for a process that only predicts runs on Pythons that these do not.
        from modelrel import archive
        from modelrel.probes import rows
        from modelrel.probes.generated import Maker

        try:
            real = rows.read(archive.within(folder, example), shape) if example else None
        except ModelrelError:
            real = None  # `verify` says why it is not used
        usual = [group.rows for group in Maker(shape, real, {}, 0).usual(_LOOKED_AT)]
        for asked in (tensors.stack([*([real] if real else []), *usual]), real):
            if asked is not None:
                pyfunc.look(self._native, asked, shape)
            if not getattr(self._native, "silent", False):
                return

    def convert(self, request: Mapping[str, Any]) -> dict[str, object]:
        """Write the copy, and describe it."""
        assert self._flavor is not None
        assert self._answers is not None
        # Here, for a process that only predicts runs on Pythons that the converters do not.
        from modelrel.formats import FORMATS, Order

        rows = _given(request)
        shape = self._served(request)
        shapes = self._shapes(rows, shape)
        if not self._answers.outputs and shapes:
            self._answers = replace(self._answers, outputs=tuple(shapes), predict=next(iter(shapes)))
        name, native, answers = request["flavor"], self._native, self._answers
        if name == "pyfunc" and request["format"] == "python":
            answers = pyfunc.own(native, answers)
        elif name == "pyfunc" and not (request["copy"] and pyfunc.alone(native)):
            name, native = pyfunc.unwrapped(native, request["format"])
        order = Order(
            flavor=name,
            folder=self._folder,
            signature=shape,
            answers=answers,
            opset=int(request["opset"]),
            operators=request["operators"],
            metadata=request["metadata"],
            shapes=shapes,
            rows=rows or {},
            quantize=request["quantize"],
            tool=request["tool"],
        )
        try:
            room, path = FORMATS[request["format"]], Path(request["path"])
            if request["copy"]:
                return dict(room.adopt(native, order, Path(request["copy"]), path))
            return dict(room.convert(native, order, path))
        except Refused as stop:
            if request["format"] == "python" or request["copy"] or "python" in stop.hint:
                raise
            raise Refused(stop.message, f"{stop.hint} As it is, it can become python: --to python.".strip()) from stop
        except (ModelrelError, MemoryError):
            raise
        except Exception as error:
            raise Refused(
                f"{self._answers.estimator} cannot be converted to {request['format']}: {_sentence(error)}",
                "Look with -v at the converter's traceback; release another estimator, or it as it is (--to python).",
            ) from error

    def _served(self, request: Mapping[str, Any]) -> Signature:
        """Return the request's signature, after making the model answer by the one of its several that it names."""
        assert self._flavor is not None
        shape = signature(request["signature"])
        if shape.name:
            self._native = networks.chosen(self._whole, shape.name)
            self._answers = self._flavor.answers(self._native, self._folder)
        return shape

    def _shapes(self, rows: Tensors | None, shape: Signature) -> dict[str, TensorSpec]:
        """Return datatype and shape of each output on real rows, or nothing where there are none that work."""
        assert self._flavor is not None
        if rows is None:
            return {}
        try:
            return tensors.specs(self._flavor.predict(self._native, rows, shape))
        except Exception:  # noqa: BLE001 - a model may raise anything
            traceback.print_exc()  # the rows may be wrong; the parity check decides, with better words
            return {}

    def predict(self, request: Mapping[str, Any]) -> dict[str, object]:
        """Answer rows; those on which the model raises are left out and counted."""
        rows = _given(request)
        assert rows is not None
        shape = self._served(request)
        raised: dict[str, int] = {}
        index = np.arange(tensors.rows(rows))
        pieces = self._pieces(rows, index, shape, raised)
        if not pieces:
            said = next(iter(raised), "it answered nothing")
            raise Refused(
                f"the model raises on every row: {said}",
                "Check that the logged signature is the one the model was trained with.",
            )
        kept = np.concatenate([piece[0] for piece in pieces])
        seconds = self._time(tensors.take(rows, kept), shape, int(request.get("repeat", 0)))
        tensors.save(tensors.stack([piece[1] for piece in pieces]), Path(request["reply"]))
        return {"kept": kept.tolist(), "raised": raised, "seconds": seconds}

    def interpret(self, request: Mapping[str, Any]) -> dict[str, object]:
        """Answer rows by the model's trees as modelrel reads them, in NumPy alone; not known for another model."""
        assert self._answers is not None
        # Here, for a process that only predicts runs on Pythons that the readers do not.
        from modelrel import trees

        rows = _given(request)
        assert rows is not None
        ensemble = trees.read(self._native)
        if ensemble is None:
            return {"known": False}
        named = [rows[spec.name] for spec in signature(request["signature"]).inputs]
        columns = [array.reshape(len(array), -1) for array in named]
        label, numbers = trees.answers(ensemble, np.concatenate(columns, axis=1) if len(columns) > 1 else columns[0])
        said = [numbers] if label is None else [label, numbers]
        tensors.save(dict(zip(self._answers.outputs, said, strict=True)), Path(request["reply"]))
        return {"known": True}

    def knots(self, request: Mapping[str, Any]) -> dict[str, object]:
        """Look for rows where curves inside the model bend, between the given rows; without rows only count them."""
        assert self._flavor is not None
        shape = signature(request["signature"])
        found = self._flavor.curves(self._native, shape)
        rows = _given(request)
        if rows is None or not found:
            return {"of": sum(len(curve.knots) for curve in found)}
        try:
            made, counts = calibrated.reached(found, rows, shape, float(request["seconds"]))
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - a model may raise anything
            return {"reached": 0, "missed": 0, "left": 0, "steep": 0, "raised": _sentence(error)}
        tensors.save(made, Path(request["reply"]))
        reached, missed, left, steep = counts.tolist()
        return {"reached": reached, "missed": missed, "left": left, "steep": steep, "raised": ""}

    def _pieces(
        self, rows: Tensors, index: Array, shape: Signature, raised: dict[str, int]
    ) -> list[tuple[Array, dict[str, Array]]]:
        """Answer the rows of `index`, parting them where the model raises, down to the single rows that make it."""
        assert self._flavor is not None
        try:
            found = self._flavor.predict(self._native, tensors.take(rows, index), shape)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - a model may raise anything
            if len(index) == 1:
                sentence = _sentence(error)
                key = sentence if sentence in raised or len(raised) < _MAX_SENTENCES else "other errors"
                raised[key] = raised.get(key, 0) + 1
                return []
        else:
            counts = sorted({len(array) if array.ndim else 0 for array in found.values()})
            if counts != [len(index)]:
                raise Refused(
                    f"the model answers {len(index):,} rows with {counts[0]:,}",
                    "Check that the logged signature is the one the model was trained with: one answer a row.",
                )
            return [(index, found)]
        first, second = _parted(rows, index)
        return self._pieces(rows, first, shape, raised) + self._pieces(rows, second, shape, raised)

    def _time(self, rows: Tensors, shape: Signature, repeat: int) -> float:
        """Return the wall seconds of the quickest of `repeat` runs over `rows` (0: not timed)."""
        assert self._flavor is not None
        best = 0.0
        for _ in range(repeat):
            start = time.perf_counter()
            self._flavor.predict(self._native, rows, shape)
            took = time.perf_counter() - start
            best = min(best, took) if best else took
        return best


def _parted(rows: Tensors, index: Array) -> tuple[Array, Array]:
    """Return two parts of `index`: infinities apart from the rest, else gaps, else halves.

    What a model raises on is mostly one of these, and a call for every good row between two bad ones takes long.
    """
    floats = [array[index].reshape(len(index), -1) for array in rows.values() if array.dtype.kind == "f"]
    for odd in (np.isinf, np.isnan):
        marked = np.zeros(len(index), np.bool_)
        for array in floats:
            marked |= odd(array).any(axis=1)
        if marked.any() and not marked.all():
            return index[~marked], index[marked]
    middle = len(index) // 2
    return index[:middle], index[middle:]


def _given(request: Mapping[str, Any]) -> Tensors | None:
    return tensors.load(Path(request["arrays"])) if "arrays" in request else None


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:400]}" if text else type(error).__name__


def _take_over() -> tuple[IO[bytes], IO[bytes]]:
    """Keep stdin and stdout for the protocol, out of reach of anything that prints or reads."""
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # what it printed before a crash is what explains the crash
    return requests, replies


def _confine(memory: int) -> None:
    """Die with the parent, dump no core, and fail an allocation far beyond the limit before the machine swaps."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The parent watches what is resident. This one catches a leap between two looks; it counts what is reserved,
    # which is more than what is used, hence the room.
    hard = 2 * memory + 2**30
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # the parent died before the line above


def _answer(work: Callable[[Mapping[str, Any]], Mapping[str, object]], request: Mapping[str, Any]) -> object:
    """Do the work; whatever it raises goes to stderr with its traceback, and to the host as one sentence."""
    try:
        return {"outcome": "done", "value": work(request)}
    except ModelrelError as error:
        stop = error
    except MemoryError:
        stop = Refused("the model ran out of memory", "Raise the memory limit, or release a smaller model.")
    except OSError as error:
        from modelrel.archive import disk_error

        stop = disk_error(error) or ModelrelError(f"the worker failed: {_sentence(error)}", "Look with -v.")
    except Exception as error:  # noqa: BLE001 - the host must hear of it
        stop = ModelrelError(f"the worker failed: {_sentence(error)}", "Look with -v at the traceback.")
    traceback.print_exc()
    return {"outcome": "error", "value": {"kind": stop.kind, "message": stop.message, "hint": stop.hint}}


def main() -> None:
    """Serve requests until stdin ends; the first argument is the memory limit in bytes."""
    requests, replies = _take_over()
    _confine(int(sys.argv[1]))
    model = Loaded()
    actions = {
        "load": model.load,
        "convert": model.convert,
        "predict": model.predict,
        "interpret": model.interpret,
        "knots": model.knots,
    }
    for line in requests:
        request = json.loads(line)
        reply = _answer(actions[request["action"]], request)
        replies.write(json.dumps(reply).encode() + b"\n")
        replies.flush()


if __name__ == "__main__":
    main()

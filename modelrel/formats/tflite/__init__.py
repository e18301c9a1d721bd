"""TFLite: built of TensorFlow operators in the worker, run by LiteRT on the host, as on a phone."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

import numpy as np

from modelrel import extras, trees
from modelrel.errors import Refused
from modelrel.formats import origin
from modelrel.formats.faults import Fault
from modelrel.formats.order import Order
from modelrel.tensors import NUMPY, Array, Predict, Tensors, rows, stack, take

SUFFIX: Final = ".tflite"
FLAVORS: Final = frozenset({"sklearn", "xgboost", "lightgbm", "catboost"})
WRITERS: Final = ("tensorflow", "ai-edge-litert", "onnx", "onnxruntime", "skl2onnx")
RUNTIMES: Final = ("ai-edge-litert", "numpy")
KNOWN_BAD: Final[tuple[Fault, ...]] = ()
metadata = origin.metadata
TOOLS: Final = ("tensorflow", "ai-edge-litert", "onnx", "skl2onnx", "scikit-learn", "xgboost", "lightgbm", "catboost")
_AT_ONCE: Final = 4096  # rows; a step holds a number for each row and tree


def convert(native: object, order: Order, path: Path) -> Mapping[str, object]:
    """Write `native` to `path`; the bytes depend on the model and the order alone.

    Numbers go in and come out as float32, whatever the signature says: the operators know no float64. Raises
    `Refused` for what has no exact copy, `Unavailable` without TensorFlow.
    """
    from modelrel.formats.tflite import from_trees, interface

    inputs, notes = interface.entered(order)
    outputs = interface.left(order)
    ensemble = trees.read(native)
    if ensemble is not None and order.signature.kind == "columns":
        ensemble.refuse_pandas_categories()
    if ensemble is None and order.flavor == "sklearn":
        ensemble = trees.folded(native, [NUMPY[spec.datatype] for spec in order.signature.inputs])
    if ensemble is not None:
        hints: Mapping[str, object] = {"features": trees.hints(ensemble)}
        make = from_trees.function(ensemble, inputs, outputs)
    else:
        from modelrel.formats.onnx import core
        from modelrel.formats.tflite import from_onnx

        model, hints = core(native, order)
        make = from_onnx.function(model, inputs, outputs, order.answers.estimator)
        notes = (*notes, "computes in float32")
    path.write_bytes(interface.written(make, order.metadata))
    return {
        "inputs": [asdict(spec) for spec in inputs],
        "outputs": [asdict(spec) for spec in outputs],
        "predict": order.answers.predict,
        "classes": list(order.answers.classes),
        "opsets": {},
        "estimator": order.answers.estimator,
        "notes": list(notes),
        "hints": hints,
    }


def adopt(native: object, order: Order, given: Path, path: Path) -> Mapping[str, object]:
    """Raise `Refused`: a TFLite file that was made elsewhere cannot be handed in."""
    del native, given, path
    raise Refused(
        f"a TFLite copy of {order.answers.estimator} that was converted elsewhere cannot be handed in",
        "Hand in an ONNX copy, or convert without --copy.",
    )


def check(path: Path) -> None:
    """Raise `Refused` where the file is no TFLite model."""
    if path.read_bytes()[4:8] != b"TFL3":
        raise Refused(
            "the converted model is no TFLite file", "This version of TensorFlow is broken; -v shows what it wrote."
        )


def suspicions(path: Path) -> tuple[str, ...]:
    """Return nothing: no fault of the runtime is known that shows in a file."""
    del path
    return ()


def load(path: Path) -> Predict:
    """Return the model loaded by LiteRT on one thread, as it is deployed.

    It takes N rows in the datatypes of its interface. Raises `Refused` where LiteRT does not load it or fails,
    `Unavailable` where LiteRT is not installed.
    """
    extras.load("ai_edge_litert")
    from ai_edge_litert.interpreter import Interpreter

    try:
        with _silent():
            interpreter = Interpreter(model_content=path.read_bytes(), num_threads=1)
            runner = interpreter.get_signature_runner("serving_default")
        kinds = {name: said["dtype"] for name, said in runner.get_input_details().items()}
    except (ValueError, RuntimeError) as error:
        raise Refused(
            f"LiteRT does not load the converted model: {' '.join(str(error).split())[:300]}",
            "Choose another format; the original is untouched.",
        ) from error

    def predict(tensors: Tensors) -> dict[str, Array]:
        pieces = [take(tensors, slice(at, at + _AT_ONCE)) for at in range(0, rows(tensors), _AT_ONCE)]
        try:
            found = [
                runner(**{name: np.ascontiguousarray(array, kinds[name]) for name, array in piece.items()})
                for piece in pieces
            ]
            return {name: _text(array) for name, array in stack(found).items()}
        except (ValueError, RuntimeError, KeyError) as error:
            raise Refused(
                f"LiteRT fails on the converted model: {' '.join(str(error).split())[:300]}",
                "Choose another format.",
            ) from error

    return predict


@contextmanager
def _silent() -> Iterator[None]:
    """Keep what LiteRT prints for itself ("Created TensorFlow Lite XNNPACK delegate") off the terminal."""
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


def _text(array: Array) -> Array:
    if array.dtype != object:
        return array
    found = np.empty(array.shape, object)
    found.ravel()[:] = [item.decode() for item in array.ravel()]
    return found


def reference(path: Path) -> Predict | None:
    """Return None: nothing but LiteRT runs these files."""
    del path
    return None

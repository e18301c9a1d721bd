"""TFLite: built of TensorFlow operators in the worker, run by LiteRT on the host, as on a phone."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from modelrel import extras, networks, trees
from modelrel.errors import Refused
from modelrel.formats import origin
from modelrel.formats.faults import Fault
from modelrel.formats.order import Order, refuse_copy, refuse_texts, refuse_trees
from modelrel.formats.tflite import smaller
from modelrel.tensors import NUMPY, Array, Predict, Tensors, held, rows, stack, take
from modelrel.values import TensorSpec

if TYPE_CHECKING:
    from modelrel.formats.tflite.interface import Make

SUFFIX: Final = ".tflite"
_NETWORKS: Final = frozenset({"tensorflow", "keras"})
FLAVORS: Final = frozenset({"sklearn", "xgboost", "lightgbm", "catboost", "onnx", "pyfunc", "pytorch", *_NETWORKS})
WRITERS: Final = ("tensorflow", "ai-edge-litert", "onnx", "onnxruntime", "skl2onnx")
RUNTIMES: Final = ("ai-edge-litert", "numpy")
SECOND: Final = ""
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

    if any(spec.datatype == "BYTES" for spec in order.signature.inputs) and order.flavor == "sklearn":
        return _lowered(native, order, path)
    order = replace(order, shapes=networks.shapes(native, order.shapes))
    inputs, notes = interface.entered(order)
    ensemble = None if order.flavor in _NETWORKS else trees.read(native)
    if ensemble is not None and order.signature.kind == "columns":
        ensemble.refuse_pandas_categories()
    if ensemble is None and order.flavor == "sklearn":
        ensemble = trees.folded(native, [NUMPY[spec.datatype] for spec in order.signature.inputs])
    if ensemble is not None:
        refuse_trees(order, "TFLite")
        make = from_trees.function(ensemble, inputs, interface.left(order))
        said = _written((make, make), order, inputs, path)
        return _described(order, inputs, notes, {"features": trees.hints(ensemble)}) | said
    if isinstance(native, networks.Network):
        from modelrel.formats.tflite import from_tensorflow

        make, more = from_tensorflow.function(native, order, inputs, interface.left(order))
        said = _written((make, make), order, inputs, path)
        return _described(order, inputs, (*notes, *more, *interface.kept(path.read_bytes())), {}) | said
    return _lowered(native, order, path)


def _lowered(native: object, order: Order, path: Path) -> Mapping[str, object]:
    """Write a model by way of ONNX: numbers alone, behind an adapter where there are texts."""
    from modelrel.formats.onnx import core
    from modelrel.formats.tflite import apart, from_onnx, interface

    _of_one_size(order)
    model, found = core(native, replace(order, numbers=True))
    if found.adapter:
        refuse_texts(order)
    fed = replace(order, signature=replace(order.signature, inputs=found.inputs)) if found.adapter else order
    inputs, _ = interface.entered(fed)
    made = model, apart.apart(model) if order.quantize in ("float16", "dynamic") else model
    exact, rounded = (from_onnx.function(one, inputs, interface.left(order), order.answers.estimator) for one in made)
    written = _written((exact, rounded), order, inputs, path)
    served, notes = interface.entered(order, behind=bool(found.adapter))
    said = _described(order, served, (*notes, "computes in float32", *found.notes), found.hints) | written
    return said | ({"adapter": interface.adapted(found.adapter, inputs)} if found.adapter else {})


def _written(makes: tuple[Make, Make], order: Order, inputs: tuple[TensorSpec, ...], path: Path) -> dict[str, object]:
    """Write the exact copy, and over it a smaller one where the order wants that; return how small, and its units."""
    from modelrel.formats.tflite import interface

    exact, rounded = makes
    path.write_bytes(interface.written(exact, order.metadata))
    if not order.quantize:
        return {"exact_size": 0, "units": smaller.plain(())}
    size = path.stat().st_size
    rows = held(order.rows, inputs) if order.quantize == "int8" else {}
    path.write_bytes(interface.written(rounded, order.metadata, smaller.Smaller(order.quantize, rows)))
    return {"exact_size": size, "units": smaller.plain(smaller.checked(path, size, order))}


def _described(
    order: Order, inputs: Sequence[TensorSpec], notes: Sequence[str], hints: Mapping[str, object]
) -> dict[str, object]:
    from modelrel.formats.tflite import interface

    return {
        "inputs": [asdict(spec) for spec in inputs],
        "outputs": [asdict(spec) for spec in interface.left(order)],
        "predict": order.answers.predict,
        "classes": list(order.answers.classes),
        "opsets": {},
        "estimator": order.answers.estimator,
        "notes": list(notes),
        "hints": hints,
    }


def _of_one_size(order: Order) -> None:
    """Raise `Refused` for a network's input of open dimensions beside the rows: its answers would be cut wrongly."""
    for spec in order.signature.inputs if order.flavor == "pytorch" else ():
        if any(size < 0 for size in spec.shape[1:]):
            raise Refused(
                f"the input {spec.name} has the shape {list(spec.shape)}, and a TFLite copy takes rows of one size",
                "Log it with a signature whose dimensions, but the first, are numbers; or convert it to onnx.",
            )


def adopt(native: object, order: Order, given: Path, path: Path) -> Mapping[str, object]:
    """Raise `Refused`: a TFLite file that was made elsewhere cannot be handed in."""
    del native, given, path
    refuse_copy(order, "TFLite")


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

    It takes N rows in the datatypes of its interface; where the file takes or gives whole numbers for real ones, the
    real ones. Raises `Refused` where LiteRT does not load it or fails,
    `Unavailable` where LiteRT is not installed.
    """
    extras.load("ai_edge_litert")
    from ai_edge_litert.interpreter import Interpreter

    try:
        with _silent():
            interpreter = Interpreter(model_content=path.read_bytes(), num_threads=1)
            runner = interpreter.get_signature_runner("serving_default")
        kinds = {name: said["dtype"] for name, said in runner.get_input_details().items()}
        entered, left = (smaller.units(side) for side in (runner.get_input_details(), runner.get_output_details()))
    except (ValueError, RuntimeError) as error:
        raise Refused(
            f"LiteRT does not load the converted model: {' '.join(str(error).split())[:300]}",
            "Choose another format; the original is untouched.",
        ) from error

    first = [_silent()]  # a smaller copy is handed to XNNPACK when it first runs

    def predict(tensors: Tensors) -> dict[str, Array]:
        pieces = [take(tensors, slice(at, at + _AT_ONCE)) for at in range(0, rows(tensors), _AT_ONCE)]
        try:
            found = []
            for piece in pieces:
                given = {
                    name: smaller.whole(array, entered[name])
                    if name in entered
                    else np.ascontiguousarray(array, kinds[name])
                    for name, array in piece.items()
                }
                with first.pop() if first else nullcontext():
                    found.append(runner(**given))
            return {
                name: smaller.real(array, left[name]) if name in left else _text(array)
                for name, array in stack(found).items()
            }
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

"""ONNX: written by converters inside the worker, run by onnxruntime on the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from modelrel import extras, networks, onnx_file, trees
from modelrel.errors import Invalid, Refused, Unavailable
from modelrel.formats import origin
from modelrel.formats.onnx import known_bad
from modelrel.formats.onnx.opsets import NEWEST, OLDEST
from modelrel.formats.order import Order, refuse_texts, refuse_trees
from modelrel.tensors import Array, Predict, Tensors, text

if TYPE_CHECKING:
    from modelrel.formats.onnx.graph import Core
    from modelrel.formats.onnx.large import Large

SUFFIX: Final = ".onnx"
_LARGEST_REFERENCE: Final = 20_000_000
_TREES: Final = frozenset({"xgboost", "lightgbm", "catboost"})
_NETWORKS: Final = frozenset({"tensorflow", "keras"})
FLAVORS: Final = frozenset({"sklearn", "onnx", "pyfunc", "pytorch", "transformers", *_TREES, *_NETWORKS})
WRITERS: Final = ("onnx", "onnxruntime", "skl2onnx")
RUNTIMES: Final = ("onnxruntime", "numpy")
SECOND: Final = ""
KNOWN_BAD: Final = known_bad.TABLE
metadata = origin.metadata
TOOLS: Final = (
    "onnx", "onnxruntime", "skl2onnx", "scikit-learn", "xgboost", "lightgbm", "catboost", "torch", "onnxscript",
    "tf2onnx", "tensorflow",
)  # fmt: skip


def convert(native: object, order: Order, path: Path) -> Mapping[str, object]:
    """Write `native` to `path`; the bytes depend on the model and the order alone.

    Raises `Refused` for an estimator without an exact copy, and `Invalid` for an opset out of range.
    """
    from modelrel.formats.onnx import large, tree_operators

    if order.opset and order.flavor != "onnx" and not OLDEST <= order.opset <= NEWEST:
        raise Invalid(
            f"opset {order.opset} cannot be written: the converters and onnxruntime take {OLDEST} to {NEWEST}",
            f"Choose --opset {NEWEST}, or leave it out.",
        )
    if order.flavor == "transformers":
        from modelrel.formats.onnx import from_transformers

        refuse_texts(order)
        network, inner, adapter = from_transformers.write(native, order)
        served = [asdict(spec) for spec in order.signature.inputs]
        return {**_written(network, inner, path, {}), "inputs": served, "adapter": adapter}
    if order.quantize and order.flavor not in _NETWORKS and trees.read(native) is not None:
        refuse_trees(order, "ONNX")
    with tree_operators.written(order.operators), large.later() as kept:
        order = replace(order, shapes=networks.shapes(native, order.shapes))
        core = _writer(order.flavor)(native, order)
        return _written(core, _freed(order), path, kept)


def _freed(order: Order) -> Order:
    """Return the order with what a graph's outputs leave open: other writers' outputs are as wide as their rows say."""
    if order.flavor != "onnx":
        return order
    from modelrel.formats.onnx import from_file

    return from_file.freed(order)


def core(native: object, order: Order) -> tuple[Any, Core]:
    """Return the model as an ONNX graph with the order's interface, for other formats to start from, and its core.

    Raises `Refused` as `convert` does.
    """
    from modelrel.formats.onnx import graph

    found = _writer(order.flavor)(native, order)
    return graph.bordered(found, order)[0], found


def adopt(native: object, order: Order, given: Path, path: Path) -> Mapping[str, object]:
    """Write the copy `given`, which was converted elsewhere, to `path`, with the interface of the order.

    Raises `Refused` where it is no valid model of one file, or does not fit the original without a guess.
    """
    from modelrel.formats.onnx import handed_in

    core, order = handed_in.core(given, order, _hints(native, order))
    # known faults of what wrote it, which the graph does not show
    name, _, version = order.metadata[handed_in.PRODUCER].partition(" ")
    warned = known_bad.warnings("model", native, {name.lower(): version}, name)
    core = replace(core, notes=(*core.notes, *warned))
    return _written(core, order, path, {})


def _hints(native: object, order: Order) -> Mapping[str, object]:
    """Return what the original tells about its inputs, even where we have no copy of it ourselves."""
    from modelrel.formats.onnx import hints

    if order.flavor == "sklearn":
        return hints.found(native, order.signature)
    try:
        ensemble = trees.read(native)
    except Refused:
        return {}
    return {"features": trees.hints(ensemble)} if ensemble is not None else {}


def _written(core: Core, order: Order, path: Path, kept: Mapping[str, Large]) -> Mapping[str, object]:
    """Put the release's interface around a core, write it, and describe it."""
    import onnx

    from modelrel.formats.onnx import graph, large, smaller

    model, outputs = graph.bordered(core, order)
    if order.operators == "core":
        _only_core(model)
    exact = 0
    if core.adapter:
        refuse_texts(order)
    if order.quantize:
        large.write(onnx.ModelProto.FromString(model.SerializeToString()), kept, path)
        exact = path.stat().st_size
        model = smaller.made(model, order)
    opsets = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    large.write(model, kept, path)
    predict = order.answers.predict
    if predict not in {spec.name for spec in outputs}:
        raise Refused(
            f"the copy of {order.answers.estimator} does not give {predict}, which the original's predict does",
            "Log the model with another pyfunc_predict_fn.",
        )
    return {
        "inputs": [asdict(spec) for spec in order.signature.inputs],
        "outputs": [asdict(spec) for spec in outputs],
        "predict": predict,
        "classes": list(order.answers.classes),
        "opsets": opsets,
        "estimator": order.answers.estimator,
        "notes": list(core.notes),
        "hints": core.hints,
        **({"adapter": core.adapter} if core.adapter else {}),
        "exact_size": exact,
    }


def _only_core(model: Any) -> None:
    """Raise `Refused` where an operator is not one of ai.onnx, naming all of them."""
    other = sorted({f"{node.domain}.{node.op_type}" for node in model.graph.node if node.domain not in ("", "ai.onnx")})
    if other:
        raise Refused(
            f"the model needs {', '.join(other)}, which core operators alone do not give",
            "Leave out --operators core, or move that step out of the model.",
        )


def check(path: Path) -> None:
    """Raise `Refused` where the file is no valid ONNX model, or keeps data in another file (no library looks then)."""
    import onnx

    onnx_file.refuse_outside(onnx_file.parsed(path.read_bytes(), "the converted model"), "the converted model")
    try:
        onnx.checker.check_model(str(path))
    except Exception as error:
        raise Refused(
            f"the converted model is not valid ONNX: {' '.join(str(error).split())[:300]}",
            "This combination of converter versions is broken; -v shows what was written.",
        ) from error


def suspicions(path: Path) -> tuple[str, ...]:
    """Return a sentence for each known fault that the graph and the runtime here have, whatever was measured.

    Raises `Refused` for one that is not to be released.
    """
    import onnx

    return known_bad.warnings("graph", onnx.load(path).graph, extras.versions("onnxruntime"))


def load(path: Path) -> Predict:
    """Return the model loaded by onnxruntime on the CPU, as it is deployed.

    It takes N rows in the datatypes of its interface; a missing text becomes "". Raises `Refused` where
    onnxruntime does not load it or fails on the rows.
    """
    runtime = _runtime()
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong arrives as an exception
    try:
        loaded = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise Refused(
            f"onnxruntime does not load the converted model: {' '.join(str(error).split())[:300]}",
            "Choose another --opset, or another estimator; the original is untouched.",
        ) from error
    names = [output.name for output in loaded.get_outputs()]

    def predict(tensors: Tensors) -> dict[str, Array]:
        feeds = {name: _fed(array) for name, array in tensors.items()}
        try:
            answered = loaded.run(names, feeds)
        except Exception as error:
            raise Refused(
                f"onnxruntime fails on the converted model: {' '.join(str(error).split())[:300]}",
                "This operator has no kernel for these types; choose another estimator.",
            ) from error
        return {name: np.asarray(array) for name, array in zip(names, answered, strict=True)}

    return predict


def reference(path: Path) -> Predict | None:
    """Return the model run by onnx's own evaluator, which shares nothing with onnxruntime; None where it is too large.

    It is slow (plain Python), and takes a few rows.
    """
    if path.stat().st_size > _LARGEST_REFERENCE:
        return None
    from onnx.reference import ReferenceEvaluator

    def predict(tensors: Tensors) -> dict[str, Array]:
        loaded = ReferenceEvaluator(str(path))  # raises on operators that it does not know
        answered = loaded.run(None, {name: _fed(array) for name, array in tensors.items()})
        return {name: np.asarray(array) for name, array in zip(loaded.output_names, answered, strict=True)}

    return predict


def _writer(flavor: str) -> Callable[[Any, Order], Core]:
    """Import the writer of one flavor only: skl2onnx takes a while."""
    if flavor == "sklearn":
        from modelrel.formats.onnx import from_sklearn

        return from_sklearn.write
    if flavor == "onnx":
        from modelrel.formats.onnx import from_file

        return from_file.write
    if flavor == "pytorch":
        from modelrel.formats.onnx import from_torch

        return from_torch.write
    if flavor in _NETWORKS:
        from modelrel.formats.onnx import from_tensorflow

        return from_tensorflow.write
    if flavor in _TREES:
        from modelrel.formats.onnx import from_trees

        return from_trees.write
    raise Refused(f"a {flavor} model cannot become ONNX", "Choose another format.")


def _runtime() -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise Unavailable("the library onnxruntime is not installed here", "pip install onnxruntime") from error
    return onnxruntime


def _fed(array: Array) -> Array:
    if array.dtype != object:
        return array
    return text(["" if item is None else item for item in array.ravel()], array.shape)

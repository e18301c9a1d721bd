"""ONNX: a graph that was logged as it is, run by onnxruntime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from modelrel import extras, onnx_file
from modelrel.errors import Invalid, Refused
from modelrel.flavors import frames, mlmodel
from modelrel.flavors.calibrated import Curve
from modelrel.tensors import NUMPY, Array, Tensors, rows, stack, take
from modelrel.tensors import text as text_array
from modelrel.values import Answers, Signature


class Graph:
    """A loaded graph: `model` (ModelProto, all data inside), its session, and the classes of maps that it answers."""

    def __init__(self, model: Any, session: Any) -> None:
        """Keep both."""
        self.model, self.session = model, session
        self.maps = {name: classes for name, (_, classes) in onnx_file.zipmaps(model).items()}


def load(folder: Path) -> object:
    """Return the graph logged in `folder`.

    Raises `Refused` for a file that is no valid model, keeps data outside of `folder`, or has operators that
    onnxruntime does not bring; `Invalid` where MLmodel names no file of its own.
    """
    said = mlmodel.configuration(folder, "onnx")
    path = mlmodel.inside(folder, str(said.get("data", "model.onnx")))
    if not path.is_file():
        raise Invalid(f"MLmodel names {path.name}, which is no file", "Log the model again.")
    return loaded(path, folder)


def loaded(path: Path, folder: Path) -> Graph:
    """Return the graph in the file at `path`, whose data lies in it, or in files below `folder`; raises as `load`."""
    runtime = extras.load("onnxruntime")
    extras.load("onnx")
    model = onnx_file.read(path, folder)
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong arrives as an exception
    try:
        session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise Refused(
            f"onnxruntime does not load {path.name}: {onnx_file.line(error)}",
            "Export it for another opset, or log the model that it was exported from.",
        ) from error
    return Graph(model, session)


def answers(native: Any, _folder: Path) -> Answers:
    """Return the graph's outputs, by its names; the first stands for what `predict` returns, where MLflow gives all.

    Raises `Refused` where an output is neither a tensor nor the list of maps of a ZipMap.
    """
    for output in native.session.get_outputs():
        if not output.type.startswith("tensor") and output.name not in native.maps:
            raise Refused(
                f"the ONNX model answers {output.name} as {output.type}, which is no tensor",
                "Export it with tensors alone.",
            )
    outputs = tuple(output.name for output in native.session.get_outputs())
    classes = next((tuple(known) for known in native.maps.values()), ())
    return Answers(outputs=outputs, predict=outputs[0], estimator=named(native), classes=classes)


def named(native: Any) -> str:
    """Return what people know a graph by: its size, and what wrote it."""
    producer = f"{native.model.producer_name} {native.model.producer_version}".split()
    return f"ONNX graph of {len(native.model.graph.node)} nodes by {' '.join(producer)[:60] or 'an unnamed tool'}"


def curves(_native: Any, _signature: Signature) -> list[Curve]:
    """Return none: what bends inside a graph is not known."""
    return []


def predict(native: Any, tensors: Tensors, signature: Signature) -> dict[str, Array]:
    """Return every output for N rows, by the graph as it was logged; of a list of maps (N, classes).

    Columns go in as MLflow gives them: side by side where the graph has one input, float64 narrowed where it takes
    float32. A graph that takes exactly one row at once is asked row by row. Raises what onnxruntime raises.
    """
    inputs, merged = onnx_file.matched(native.model, signature)
    asked = (inputs, signature, merged)
    if any((onnx_file.sizes(value) or [-1])[0] == 1 for value in inputs):
        return stack([_asked(native, asked, take(tensors, slice(at, at + 1))) for at in range(rows(tensors))])
    return _asked(native, asked, tensors)


def _asked(native: Any, asked: tuple[list[Any], Signature, bool], tensors: Tensors) -> dict[str, Array]:
    """Return the answers to rows, which go into the inputs as the signature's tensors, or merged as columns."""
    inputs, signature, merged = asked
    if merged:
        given = [frames.given(tensors, signature).to_numpy()]
    else:
        given = [np.asarray(tensors[spec.name], NUMPY[spec.datatype]) for spec in signature.inputs]
    feeds = {value.name: _fed(value, array) for value, array in zip(inputs, given, strict=True)}
    names = [output.name for output in native.session.get_outputs()]
    count = rows(tensors)
    found = {}
    for name, answered in zip(names, native.session.run(names, feeds), strict=True):
        array = _unmapped(answered, native.maps[name]) if name in native.maps else frames.answered(answered)
        if array.shape[:1] != (count,):
            raise Refused(
                f"the ONNX model answers {name} in the shape {list(array.shape)} for {count} rows",
                "Export it so that each output has one entry a row.",
            )
        found[name] = array
    return found


def _fed(value: Any, array: Array) -> Array:
    """Return rows as an input takes them; a missing text is empty."""
    known = onnx_file.sizes(value)
    if known is not None and len(known) == 1:
        array = array.reshape(-1)
    if array.dtype.kind in "OUST":
        return text_array(["" if item is None or item != item else str(item) for item in array.ravel()], array.shape)  # noqa: PLR0124 - NaN
    narrow = array.dtype == np.float64 and value.type.tensor_type.elem_type == 1
    return array.astype(np.float32) if narrow else array


def _unmapped(answered: list[dict[Any, float]], classes: list[Any]) -> Array:
    """Return a list of maps as float32 (N, classes)."""
    return np.array([[one[name] for name in classes] for one in answered], np.float32).reshape(-1, len(classes))

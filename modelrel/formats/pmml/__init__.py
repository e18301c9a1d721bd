"""PMML 4.4: written by modelrel itself in the worker, run by PMML4S on the host, and by JPMML-Evaluator beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from modelrel import trees
from modelrel.formats import origin
from modelrel.formats.faults import Fault
from modelrel.formats.order import Order, refuse_copy
from modelrel.formats.pmml import scorers
from modelrel.tensors import NUMPY, Predict
from modelrel.values import TensorSpec

SUFFIX: Final = ".pmml"
FLAVORS: Final = frozenset({"sklearn", "xgboost", "lightgbm", "catboost", "pyfunc"})
WRITERS: Final[tuple[str, ...]] = ()
RUNTIMES: Final = ("pypmml", "jpmml-evaluator", "numpy")
TOOLS: Final = ("scikit-learn", "xgboost", "lightgbm", "catboost")
SECOND: Final = "jpmml-evaluator"
KNOWN_BAD: Final[tuple[Fault, ...]] = ()
metadata = origin.metadata


def convert(native: object, order: Order, path: Path) -> Mapping[str, object]:
    """Write `native` to `path`; the bytes depend on the model and the order alone.

    Numbers are float64 in the copy, whatever the original computes in. Raises `Refused` for what has no exact copy.
    """
    from modelrel.formats.pmml import document, from_sklearn, from_trees

    if order.tool:
        return _by_tool(native, order, path)
    made = document.begun(order)
    ensemble = trees.read(native)
    if ensemble is not None and order.signature.kind == "columns":
        ensemble.refuse_pandas_categories()
    if ensemble is None and order.flavor == "sklearn":
        kinds = [NUMPY[spec.datatype] for spec in order.signature.inputs]
        ensemble = trees.folded(native, kinds) if set(kinds) == {NUMPY["FP32"]} else None
    if ensemble is not None and order.flavor == "lightgbm" and _whole(order):
        # It copies an array of whole numbers into float32, unlike a data frame.
        ensemble = replace(ensemble, entry=replace(ensemble.entry, single=True))
    if ensemble is not None:
        hints: Mapping[str, object] = {"features": trees.hints(ensemble)}
        done = from_trees.model(made, made.columns, ensemble, order.answers.outputs)
    else:
        from modelrel.formats.onnx.hints import found

        hints = found(native, order.signature)
        done = from_sklearn.model(made, native, order)
    outputs = [_left(name, order, made) for name in order.answers.outputs]
    said = [{**_plain(spec, made), "fields": list(done.outputs[spec.name])} for spec in outputs]
    path.write_bytes(document.written(made, done.model, said, order.metadata))
    return _described(order, outputs, hints)


def _by_tool(native: object, order: Order, path: Path) -> Mapping[str, object]:
    """Let sklearn2pmml write the copy; raises as `from_sklearn2pmml.written` does."""
    from modelrel.formats.onnx.hints import found
    from modelrel.formats.pmml import document, from_sklearn2pmml

    made = document.begun(order)
    outputs = [_left(name, order, made) for name in order.answers.outputs]
    done = from_sklearn2pmml.written(native, order, made, outputs)
    path.write_bytes(done.content)
    ensemble = trees.read(native)
    hints = {"features": trees.hints(ensemble)} if ensemble is not None else found(native, order.signature)
    return _described(order, done.outputs, hints, *done.notes)


def _described(
    order: Order, outputs: Sequence[TensorSpec], hints: Mapping[str, object], *notes: str
) -> Mapping[str, object]:
    return {
        "inputs": [asdict(spec) for spec in order.signature.inputs],
        "outputs": [asdict(spec) for spec in outputs],
        "predict": order.answers.predict,
        "classes": list(order.answers.classes),
        "opsets": {},
        "estimator": order.answers.estimator,
        "notes": list(notes),
        "hints": hints,
    }


def _whole(order: Order) -> bool:
    return order.signature.kind == "tensor" and not order.signature.inputs[0].datatype.startswith("FP")


def _left(name: str, order: Order, made: Any) -> TensorSpec:
    """Return an output as the original has it, or as it will be where no row was at hand."""
    wide = len(order.answers.classes)
    guessed = TensorSpec(name=name, datatype="FP64", shape=(-1, wide) if name == "probabilities" else (-1,))
    if name == "label" and made.labels:
        guessed = TensorSpec(name=name, datatype="BYTES" if made.kind == "string" else "INT64", shape=(-1,))
    return order.shapes.get(name) or guessed


def _plain(spec: TensorSpec, made: Any) -> dict[str, object]:
    if spec.name != "label" or not made.labels:
        return asdict(spec)
    known = [[text, text if made.kind == "string" else int(text)] for text in made.labels]
    return {**asdict(spec), "labels": known}


def adopt(native: object, order: Order, given: Path, path: Path) -> Mapping[str, object]:
    """Raise `Refused`: a PMML file that was made elsewhere cannot be handed in."""
    del native, given, path
    refuse_copy(order, "PMML")


def check(path: Path) -> None:
    """Raise `Refused` where the file is no PMML of the kind that this format writes."""
    from modelrel.formats.pmml import document, elements

    document.interface(elements.parsed(path.read_bytes()))


def suspicions(path: Path) -> tuple[str, ...]:
    """Return nothing: no fault of a scorer is known that shows in a file of ours."""
    del path
    return ()


def load(path: Path) -> Predict:
    """Return the model run by PMML4S, which pypmml brings.

    It takes N rows. Raises `Refused` where PMML4S does not load it or fails, `Unavailable` without pypmml or Java.
    """
    return scorers.pmml4s(path)


def reference(path: Path) -> Predict | None:
    """Return the model run by JPMML-Evaluator, which shares nothing with PMML4S; None where it is not installed."""
    return scorers.jpmml(path)

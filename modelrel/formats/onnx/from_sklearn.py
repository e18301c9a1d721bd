"""scikit-learn -> ONNX, by skl2onnx in double precision, with what it gets wrong refused or repaired."""

from __future__ import annotations

import copy
from typing import Any, Final

import numpy as np
import onnx

from modelrel import trees
from modelrel.errors import Refused
from modelrel.formats.onnx import from_trees, hints, known_faults, large, sklearn_options, sklearn_steps, sklearn_text
from modelrel.formats.onnx.graph import DOMAIN_ML, Core, Nodes
from modelrel.formats.onnx.opsets import ML, ML_TREES, NEWEST
from modelrel.formats.onnx.repair import repaired
from modelrel.formats.onnx.sklearn_plain import plain
from modelrel.formats.order import Order

_TWO_SCORES: Final = frozenset({
    "LinearSVC", "NuSVC", "PassiveAggressiveClassifier", "Perceptron", "RidgeClassifier", "RidgeClassifierCV",
    "SGDClassifier", "SVC",
})  # fmt: skip
"""Classifiers whose decision value skl2onnx writes as two columns, where there are two classes."""

_FLOAT_NOTE: Final = "computes in float32, because its operators have no float64 form"


def write(native: Any, order: Order) -> Core:
    """Return the converted core; raises `Refused` for an estimator that has no exact converter."""
    from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator

    native = plain(native)
    known_faults.refuse(native)
    direct = _direct(native, order)
    if direct is not None:
        return direct
    sklearn_steps.register(order)
    merged = order.signature.kind == "tensor" or not _reads_columns(native, order)
    failures: list[Exception] = []
    for double in (True, False):
        try:
            adapted = _adapted(copy.deepcopy(native))
            texts = sklearn_text.mark(adapted, order)
            with large.at_once():
                model = _converted(adapted, order, merged, double)
            front = sklearn_text.cut(model, texts, merged=merged) if texts.parts else None
            model = _one_score(repaired(front.model if front else model), native, order)
            _try(model)
        except Refused:
            raise
        except (MissingConverter, MissingShapeCalculator) as error:
            raise known_faults.no_converter(native, str(error)) from error
        except Exception as error:  # noqa: BLE001 - converters raise anything; the next rung tries
            failures.append(error)
            continue
        return Core(
            model=model,
            outputs=_outputs(model, order),
            merged=merged,
            notes=(*(() if double else (_FLOAT_NOTE,)), *((sklearn_text.NOTE,) if front else ())),
            hints=hints.found(native, order.signature),
            inputs=front.inputs if front else (),
            adapter=front.adapter if front else {},
        )
    raise failures[0]


def _direct(native: Any, order: Order) -> Core | None:
    """Return the core of trees alone, which need nothing of skl2onnx: a forest may have millions of nodes."""
    if any(spec.datatype == "BYTES" for spec in order.signature.inputs):
        return None
    ensemble = trees.read(native)
    if ensemble is None or ensemble.entry.codes:
        return None
    return from_trees.core(ensemble, order, hints.found(native, order.signature, ensemble.forest))


def _converted(native: Any, order: Order, merged: bool, double: bool) -> onnx.ModelProto:
    from skl2onnx import convert_sklearn

    model: onnx.ModelProto = convert_sklearn(
        native,
        name="core",
        initial_types=_types(order, merged, double),
        options=sklearn_options.chosen(native, scores="scores" in order.answers.outputs),
        target_opset={"": order.opset or NEWEST, DOMAIN_ML: ML},
    )
    # skl2onnx declares the versions of what it wrote itself: neither our trees', nor any where it wrote nothing.
    fifth = any(node.op_type == "TreeEnsemble" for node in model.graph.node)
    others = [entry for entry in model.opset_import if entry.domain not in ("", DOMAIN_ML)]
    del model.opset_import[:]
    declared = (("", order.opset or NEWEST), (DOMAIN_ML, ML_TREES if fifth else ML))
    model.opset_import.extend([*(onnx.helper.make_opsetid(*entry) for entry in declared), *others])
    return model


def _adapted(native: Any) -> Any:
    """Change a copy where that changes no answer: "" stands for a missing text, which ONNX does not have.

    Raises `Refused` where an encoder knows both.
    """
    for part in known_faults.parts(native):
        if hasattr(part, "categories_"):
            part.categories_ = [_with_empty(known, part) for known in part.categories_]
        if type(part).__name__ == "SimpleImputer" and part.statistics_.dtype == object:
            part.missing_values = ""
        if hasattr(part, "flatten_transform"):
            part.flatten_transform = False  # only transform looks at it, and skl2onnx refuses the default
    sklearn_steps.mark_sparse(native)
    return native


def _with_empty(known: Any, part: Any) -> Any:
    missing = [value is None or value != value for value in known]  # noqa: PLR0124 - only NaN is not itself
    if known.dtype != object or not any(missing):
        return known
    if "" in known.tolist():
        raise Refused(
            f"{type(part).__name__} knows both an empty and a missing text, which ONNX cannot tell apart",
            "Replace one of them by a word before training.",
        )
    filled = known.copy()
    filled[missing] = ""
    return filled


def _one_score(model: onnx.ModelProto, native: Any, order: Order) -> onnx.ModelProto:
    """Keep the second of the two score columns that skl2onnx gives some classifiers of two classes."""
    final = native
    while hasattr(final, "steps") or hasattr(final, "best_estimator_"):
        final = final.steps[-1][1] if hasattr(final, "steps") else final.best_estimator_
    shape = order.shapes["scores"].shape if "scores" in order.shapes else ()
    if type(final).__name__ in _TWO_SCORES and len(shape) == 1:
        nodes, both = Nodes("score"), model.graph.output[-1]
        both.name = nodes.add("Gather", both.name, nodes.constant(1, np.int64), axis=1)
        both.type.tensor_type.ClearField("shape")
        model.graph.node.extend(nodes.nodes)
        model.graph.initializer.extend(nodes.constants)
    return model


def _types(order: Order, merged: bool, double: bool) -> list[tuple[str, Any]]:
    from skl2onnx.common import data_types

    number = data_types.DoubleTensorType if double else data_types.FloatTensorType
    specs = order.signature.inputs

    def kind(datatype: str) -> Any:
        return data_types.StringTensorType if datatype == "BYTES" else number

    if not merged:
        return [(spec.name, kind(spec.datatype)([None, 1])) for spec in specs]
    if order.signature.kind == "tensor":
        width = specs[0].shape[1] if len(specs[0].shape) > 1 else 1
        return [("X", kind(specs[0].datatype)([None, width if width >= 0 else None]))]
    return [("X", kind(specs[0].datatype)([None, len(specs)]))]


def _reads_columns(native: Any, order: Order) -> bool:
    """Whether a step picks columns by name, or the columns are of different kinds."""
    text = {spec.datatype == "BYTES" for spec in order.signature.inputs}
    return len(text) > 1 or _has_column_transformer(native)


def _has_column_transformer(native: Any) -> bool:
    if type(native).__name__ == "ColumnTransformer":
        return True
    return any(_has_column_transformer(step) for _, step in getattr(native, "steps", ()))


def _outputs(model: onnx.ModelProto, order: Order) -> dict[str, str]:
    """Return released name -> the core's name: skl2onnx has its own names, and a fixed order."""
    names = [value.name for value in model.graph.output]
    return dict(zip(order.answers.outputs, names, strict=False))


def _try(model: onnx.ModelProto) -> None:
    """Load the core in onnxruntime, which is where a type error shows."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

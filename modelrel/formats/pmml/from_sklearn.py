"""scikit-learn -> PMML: pipelines of pre-processing before trees, linear models, naive Bayes, k-means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from modelrel import trees
from modelrel.errors import Refused
from modelrel.formats.order import Order
from modelrel.formats.pmml import features, from_trees, last, linear
from modelrel.formats.pmml.document import Column, Document

_SEARCHES: Final = frozenset({"GridSearchCV", "RandomizedSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV"})


def model(document: Document, native: Any, order: Order) -> last.Made:
    """Return the model of a fitted estimator or pipeline, with the outputs of the order.

    Raises `Refused`, by name, for a step or an estimator that has no exact form.
    """
    names = [spec.name for spec in order.signature.inputs] if order.signature.kind == "columns" else []
    columns, raw = document.columns, list(document.columns)
    while True:
        if type(native).__name__ in _SEARCHES:
            native = native.best_estimator_
        elif type(native).__name__ == "FrozenEstimator":
            native = native.estimator
        elif type(native).__name__ == "Pipeline":
            for _, step in native.steps[:-1]:
                columns = features.transformed(document, step, columns, names)
                names = []
            native = native.steps[-1][1]
        else:
            break
    answers = order.answers.outputs
    if answers == ("transformed",) or native is None or isinstance(native, str):
        return _shown(document, features.transformed(document, native, columns, names), answers)
    ensemble = trees.read(native)
    if ensemble is None:
        return linear.model(document, native, columns, answers)
    if order.signature.kind == "columns":
        ensemble.refuse_pandas_categories()
    _exact(native, columns, raw)
    return from_trees.model(document, columns, ensemble, answers)


def _exact(native: Any, columns: Sequence[Column], raw: Sequence[Column]) -> None:
    """Raise `Refused` where trees compare what a step before computed in float32: PMML computes in float64."""
    rounded = [column.field for column in columns if column.single and column not in raw]
    if rounded:
        kind = type(native).__name__
        raise Refused(
            f"{kind} compares {rounded[0]}, which the pipeline computes in float32, and PMML in float64",
            "Log the model with float64 columns, or convert it to onnx.",
        )


def _shown(document: Document, columns: Sequence[Column], names: Sequence[str]) -> last.Made:
    """Return a model that answers with the columns themselves."""
    if any(column.text for column in columns):
        raise Refused("the pipeline answers with text columns", "End it with an encoder, or convert it to onnx.")
    fields = [column.field for column in columns]
    final, outputs = last.numbers(document, fields, [], last.sources(columns), names[0])
    return last.chain(document, [final], outputs)

"""A fitted model without what only trained it: a search is its best estimator, a selector that predicts two steps."""

from __future__ import annotations

import copy
from typing import Any

from modelrel.errors import Refused
from modelrel.formats.onnx.sklearn_tail import STEP


def plain(native: Any, *, last: bool = True) -> Any:
    """Return the estimator that `native` predicts with; `last` is False for a step that only transforms.

    Marks (on copies) what transforms though it could predict. Raises `Refused` where that has no converter.
    """
    while True:
        kind = type(native).__name__
        if hasattr(native, "best_estimator_"):
            native = native.best_estimator_
        elif kind == "SelfTrainingClassifier":
            native = native.estimator_
        elif kind == "FrozenEstimator":
            native = native.estimator
        else:
            break
    if kind == "SimpleImputer" and getattr(native, "indicator_", None) is not None:
        return _imputed(native)
    if kind in ("RFE", "RFECV") and last:
        from sklearn.pipeline import Pipeline

        return Pipeline([("select", _marked(native)), ("estimator", plain(native.estimator_))])
    if hasattr(native, "steps"):
        _no_names_between(native)
        native = copy.copy(native)
        ends = len(native.steps) - 1
        native.steps = [
            (name, plain(step, last=last and index == ends)) for index, (name, step) in enumerate(native.steps)
        ]
        return native
    if hasattr(native, "transformers_"):
        native = copy.copy(native)
        native.transformers_ = [
            (name, plain(step, last=False), columns) for name, step, columns in native.transformers_
        ]
        return native
    if hasattr(native, "transformer_list"):
        native = copy.copy(native)
        native.transformer_list = [(name, plain(step, last=False)) for name, step in native.transformer_list]
        return native
    return native if last or not hasattr(native, "predict") else _marked(native)


def _no_names_between(pipeline: Any) -> None:
    """Raise `Refused` where a step picks columns of the data frame that a step before it gives."""
    before = ""
    for name, step in pipeline.steps:
        if before and hasattr(step, "transformers_"):
            raise Refused(
                f"the ColumnTransformer {name!r} picks columns of what {before!r} gives, which have no names in ONNX",
                "Use one ColumnTransformer, the first step, with a Pipeline for each group of columns.",
            )
        # what set_output(transform="pandas") leaves: the frame in between has columns that can be named
        if getattr(step, "_sklearn_output_config", {}).get("transform", "default") != "default":
            before = name


def _imputed(native: Any) -> Any:
    """Return an imputer that says what was missing as two transformers side by side: skl2onnx forgets the second."""
    from sklearn.pipeline import FeatureUnion

    imputer = copy.copy(native)
    imputer.add_indicator, imputer.indicator_ = False, None
    return FeatureUnion([("imputed", imputer), ("missing", native.indicator_)])


_BOTH = frozenset({
    "BisectingKMeans", "Birch", "CCA", "KMeans", "MiniBatchKMeans", "PLSCanonical", "PLSRegression", "RFE", "RFECV",
})  # fmt: skip
"""Estimators that predict, and whose own writer writes what they transform as well."""


def _marked(native: Any) -> Any:
    name = type(native).__name__
    if name not in _BOTH:
        raise Refused(
            f"{name} in the middle of a pipeline has no converter to ONNX for what it transforms",
            "Put a transformer there that does not predict.",
        )
    native = copy.copy(native)
    setattr(native, STEP, True)
    return native

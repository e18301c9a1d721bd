"""Estimators that people put behind counts of words, where skl2onnx loses digits, ties or empty rows."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from modelrel.formats.onnx import links
from modelrel.formats.onnx.sklearn_tail.declared import Part, declare
from modelrel.formats.onnx.sklearn_tail.linear import times


def register() -> None:
    """Make skl2onnx convert these estimators with this module (in this process)."""
    from sklearn import linear_model, naive_bayes, preprocessing
    from sklearn.feature_extraction import text

    declare(linear_model.SGDClassifier, _descended)
    declare(naive_bayes.BernoulliNB, _bernoulli)
    declare(preprocessing.Normalizer, _normalised)
    declare(text.TfidfTransformer, _weighed)


def _descended(part: Part) -> tuple[str, str]:
    """Write SGDClassifier, whose labels come of its scores: its probabilities may be all alike, or all 0."""
    native, nodes = part.native, part.nodes
    scores = times(part, part.x, native.coef_.T, native.intercept_)
    two = len(native.classes_) == 2
    index = links.above(nodes, scores, part.row(0.0)) if two else links.largest(nodes, scores)
    return part.label(index), _probable(part, scores)


def _probable(part: Part, scores: str) -> str:
    """Write probabilities where the loss gives some, else the scores (both of them for two classes)."""
    native, nodes = part.native, part.nodes
    two = len(native.classes_) == 2
    if native.loss == "log_loss":
        shares = nodes.add("Sigmoid", scores)
    elif native.loss == "modified_huber":
        clipped = nodes.add("Max", nodes.add("Min", scores, part.row(1.0)), part.row(-1.0))
        shares = nodes.add("Div", nodes.add("Add", clipped, part.row(1.0)), part.row(2.0))
    else:
        return nodes.add("Concat", nodes.add("Neg", scores), scores, axis=1) if two else scores
    if two:
        return links.both(nodes, shares)
    total = nodes.add("ReduceSum", shares, nodes.constant([1], np.int64), keepdims=1)
    if native.loss == "modified_huber":
        nothing = nodes.add("Equal", total, part.row(0.0))
        shares = nodes.add("Where", nothing, part.row(1.0), shares)
        total = nodes.add("Where", nothing, part.row(float(len(native.classes_))), total)
    return nodes.add("Div", shares, total)


def _bernoulli(part: Part) -> tuple[str, str]:
    """Write naive Bayes on what is there and what is not, with the logarithms taken here."""
    native, nodes = part.native, part.nodes
    x = part.x
    if native.binarize is not None:
        x = nodes.cast(nodes.add("Greater", x, part.row(float(native.binarize))), TensorProto.DOUBLE)
    absent = np.log(1 - np.exp(native.feature_log_prob_))
    likely = times(part, x, (native.feature_log_prob_ - absent).T, native.class_log_prior_ + absent.sum(axis=1))
    return part.label(links.largest(nodes, likely)), nodes.add("Softmax", likely, axis=1)


def _normalised(part: Part) -> str:
    """Write Normalizer, which leaves a row of zeros as it is."""
    # What scikit-learn takes for zero, in the dtype it computes in.
    least = 10 * float(np.finfo(np.float32 if part.single else np.float64).eps)
    return _scaled(part, part.x, part.native.norm, least)


def _scaled(part: Part, x: str, norm: str, least: float) -> str:
    """Return rows divided by their norm, unless it is below `least`."""
    nodes = part.nodes
    size = nodes.add("Mul", x, x) if norm == "l2" else nodes.add("Abs", x)
    if norm != "max":
        total = nodes.add("ReduceSum", size, nodes.constant([1], np.int64), keepdims=1)
    elif part.opset < 18:  # from where on axes are an input
        total = nodes.add("ReduceMax", size, axes=[1], keepdims=1)
    else:
        total = nodes.add("ReduceMax", size, nodes.constant([1], np.int64), keepdims=1)
    if norm == "l2":
        total = nodes.add("Sqrt", total)
    total = nodes.add("Where", nodes.add("Less", total, part.row(least)), part.row(1.0), total)
    return nodes.add("Div", x, total)


def _weighed(part: Part) -> str:
    """Write TfidfTransformer where it is not right behind a vectorizer, which would do it in front of the graph."""
    native, nodes = part.native, part.nodes
    x = part.x
    if native.sublinear_tf:
        nothing = nodes.add("Equal", x, part.row(0.0))
        logged = nodes.add("Log", nodes.add("Where", nothing, part.row(1.0), x))
        x = nodes.add("Where", nothing, part.row(0.0), nodes.add("Add", logged, part.row(1.0)))
    if hasattr(native, "idf_"):
        x = nodes.add("Mul", x, part.row(native.idf_))
    smallest = float(np.finfo(np.float64).smallest_subnormal)
    return x if native.norm is None else _scaled(part, x, native.norm, smallest)

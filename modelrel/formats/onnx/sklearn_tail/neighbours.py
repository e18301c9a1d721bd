"""Nearest neighbours: classes, numbers and gaps filled from the kept rows, equal or weighed by distance."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from modelrel.formats.onnx import links
from modelrel.formats.onnx.sklearn_tail.declared import Part, declare
from modelrel.formats.onnx.sklearn_tail.distances import distance, lowest


def register() -> None:
    """Make skl2onnx convert these estimators with this module (in this process)."""
    from sklearn import impute, neighbors

    declare(neighbors.KNeighborsClassifier, _nearest_classes)
    declare(neighbors.KNeighborsRegressor, _nearest_numbers)
    declare(neighbors.RadiusNeighborsClassifier, _near_classes)
    declare(neighbors.RadiusNeighborsRegressor, _near_numbers)
    declare(neighbors.RadiusNeighborsTransformer, _graph)
    declare(impute.KNNImputer, _imputed)


def _distances(part: Part) -> str:
    native = part.native
    if hasattr(native._fit_X, "toarray"):
        raise part.refused("keeps sparse rows", "Train it on dense ones.")
    said = dict(native.effective_metric_params_ or {})
    if said.get("w") is not None:
        raise part.refused("weighs its features", "Scale them before it instead.")
    return distance(part, part.x, native._fit_X, str(native.effective_metric_), said.get("p", 2))


def _weights(part: Part, gaps: str, near: str = "") -> str:
    """Return what each neighbour counts: 1, or 1 / distance, where only those at distance 0 count if there are any."""
    native, nodes = part.native, part.nodes
    if callable(native.weights):
        raise part.refused("weighs by a function", "Train it with weights='uniform' or 'distance'.")
    if native.weights == "distance":
        zero = nodes.cast(nodes.add("Equal", gaps, part.row(0.0)), TensorProto.DOUBLE)
        some = nodes.add("Greater", _total(part, zero), part.row(0.0))
        found = nodes.add("Where", some, zero, nodes.add("Reciprocal", gaps))
    else:
        found = nodes.add("Add", nodes.add("Mul", gaps, part.row(0.0)), part.row(1.0))
    return nodes.add("Where", near, found, part.row(0.0)) if near else found


def _kept(part: Part) -> tuple[str, str]:
    """Return the distances and the numbers of the nearest rows, (N, neighbours)."""
    return lowest(part, _distances(part), part.nodes.constant([part.native.n_neighbors], np.int64))


def _table(native: Any) -> Any:
    """Return the class of each kept row as a vector of zeros and a one."""
    return np.eye(len(native.classes_))[np.asarray(native._y).ravel()]


def _picked(part: Part, table: Any, weights: str, index: str) -> str:
    """Return the weighed sum of table rows, (N, columns)."""
    nodes = part.nodes
    rows = nodes.add("Gather", part.row(table), index, axis=0)
    wide = nodes.add("Unsqueeze", weights, nodes.constant([1], np.int64))
    return nodes.add("Squeeze", nodes.add("MatMul", wide, rows), nodes.constant([1], np.int64))


def _total(part: Part, tensor: str) -> str:
    return part.nodes.add("ReduceSum", tensor, part.nodes.constant([1], np.int64), keepdims=1)


def _nearest_classes(part: Part) -> tuple[str, str]:
    gaps, index = _kept(part)
    total = _picked(part, _table(part.native), _weights(part, gaps), index)
    return part.label(links.largest(part.nodes, total)), part.nodes.add("Div", total, _total(part, total))


def _nearest_numbers(part: Part) -> str:
    gaps, index = _kept(part)
    weights = _weights(part, gaps)
    table = np.asarray(part.native._y, np.float64).reshape(len(part.native._fit_X), -1)
    return part.nodes.add("Div", _picked(part, table, weights, index), _total(part, weights))


def _near(part: Part) -> tuple[str, str]:
    """Return the distances to all kept rows, and which are within the radius."""
    gaps = _distances(part)
    return gaps, part.nodes.add("LessOrEqual", gaps, part.row(float(part.native.radius)))


def _near_classes(part: Part) -> tuple[str, str]:
    native, nodes = part.native, part.nodes
    total = nodes.add("MatMul", _weights(part, *_near(part)), part.row(_table(native)))
    count = _total(part, total)
    none = nodes.add("Equal", count, part.row(0.0))
    share = nodes.add("Div", total, nodes.add("Where", none, part.row(1.0), count))
    if native.outlier_label_ is None:  # then the original raises where a row has no neighbours
        return part.label(links.largest(nodes, share)), share
    outlier = native.outlier_label_[0]
    share = nodes.add("Where", none, part.row(1.0 * (native.classes_ == outlier)), share)
    known = np.append(native.classes_, np.asarray([outlier], native.classes_.dtype))
    alone = nodes.add("Squeeze", none, nodes.constant([1], np.int64))
    index = nodes.add("Where", alone, nodes.constant(len(native.classes_), np.int64), links.largest(nodes, share))
    return part.labelled(index, known), share


def _near_numbers(part: Part) -> str:
    weights = _weights(part, *_near(part))
    table = np.asarray(part.native._y, np.float64).reshape(len(part.native._fit_X), -1)
    return part.nodes.add("Div", part.nodes.add("MatMul", weights, part.row(table)), _total(part, weights))


def _graph(part: Part) -> str:
    gaps, near = _near(part)
    if part.native.mode == "connectivity":
        return part.nodes.cast(near, TensorProto.DOUBLE)
    return part.nodes.add("Where", near, gaps, part.row(0.0))


def _imputed(part: Part) -> str:
    """Write KNNImputer: each gap takes the mean of the nearest rows that have the feature (Troyanskaya, 2001)."""
    native, nodes = part.native, part.nodes
    if native.add_indicator or not np.isnan(native.missing_values) or native.metric != "nan_euclidean":
        raise part.refused("adds an indicator, or has another missing value than NaN", "Train it without.")
    if part.single and native.weights != "uniform":
        raise part.refused(
            "weighs float32 rows, where the rounding of the original is larger than what a copy may be off",
            "Train and log it with float64 rows, or with weights='uniform'.",
        )
    gap = nodes.add("IsNaN", part.x)
    known = nodes.add("Where", gap, part.row(0.0), part.x)
    there = nodes.add("Sub", part.row(1.0), nodes.cast(gap, TensorProto.DOUBLE))
    kept = ~native._mask_fit_X
    apart = _nan_distance(part, known, there, kept)
    columns = []
    for column in np.flatnonzero(native._valid_mask if not native.keep_empty_features else [True] * kept.shape[1]):
        own = nodes.add("Gather", part.x, nodes.constant([column], np.int64), axis=1)
        hole = nodes.add("IsNaN", own)
        columns.append(nodes.add("Where", hole, _filling(part, apart, int(column)), own))
    return nodes.add("Concat", *columns, axis=1)


def _nan_distance(part: Part, known: str, there: str, kept: Any) -> str:
    """Return distances over the features that both rows have, scaled up for the others; infinite without any."""
    native, nodes = part.native, part.nodes
    total = ""
    for column in range(kept.shape[1]):
        index = nodes.constant([column], np.int64)
        values = np.where(kept[:, column], native._fit_X[:, column], 0.0)
        step = nodes.add("Sub", nodes.add("Gather", known, index, axis=1), part.row(values[None, :]))
        both = nodes.add("Mul", nodes.add("Gather", there, index, axis=1), part.row(1.0 * kept[None, :, column]))
        term = nodes.add("Mul", nodes.add("Mul", step, step), both)
        total = nodes.add("Add", total, term) if total else term
    count = nodes.add("MatMul", there, part.row(1.0 * kept.T))
    mean = nodes.add("Mul", nodes.add("Div", total, count), part.row(float(kept.shape[1])))
    apart = nodes.add("Equal", count, part.row(0.0))
    return nodes.add("Where", apart, part.row(np.inf), nodes.add("Sqrt", mean))


def _filling(part: Part, apart: str, column: int) -> str:
    """Return what a gap in this column becomes, (N, 1)."""
    native, nodes = part.native, part.nodes
    donors = np.flatnonzero(~native._mask_fit_X[:, column])
    if not len(donors):
        return part.row([[0.0]])
    values = native._fit_X[donors, column].astype(np.float64)
    gaps = nodes.add("Gather", apart, nodes.constant(donors), axis=1)
    count = min(native.n_neighbors, len(donors))
    gaps, index = lowest(part, gaps, nodes.constant([count], np.int64))
    finite = nodes.add("Less", gaps, part.row(np.inf))
    weights = _weights(part, nodes.add("Where", finite, gaps, part.row(1.0)), finite)
    total = _picked(part, values[:, None], weights, index)
    sums = _total(part, weights)
    none = nodes.add("Equal", sums, part.row(0.0))
    return nodes.add("Where", none, part.row(values.mean()), nodes.add("Div", total, sums))

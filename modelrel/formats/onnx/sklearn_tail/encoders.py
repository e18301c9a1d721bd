"""Numbers and words into other numbers, a feature at a time: categories, bins, ranks, splines, powers."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from modelrel.formats.onnx.graph import DOMAIN_ML
from modelrel.formats.onnx.sklearn_tail import curves
from modelrel.formats.onnx.sklearn_tail.declared import CODES, DOMAIN_TEXT, Part, declare


def register() -> None:
    """Make skl2onnx convert these estimators with this module (in this process)."""
    from sklearn import impute, preprocessing

    declare(preprocessing.OneHotEncoder, _one_hot, columns=True)
    declare(preprocessing.OrdinalEncoder, _ordinal, columns=True)
    declare(getattr(preprocessing, "TargetEncoder", None), _targets, columns=True)
    declare(preprocessing.LabelEncoder, _numbered, columns=True)
    declare(preprocessing.LabelBinarizer, _binarised, columns=True)
    declare(preprocessing.Binarizer, _above)
    declare(preprocessing.KBinsDiscretizer, _bins)
    declare(preprocessing.QuantileTransformer, _ranks)
    declare(preprocessing.SplineTransformer, _splines)
    declare(preprocessing.PowerTransformer, _powers)
    declare(impute.MissingIndicator, _gaps)


def column(part: Part, index: int) -> str:
    """Return one feature, (N, 1)."""
    return part.nodes.add("Gather", part.x, part.nodes.constant([index], np.int64), axis=1)


def matched(part: Part, index: int, known: Any) -> str:
    """Return 1.0 in the column of the category that a row has, (N, categories); all 0 for a stranger."""
    nodes = part.nodes
    name, place, text = part.columns[index]
    own = nodes.add("Gather", name, nodes.constant([place], np.int64), axis=1)
    known = np.asarray(known)
    if text:
        number = getattr(part.native, CODES, {}).get(index)
        if number is not None:
            own = nodes.add("Codes", name, domain=DOMAIN_TEXT, number=number)
        else:
            words = [str(word) for word in known.tolist()]
            own = nodes.add(
                "LabelEncoder", own, domain=DOMAIN_ML, keys_strings=words,
                values_int64s=list(range(len(words))), default_int64=-1,
            )  # fmt: skip
        return nodes.cast(
            nodes.add("Equal", own, nodes.constant([np.arange(len(known))], np.int64)), TensorProto.DOUBLE
        )
    numbers = known.astype(np.float64)
    same = nodes.add("Equal", own, part.row(numbers[None, :]))
    if np.isnan(numbers).any():
        gap = nodes.add("And", nodes.add("IsNaN", own), nodes.constant(np.isnan(numbers)[None, :]))
        same = nodes.add("Or", same, gap)
    return nodes.cast(same, TensorProto.DOUBLE)


def stranger(part: Part, same: str) -> str:
    """Return 1.0 for a row that has none of the categories, (N, 1)."""
    some = part.nodes.add("ReduceSum", same, part.nodes.constant([1], np.int64), keepdims=1)
    return part.nodes.add("Sub", part.row(1.0), some)


def _one_hot(part: Part) -> str:
    """Write each feature's categories as a matrix from what it knows to its columns: groups and dropped ones too."""
    native, nodes = part.native, part.nodes
    found = []
    for index, known in enumerate(native.categories_):
        same = matched(part, index, known)
        grouped = native._default_to_infrequent_mappings[index] if native._infrequent_enabled else None
        place = np.arange(len(known)) if grouped is None else np.asarray(grouped)
        dropped = None if native._drop_idx_after_grouping is None else native._drop_idx_after_grouping[index]
        table = np.eye(place.max() + 1)[place]
        if dropped is not None:
            table = np.delete(table, dropped, axis=1)
        if not table.shape[1]:
            continue
        columns = nodes.add("MatMul", same, part.row(table))
        if grouped is not None and native.handle_unknown in ("infrequent_if_exist", "warn"):
            rare = np.zeros((1, place.max() + 1))
            rare[0, -1] = 1.0
            rare = rare if dropped is None else np.delete(rare, dropped, axis=1)
            columns = nodes.add("Add", columns, nodes.add("MatMul", stranger(part, same), part.row(rare)))
        found.append(columns)
    return nodes.add("Concat", *found, axis=1) if len(found) > 1 else found[0]


def _ordinal(part: Part) -> str:
    """Write each feature's category as its place: groups of rare ones, missing ones and strangers too."""
    native, nodes = part.native, part.nodes
    found = []
    for index, known in enumerate(native.categories_):
        same = matched(part, index, known)
        grouped = (
            native._default_to_infrequent_mappings[index] if getattr(native, "_infrequent_enabled", False) else None
        )
        places = np.arange(len(known), dtype=np.float64) if grouped is None else np.asarray(grouped, np.float64)
        gap = getattr(native, "_missing_indices", {}).get(index)
        if gap is not None:
            # The groups of rare categories leave what is missing, which comes last, out.
            places = np.append(places[:gap], 0.0)
        own = nodes.add("MatMul", same, part.row(places[:, None]))
        if gap is not None:
            # The number for "missing" may be NaN, which no product leaves to other rows.
            missing = nodes.add("Gather", same, nodes.constant([gap], np.int64), axis=1)
            there = nodes.add("Greater", missing, part.row(0.5))
            own = nodes.add("Where", there, part.row(float(native.encoded_missing_value)), own)
        if native.handle_unknown == "use_encoded_value":
            strange = nodes.add("Greater", stranger(part, same), part.row(0.5))
            own = nodes.add("Where", strange, part.row(float(native.unknown_value)), own)
        found.append(own)
    return nodes.add("Concat", *found, axis=1) if len(found) > 1 else found[0]


def _targets(part: Part) -> str:
    native, nodes = part.native, part.nodes
    several = native.target_type_ == "multiclass"
    count = len(native.classes_) if several else 1
    means = np.atleast_1d(native.target_mean_)
    found = []
    for index, known in enumerate(native.categories_):
        same = matched(part, index, known)
        table = np.stack([native.encodings_[index * count + place] for place in range(count)], axis=1)
        own = nodes.add("MatMul", same, part.row(table))
        found.append(nodes.add("Add", own, nodes.add("MatMul", stranger(part, same), part.row(means[None, :]))))
    return nodes.add("Concat", *found, axis=1) if len(found) > 1 else found[0]


def _numbered(part: Part) -> str:
    places = np.arange(len(part.native.classes_), dtype=np.float64)[:, None]
    index = part.nodes.add("MatMul", matched(part, 0, part.native.classes_), part.row(places))
    return part.nodes.cast(index, TensorProto.INT64)


def _binarised(part: Part) -> str:
    native = part.native
    if native.y_type_.startswith("multilabel"):
        raise part.refused("was fitted on several labels a row", "Release one model per label.")
    same = matched(part, 0, native.classes_)
    if len(native.classes_) == 2:
        same = part.nodes.add("Gather", same, part.nodes.constant([1], np.int64), axis=1)
    low, high = float(native.neg_label), float(native.pos_label)
    return part.nodes.add("Add", part.nodes.add("Mul", same, part.row(high - low)), part.row(low))


def _above(part: Part) -> str:
    over = part.nodes.add("Greater", part.x, part.row(float(part.native.threshold)))
    return part.nodes.cast(over, TensorProto.DOUBLE)


def _bins(part: Part) -> str:
    native, nodes = part.native, part.nodes
    found = []
    for index, edges in enumerate(native.bin_edges_):
        inner = np.asarray(edges, np.float64)[1:-1]
        if len(inner):
            place = curves.steps(part, column(part, index), inner)
        else:
            place = nodes.add(
                "Mul", nodes.cast(nodes.add("IsNaN", column(part, index)), TensorProto.DOUBLE), part.row(0.0)
            )
        if native.encode != "ordinal":
            known = np.arange(native.n_bins_[index], dtype=np.float64)
            place = nodes.cast(nodes.add("Equal", place, part.row(known[None, :])), TensorProto.DOUBLE)
        found.append(place)
    return nodes.add("Concat", *found, axis=1) if len(found) > 1 else found[0]


def _ranks(part: Part) -> str:
    """Write QuantileTransformer: the mean of two interpolations, which places ties in their middle."""
    native, nodes = part.native, part.nodes
    normal = native.output_distribution == "normal"
    found = []
    for index, quantiles in enumerate(np.asarray(native.quantiles_, np.float64).T):
        x = column(part, index)
        up = curves.interpolated(part, x, quantiles, native.references_)
        down = curves.interpolated(part, nodes.add("Neg", x), -quantiles[::-1], -native.references_[::-1])
        rank = nodes.add("Mul", nodes.add("Sub", up, down), part.row(0.5))
        if normal:
            slack = part.row(1e-7)  # scikit-learn's BOUNDS_THRESHOLD
            top = nodes.add("Greater", nodes.add("Add", x, slack), part.row(quantiles[-1]))
            bottom = nodes.add("Less", nodes.add("Sub", x, slack), part.row(quantiles[0]))
        else:
            top = nodes.add("Equal", x, part.row(quantiles[-1]))
            bottom = nodes.add("Equal", x, part.row(quantiles[0]))
        rank = nodes.add("Where", top, part.row(1.0), rank)
        rank = nodes.add("Where", bottom, part.row(0.0), rank)
        found.append(nodes.add("Where", nodes.add("IsNaN", x), x, rank))
    ranks = nodes.add("Concat", *found, axis=1) if len(found) > 1 else found[0]
    if not normal:
        return ranks
    return curves.normal_quantile(part, part.rounded(ranks))


def _splines(part: Part) -> str:
    native, nodes = part.native, part.nodes
    if native.degree == 0 or (native.degree == 1 and native.extrapolation == "linear"):
        raise part.refused(
            f"with degree={native.degree} and extrapolation={native.extrapolation!r} has no proven copy",
            "Train it with degree=3.",
        )
    found = []
    for index, spline in enumerate(native.bsplines_):
        own = curves.spline(part, column(part, index), spline, native.extrapolation)
        if getattr(native, "handle_missing", "error") == "zeros":
            own = nodes.add("Where", nodes.add("IsNaN", column(part, index)), part.row(0.0), own)
        if not native.include_bias:
            own = nodes.add("Gather", own, nodes.constant(np.arange(spline.c.shape[1] - 1)), axis=1)
        found.append(own)
    return nodes.add("Concat", *found, axis=1) if len(found) > 1 else found[0]


def _powers(part: Part) -> str:
    """Write PowerTransformer (Box and Cox, 1964; Yeo and Johnson, 2000), and the scaler behind it."""
    native, nodes = part.native, part.nodes
    powers = np.asarray(native.lambdas_, np.float64)

    def raised(base: str, power: Any) -> str:
        flat = power == 0
        logged = nodes.add("Log", base)
        safe = np.where(flat, 1.0, power)
        curved = nodes.add("Sub", nodes.add("Exp", nodes.add("Mul", logged, part.row(safe))), part.row(1.0))
        return nodes.add("Where", nodes.constant(flat), logged, nodes.add("Div", curved, part.row(safe)))

    if native.method == "box-cox":
        found = raised(part.x, powers)
    else:
        zero, one = part.row(0.0), part.row(1.0)
        up = raised(nodes.add("Add", nodes.add("Max", part.x, zero), one), powers)
        down = nodes.add("Neg", raised(nodes.add("Sub", one, nodes.add("Min", part.x, zero)), 2 - powers))
        found = nodes.add("Where", nodes.add("GreaterOrEqual", part.x, zero), up, down)
        found = nodes.add("Where", nodes.add("IsNaN", part.x), part.x, found)
    if native.standardize:
        found = nodes.add("Sub", found, part.row(native._scaler.mean_))
        found = nodes.add("Div", found, part.row(native._scaler.scale_))
    return found


def _gaps(part: Part) -> str:
    native, nodes = part.native, part.nodes
    missing = native.missing_values
    if not isinstance(missing, int | float):
        raise part.refused(f"looks for {missing!r}", "Train it with a number, or NaN, for what is missing.")
    gap = nodes.add("IsNaN", part.x) if np.isnan(missing) else nodes.add("Equal", part.x, part.row(float(missing)))
    found = nodes.cast(gap, TensorProto.DOUBLE)
    if native.features == "missing-only":
        found = nodes.add("Gather", found, nodes.constant(np.asarray(native.features_, np.int64)), axis=1)
    return found

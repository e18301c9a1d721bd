"""scikit-learn's pre-processing -> PMML: each feature a field derived from those before it, in scikit-learn's order.

A gap stays a gap, as NaN does in scikit-learn, until a step fills it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from modelrel.errors import Refused
from modelrel.formats.pmml.document import Column, Document
from modelrel.formats.pmml.elements import Expression, apply, chained, element, held

_EXACT_INTEGERS: Final = 2**53

Names = Sequence[str]
Columns = list[Column]


def transformed(document: Document, step: Any, columns: Columns, names: Names) -> Columns:
    """Return the columns after a fitted step; `names` are those of the columns where it picks them by name.

    Raises `Refused` for a step without an exact form, by its name.
    """
    if step is None or (isinstance(step, str) and step == "passthrough"):
        return columns
    kind = type(step).__name__
    if kind == "Pipeline":
        for _, inner in step.steps:
            columns, names = transformed(document, inner, columns, names), ()
        return columns
    if kind == "ColumnTransformer":
        return _parted(document, step, columns, names)
    if kind == "FeatureUnion":
        return _united(document, step, columns, names)
    writer = _STEPS.get(kind) if type(step).__module__.startswith("sklearn.") else None
    if writer is None and hasattr(step, "get_support") and type(step).__module__.startswith("sklearn."):
        writer = _selected
    if writer is None:
        raise Refused(f"{kind} has no form in PMML", f"It writes {', '.join(sorted(_STEPS))}; or convert it to onnx.")
    if kind not in _TEXTS and any(column.text for column in columns):
        raise Refused(f"{kind} is given text, which it does not read in PMML", "Encode it before that step.")
    found = writer(document, step, columns)
    # scikit-learn computes in float32 where all that it is given is.
    single = all(column.single for column in columns) and bool(columns)
    return [column if column in columns else replace(column, single=single) for column in found]


def _parted(document: Document, step: Any, columns: Columns, names: Names) -> Columns:
    found: Columns = []
    for _, inner, chosen in step.transformers_:
        if isinstance(inner, str) and inner == "drop":
            continue
        places = positions(chosen, names, len(columns))
        picked = [columns[place] for place in places]
        found += transformed(document, inner, picked, [names[place] for place in places] if names else ())
    return found


def positions(chosen: Any, names: Names, count: int) -> list[int]:
    """Return column positions from names, positions, masks, slices, or one of them."""
    if not names and _by_name(chosen):
        raise Refused(
            f"a ColumnTransformer picks {chosen!r} by name among columns that have none here",
            "Put it first in the pipeline, or pick the columns by position.",
        )
    if isinstance(chosen, slice):
        if isinstance(chosen.start, str) or isinstance(chosen.stop, str):
            first = names.index(chosen.start) if chosen.start is not None else 0
            last = names.index(chosen.stop) if chosen.stop is not None else count - 1  # labels are inclusive
            return list(range(first, last + 1))
        return list(range(count))[chosen]
    listed = [chosen] if isinstance(chosen, str | int | np.integer) else list(chosen)
    if listed and isinstance(listed[0], bool | np.bool_):
        return [index for index, picked in enumerate(listed) if picked]
    return [names.index(entry) if isinstance(entry, str) else range(count)[int(entry)] for entry in listed]


def _by_name(chosen: Any) -> bool:
    if isinstance(chosen, slice):
        return isinstance(chosen.start, str) or isinstance(chosen.stop, str)
    return isinstance(chosen, str) or (not np.isscalar(chosen) and any(isinstance(one, str) for one in chosen))


def _united(document: Document, step: Any, columns: Columns, names: Names) -> Columns:
    found: Columns = []
    for name, inner in step.transformer_list:
        if isinstance(inner, str) and inner == "drop":
            continue
        part = transformed(document, inner, columns, names)
        weight = (step.transformer_weights or {}).get(name)
        if weight is not None:
            part = [document.derive(f"{name}({one.field})", apply("*", one.field, float(weight)), one) for one in part]
        found += part
    return found


def _standard(document: Document, step: Any, columns: Columns) -> Columns:
    return _moved(document, columns, step.mean_, step.scale_)


def _robust(document: Document, step: Any, columns: Columns) -> Columns:
    return _moved(document, columns, step.center_, step.scale_)


def _max_abs(document: Document, step: Any, columns: Columns) -> Columns:
    found = _moved(document, columns, None, step.scale_)
    return _clipped(document, found, -1.0, 1.0) if getattr(step, "clip", False) else found


def _moved(document: Document, columns: Columns, shift: Any, scale: Any) -> Columns:
    """Return `(x - shift) / scale`, either of which may be None."""
    found = []
    for place, column in enumerate(columns):
        said: Expression = column.field
        if shift is not None:
            said = apply("-", said, float(shift[place]))
        if scale is not None:
            said = apply("/", said, float(scale[place]))
        found.append(document.derive(f"scaled({column.field})", said, column) if said != column.field else column)
    return found


def _min_max(document: Document, step: Any, columns: Columns) -> Columns:
    found = [
        document.derive(f"scaled({column.field})", apply("+", apply("*", column.field, float(by)), float(plus)), column)
        for column, by, plus in zip(columns, step.scale_, step.min_, strict=True)
    ]
    return _clipped(document, found, *map(float, step.feature_range)) if step.clip else found


def _clipped(document: Document, columns: Columns, low: float, high: float) -> Columns:
    return [
        document.derive(
            f"clipped({column.field})", _present(column, apply("max", apply("min", column.field, high), low)), column
        )
        for column in columns
    ]


def _present(column: Column, said: Expression) -> Expression:
    """Return a gap where the column has one: comparisons are not made of gaps."""
    return apply("if", apply("isNotMissing", column.field), said)


def _imputed(document: Document, step: Any, columns: Columns) -> Columns:
    found: Columns = []
    for column, value in zip(columns, np.asarray(step.statistics_, object).tolist(), strict=True):
        if isinstance(value, float) and math.isnan(value):
            if getattr(step, "keep_empty_features", False):
                raise Refused("SimpleImputer keeps a feature that was never filled", "Drop that column.")
            continue
        if column.text:
            if not _is_gap(step.missing_values) or not isinstance(value, str):
                raise Refused(
                    f"SimpleImputer fills the text {column.field} where it is {step.missing_values!r}, with {value!r}",
                    "Fill missing text (NaN) with a text, or convert it to onnx.",
                )
            found.append(replace(column, fill=column.fill if column.fill is not None else held(value)))
            continue
        found.append(
            document.derive(
                f"filled({column.field})",
                apply("if", _gap(step.missing_values, column), float(value), column.field),
                column,
            )
        )
    indicator = getattr(step, "indicator_", None)
    if indicator is not None:
        found += _indicated(document, indicator, columns)
    return found


def _indicated(document: Document, step: Any, columns: Columns) -> Columns:
    return [
        document.derive(
            f"missing({columns[place].field})",
            apply("if", _gap(step.missing_values, columns[place]), 1.0, 0.0),
            columns[place],
        )
        for place in np.asarray(step.features_).tolist()
    ]


def _is_gap(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value)) or type(value).__name__ == "NAType"


def _gap(marker: Any, column: Column) -> Expression:
    missing = apply("isMissing", column.field)
    if _is_gap(marker):
        return missing
    if column.text or not isinstance(marker, int | float | np.number):
        raise Refused(f"{marker!r} stands for a missing value of {column.field}", "Use NaN for what is missing.")
    other = 0.0 if marker else 1.0  # a gap is not compared
    return apply("equal", apply("if", missing, other, column.field), float(marker))


def indicator(column: Column, known: Any) -> Expression:
    """Return 1 where a column is this category, else 0; a category that is None or NaN is a gap."""
    if _is_gap(known):
        if column.fill is not None:
            return 0.0
        return apply("if", apply("isMissing", column.field), 1.0, 0.0)
    if column.text:
        if not isinstance(known, str):
            raise Refused(f"{column.field} is text, and a step knows the category {known!r}", "Train it on text alone.")
        missing = "1" if column.fill == known else "0"
        return element("NormDiscrete", field=column.field, value=known, mapMissingTo=missing)
    if isinstance(known, str):
        raise Refused(f"{column.field} holds numbers, and a step knows the category {known!r}", "Train it on numbers.")
    if abs(known) >= _EXACT_INTEGERS:
        raise Refused(
            f"a step knows the category {known} of {column.field}, and float64 merges such whole numbers",
            "Encode the categories as small numbers, or as text.",
        )
    same = apply("if", apply("equal", column.field, float(known)), 1.0, 0.0)
    return apply("if", apply("isMissing", column.field), 0.0, same)


def _one_hot(document: Document, step: Any, columns: Columns) -> Columns:
    if any(one is not None for one in getattr(step, "infrequent_categories_", None) or ()):
        raise Refused(
            "OneHotEncoder puts rare categories together", "Train it without min_frequency and max_categories."
        )
    dropped = step.drop_idx_ if step.drop_idx_ is not None else [None] * len(columns)
    found = []
    for column, known, out in zip(columns, step.categories_, dropped, strict=True):
        for place, value in enumerate(np.asarray(known).tolist()):
            if out is None or place != out:
                found.append(document.derive(f"{column.field}={value}", indicator(column, value), column))
    return found


def _ordinal(document: Document, step: Any, columns: Columns) -> Columns:
    if any(one is not None for one in getattr(step, "infrequent_categories_", None) or ()):
        raise Refused(
            "OrdinalEncoder puts rare categories together", "Train it without min_frequency and max_categories."
        )
    found = []
    for column, known in zip(columns, step.categories_, strict=True):
        listed = np.asarray(known, object).tolist()
        ones = [(place, indicator(column, value)) for place, value in enumerate(listed) if not _is_gap(value)]
        parts = [document.derive(f"{column.field}={listed[place]}", one, column).field for place, one in ones]
        if not parts:
            raise Refused(f"OrdinalEncoder knows no category of {column.field}", "Drop that column.")
        code = summed([apply("*", float(place), part) for (place, _), part in zip(ones, parts, strict=True)])
        unknown = step.unknown_value if step.handle_unknown == "use_encoded_value" else math.nan
        rest = () if unknown is None or math.isnan(unknown) else (float(unknown),)
        said: Expression = apply("if", apply("equal", summed(list(parts)), 1.0), code, *rest)
        missing = float(step.encoded_missing_value)
        if column.fill is None and not (math.isnan(missing) and not rest):
            gap: Expression = missing if not math.isnan(missing) else _nothing()
            if not any(_is_gap(value) for value in listed):
                gap = rest[0] if rest else _nothing()
            said = apply("if", apply("isMissing", column.field), gap, said)
        found.append(document.derive(f"code({column.field})", said, column))
    return found


def _nothing() -> Expression:
    """Return a gap: a condition that never holds, without another value."""
    return apply("if", apply("equal", 0.0, 1.0), 0.0)


def summed(terms: Sequence[Expression]) -> Expression:
    """Return a sum added in halves, which does not nest deeply; for whole numbers, where the order is nothing."""
    if len(terms) == 1:
        return terms[0]
    middle = len(terms) // 2
    return apply("+", summed(terms[:middle]), summed(terms[middle:]))


def _binarized(document: Document, step: Any, columns: Columns) -> Columns:
    return [
        document.derive(
            f"above({column.field})",
            _present(column, apply("if", apply("greaterThan", column.field, float(step.threshold)), 1.0, 0.0)),
            column,
        )
        for column in columns
    ]


def _binned(document: Document, step: Any, columns: Columns) -> Columns:
    found = []
    for column, edges in zip(columns, step.bin_edges_, strict=True):
        inner = np.asarray(edges)[1:-1].tolist()
        above = [apply("if", apply("greaterOrEqual", column.field, float(edge)), 1.0, 0.0) for edge in inner]
        bin_ = document.derive(f"bin({column.field})", _present(column, summed(above) if above else 0.0), column)
        if step.encode == "ordinal":
            found.append(bin_)
            continue
        found += [
            document.derive(f"{bin_.field}={place}", indicator(bin_, place), bin_) for place in range(len(inner) + 1)
        ]
    return found


def _powers(document: Document, step: Any, columns: Columns) -> Columns:
    found = []
    for powers in np.asarray(step.powers_).tolist():
        factors = [column for column, power in zip(columns, powers, strict=True) for _ in range(power)]
        if len(factors) == 1:
            found.append(factors[0])
            continue
        said = chained("*", [one.field for one in factors]) if factors else 1.0
        found.append(document.derive("*".join(one.field for one in factors) or "one", said, *factors))
    return found


def _normalized(document: Document, step: Any, columns: Columns) -> Columns:
    fields = [column.field for column in columns]
    sizes = [apply("max", field, apply("-", 0.0, field)) for field in fields]
    if step.norm == "l2":
        length = apply("sqrt", summed([apply("*", field, field) for field in fields]))
    else:
        length = chained("max" if step.norm == "max" else "+", sizes)
    norm = document.derive("norm", length, *columns)
    by = document.derive("divisor", apply("if", apply("equal", norm.field, 0.0), 1.0, norm.field), norm)
    return [document.derive(f"normal({one.field})", apply("/", one.field, by.field), one, by) for one in columns]


def _projected(document: Document, step: Any, columns: Columns) -> Columns:
    mean = getattr(step, "mean_", None)
    moved = columns if mean is None else _moved(document, columns, mean, None)
    by = np.sqrt(step.explained_variance_) if getattr(step, "whiten", False) else np.ones(len(step.components_))
    if getattr(step, "whiten", False):
        by = np.maximum(by, np.finfo(by.dtype).eps)
    return [
        document.derive(
            f"component {place}",
            summed([apply("*", one.field, float(weight)) for one, weight in zip(moved, row / size, strict=True)]),
            *moved,
        )
        for place, (row, size) in enumerate(zip(np.asarray(step.components_, np.float64), by, strict=True))
    ]


def _selected(document: Document, step: Any, columns: Columns) -> Columns:
    del document
    return [column for column, kept in zip(columns, step.get_support(), strict=True) if kept]


def _called(document: Document, step: Any, columns: Columns) -> Columns:
    del document
    if step.func is not None:
        raise Refused(
            "FunctionTransformer calls Python code, which PMML cannot", "Use one of scikit-learn's own steps."
        )
    return columns


_TEXTS: Final = frozenset(
    {"FunctionTransformer", "OneHotEncoder", "OrdinalEncoder", "SimpleImputer", "MissingIndicator"}
)

_STEPS: Final[dict[str, Callable[[Document, Any, Columns], Columns]]] = {
    "Binarizer": _binarized,
    "FunctionTransformer": _called,
    "KBinsDiscretizer": _binned,
    "MaxAbsScaler": _max_abs,
    "MinMaxScaler": _min_max,
    "MissingIndicator": _indicated,
    "Normalizer": _normalized,
    "OneHotEncoder": _one_hot,
    "OrdinalEncoder": _ordinal,
    "PCA": _projected,
    "PolynomialFeatures": _powers,
    "RobustScaler": _robust,
    "SimpleImputer": _imputed,
    "StandardScaler": _standard,
    "TruncatedSVD": _projected,
}

"""Models of trees -> ONNX: an ensemble's entry, sums, link and labels around the operators of its trees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from onnx import TensorProto, helper

from modelrel import trees
from modelrel.errors import Refused
from modelrel.formats.onnx import links, tree_operators
from modelrel.formats.onnx.graph import DOMAIN_ML, Core, Nodes
from modelrel.formats.order import Order
from modelrel.trees import ZERO_BOUND, Choice, Ensemble, Entry
from modelrel.values import Scalar

_DOUBLE, _FLOAT = int(TensorProto.DOUBLE), int(TensorProto.FLOAT)


def write(native: Any, order: Order) -> Core:
    """Return the core of a model of XGBoost, LightGBM or CatBoost.

    Raises `Refused` for pandas categories in data frames, and whatever `trees.read` refuses.
    """
    ensemble = trees.read(native)
    assert ensemble is not None
    if order.signature.kind == "columns":
        ensemble.refuse_pandas_categories()
    spec = order.signature.inputs[0]
    if order.flavor == "lightgbm" and order.signature.kind == "tensor" and not spec.datatype.startswith("FP"):
        # It copies an array of whole numbers into float32, unlike a data frame.
        ensemble = replace(ensemble, entry=replace(ensemble.entry, single=True))
    return core(ensemble, order, {"features": trees.hints(ensemble)})


def core(ensemble: Ensemble, order: Order, said: dict[str, Any]) -> Core:
    """Return the core of a model that is nothing but an ensemble; `said` are its hints."""
    nodes = Nodes()
    results = answered(nodes, links.INPUT, ensemble)
    element = _FLOAT if ensemble.answers_single else _DOUBLE
    elements = [element]
    if ensemble.choice is not None:
        elements = [links.element(ensemble.choice.classes), element]
    outputs = dict(zip(order.answers.outputs, zip(results, elements, strict=True), strict=True))
    return links.core(nodes, order, outputs, said)


def answered(nodes: Nodes, x: str, ensemble: Ensemble) -> tuple[str, ...]:
    """Add an ensemble on the features `x` (N, features); return its results, the label before the numbers."""
    x = entered(nodes, x, ensemble.entry, ensemble.features)
    raw = _raw(nodes, x, ensemble)
    value = _linked(nodes, raw, ensemble)
    kind: Any = np.float32 if ensemble.answers_single else np.float64
    if ensemble.answers_single:
        value = nodes.cast(value, _FLOAT)
    seen = links.both(nodes, value, kind) if ensemble.pair else value
    if ensemble.choice is None:
        return (seen,)
    looked = raw if ensemble.choice.of == "raw" else seen if ensemble.choice.rule == "largest" else value
    index = _chosen(nodes, looked, ensemble.choice, np.float64 if ensemble.choice.of == "raw" else kind)
    return links.labels(nodes, index, ensemble.choice.classes), seen


def entered(nodes: Nodes, x: str, entry: Entry, features: int) -> str:
    """Return the features as the trees see them: float64 (N, features)."""
    if entry.codes:
        return with_codes(nodes, [(x, features, False)], entry, "the model")
    if entry.single:
        x = nodes.cast(x, _FLOAT)
    if not math.isnan(entry.missing):
        gap = nodes.add("Equal", x, nodes.constant(entry.missing, np.float32))
        x = nodes.add("Where", gap, nodes.constant(math.nan, np.float32), x)
    if entry.single:
        x = nodes.cast(x, _DOUBLE)
    if entry.zeros is not None:
        small = nodes.add("LessOrEqual", nodes.add("Abs", x), nodes.constant(ZERO_BOUND))
        x = nodes.add("Where", small, nodes.constant(np.where(entry.zeros, np.nan, 0.0).reshape(1, -1)), x)
    if entry.floor:
        # The runtime has no whole numbers for the largest floats.
        beyond = nodes.add("GreaterOrEqual", x, nodes.constant(2.0**24))
        none = nodes.constant(-1.0)
        whole = nodes.add("Where", beyond, none, nodes.add("Floor", x))
        whole = nodes.add("Where", nodes.add("Less", whole, nodes.constant(0.0)), none, whole)
        x = nodes.add("Where", _mask(nodes, entry.floor, features), whole, x)
    if entry.cut:
        cut = nodes.add("Mul", nodes.add("Sign", x), nodes.add("Floor", nodes.add("Abs", x)))
        x = nodes.add("Where", _mask(nodes, entry.cut, features), cut, x)
    return x


def with_codes(nodes: Nodes, given: Sequence[tuple[str, int, bool]], entry: Entry, name: str) -> str:
    """Return all features as float64 side by side, categories as their places (-1: not known, or missing).

    `given` are tensors, how many features each holds, and whether they are text. Raises `Refused` where one that was
    trained on text comes as numbers, or the other way round.
    """
    columns: list[str] = []
    for tensor, width, text in given:
        for index in range(width):
            listed = entry.codes.get(len(columns))
            if text != _is_text(listed or []):
                raise Refused(
                    f"feature {len(columns)} of {name} was trained on "
                    f"{'numbers' if text else 'text'}, and comes as {'text' if text else 'numbers'}",
                    "Log the model with the signature of the columns that it was trained on.",
                )
            one = nodes.add("Gather", tensor, nodes.constant([index], np.int64), axis=1)
            if not text:
                one = nodes.cast(one, _DOUBLE)
            columns.append(one if listed is None else _place(nodes, one, listed))
    return nodes.add("Concat", *columns, axis=1) if len(columns) > 1 else columns[0]


def _is_text(listed: Sequence[Scalar | None]) -> bool:
    return any(isinstance(value, str) for value in listed)


def _place(nodes: Nodes, one: str, listed: list[Any]) -> str:
    """Return the place of each value of a column in `listed`, -1 where it is not there: float64 (N, 1)."""
    if _is_text(listed):
        keys = ["" if value is None else value for value in listed]  # "" stands for a missing text in the copy
        places = {"values_int64s": list(range(len(keys))), "default_int64": -1}
        return nodes.cast(nodes.add("LabelEncoder", one, domain=DOMAIN_ML, keys_strings=keys, **places), _DOUBLE)
    numbers = np.array([np.nan if value is None else float(value) for value in listed], np.float64)
    same = nodes.cast(nodes.add("Equal", one, nodes.constant(numbers.reshape(1, -1))), _DOUBLE)
    counted = nodes.add("MatMul", same, nodes.constant(np.arange(1.0, len(numbers) + 1).reshape(-1, 1)))
    return nodes.add("Sub", counted, nodes.constant(1.0))


def _mask(nodes: Nodes, features: Sequence[int], count: int) -> str:
    return nodes.constant(np.isin(np.arange(count), features).reshape(1, -1))


def _raw(nodes: Nodes, x: str, ensemble: Ensemble) -> str:
    """Return the raw scores: float64 (N, scores)."""
    base = nodes.constant(ensemble.base.reshape(1, -1), np.float64)
    total = ""
    if ensemble.forest is not None:
        if ensemble.targets is None:
            total = tree_operators.vectors(nodes, x, ensemble.forest, single=ensemble.entry.single)
        else:
            total = tree_operators.summed(nodes, x, ensemble.forest, ensemble.targets, len(ensemble.base))
        if ensemble.divisor != 1:
            total = nodes.add("Div", total, nodes.constant(ensemble.divisor))
        if ensemble.scale != 1:
            total = nodes.add("Mul", total, nodes.constant(ensemble.scale))
    if ensemble.weights is not None:
        seen = nodes.add("Where", nodes.add("IsNaN", x), nodes.constant(0.0), x)
        total = nodes.add("MatMul", seen, nodes.constant(ensemble.weights))
    if not total:
        rows = nodes.add("Gather", x, nodes.constant([0], np.int64), axis=1)
        rows = nodes.add("Where", nodes.add("Equal", rows, rows), nodes.constant(0.0), nodes.constant(0.0))
        return nodes.add("Add", rows, base)
    return nodes.add("Add", total, base) if ensemble.base.any() else total


def _linked(nodes: Nodes, raw: str, ensemble: Ensemble) -> str:
    """Return what the link makes of the raw scores: (N, scores)."""
    match ensemble.link:
        case "exp":
            return nodes.add("Exp", raw)
        case "sigmoid":
            return links.sigmoid(nodes, raw, ensemble.slope)
        case "softmax":
            return nodes.add("Softmax", raw, axis=1)
        case "log1p_exp":
            return links.log1p(nodes, nodes.add("Exp", raw))
        case "signed_square":
            return nodes.add("Mul", nodes.add("Sign", raw), nodes.add("Mul", raw, raw))
        case "largest":
            if ensemble.answers_single:
                raw = nodes.cast(raw, _FLOAT)
            return nodes.cast(links.largest(nodes, raw), _DOUBLE)
        case "isolation":
            score = nodes.add("Pow", nodes.constant(2.0), nodes.add("Neg", raw))
            return nodes.add("Sub", nodes.add("Neg", score), nodes.constant(ensemble.offset))
        case _:
            return raw


def _chosen(nodes: Nodes, looked: str, choice: Choice, kind: Any) -> str:
    """Return the number of the class: int64 (N,)."""
    if choice.rule == "largest":
        return links.largest(nodes, looked)
    operator: Final = {"above": "Greater", "at_least": "GreaterOrEqual", "below": "Less"}[choice.rule]
    return links.compared(nodes, operator, looked, nodes.constant(choice.limit, kind))


def finish(nodes: Nodes, container: Any, operator: Any, results: tuple[str, ...]) -> None:
    """Hand the nodes to skl2onnx, each result under the name that it expects.

    Numbers stay float64 whatever it declares: `repair` makes the declarations true afterwards.
    """
    for variable, result in zip(operator.outputs, results, strict=True):
        nodes.nodes.append(helper.make_node("Identity", [result], [variable.full_name]))
    container.nodes.extend(nodes.nodes)
    container.initializers.extend(nodes.constants)

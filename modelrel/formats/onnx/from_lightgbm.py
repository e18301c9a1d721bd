"""LightGBM -> ONNX: its text model read into arrays, written as float64 trees, so that routes are exact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from onnx import TensorProto

from modelrel.errors import Refused
from modelrel.formats.onnx import links, trees
from modelrel.formats.onnx.graph import Core, Nodes
from modelrel.formats.onnx.trees import Floats, Linear, Mode, Tree
from modelrel.formats.order import Order
from modelrel.values import Scalar

# decision_type of the text format (LightGBM: include/LightGBM/tree.h)
_CATEGORICAL, _DEFAULT_LEFT = 1, 2
_NONE, _ZERO, _NAN = 0, 1, 2

_IDENTITY: Final = frozenset({
    "regression", "regression_l1", "huber", "fair", "quantile", "mape", "lambdarank", "rank_xendcg", "",
})  # fmt: skip
_EXP: Final = frozenset({"poisson", "gamma", "tweedie"})
_ZERO_BOUND: Final = float(np.float32(1e-35))  # kZeroThreshold in include/LightGBM/meta.h, a float there
_DOUBLE: Final = int(TensorProto.DOUBLE)


def write(native: Any, order: Order) -> Core:
    """Return the core of a Booster or of a model of the scikit-learn API.

    Raises `Refused` for pandas categories, and objectives that are not known.
    """
    nodes = Nodes()
    x, spec = links.INPUT, order.signature.inputs[0]
    if order.signature.kind == "tensor" and not spec.datatype.startswith("FP"):
        # It copies an array of whole numbers into float32, unlike a data frame.
        x = nodes.cast(nodes.cast(x, TensorProto.FLOAT), TensorProto.DOUBLE)
    outputs, hints = answered(native, nodes, x, order.answers.classes)
    return links.core(nodes, order, outputs, {"features": hints})


def answered(
    native: Any, nodes: Nodes, x: str, classes: tuple[Scalar, ...]
) -> tuple[dict[str, tuple[str, int]], list[dict[str, object]]]:
    """Add the model to `nodes`; return its outputs, name -> (tensor, element type), and hints per feature."""
    booster = getattr(native, "booster_", native)
    header, sections = _parsed(booster.model_to_string())
    if booster.pandas_categorical:
        raise Refused(
            "the LightGBM model was trained on pandas categories, which no MLflow signature can carry",
            "Train it on integer codes with categorical_feature=[...], or encode them in a scikit-learn Pipeline.",
        )
    found = [_tree(section) for section in sections]
    per_iteration = int(header["num_tree_per_iteration"])
    features = int(header["max_feature_idx"]) + 1
    x = _entered(nodes, x, found, _zeros(sections, features))
    targets = np.arange(len(found)) % per_iteration
    raw = trees.summed(nodes, x, found, targets, per_iteration)
    if "average_output" in header:
        raw = nodes.add("Div", raw, nodes.constant(float(len(found) // per_iteration)))
    return _answers(nodes, raw, header.get("objective", ""), classes), _hints(found, features, header)


def forest(native: Any) -> list[Tree]:
    """Return the trees that predict uses; raises `Refused` for what is no sum of plain trees."""
    _, sections = _parsed(getattr(native, "booster_", native).model_to_string())
    return [_tree(section) for section in sections]


def _parsed(text: str) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Return the header of a text model and its trees, as key -> value."""
    top, *rest = text.split("end of trees", 1)[0].split("\nTree=")
    return _pairs(top), [_pairs(section) for section in rest]


def _pairs(section: str) -> dict[str, str]:
    found = {}
    for line in section.splitlines():
        name, _, value = line.partition("=")
        found[name] = value
    return found


def _numbers(section: Mapping[str, str], name: str, dtype: Any) -> Any:
    if dtype is not np.float64:
        return np.fromstring(section.get(name, ""), np.int64, sep=" ").astype(dtype)
    # Python's float() reads all 17 digits; NumPy's parser of text is not used, as it is not correctly rounded.
    return np.array([float(word) for word in section.get(name, "").split()], np.float64)


def _tree(section: Mapping[str, str]) -> Tree:
    """Return one tree of the text format; its children are numbered as ours: ~k is leaf k."""
    kind = _numbers(section, "decision_type", np.int64)
    threshold: Floats = _numbers(section, "threshold", np.float64)
    categorical = (kind & _CATEGORICAL) > 0
    missing_type = (kind >> 2) & 3
    # Without a missing type LightGBM reads NaN as 0; with one, NaN has its own way. A category NaN goes right.
    left = np.where(missing_type == _NONE, threshold >= 0, (kind & _DEFAULT_LEFT) > 0)
    return Tree(
        feature=_numbers(section, "split_feature", np.int64),
        threshold=np.where(categorical, 0.0, threshold),
        mode=np.where(categorical, Mode.MEMBER, Mode.LEQ).astype(np.uint8),
        missing=(left & ~categorical).astype(np.int64),
        true=_numbers(section, "left_child", np.int64),
        false=_numbers(section, "right_child", np.int64),
        leaves=_numbers(section, "leaf_value", np.float64),
        members=_members(section, threshold[categorical].astype(int)),
        linear=_linear(section) if section.get("is_linear", "0") != "0" else None,
    )


def _linear(section: Mapping[str, str]) -> Linear:
    """Return the linear functions of a tree's leaves, whose features the text lists one leaf after another."""
    sizes = _numbers(section, "num_features", np.int64)
    used = np.arange(sizes.max(initial=0)) < sizes[:, None]
    feature, coefficient = np.full(used.shape, -1, np.int64), np.zeros(used.shape)
    feature[used] = _numbers(section, "leaf_features", np.int64)
    coefficient[used] = _numbers(section, "leaf_coeff", np.float64)
    return Linear(constant=_numbers(section, "leaf_const", np.float64), feature=feature, coefficient=coefficient)


def _zeros(sections: list[dict[str, str]], width: int) -> Any:
    """Return which features take 0 for missing (zero_as_missing): bool (width,)."""
    taken = np.zeros((2, width), np.bool_)
    for section in sections:
        kind, feature = _numbers(section, "decision_type", np.int64), _numbers(section, "split_feature", np.int64)
        plain = (kind & _CATEGORICAL) == 0
        zero = ((kind >> 2) & 3) == _ZERO
        taken[0][feature[plain & ~zero]] = True
        taken[1][feature[plain & zero]] = True
    if taken.all(axis=0).any():
        raise Refused(
            f"feature {int(np.argmax(taken.all(axis=0)))} of the LightGBM model takes 0 for missing in some trees only",
            "Train all rounds with the same zero_as_missing.",
        )
    return taken[1]


def _members(section: Mapping[str, str], sets: Any) -> tuple[Floats, ...]:
    """Return the categories that go left, for each categorical split, from words of 32 bits."""
    bounds = _numbers(section, "cat_boundaries", np.int64)
    words = _numbers(section, "cat_threshold", np.uint32)
    found = []
    for number in sets:
        bits = np.unpackbits(words[bounds[number] : bounds[number + 1]].astype("<u4").view(np.uint8), bitorder="little")
        found.append(np.flatnonzero(bits).astype(np.float64))
    return tuple(found)


def _entered(nodes: Nodes, x: str, forest: list[Tree], zeros: Any) -> str:
    """Return the features as LightGBM sees them: nothing but 0 around 0, categories cut to integers."""
    linear = any(tree.linear is not None for tree in forest)
    if zeros.any() or linear or any((np.abs(tree.threshold) <= _ZERO_BOUND).any() for tree in forest):
        # Its predictor drops what is not beyond this bound from the row, which makes it 0, or missing.
        small = nodes.add("LessOrEqual", nodes.add("Abs", x), nodes.constant(_ZERO_BOUND))
        x = nodes.add("Where", small, nodes.constant(np.where(zeros, np.nan, 0.0).reshape(1, -1)), x)
    features = {int(index) for tree in forest for index in tree.feature[tree.mode == Mode.MEMBER]}
    if not features:
        return x
    mask = np.isin(np.arange(len(zeros)), sorted(features))
    # static_cast<int> cuts towards zero: -0.5 is category 0, and -1 is none.
    cut = nodes.add("Mul", nodes.add("Sign", x), nodes.add("Floor", nodes.add("Abs", x)))
    return nodes.add("Where", nodes.constant(mask.reshape(1, -1)), cut, x)


def _answers(nodes: Nodes, raw: str, objective: str, classes: tuple[Scalar, ...]) -> dict[str, tuple[str, int]]:
    """Apply the objective's link; raises `Refused` for an objective that is not known."""
    name, *words = objective.split() or [""]
    said = dict(word.split(":", 1) for word in words if ":" in word)
    classifies = bool(classes)
    if name in ("binary", "cross_entropy"):
        value = links.sigmoid(nodes, raw, float(said.get("sigmoid", 1)))
        value = links.both(nodes, value) if classifies else value
    elif name == "multiclass":
        value = nodes.add("Softmax", raw, axis=1)
    elif name == "multiclassova":
        value = links.sigmoid(nodes, raw, float(said.get("sigmoid", 1)))
    elif name == "cross_entropy_lambda" and not classifies:
        value = links.log1p(nodes, nodes.add("Exp", raw))
    elif name in _EXP and not classifies:
        value = nodes.add("Exp", raw)
    elif name in _IDENTITY and not classifies:
        value = raw
        if "sqrt" in words:
            value = nodes.add("Mul", nodes.add("Sign", raw), nodes.add("Mul", raw, raw))
    else:
        raise Refused(
            f"the LightGBM objective {name or 'of its own'!r} has no proven copy",
            f"Known: binary, multiclass, multiclassova, {', '.join(sorted(filter(None, _IDENTITY | _EXP)))}.",
        )
    if not classifies:
        return {"prediction": (value, _DOUBLE)}
    label = links.labels(nodes, links.largest(nodes, value), classes)
    return {"label": label, "probabilities": (value, _DOUBLE)}


def _hints(forest: list[Tree], features: int, header: Mapping[str, str]) -> list[dict[str, object]]:
    """Return what the trees tell about each feature: thresholds, categories, and the range seen in training."""
    found: list[dict[str, object]] = [{"thresholds": values} for values in trees.thresholds(forest, features)]
    for said, info in zip(found, header.get("feature_infos", "").split(), strict=False):
        if info.startswith("["):
            low, _, high = info.strip("[]").partition(":")
            said |= {"low": float(low), "high": float(high)}
        elif info != "none":
            said["categories"] = sorted(int(code) for code in info.split(":"))
    return found

"""XGBoost -> ONNX: its JSON model read into arrays, compared as XGBoost does (x < threshold, both float32)."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any, Final

import numpy as np
from onnx import TensorProto

from modelrel.errors import Refused
from modelrel.formats.onnx import links, trees
from modelrel.formats.onnx.graph import Core, Nodes
from modelrel.formats.onnx.trees import Floats, Mode, Tree
from modelrel.formats.order import Order
from modelrel.values import Scalar

_IDENTITY: Final = frozenset({
    "reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror", "reg:squaredlogerror", "reg:quantileerror",
    "rank:ndcg", "rank:pairwise", "rank:map", "binary:logitraw",
})  # fmt: skip
_EXP: Final = frozenset({"count:poisson", "reg:gamma", "reg:tweedie"})
_LOGISTIC: Final = frozenset({"binary:logistic", "reg:logistic"})
_DOUBLE, _FLOAT = int(TensorProto.DOUBLE), int(TensorProto.FLOAT)


def write(native: Any, order: Order) -> Core:
    """Return the core of a Booster or of a model of the scikit-learn API.

    Raises `Refused` for pandas categories in data frames, and objectives that are not known.
    """
    learner = _learner(native)
    kept = learner["gradient_booster"].get("model", {}).get("cats", {}).get("feature_segments")
    if kept and order.signature.kind == "columns":
        raise Refused(
            "the XGBoost model was trained on pandas categories, which no MLflow signature can carry",
            "Train it on integer codes with feature_types=['c', ...], or encode them in a scikit-learn Pipeline.",
        )
    nodes = Nodes()
    outputs, hints = _answered((native, learner), nodes, links.INPUT, order.answers.classes)
    return links.core(nodes, order, outputs, {"features": hints})


def answered(
    native: Any, nodes: Nodes, x: str, classes: tuple[Scalar, ...]
) -> tuple[dict[str, tuple[str, int]], list[dict[str, object]]]:
    """Add the model to `nodes`; return its outputs, name -> (tensor, element type), and hints per feature."""
    return _answered((native, _learner(native)), nodes, x, classes)


def _answered(
    about: tuple[Any, dict[str, Any]], nodes: Nodes, x: str, classes: tuple[Scalar, ...]
) -> tuple[dict[str, tuple[str, int]], list[dict[str, object]]]:
    native, learner = about
    base = _base(learner)
    linear = learner["gradient_booster"]["name"] == "gblinear"
    found, targets = ([], np.zeros(0, np.int64)) if linear else _forest(learner, _rounds(native))
    x = nodes.cast(x, _FLOAT)  # XGBoost itself reads every feature as float32
    missing = getattr(native, "missing", math.nan)
    if missing is not None and not math.isnan(missing):
        gap = nodes.add("Equal", x, nodes.constant(missing, np.float32))
        x = nodes.add("Where", gap, nodes.constant(math.nan, np.float32), x)
    raw = nodes.constant(base.reshape(1, -1))
    features = int(learner["learner_model_param"]["num_feature"])
    x = _cut(nodes, x, found, features)
    if linear:
        raw = nodes.add("Add", _weighed(nodes, x, learner, features), raw)
    if found:
        summed = trees.summed(nodes, nodes.cast(x, _DOUBLE), found, targets, len(base))
        raw = nodes.add("Add", summed, raw)
    return _answers(nodes, raw, learner["objective"]["name"], classes), _hints(found, features)


def _weighed(nodes: Nodes, x: str, learner: dict[str, Any], features: int) -> str:
    """Return the sums of gblinear, float64 (N, outputs): a missing value adds nothing, the last weight is the bias."""
    said = learner["gradient_booster"]["model"]["weights"]
    weights = np.array(said, np.float32).astype(np.float64).reshape(features + 1, -1)
    gone = nodes.add("IsNaN", x)
    seen = nodes.cast(nodes.add("Where", gone, nodes.constant(0, np.float32), x), _DOUBLE)
    return nodes.add("Add", nodes.add("MatMul", seen, nodes.constant(weights[:-1])), nodes.constant(weights[-1:]))


def forest(native: Any) -> list[Tree]:
    """Return the trees that predict uses; raises `Refused` for what is no sum of plain trees."""
    return _forest(_learner(native), _rounds(native))[0]


def _learner(native: Any) -> dict[str, Any]:
    booster = native.get_booster() if hasattr(native, "get_booster") else native
    learner: dict[str, Any] = json.loads(bytes(booster.save_raw("json")))["learner"]
    return learner


def _rounds(native: Any) -> int:
    """Return how many rounds predict uses: up to the best one after early stopping (0: all)."""
    if not hasattr(native, "get_booster"):
        return 0
    try:
        return int(native.best_iteration) + 1
    except AttributeError:
        return 0


def _forest(learner: dict[str, Any], rounds: int) -> tuple[list[Tree], Any]:
    """Return the trees and the output each one adds to; raises `Refused` for what is no sum of plain trees."""
    booster = learner["gradient_booster"]
    if booster["name"] == "gblinear":
        raise Refused("XGBoost's gblinear has no trees", "Read its weights.")
    model = (booster["gbtree"] if booster["name"] == "dart" else booster)["model"]
    weights = booster.get("weight_drop") or [1.0] * len(model["trees"])
    end = model["iteration_indptr"][rounds] if rounds and "iteration_indptr" in model else len(model["trees"])
    found: list[Tree] = []
    targets: list[int] = []
    for said, weight, target in zip(model["trees"][:end], weights, model["tree_info"], strict=False):
        several = _several(_tree(said, weight), said)
        found += several
        targets += [target] if len(several) == 1 else range(len(several))
    return found, np.array(targets, np.int64)


def _several(tree: Tree, said: dict[str, Any]) -> list[Tree]:
    """Return a tree of vector leaves as one tree for each of their numbers; one of plain leaves as it is."""
    width = int(said["tree_param"].get("size_leaf_vector", 1))
    if width <= 1:
        return [tree]
    if "leaf_weights" not in said:
        raise Refused(
            "the XGBoost model has vector leaves (multi_strategy='multi_output_tree') in an older form",
            "Train it with multi_strategy='one_output_per_tree', or with a newer XGBoost.",
        )
    # A leaf keeps, for a right child, its number in the table.
    rows = np.array(said["right_children"], np.int64)[np.array(said["left_children"], np.int64) < 0]
    table = np.array(said["leaf_weights"], np.float32).astype(np.float64).reshape(-1, width)[rows]
    return [replace(tree, leaves=table[:, column]) for column in range(width)]


def _tree(said: dict[str, Any], weight: float) -> Tree:
    left, right = (np.array(said[side], np.int64) for side in ("left_children", "right_children"))
    value = np.array(said["split_conditions"], np.float32)
    leaf = left < 0
    tree = trees.from_nodes(leaf, (left, right), np.array(said["split_indices"]), value.astype(np.float64), Mode.LT)
    splits = ~leaf
    left_too = np.array(said["default_left"], np.int64)[splits]
    leaves = value[leaf].astype(np.float64) * np.float64(np.float32(weight))
    if not said.get("categories_nodes"):
        return replace(tree, missing=left_too, leaves=leaves)
    picks = np.array(said["split_type"], np.int64)[splits] == 1
    return replace(
        tree,
        # Categories of a split go right, and what is none of them left (common::Decision in categorical.h).
        missing=np.where(picks, 1 - left_too, left_too),
        threshold=np.where(picks, 0.0, tree.threshold),
        mode=np.where(picks, Mode.MEMBER, Mode.LT).astype(np.uint8),
        true=np.where(picks, tree.false, tree.true),
        false=np.where(picks, tree.true, tree.false),
        leaves=leaves,
        members=_members(said, np.flatnonzero(splits)[picks]),
    )


def _members(said: dict[str, Any], splits: Any) -> tuple[Floats, ...]:
    """Return the categories of each split on some, from the tree's one list of them."""
    listed = np.array(said.get("categories", ()), np.float64)
    starts, sizes = said.get("categories_segments", ()), said.get("categories_sizes", ())
    found = {
        node: listed[start : start + size]
        for node, start, size in zip(said.get("categories_nodes", ()), starts, sizes, strict=True)
    }
    return tuple(found[int(node)] for node in splits)


def _cut(nodes: Nodes, x: str, found: list[Tree], features: int) -> str:
    """Return the features as XGBoost reads them: a category is cut to a whole number, and one below 0 is none."""
    picked = trees.picked(found)
    if not picked:
        return x
    mask = np.isin(np.arange(features), sorted(picked)).reshape(1, -1)
    # Nothing beyond 2**24 is a category, and the runtime has no whole numbers for the largest floats.
    beyond = nodes.add("GreaterOrEqual", x, nodes.constant(2.0**24, np.float32))
    whole = nodes.add("Where", beyond, nodes.constant(-1, np.float32), nodes.add("Floor", x))
    below = nodes.add("Less", whole, nodes.constant(0, np.float32))
    whole = nodes.add("Where", below, nodes.constant(-1, np.float32), whole)
    return nodes.add("Where", nodes.constant(mask), whole, x)


def _base(learner: dict[str, Any]) -> Any:
    """Return the margin that every row starts with, one per output: base_score through the link's inverse."""
    param = learner["learner_model_param"]
    values = np.array([float(word) for word in str(param["base_score"]).strip("[]").split(",")], np.float64)
    name = learner["objective"]["name"]
    if name in _LOGISTIC:
        values = np.log(values / (1 - values))
    elif name in _EXP:
        values = np.log(values)
    count = max(int(param["num_class"]), int(param.get("num_target", 1)), 1)
    return np.broadcast_to(values, (count,)).astype(np.float64) if len(values) == 1 else values


def _answers(nodes: Nodes, raw: str, objective: str, classes: tuple[Scalar, ...]) -> dict[str, tuple[str, int]]:
    """Apply the objective's link; raises `Refused` for an objective that is not known."""
    if objective in _LOGISTIC:
        value = nodes.cast(links.sigmoid(nodes, raw), _FLOAT)
    elif objective in ("multi:softprob", "multi:softmax"):
        value = nodes.cast(nodes.add("Softmax", raw, axis=1), _FLOAT)
    elif objective in _EXP and not classes:
        value = nodes.cast(nodes.add("Exp", raw), _FLOAT)
    elif objective in _IDENTITY and not classes:
        value = nodes.cast(raw, _FLOAT)
    else:
        raise Refused(
            f"the XGBoost objective {objective} has no proven copy",
            f"Known: {', '.join(sorted(_IDENTITY | _EXP | _LOGISTIC | {'multi:softprob', 'multi:softmax'}))}.",
        )
    if not classes:
        if objective == "multi:softmax":
            value = nodes.cast(links.largest(nodes, value), _FLOAT)
        return {"prediction": (value, _FLOAT)}
    if objective in _LOGISTIC:
        if len(classes) != 2:
            raise Refused("the XGBoost classifier predicts several labels at once", "Release one model per label.")
        # XGBoost compares the float32 probability with one half; a tie is class 0.
        index = links.above(nodes, value, nodes.constant(0.5, np.float32))
        one = nodes.constant(1.0, np.float32)
        value = nodes.add("Concat", nodes.add("Sub", one, value), value, axis=1)
    else:
        index = links.largest(nodes, value)
    return {"label": links.labels(nodes, index, classes), "probabilities": (value, _FLOAT)}


def _hints(found: list[Tree], features: int) -> list[dict[str, object]]:
    if not found:
        return []
    said: list[dict[str, object]] = [{"thresholds": values} for values in trees.thresholds(found, features)]
    for feature, categories in trees.picked(found).items():
        said[feature]["categories"] = sorted({0, *(int(value) for value in categories)})
    return said

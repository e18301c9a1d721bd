"""CatBoost -> ONNX: its JSON model read into arrays, compared as CatBoost does (x > border, both float32).

CatBoost's own ONNX export leaves out the exponent of Poisson, does not load for MultiRMSE, and refuses trees that
are not symmetric.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from onnx import TensorProto

from modelrel.errors import Refused
from modelrel.formats.onnx import links, trees
from modelrel.formats.onnx.graph import Core, Nodes
from modelrel.formats.onnx.trees import Ints, Mode, Tree
from modelrel.formats.order import Order
from modelrel.values import Scalar

_IDENTITY: Final = frozenset({
    "RMSE", "MAE", "Quantile", "LogLinQuantile", "Huber", "Expectile", "MAPE", "Lq", "LogCosh", "MultiRMSE",
    "YetiRank", "PairLogit", "QueryRMSE", "QuerySoftMax",
})  # fmt: skip
_EXP: Final = frozenset({"Poisson", "Tweedie"})
_LOGISTIC: Final = frozenset({"Logloss", "CrossEntropy"})
_DOUBLE: Final = int(TensorProto.DOUBLE)


def write(native: Any, order: Order) -> Core:
    """Return the core of a CatBoost model; raises `Refused` for categories, text, and losses that are not known."""
    nodes = Nodes()
    said = _said(native)
    found, targets, features = _forest(said)
    scale, bias = said["scale_and_bias"]
    x = nodes.cast(nodes.cast(links.INPUT, TensorProto.FLOAT), _DOUBLE)  # CatBoost itself reads floats
    raw = nodes.constant(np.array(bias, np.float64).reshape(1, -1))
    if found:
        total = trees.summed(nodes, x, found, targets, len(bias))
        raw = nodes.add("Add", total if scale == 1 else nodes.add("Mul", total, nodes.constant(float(scale))), raw)
    outputs = _answers(nodes, raw, len(bias), (native, _loss(said)), order.answers.classes)
    return links.core(nodes, order, outputs, {"features": _hints(found, features)})


def forest(native: Any) -> list[Tree]:
    """Return the trees, one for each number of a leaf; raises `Refused` for categories and text."""
    return _forest(_said(native))[0]


def _said(native: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        native.save_model(str(path), format="json")
        found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def _forest(said: dict[str, Any]) -> tuple[list[Tree], Ints, int]:
    """Return the trees, the output each one adds to, and the number of features."""
    info = said["features_info"]
    kinds = {"categorical_features": "categories", "text_features": "text", "embedding_features": "embeddings"}
    for kind, word in kinds.items():
        if info.get(kind):
            raise Refused(
                f"the CatBoost model has features of {word}, which it keeps as hashes that ONNX cannot make",
                "Encode them in a scikit-learn Pipeline before CatBoost, or train without cat_features.",
            )
    floats = info["float_features"]
    places = np.array([entry["flat_feature_index"] for entry in floats], np.int64)
    up = np.array([entry.get("nan_value_treatment") == "AsTrue" for entry in floats], np.bool_)
    width = len(said["scale_and_bias"][1])
    found: list[Tree] = []
    read, listed = (_symmetric, said["oblivious_trees"]) if "oblivious_trees" in said else (_plain, said["trees"])
    for one in listed:
        tree, leaves = read(one)
        gaps = np.zeros(0, np.int64)
        if len(tree.feature):
            gaps, tree = (~up[tree.feature]).astype(np.int64), replace(tree, feature=places[tree.feature])
        table = np.array(leaves, np.float64).reshape(-1, width)
        found += [replace(tree, missing=gaps, leaves=table[:, column].copy()) for column in range(width)]
    return found, np.arange(len(found), dtype=np.int64) % width, int(places.max(initial=-1)) + 1


def _symmetric(said: dict[str, Any]) -> tuple[Tree, list[float]]:
    """Return a tree that asks the same at each level: bit k of a leaf's number is whether split k holds."""
    splits = said.get("splits") or []
    depth = len(splits)
    level = np.repeat(np.arange(depth), 2 ** np.arange(depth))
    place = np.arange(2**depth - 1) - (2**level - 1)
    last = level == depth - 1
    below = [place, place + 2**level]  # not greater, greater
    children = [np.where(last, ~side, 2 ** (level + 1) - 1 + side).astype(np.int64) for side in below]
    feature = np.array([_float(split)["float_feature_index"] for split in splits], np.int64)
    border = np.array([split["border"] for split in splits], np.float32).astype(np.float64)
    return _tree(feature[level], border[level], children), said["leaf_values"]


def _plain(said: dict[str, Any]) -> tuple[Tree, list[float]]:
    """Return a tree of nested splits (grow_policy Lossguide, Depthwise)."""
    feature: list[int] = []
    border: list[float] = []
    children: tuple[list[int], list[int]] = [], []
    leaves: list[float] = []

    open_: list[tuple[dict[str, Any], int, int]] = [(said, -1, 0)]
    while open_:
        node, parent, side = open_.pop()
        if "split" in node:
            number = len(feature)
            feature.append(int(_float(node["split"])["float_feature_index"]))
            border.append(float(node["split"]["border"]))
            for sides in children:
                sides.append(0)
            open_ += [(node["right"], number, 1), (node["left"], number, 0)]
        else:
            value = node["value"]
            number = ~_count(leaves, value)
            leaves += value if isinstance(value, list) else [value]
        if parent >= 0:
            children[side][parent] = number
    values = np.array(border, np.float32).astype(np.float64)
    return _tree(np.array(feature, np.int64), values, [np.array(sides, np.int64) for sides in children]), leaves


def _count(leaves: list[float], value: object) -> int:
    return len(leaves) // (len(value) if isinstance(value, list) else 1)


def _float(split: dict[str, Any]) -> dict[str, Any]:
    if split["split_type"] != "FloatFeature":
        raise Refused(
            f"the CatBoost model splits on a {split['split_type']}, which has no exact copy in ONNX",
            "Encode categories in a scikit-learn Pipeline before CatBoost.",
        )
    return split


def _tree(feature: Ints, border: Any, children: list[Any]) -> Tree:
    return Tree(
        feature=feature,
        threshold=border,
        mode=np.full(len(feature), Mode.LEQ, np.uint8),
        missing=np.zeros(len(feature), np.int64),
        true=children[0],
        false=children[1],
        leaves=np.zeros(0),
    )


def _loss(said: dict[str, Any]) -> str:
    loss = said["model_info"].get("params", {}).get("loss_function") or said["model_info"]["params"].get("loss") or {}
    return str(loss.get("type", ""))


def _answers(
    nodes: Nodes, raw: str, width: int, about: tuple[Any, str], classes: tuple[Scalar, ...]
) -> dict[str, tuple[str, int]]:
    """Apply the loss's link; raises `Refused` for a loss that is not known."""
    native, loss = about
    if not classes:
        if type(native).__name__ == "CatBoostRegressor" and loss in _EXP:
            return {"prediction": (nodes.add("Exp", raw), _DOUBLE)}
        # The plain class gives raw sums whatever it was trained for.
        if loss in _IDENTITY or type(native).__name__ == "CatBoost":
            return {"prediction": (raw, _DOUBLE)}
    elif loss in _LOGISTIC and width == 1 and len(classes) == 2:
        index = links.above(nodes, raw, nodes.constant(_limit(native)))
        value = links.both(nodes, links.sigmoid(nodes, raw))
        return {"label": links.labels(nodes, index, classes), "probabilities": (value, _DOUBLE)}
    elif loss in ("MultiClass", "MultiClassOneVsAll") and width == len(classes):
        index = links.largest(nodes, raw)
        value = nodes.add("Softmax", raw, axis=1) if loss == "MultiClass" else links.sigmoid(nodes, raw)
        return {"label": links.labels(nodes, index, classes), "probabilities": (value, _DOUBLE)}
    raise Refused(
        f"the CatBoost loss {loss or 'of its own'} of a {type(native).__name__} has no proven copy",
        f"Known: {', '.join(sorted(_IDENTITY | _EXP | _LOGISTIC | {'MultiClass', 'MultiClassOneVsAll'}))}.",
    )


def _limit(native: Any) -> float:
    """Return the raw sum above which the label is the second class."""
    share = float(native.get_probability_threshold())
    return 0.0 if share == 0.5 else float(np.log(share / (1 - share)))


def _hints(found: list[Tree], features: int) -> list[dict[str, object]]:
    return [{"thresholds": values} for values in trees.thresholds(found, features)] if found else []

"""CatBoost, read from its JSON: `x > border`, both float32; symmetric trees and others, vector leaves."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np

from modelrel.errors import Refused
from modelrel.trees.ensemble import Choice, Ensemble, Entry
from modelrel.trees.forest import Floats, Forest, Ints, Nodes, planted
from modelrel.values import Scalar

_IDENTITY: Final = frozenset({
    "RMSE", "MAE", "Quantile", "LogLinQuantile", "Huber", "Expectile", "MAPE", "Lq", "LogCosh", "MultiRMSE",
    "YetiRank", "PairLogit", "QueryRMSE", "QuerySoftMax",
})  # fmt: skip
_EXP: Final = frozenset({"Poisson", "Tweedie"})
_LOGISTIC: Final = frozenset({"Logloss", "CrossEntropy"})
_MULTI: Final = frozenset({"MultiClass", "MultiClassOneVsAll"})


def read(native: Any) -> Ensemble:
    """Return a CatBoost model; raises `Refused` for categories, text, and losses that are not known."""
    said = _said(native)
    found, features = _forest(said)
    scale, bias = said["scale_and_bias"]
    classes = tuple(np.asarray(native.classes_).tolist()) if hasattr(native, "predict_proba") else ()
    return Ensemble(
        features=features,
        forest=found,
        targets=None if len(bias) > 1 or found is None else np.zeros(len(found.roots), np.int64),
        base=np.array(bias, np.float64),
        scale=float(scale),
        entry=Entry(single=True),  # CatBoost itself reads floats
        **_answers(native, _loss(said), len(bias), classes),
    )


def forest(native: Any) -> Forest | None:
    """Return the trees; raises `Refused` for categories and text."""
    return _forest(_said(native))[0]


def _said(native: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        native.save_model(str(path), format="json")
        found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def _forest(said: dict[str, Any]) -> tuple[Forest | None, int]:
    """Return the trees and the number of features."""
    info = said["features_info"]
    kinds = {"categorical_features": "categories", "text_features": "text", "embedding_features": "embeddings"}
    for kind, word in kinds.items():
        if info.get(kind):
            raise Refused(
                f"the CatBoost model has features of {word}, which it keeps as hashes that a copy cannot make",
                "Encode them in a scikit-learn Pipeline before CatBoost, or train without cat_features.",
            )
    floats = info["float_features"]
    places = np.array([entry["flat_feature_index"] for entry in floats], np.int64)
    down = np.array([entry.get("nan_value_treatment") != "AsTrue" for entry in floats], np.bool_)
    features = int(places.max(initial=-1)) + 1
    symmetric = "oblivious_trees" in said
    read = [(_symmetric if symmetric else _plain)(one) for one in said["oblivious_trees" if symmetric else "trees"]]
    if not read:
        return None, features
    leaf, first, second, feature, border = (np.concatenate([one[number] for one in read]) for number in range(5))
    leaves = np.concatenate([np.array(one[5], np.float64) for one in read])
    # a tree of one leaf may stand in a model without features
    split = np.where(leaf, 0, feature)
    nodes = Nodes(
        sizes=np.array([len(one[0]) for one in read], np.int64),
        leaf=leaf,
        first=first,
        second=second,
        feature=places[split] if len(places) else split,
        threshold=border.astype(np.float32).astype(np.float64),
        missing=down[split] if len(places) else None,
    )
    return planted(nodes, leaves.reshape(-1, len(said["scale_and_bias"][1]))), features


_Read = tuple[Any, Ints, Ints, Ints, Floats, list[float]]
"""Of one tree: leaf, first child, second child, feature and border of each node, and what the leaves say."""


def _symmetric(said: dict[str, Any]) -> _Read:
    """Return a tree that asks the same at each level: bit k of a leaf's number is whether split k holds."""
    splits = said.get("splits") or []
    depth = len(splits)
    inner = 2**depth - 1
    level = np.repeat(np.arange(depth), 2 ** np.arange(depth))
    side = np.arange(inner) - (2**level - 1)
    # The nodes of a level are numbered by the answers so far, the first split's in the lowest bit.
    below = 2 ** (level + 1) - 1 + side
    leaf = np.arange(inner + 2**depth) >= inner
    feature = np.array([_float(split)["float_feature_index"] for split in splits], np.int64)
    border = np.array([split["border"] for split in splits], np.float64)
    more = np.zeros(2**depth, np.int64)
    return (
        leaf,
        np.concatenate([below, more]),
        np.concatenate([below + 2**level, more]),
        np.concatenate([feature[level], more]),
        np.concatenate([border[level], more.astype(np.float64)]),
        said["leaf_values"],
    )


def _plain(said: dict[str, Any]) -> _Read:
    """Return a tree of nested splits (grow_policy Lossguide, Depthwise)."""
    leaf: list[bool] = []
    feature: list[int] = []
    border: list[float] = []
    children: tuple[list[int], list[int]] = [], []
    leaves: list[float] = []
    open_: list[tuple[dict[str, Any], int, int]] = [(said, -1, 0)]
    while open_:
        node, parent, side = open_.pop()
        number = len(leaf)
        if parent >= 0:
            children[side][parent] = number
        split = node.get("split")
        leaf.append(split is None)
        feature.append(int(_float(split)["float_feature_index"]) if split else 0)
        border.append(float(split["border"]) if split else 0.0)
        for sides in children:
            sides.append(0)
        if split:
            open_ += [(node["right"], number, 1), (node["left"], number, 0)]
        else:
            value = node["value"]
            leaves += value if isinstance(value, list) else [value]
    first, second = (np.array(sides, np.int64) for sides in children)
    return np.array(leaf, np.bool_), first, second, np.array(feature, np.int64), np.array(border), leaves


def _float(split: dict[str, Any]) -> dict[str, Any]:
    if split["split_type"] != "FloatFeature":
        raise Refused(
            f"the CatBoost model splits on a {split['split_type']}, which has no exact copy",
            "Encode categories in a scikit-learn Pipeline before CatBoost.",
        )
    return split


def _loss(said: dict[str, Any]) -> str:
    loss = said["model_info"].get("params", {}).get("loss_function") or said["model_info"]["params"].get("loss") or {}
    return str(loss.get("type", ""))


def _answers(native: Any, loss: str, width: int, classes: tuple[Scalar, ...]) -> dict[str, Any]:
    """Return the link and the choice of a loss; raises `Refused` for one that is not known."""
    name = type(native).__name__
    if not classes:
        if name == "CatBoostRegressor" and loss in _EXP:
            return {"link": "exp"}
        # The plain class gives raw sums whatever it was trained for.
        if loss in _IDENTITY or name == "CatBoost":
            return {"link": "identity"}
    elif loss in _LOGISTIC and width == 1 and len(classes) == 2:
        choice = Choice(classes=classes, rule="above", of="raw", limit=_limit(native))
        return {"link": "sigmoid", "pair": True, "choice": choice}
    elif loss in _MULTI and width == len(classes):
        choice = Choice(classes=classes, of="raw")
        return {"link": "softmax" if loss == "MultiClass" else "sigmoid", "choice": choice}
    raise Refused(
        f"the CatBoost loss {loss or 'of its own'} of a {name} has no proven copy",
        f"Known: {', '.join(sorted(_IDENTITY | _EXP | _LOGISTIC | _MULTI))}.",
    )


def _limit(native: Any) -> float:
    """Return the raw sum above which the label is the second class."""
    share = float(native.get_probability_threshold())
    return 0.0 if share == 0.5 else float(np.log(share / (1 - share)))

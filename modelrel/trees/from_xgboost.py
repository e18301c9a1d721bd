"""XGBoost, read from its own binary JSON: `x < threshold`, both float32; categories by their number."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from modelrel.errors import Refused
from modelrel.trees import ubjson
from modelrel.trees.ensemble import Choice, Ensemble, Entry
from modelrel.trees.forest import Floats, Forest, Mode, Nodes, picked, planted
from modelrel.values import Scalar

_IDENTITY: Final = frozenset({
    "reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror", "reg:squaredlogerror", "reg:quantileerror",
    "rank:ndcg", "rank:pairwise", "rank:map", "binary:logitraw",
})  # fmt: skip
_EXP: Final = frozenset({"count:poisson", "reg:gamma", "reg:tweedie"})
_LOGISTIC: Final = frozenset({"binary:logistic", "reg:logistic"})
_UNREAD: Final = frozenset({"base_weights", "loss_changes", "parents", "sum_hessian"})
_MULTI: Final = frozenset({"multi:softprob", "multi:softmax"})


def read(native: Any) -> Ensemble:
    """Return a Booster or a model of the scikit-learn API; gblinear is one without trees.

    Raises `Refused` for vector leaves of an older form, and for objectives that are not known.
    """
    learner = _learner(native)
    base, features = _base(learner), int(learner["learner_model_param"]["num_feature"])
    found, targets, weights = None, None, None
    if learner["gradient_booster"]["name"] == "gblinear":
        weights, base = _weights(learner, features, base)
    else:
        found, targets = _forest(learner, _rounds(native))
    codes = picked(found) if found is not None else {}
    missing = getattr(native, "missing", math.nan)
    return Ensemble(
        features=features,
        forest=found,
        targets=targets,
        base=base,
        weights=weights,
        entry=Entry(
            single=True,
            missing=math.nan if missing is None else float(np.float32(missing)),
            # A category is cut to a whole number; nothing beyond 2**24 is one.
            floor=tuple(sorted(codes)),
        ),
        answers_single=True,
        pandas_categories=bool(learner["gradient_booster"].get("model", {}).get("cats", {}).get("feature_segments")),
        known={feature: {"categories": sorted({0, *map(int, known)})} for feature, known in codes.items()},
        **_answers(learner["objective"]["name"], _classes(native)),
    )


def forest(native: Any) -> Forest | None:
    """Return the trees that predict uses; None for gblinear."""
    learner = _learner(native)
    if learner["gradient_booster"]["name"] == "gblinear":
        return None
    return _forest(learner, _rounds(native))[0]


def _classes(native: Any) -> tuple[Scalar, ...]:
    return tuple(np.asarray(native.classes_).tolist()) if hasattr(native, "predict_proba") else ()


def _learner(native: Any) -> dict[str, Any]:
    booster = native.get_booster() if hasattr(native, "get_booster") else native
    learner: dict[str, Any] = ubjson.parsed(bytes(booster.save_raw("ubj")), _UNREAD)["learner"]
    return learner


def _rounds(native: Any) -> int:
    """Return how many rounds predict uses: up to the best one after early stopping (0: all)."""
    if not hasattr(native, "get_booster"):
        return 0
    try:
        return int(native.best_iteration) + 1
    except AttributeError:
        return 0


def _weights(learner: dict[str, Any], features: int, base: Floats) -> tuple[Floats, Floats]:
    """Return gblinear's weights, (features, outputs), and the base with its bias, which is the last row."""
    said = ubjson.array(learner["gradient_booster"]["model"]["weights"], np.float32)
    weights = said.astype(np.float64).reshape(features + 1, -1)
    return weights[:-1], base + weights[-1]


def _forest(learner: dict[str, Any], rounds: int) -> tuple[Forest, Any]:
    """Return the trees and the output each one adds to (None: vector leaves)."""
    booster = learner["gradient_booster"]
    model = (booster["gbtree"] if booster["name"] == "dart" else booster)["model"]
    said = model["trees"]
    if rounds and "iteration_indptr" in model:
        said = said[: int(ubjson.array(model["iteration_indptr"], np.int64)[rounds])]
    sizes = np.array([len(one["left_children"]) for one in said], np.int64)
    left = _joined(said, "left_children", np.int64)
    leaf, right = left < 0, _joined(said, "right_children", np.int64)
    value = _joined(said, "split_conditions", np.float32).astype(np.float64)
    missing, mode = _joined(said, "default_left", np.bool_), np.full(len(leaf), Mode.LT, np.uint8)
    members: list[Floats] = []
    if any(len(one.get("categories_nodes", ())) for one in said):
        picks = (_joined(said, "split_type", np.int64) == 1) & ~leaf
        # Categories of a split go right, and what is none of them left (common::Decision in categorical.h).
        left, right = np.where(picks, right, left), np.where(picks, left, right)
        missing, mode = missing ^ picks, np.where(picks, Mode.MEMBER, Mode.LT).astype(np.uint8)
        members = [known for one in said for known in _members(one)]
    weights = ubjson.array(booster.get("weight_drop") or [1.0] * len(said), np.float32)[: len(said)]
    leaves = (value * np.repeat(weights.astype(np.float64), sizes))[leaf]
    targets = ubjson.array(model["tree_info"], np.int64)[: len(said)]
    width = int(said[0]["tree_param"].get("size_leaf_vector", 1)) if len(said) else 1
    if width > 1:
        leaves, targets = _vectors(said, sizes, leaf, right, width), None
    nodes = Nodes(
        sizes=sizes,
        leaf=leaf,
        first=left,
        second=right,
        feature=_joined(said, "split_indices", np.int64),
        threshold=np.where(mode == Mode.MEMBER, 0.0, value),
        missing=missing,
        mode=mode,
    )
    return planted(nodes, leaves, members), targets


def _joined(said: list[dict[str, Any]], name: str, dtype: Any) -> Any:
    return ubjson.joined([one[name] for one in said], dtype)


def _vectors(said: list[dict[str, Any]], sizes: Any, leaf: Any, right: Any, width: int) -> Floats:
    """Return vector leaves, (leaves, width): a leaf keeps, for a right child, its number in the tree's table."""
    if any("leaf_weights" not in one for one in said):
        raise Refused(
            "the XGBoost model has vector leaves (multi_strategy='multi_output_tree') in an older form",
            "Train it with multi_strategy='one_output_per_tree', or with a newer XGBoost.",
        )
    rows = np.array([len(one["leaf_weights"]) // width for one in said], np.int64)
    table = _joined(said, "leaf_weights", np.float32).astype(np.float64).reshape(-1, width)
    found: Floats = table[(right + np.repeat(np.cumsum(rows) - rows, sizes))[leaf]]
    return found


def _members(said: dict[str, Any]) -> list[Floats]:
    """Return the categories of each split on some, in the order of the nodes."""
    listed, nodes, starts, sizes = (
        ubjson.array(said.get(name, ()), dtype)
        for name, dtype in (
            ("categories", np.float64),
            ("categories_nodes", np.int64),
            ("categories_segments", np.int64),
            ("categories_sizes", np.int64),
        )
    )
    order = np.argsort(nodes)
    return [listed[starts[number] : starts[number] + sizes[number]] for number in order.tolist()]


def _base(learner: dict[str, Any]) -> Floats:
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


def _answers(objective: str, classes: tuple[Scalar, ...]) -> dict[str, Any]:
    """Return the link and the choice of an objective; raises `Refused` for one that is not known."""
    if objective in _LOGISTIC:
        if not classes:
            return {"link": "sigmoid"}
        if len(classes) != 2:
            raise Refused("the XGBoost classifier predicts several labels at once", "Release one model per label.")
        # XGBoost compares the float32 probability with one half; a tie is class 0.
        return {"link": "sigmoid", "pair": True, "choice": Choice(classes=classes, rule="above", limit=0.5)}
    if objective in _MULTI and classes:
        return {"link": "softmax", "choice": Choice(classes=classes)}
    if objective in _MULTI:
        return {"link": "largest" if objective == "multi:softmax" else "softmax"}
    if objective in _EXP and not classes:
        return {"link": "exp"}
    if objective in _IDENTITY and not classes:
        return {"link": "identity"}
    raise Refused(
        f"the XGBoost objective {objective} has no proven copy",
        f"Known: {', '.join(sorted(_IDENTITY | _EXP | _LOGISTIC | _MULTI))}.",
    )

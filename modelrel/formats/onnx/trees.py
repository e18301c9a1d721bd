"""Tree ensembles as arrays, and as the one ONNX operator that splits on float64: ai.onnx.ml v5 TreeEnsemble."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import numpy_helper

from modelrel.formats.onnx.graph import DOMAIN_ML, Nodes

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_MAX_THRESHOLDS: Final = 2000
_SUM: Final = 1  # aggregate_function


class Mode(IntEnum):
    """What leads to the true child, numbered as in TreeEnsemble's `nodes_modes`."""

    LEQ = 0
    LT = 1
    MEMBER = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """One tree of n splits and m leaves; n may be 0.

    `true` and `false` name a child: a split by its number, leaf k by ~k (below 0). `missing` is 1 where NaN goes
    to the true child. `members` has the set of each split of mode MEMBER, in the order of the splits.
    """

    feature: Ints
    threshold: Floats
    mode: NDArray[np.uint8]
    missing: Ints
    true: Ints
    false: Ints
    leaves: Floats
    members: tuple[Floats, ...] = ()


def from_nodes(
    leaf: NDArray[np.bool_], children: tuple[Ints, Ints], feature: Ints, threshold: Floats, mode: Mode
) -> Tree:
    """Return a tree from arrays over all its nodes, leaves among them, as scikit-learn and XGBoost keep them.

    `children` are those where the split holds and where not; leaf k is the k-th True of `leaf`. NaN goes to the
    false child, and the leaves weigh nothing: `dataclasses.replace` what is otherwise.
    """
    split_number, leaf_number = np.cumsum(~leaf) - 1, np.cumsum(leaf) - 1

    def child(index: Ints) -> Ints:
        return np.where(leaf[index], ~leaf_number[index], split_number[index]).astype(np.int64)

    splits = ~leaf
    count = int(splits.sum())
    return Tree(
        feature=feature[splits].astype(np.int64),
        threshold=threshold[splits].astype(np.float64),
        mode=np.full(count, mode, np.uint8),
        missing=np.zeros(count, np.int64),
        true=child(children[0][splits]),
        false=child(children[1][splits]),
        leaves=np.zeros(int(leaf.sum())),
    )


def summed(nodes: Nodes, x: str, trees: Sequence[Tree], targets: Ints, count: int) -> str:
    """Add the trees, and return the name of their sums: float64, (N, count).

    `x` is a float64 tensor (N, features); tree i adds to column `targets[i]`.
    """
    filled = [tree if len(tree.feature) else _stump(tree) for tree in trees]
    sizes = np.array([len(tree.feature) for tree in filled])
    leaf_sizes = np.array([len(tree.leaves) for tree in filled])
    first = np.cumsum(sizes) - sizes
    first_leaf = np.cumsum(leaf_sizes) - leaf_sizes

    def joined(field: str) -> Any:
        return np.concatenate([getattr(tree, field) for tree in filled])

    offset, leaf_offset = np.repeat(first, sizes), np.repeat(first_leaf, sizes)
    true, false = joined("true"), joined("false")
    attributes: dict[str, Any] = {
        "aggregate_function": _SUM,
        "leaf_targetids": np.repeat(targets, leaf_sizes).tolist(),
        "leaf_weights": numpy_helper.from_array(joined("leaves").astype(np.float64), "leaf_weights"),
        "n_targets": count,
        "nodes_featureids": joined("feature").tolist(),
        "nodes_splits": numpy_helper.from_array(joined("threshold").astype(np.float64), "nodes_splits"),
        "nodes_modes": numpy_helper.from_array(joined("mode").astype(np.uint8), "nodes_modes"),
        "nodes_missing_value_tracks_true": joined("missing").tolist(),
        "nodes_trueleafs": (true < 0).astype(np.int64).tolist(),
        "nodes_truenodeids": np.where(true < 0, ~true + leaf_offset, true + offset).tolist(),
        "nodes_falseleafs": (false < 0).astype(np.int64).tolist(),
        "nodes_falsenodeids": np.where(false < 0, ~false + leaf_offset, false + offset).tolist(),
        "post_transform": 0,
        "tree_roots": first.tolist(),
    }
    sets = [np.append(members, np.nan) for tree in filled for members in tree.members]
    if sets:
        attributes["membership_values"] = numpy_helper.from_array(np.concatenate(sets), "membership_values")
    return nodes.add("TreeEnsemble", x, domain=DOMAIN_ML, **attributes)


def looked_up(nodes: Nodes, x: str, trees: Sequence[Tree], tables: Sequence[Floats]) -> str:
    """Add trees whose leaves are vectors, and return the name of the mean of their leaves: float64, (N, width).

    `tables[i]` holds the vectors of tree i's leaves, (leaves, width). The operator knows one number per leaf, so
    each tree gives the number of the leaf, and a table the vector. The trees are added up in their order.
    """
    starts = np.cumsum([0, *(len(table) for table in tables)])
    numbered = [
        Tree(
            feature=tree.feature,
            threshold=tree.threshold,
            mode=tree.mode,
            missing=tree.missing,
            true=tree.true,
            false=tree.false,
            leaves=np.arange(start, start + len(table), dtype=np.float64),
            members=tree.members,
        )
        for tree, table, start in zip(trees, tables, starts, strict=False)
    ]
    targets = np.arange(len(trees), dtype=np.int64)
    leaf = nodes.cast(summed(nodes, x, numbered, targets, len(trees)), 7)
    vectors = nodes.add("Gather", nodes.constant(np.concatenate(tables)), leaf, axis=0)
    total = nodes.add("ReduceSum", vectors, nodes.constant([1], np.int64), keepdims=0)
    return nodes.add("Div", total, nodes.constant(float(len(trees))))


def thresholds(trees: Sequence[Tree], features: int) -> list[list[float]]:
    """Return, per feature, its finite split thresholds, sorted, at most a few thousand, evenly picked."""
    feature = np.concatenate([tree.feature[tree.mode != Mode.MEMBER] for tree in trees])
    value = np.concatenate([tree.threshold[tree.mode != Mode.MEMBER] for tree in trees])
    found = []
    for index in range(features):
        unique = np.unique(value[(feature == index) & np.isfinite(value)])
        picked = np.unique(np.linspace(0, len(unique) - 1, min(len(unique), _MAX_THRESHOLDS)).astype(int))
        found.append(unique[picked].tolist() if len(unique) else [])
    return found


def picked(trees: Sequence[Tree]) -> dict[int, set[float]]:
    """Return the features that are split on by categories, and which of them any split names."""
    found: dict[int, set[float]] = {}
    for tree in trees:
        for feature, members in zip(tree.feature[tree.mode == Mode.MEMBER].tolist(), tree.members, strict=True):
            found.setdefault(feature, set()).update(members.tolist())
    return found


def _stump(tree: Tree) -> Tree:
    """Return a tree of one leaf with a split that changes nothing: the operator has no tree without one."""
    one = np.zeros(1, np.int64)
    return Tree(
        feature=one,
        threshold=np.zeros(1),
        mode=np.zeros(1, np.uint8),
        missing=one,
        true=~one,
        false=~one,
        leaves=tree.leaves,
    )

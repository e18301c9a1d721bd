"""ai.onnx.ml v3 TreeEnsembleRegressor: it splits on float64, and its float32 results number leaves exactly."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
from onnx import TensorProto, numpy_helper

from modelrel.errors import Refused
from modelrel.formats.onnx.graph import DOMAIN_ML, Nodes
from modelrel.formats.onnx.trees.arrays import Floats, Ints, Mode, Tree, stump, with_leaves

_MOST_LEAVES: Final = 2**24  # float32 numbers them exactly


class _Chained(NamedTuple):
    """A tree whose sets are chains of equalities; children as in `Tree`."""

    feature: Ints
    value: Floats
    mode: Any
    missing: Ints
    true: Ints
    false: Ints


def numbered(nodes: Nodes, x: str, trees: Sequence[Tree]) -> str:
    """Return the leaf that each row of `x` (N, features) ends in, numbered within its tree: int64, (N, trees)."""
    largest = max(len(tree.leaves) for tree in trees)
    if largest >= _MOST_LEAVES:
        raise Refused(
            f"a tree has {largest:,} leaves, and ai.onnx.ml 3 numbers {_MOST_LEAVES:,} at most",
            "Leave --operators at v5.",
        )
    said = [_chained(tree if len(tree.feature) else stump(tree)) for tree in trees]
    splits = np.array([len(one.feature) for one in said])
    leaves = np.array([len(tree.leaves) for tree in trees])
    place = [np.arange(size) for size in splits + leaves]
    tree_ids = np.repeat(np.arange(len(trees)), splits + leaves).tolist()
    target_trees = np.repeat(np.arange(len(trees)), leaves).tolist()

    filled = partial(with_leaves, said, leaves.tolist())

    names = np.array(["BRANCH_LEQ", "BRANCH_LT", "", "", "", "", "BRANCH_EQ", "LEAF"])
    attributes: dict[str, Any] = {
        "aggregate_function": "SUM",
        "n_targets": len(trees),
        "nodes_treeids": tree_ids,
        "nodes_nodeids": np.concatenate(place).tolist(),
        "nodes_featureids": filled("feature", 0).tolist(),
        "nodes_modes": names[filled("mode", 7)].tolist(),
        "nodes_values_as_tensor": numpy_helper.from_array(filled("value", 0.0), "nodes_values"),
        "nodes_missing_value_tracks_true": filled("missing", 0).tolist(),
        "nodes_truenodeids": _children(said, leaves, "true"),
        "nodes_falsenodeids": _children(said, leaves, "false"),
        "post_transform": "NONE",
        "target_treeids": target_trees,
        "target_nodeids": np.concatenate([own[split:] for own, split in zip(place, splits, strict=True)]).tolist(),
        "target_ids": target_trees,
        "target_weights_as_tensor": numpy_helper.from_array(
            np.concatenate([np.arange(size, dtype=np.float64) for size in leaves]), "target_weights"
        ),
    }
    return nodes.cast(nodes.add("TreeEnsembleRegressor", x, domain=DOMAIN_ML, **attributes), TensorProto.INT64)


def _children(said: Sequence[_Chained], leaves: Any, name: str) -> list[int]:
    """Return the number of one child of each split, 0 for leaves, which are numbered after the splits."""
    parts = []
    for one, more in zip(said, leaves, strict=True):
        child = getattr(one, name)
        parts += [np.where(child < 0, ~child + len(child), child), np.zeros(more, np.int64)]
    found: list[int] = np.concatenate(parts).tolist()
    return found


def _chained(tree: Tree) -> _Chained:
    """Write "is one of these" as one equality after another, each with the same true child."""
    picks = tree.mode == Mode.MEMBER
    if not picks.any():
        return _Chained(tree.feature, tree.threshold, tree.mode, tree.missing, tree.true, tree.false)
    sizes = np.ones(len(tree.feature), np.int64)
    sets = [members if len(members) else np.array([np.nan]) for members in tree.members]  # nothing equals NaN
    sizes[picks] = [len(members) for members in sets]
    first = np.cumsum(sizes) - sizes
    value = np.repeat(tree.threshold, sizes)
    if sets:
        value[np.repeat(picks, sizes)] = np.concatenate(sets)
    last = np.zeros(len(value), np.bool_)
    last[first + sizes - 1] = True

    def moved(child: Ints) -> Ints:
        return np.repeat(np.where(child < 0, child, first[np.maximum(child, 0)]), sizes)

    return _Chained(
        np.repeat(tree.feature, sizes),
        value,
        np.repeat(tree.mode, sizes),
        np.repeat(tree.missing, sizes),
        moved(tree.true),
        np.where(last, moved(tree.false), np.arange(len(value)) + 1),
    )

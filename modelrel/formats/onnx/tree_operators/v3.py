"""ai.onnx.ml v3 TreeEnsembleRegressor: it splits on float64, and its float32 results number leaves exactly."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from onnx import TensorProto, numpy_helper

from modelrel.errors import Refused
from modelrel.formats.onnx.graph import DOMAIN_ML, Nodes
from modelrel.trees import Floats, Forest, Ints, Mode

_MOST_LEAVES: Final = 2**24  # float32 numbers them exactly
_NAMES: Final = np.array(["BRANCH_LEQ", "BRANCH_LT", "", "", "", "", "BRANCH_EQ", "LEAF"])


class _Chained(NamedTuple):
    """The nodes of a forest whose sets are chains of equalities; `first` and `second` are places."""

    roots: Ints
    feature: Ints
    value: Floats
    mode: Any
    missing: Any
    first: Ints
    second: Ints


def numbered(nodes: Nodes, x: str, forest: Forest) -> str:
    """Return the leaf that each row of `x` (N, features) ends in, numbered over all trees: int64, (N, T)."""
    largest = int(forest.leaf_sizes.max())
    if largest >= _MOST_LEAVES:
        raise Refused(
            f"a tree has {largest:,} leaves, and ai.onnx.ml 3 numbers {_MOST_LEAVES:,} at most",
            "Leave --operators at v5.",
        )
    said = _chained(forest)
    sizes = np.diff(said.roots, append=len(said.mode))
    tree = np.repeat(np.arange(len(sizes)), sizes)
    base = said.roots[tree]
    leaf = said.mode == Mode.LEAF
    own = np.repeat(forest.first_leaves, forest.leaf_sizes)
    # `child` of a leaf is its number; the operator counts within its tree, for float32 ends at 2**24.
    number = (said.first[leaf] - own[said.first[leaf]]).astype(np.float64)
    attributes: dict[str, Any] = {
        "aggregate_function": "SUM",
        "n_targets": len(sizes),
        "nodes_treeids": tree.tolist(),
        "nodes_nodeids": (np.arange(len(tree)) - base).tolist(),
        "nodes_featureids": said.feature.tolist(),
        "nodes_modes": _NAMES[said.mode].tolist(),
        "nodes_values_as_tensor": numpy_helper.from_array(said.value, "nodes_values"),
        "nodes_missing_value_tracks_true": said.missing.astype(int).tolist(),
        "nodes_truenodeids": np.where(leaf, 0, said.first - base).tolist(),
        "nodes_falsenodeids": np.where(leaf, 0, said.second - base).tolist(),
        "post_transform": "NONE",
        "target_treeids": tree[leaf].tolist(),
        "target_nodeids": (np.arange(len(tree)) - base)[leaf].tolist(),
        "target_ids": tree[leaf].tolist(),
        "target_weights_as_tensor": numpy_helper.from_array(number, "target_weights"),
    }
    within = nodes.cast(nodes.add("TreeEnsembleRegressor", x, domain=DOMAIN_ML, **attributes), TensorProto.INT64)
    return nodes.add("Add", within, nodes.constant(forest.first_leaves.reshape(1, -1)))


def _chained(forest: Forest) -> _Chained:
    """Write "is one of these" as one equality after another, each with the same first child."""
    leaf = forest.mode == Mode.LEAF
    second = np.where(leaf, 0, forest.child + 1)
    if not forest.members:
        fields = forest.feature, forest.threshold, forest.mode, forest.missing
        return _Chained(forest.roots, *fields, forest.child, second)
    picks = forest.mode == Mode.MEMBER
    sets = [members if len(members) else np.array([np.nan]) for members in forest.members]  # nothing equals NaN
    sizes = np.ones(len(leaf), np.int64)
    sizes[picks] = [len(members) for members in sets]
    start = np.cumsum(sizes) - sizes
    value = np.repeat(forest.threshold, sizes)
    value[np.repeat(picks, sizes)] = np.concatenate(sets)
    last = np.zeros(len(value), np.bool_)
    last[start + sizes - 1] = True
    ends = np.repeat(leaf, sizes)

    def moved(place: Ints) -> Ints:
        return np.repeat(start[np.where(leaf, 0, place)], sizes)

    return _Chained(
        start[forest.roots],
        np.repeat(forest.feature, sizes),
        value,
        np.repeat(forest.mode, sizes),
        np.repeat(forest.missing, sizes),
        np.where(ends, np.repeat(forest.child, sizes), moved(forest.child)),
        np.where(last, moved(second), np.arange(len(value)) + 1),
    )

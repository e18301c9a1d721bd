"""The one ONNX operator that splits on float64: ai.onnx.ml v5 TreeEnsemble."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from onnx import TensorProto, numpy_helper

from modelrel.formats.onnx.graph import DOMAIN_ML, Nodes
from modelrel.formats.onnx.trees.arrays import Ints, Tree, stump

_SUM: Final = 1  # aggregate_function


def numbered(nodes: Nodes, x: str, trees: Sequence[Tree]) -> str:
    """Return the leaf that each row of `x` (N, features) ends in, numbered within its tree: int64, (N, trees)."""
    counted = [replace(tree, leaves=np.arange(len(tree.leaves), dtype=np.float64)) for tree in trees]
    return nodes.cast(summed(nodes, x, counted, np.arange(len(trees), dtype=np.int64), len(trees)), TensorProto.INT64)


def summed(nodes: Nodes, x: str, trees: Sequence[Tree], targets: Ints, count: int) -> str:
    """Add the trees, and return the name of their sums: float64, (N, count).

    `x` is a float64 tensor (N, features); tree i adds to column `targets[i]`.
    """
    filled = [tree if len(tree.feature) else stump(tree) for tree in trees]
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
        "leaf_weights": numpy_helper.from_array(joined("leaves").astype(np.float64), "leaf_weights"),
        "n_targets": count,
        "nodes_splits": numpy_helper.from_array(joined("threshold").astype(np.float64), "nodes_splits"),
        "nodes_modes": numpy_helper.from_array(joined("mode").astype(np.uint8), "nodes_modes"),
        "post_transform": 0,
    }
    sets = [np.append(members, np.nan) for tree in filled for members in tree.members]
    if sets:
        attributes["membership_values"] = numpy_helper.from_array(np.concatenate(sets), "membership_values")
    arrays = {
        "leaf_targetids": np.repeat(targets, leaf_sizes),
        "nodes_falseleafs": (false < 0).astype(np.int64),
        "nodes_falsenodeids": np.where(false < 0, ~false + leaf_offset, false + offset),
        "nodes_featureids": joined("feature"),
        "nodes_missing_value_tracks_true": joined("missing"),
        "nodes_trueleafs": (true < 0).astype(np.int64),
        "nodes_truenodeids": np.where(true < 0, ~true + leaf_offset, true + offset),
        "tree_roots": first,
    }
    if not arrays["nodes_missing_value_tracks_true"].any():
        del arrays["nodes_missing_value_tracks_true"]  # 0 is the default
    return nodes.add_large("TreeEnsemble", x, DOMAIN_ML, arrays, **attributes)

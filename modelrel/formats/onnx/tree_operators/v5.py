"""The one ONNX operator that splits on float64: ai.onnx.ml v5 TreeEnsemble."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from onnx import TensorProto, numpy_helper

from modelrel.formats.onnx.graph import DOMAIN_ML, Nodes
from modelrel.trees import Floats, Forest, Ints, Mode

_SUM: Final = 1  # aggregate_function


def numbered(nodes: Nodes, x: str, forest: Forest) -> str:
    """Return the leaf that each row of `x` (N, features) ends in, numbered over all trees: int64, (N, T)."""
    trees = len(forest.roots)
    number = np.arange(len(forest.leaves), dtype=np.float64)
    return nodes.cast(_ensemble(nodes, x, forest, number, (np.arange(trees), trees)), TensorProto.INT64)


def summed(nodes: Nodes, x: str, forest: Forest, targets: Ints, count: int) -> str:
    """Add the trees, and return the name of their sums: float64, (N, count).

    `x` is a float64 tensor (N, features); tree t adds to column `targets[t]`.
    """
    return _ensemble(nodes, x, forest, forest.leaves[:, 0], (targets, count))


def _ensemble(nodes: Nodes, x: str, forest: Forest, weights: Floats, said: tuple[Ints, int]) -> str:
    """Write the operator; leaf k adds `weights[k]` to the column of its tree."""
    targets, count = said
    leaf = forest.mode == Mode.LEAF
    number = np.where(leaf, forest.child, np.cumsum(~leaf) - 1)
    splits = np.flatnonzero(~leaf)
    first = forest.child[splits]
    feature, threshold, mode = forest.feature[splits], forest.threshold[splits], forest.mode[splits]
    missing, sides = forest.missing[splits], [first, first + 1]
    numbers, ends = [number[side] for side in sides], [leaf[side] for side in sides]
    roots = number[forest.roots]
    stumps = np.flatnonzero(leaf[forest.roots])
    if len(stumps):
        # The operator has no tree without a split: one that changes nothing is added.
        roots[stumps] = len(splits) + np.arange(len(stumps))
        more = np.zeros(len(stumps))
        feature, threshold, mode, missing = (
            np.concatenate([array, more.astype(array.dtype)]) for array in (feature, threshold, mode, missing)
        )
        numbers = [np.concatenate([side, number[forest.roots[stumps]]]) for side in numbers]
        ends = [np.concatenate([side, more == 0]) for side in ends]
    attributes: dict[str, Any] = {
        "aggregate_function": _SUM,
        "leaf_weights": numpy_helper.from_array(weights, "leaf_weights"),
        "n_targets": count,
        "nodes_splits": numpy_helper.from_array(threshold, "nodes_splits"),
        "nodes_modes": numpy_helper.from_array(mode, "nodes_modes"),
        "post_transform": 0,
    }
    if forest.members:
        sets = [np.append(members, np.nan) for members in forest.members]
        attributes["membership_values"] = numpy_helper.from_array(np.concatenate(sets), "membership_values")
    arrays = {
        "leaf_targetids": np.repeat(targets, forest.leaf_sizes),
        "nodes_falseleafs": ends[1],
        "nodes_falsenodeids": numbers[1],
        "nodes_featureids": feature,
        "nodes_missing_value_tracks_true": missing,
        "nodes_trueleafs": ends[0],
        "nodes_truenodeids": numbers[0],
        "tree_roots": roots,
    }
    if not missing.any():
        del arrays["nodes_missing_value_tracks_true"]  # 0 is the default
    return nodes.add_large("TreeEnsemble", x, DOMAIN_ML, arrays, **attributes)

"""The one ONNX operator that splits on float64: ai.onnx.ml v5 TreeEnsemble."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from onnx import TensorProto

from modelrel import trees
from modelrel.formats.onnx.graph import DOMAIN_ML, Nodes
from modelrel.formats.onnx.large import Large
from modelrel.trees import Forest, Ints, Mode

_SUM: Final = 1  # aggregate_function
_EXACT_INTEGERS: Final = 2**24  # float32 holds every whole number below


def numbered(nodes: Nodes, x: str, forest: Forest, *, single: bool = False) -> str:
    """Return the leaf that each row of `x` (N, features) ends in, numbered over all trees: int64, (N, T).

    `single`: every number in `x` is one of float32, so that the operator may be one of float32, which is smaller and
    faster, and takes the same leaves.
    """
    count = len(forest.roots)
    single = single and len(forest.leaves) < _EXACT_INTEGERS
    if single:
        x = nodes.cast(x, TensorProto.FLOAT)
    number = np.arange(len(forest.leaves), dtype=np.float32 if single else np.float64)
    return nodes.cast(_ensemble(nodes, x, forest, number, (np.arange(count), count)), TensorProto.INT64)


def summed(nodes: Nodes, x: str, forest: Forest, targets: Ints, count: int) -> str:
    """Add the trees, and return the name of their sums: float64, (N, count).

    `x` is a float64 tensor (N, features); tree t adds to column `targets[t]`.
    """
    return _ensemble(nodes, x, forest, forest.leaves[:, 0], (targets, count))


def _ensemble(nodes: Nodes, x: str, forest: Forest, weights: Any, said: tuple[Ints, int]) -> str:
    """Write the operator in the dtype of `weights`; leaf k adds `weights[k]` to the column of its tree."""
    targets, count = said
    leaf = forest.mode == Mode.LEAF
    number = np.where(leaf, forest.child, np.cumsum(~leaf) - 1)
    splits = np.flatnonzero(~leaf)
    first = forest.child[splits]
    feature, mode = forest.feature[splits], forest.mode[splits]
    threshold: Any = forest.threshold[splits]
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
    if weights.dtype == np.float32:
        threshold = trees.at_most(threshold, mode)
        mode = np.where(mode == Mode.LT, np.uint8(Mode.LEQ), mode)
    tensors = {"leaf_weights": weights, "nodes_splits": threshold, "nodes_modes": mode}
    if forest.members:
        sets = [np.append(members, np.nan) for members in forest.members]
        tensors["membership_values"] = np.concatenate(sets).astype(weights.dtype)
    ints = {
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
        del ints["nodes_missing_value_tracks_true"]  # 0 is the default
    options = {"aggregate_function": _SUM, "n_targets": count, "post_transform": 0}
    return nodes.add_large("TreeEnsemble", x, DOMAIN_ML, Large(ints, tensors), **options)

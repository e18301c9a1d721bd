"""ai.onnx.ml v5 TreeEnsemble back into a forest, for formats that start from an ONNX graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import numpy_helper

from modelrel.trees import Forest, Ints
from modelrel.trees.forest import Mode, Nodes, planted


def forest(said: Mapping[str, Any]) -> tuple[Forest, Ints, int]:
    """Return the trees of a node's attributes, the target of each, and how many targets there are.

    Each tree must have one target, as those that are written here; an ensemble adds up.
    """
    true, false = (np.asarray(said[f"nodes_{side}nodeids"], np.int64) for side in ("true", "false"))
    ends = [np.asarray(said[f"nodes_{side}leafs"], bool) for side in ("true", "false")]
    weights = numpy_helper.to_array(said["leaf_weights"]).astype(np.float64)
    roots = np.asarray(said["tree_roots"], np.int64)
    splits, leaves = _owners(roots, (true, false), ends, len(weights))
    # A tree of one leaf is written as a split that leads there on both sides.
    alone = ends[0] & ends[1] & (true == false)
    kept = ~alone
    order = np.concatenate([np.flatnonzero(kept), len(kept) + np.arange(len(weights))])
    owner = np.concatenate([splits[kept], leaves])
    order = order[np.argsort(owner, kind="stable")]
    sizes = np.bincount(owner, minlength=len(roots))
    place = np.zeros(len(kept) + len(weights), np.int64)
    place[order] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)

    def spread(values: Any) -> Any:
        return np.concatenate([values, np.zeros(len(weights), np.asarray(values).dtype)])[order]

    def child(side: int, ids: Ints) -> Ints:
        found: Ints = spread(place[np.where(ends[side], len(kept) + ids, ids)])
        return found

    missing = np.asarray(said.get("nodes_missing_value_tracks_true", np.zeros(len(kept))), bool)
    nodes = Nodes(
        sizes=sizes,
        leaf=order >= len(kept),
        first=child(0, true),
        second=child(1, false),
        feature=spread(np.asarray(said["nodes_featureids"], np.int64)),
        threshold=spread(numpy_helper.to_array(said["nodes_splits"]).astype(np.float64)),
        missing=spread(missing),
        mode=spread(numpy_helper.to_array(said["nodes_modes"])),
    )
    values = weights[order[order >= len(kept)] - len(kept)]
    first_leaf = np.cumsum(np.bincount(leaves, minlength=len(roots))) - np.bincount(leaves, minlength=len(roots))
    targets = np.asarray(said["leaf_targetids"], np.int64)[np.argsort(leaves, kind="stable")[first_leaf]]
    picked = numpy_helper.to_array(said["nodes_modes"])[order[order < len(kept)]] == Mode.MEMBER
    sets = _sets(said, order[order < len(kept)][picked])
    return planted(nodes, values, sets), targets, int(said["n_targets"])


def _owners(roots: Ints, children: tuple[Ints, Ints], ends: list[Any], leaves: int) -> tuple[Ints, Ints]:
    """Return the tree of each split and of each leaf."""
    owner, reached = np.zeros(len(children[0]), np.int64), np.zeros(leaves, np.int64)
    here = roots
    owner[here] = np.arange(len(roots))
    while len(here):
        below = []
        for child, end in zip(children, ends, strict=True):
            reached[child[here[end[here]]]] = owner[here[end[here]]]
            inner = here[~end[here]]
            owner[child[inner]] = owner[inner]
            below.append(child[inner])
        here = np.concatenate(below)
    return owner, reached


def _sets(said: Mapping[str, Any], wanted: Ints) -> list[Any]:
    """Return the sets of the splits `wanted`; they stand one after another in the order of the nodes, NaN between."""
    if not len(wanted):
        return []
    listed = numpy_helper.to_array(said["membership_values"]).astype(np.float64)
    ends = np.flatnonzero(np.isnan(listed))
    starts = np.concatenate([[0], ends[:-1] + 1])
    number = np.cumsum(numpy_helper.to_array(said["nodes_modes"]) == Mode.MEMBER) - 1
    return [listed[starts[number[split]] : ends[number[split]]] for split in wanted.tolist()]

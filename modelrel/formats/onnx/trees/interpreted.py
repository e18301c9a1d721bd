"""Tree arrays run in NumPy alone: the second opinion on who is wrong, the reader, the writer or the runtime."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from modelrel.formats.onnx.trees.arrays import Floats, Ints, Mode, Tree


def reached(tree: Tree, x: Floats) -> Ints:
    """Return the number of the leaf that each row of `x` (N, features; as the trees see it) ends in: (N,)."""
    place = np.full(len(x), 0 if len(tree.feature) else ~0, np.int64)
    sets = dict(zip(np.flatnonzero(tree.mode == Mode.MEMBER).tolist(), tree.members, strict=True))
    going = np.flatnonzero(place >= 0)
    while len(going):
        split = place[going]
        value = x[going, tree.feature[split]]
        holds = np.where(np.isnan(value), tree.missing[split] == 1, _holds(tree, split, value, sets))
        place[going] = np.where(holds, tree.true[split], tree.false[split])
        going = going[place[going] >= 0]
    return ~place


def sums(trees: Sequence[Tree], x: Floats, targets: Ints, count: int) -> Floats:
    """Return what `summed` computes, the trees added in their order: float64 (N, count)."""
    total = np.zeros((len(x), count))
    for tree, target in zip(trees, targets, strict=True):
        total[:, target] += values(tree, x)
    return total


def values(tree: Tree, x: Floats) -> Floats:
    """Return what the leaf that each row ends in says, linear leaves computed: float64 (N,)."""
    leaf = reached(tree, x)
    plain: Floats = tree.leaves[leaf]
    if tree.linear is None:
        return plain
    feature = tree.linear.feature[leaf]
    used = feature >= 0
    seen = np.where(used, np.take_along_axis(x, np.maximum(feature, 0), axis=1), 0.0)
    with np.errstate(invalid="ignore", over="ignore"):
        found = tree.linear.constant[leaf] + (seen * tree.linear.coefficient[leaf]).sum(axis=1)
    return np.where(np.isnan(seen).any(axis=1), plain, found)


def _holds(tree: Tree, split: Ints, value: Floats, sets: dict[int, Floats]) -> NDArray[np.bool_]:
    mode = tree.mode[split]
    with np.errstate(invalid="ignore"):
        found: NDArray[np.bool_] = np.where(
            mode == Mode.LT, value < tree.threshold[split], value <= tree.threshold[split]
        )
    for number in np.unique(split[mode == Mode.MEMBER]):
        here = split == number
        found[here] = np.isin(value[here], sets[int(number)])
    return found

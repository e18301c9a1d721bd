"""Tree ensembles as arrays: what each library's reader makes, and what the writers and the interpreter work on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_MAX_THRESHOLDS: Final = 2000


class Mode(IntEnum):
    """What leads to the true child, numbered as in TreeEnsemble's `nodes_modes`."""

    LEQ = 0
    LT = 1
    MEMBER = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """A linear function in each of m leaves: `constant + sum(coefficient * x[feature])` over at most k features.

    `feature` and `coefficient` are (m, k), -1 where a leaf has fewer features. Where one of them is NaN, the leaf's
    plain value stands.
    """

    constant: Floats
    feature: Ints
    coefficient: Floats


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
    linear: Linear | None = None


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


def with_leaves(parts: Sequence[Any], leaves: Sequence[int], name: str, empty: float) -> Any:
    """Join one field of all trees over all their nodes: the splits of each, then `empty` for each of its leaves."""
    fields = [getattr(part, name) for part in parts]
    pairs = ((one, np.full(more, empty, one.dtype)) for one, more in zip(fields, leaves, strict=True))
    return np.concatenate([array for pair in pairs for array in pair])


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


def stump(tree: Tree) -> Tree:
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

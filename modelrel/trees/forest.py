"""Trees as arrays: all nodes of a forest in one table, siblings side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MOST_THRESHOLDS: Final = 2000
_SORTED: Final = 20 * MOST_THRESHOLDS


class Mode(IntEnum):
    """What a node asks of its feature."""

    LEQ = 0
    LT = 1
    MEMBER = 6
    LEAF = 7


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
class Forest:
    """T trees in one table of n nodes, of which m are leaves; a tree may be one leaf.

    Tree t has the nodes from `roots[t]` to the next root. `child` of a split is the place of the child for rows where
    it holds, and the other child is the place after it; `child` of a leaf is the leaf's number, counted over all
    trees. `missing`: NaN goes to the first child. `members` has the set of each split of mode MEMBER, in their order.
    Leaf k says `leaves[k]`, (m, width), or what `linear` makes of the row.
    """

    roots: Ints
    feature: Ints
    threshold: Floats
    mode: NDArray[np.uint8]
    missing: Bools
    child: Ints
    leaves: Floats
    members: tuple[Floats, ...] = ()
    linear: Linear | None = None

    @property
    def sizes(self) -> Ints:
        """How many nodes each tree has: (T,)."""
        return np.diff(self.roots, append=len(self.mode))

    @property
    def leaf_sizes(self) -> Ints:
        """How many leaves each tree has: (T,)."""
        return (self.sizes + 1) // 2

    @property
    def first_leaves(self) -> Ints:
        """The number of each tree's first leaf: (T,)."""
        return np.cumsum(self.leaf_sizes) - self.leaf_sizes

    @property
    def depth(self) -> int:
        """How many splits the longest way has."""
        here, found = self.roots, 0
        while len(here := self.child[here[self.mode[here] != Mode.LEAF]]):
            here = np.concatenate([here, here + 1])
            found += 1
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodes:
    """The nodes of many trees one after another, as a library keeps them.

    `sizes` says how many each tree has; its first one is the root, and `first` (where the split holds) and `second`
    count from it. At a leaf nothing but `leaf` means anything. A leaf that no split leads to is dropped.
    """

    sizes: Ints
    leaf: Bools
    first: Ints
    second: Ints
    feature: Ints
    threshold: Floats
    missing: Bools | None = None
    mode: Mode | NDArray[np.uint8] = Mode.LEQ


def planted(nodes: Nodes, leaves: Floats, members: Sequence[Floats] = ()) -> Forest:
    """Put siblings side by side; `leaves` (m, width) or (m,) are those of the leaves in their order."""
    splits = np.flatnonzero(~nodes.leaf)
    starts = np.cumsum(nodes.sizes) - nodes.sizes
    counts = np.add.reduceat(~nodes.leaf, starts, dtype=np.int64) if len(starts) else starts
    sizes = 2 * counts + 1
    roots = np.cumsum(sizes) - sizes
    base = np.repeat(starts, counts)
    # Split s of a tree has its children at 1 + 2s and 2 + 2s of it.
    pair = np.repeat(roots - 2 * (np.cumsum(counts) - counts), counts) + 1 + 2 * np.arange(len(splits))
    place = np.full(len(nodes.leaf), -1, np.int64)
    place[starts] = roots
    place[nodes.first[splits] + base] = pair
    place[nodes.second[splits] + base] = pair + 1
    at = place[splits]
    total = int(sizes.sum())
    ends = place[nodes.leaf]
    kept = ends >= 0

    def spread(values: Any, empty: Any) -> Any:
        found = np.full(total, empty)
        found[at] = values
        return found

    child = spread(pair, 0)
    child[ends[kept]] = np.arange(int(kept.sum()))
    mode = nodes.mode if isinstance(nodes.mode, Mode) else nodes.mode[splits]
    return Forest(
        roots=roots,
        feature=spread(nodes.feature[splits], np.int64(0)),
        threshold=spread(nodes.threshold[splits], 0.0),
        mode=spread(mode, np.uint8(Mode.LEAF)),
        missing=spread(False if nodes.missing is None else nodes.missing[splits], empty=False),
        child=child,
        leaves=leaves[kept].reshape(int(kept.sum()), -1),
        members=_ordered(members, at, mode),
    )


def _ordered(members: Sequence[Floats], at: Ints, mode: Any) -> tuple[Floats, ...]:
    """Return the sets in the order of the places of their splits."""
    if not len(members):
        return ()
    order = np.argsort(at[mode == Mode.MEMBER])
    return tuple(members[number] for number in order.tolist())


def at_most(threshold: Floats, mode: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return float32 thresholds t for which `x <= t` is what splits of mode LEQ or LT ask of a float32 number x."""
    with np.errstate(over="ignore"):
        near = threshold.astype(np.float32)
        below = np.nextafter(near, np.float32(-np.inf))
    return np.where(np.where(mode == Mode.LT, near >= threshold, near > threshold), below, near)


def renamed(forest: Forest, features: Ints) -> Forest:
    """Return the forest over other features: what was feature f is `features[f]`."""
    return replace(forest, feature=np.where(forest.mode == Mode.LEAF, 0, features[forest.feature]))


def together(forests: Sequence[Forest]) -> Forest:
    """Return the trees of several forests, whose leaves have one width, as one."""
    nodes = np.cumsum([0, *(len(one.mode) for one in forests)])
    ends = np.cumsum([0, *(len(one.leaves) for one in forests)])
    names = ("feature", "threshold", "mode", "missing", "leaves")
    joined: dict[str, Any] = {name: np.concatenate([getattr(one, name) for one in forests]) for name in names}
    child = [
        one.child + np.where(one.mode == Mode.LEAF, end, node)
        for one, node, end in zip(forests, nodes, ends, strict=False)
    ]
    return Forest(
        roots=np.concatenate([one.roots + node for one, node in zip(forests, nodes, strict=False)]),
        child=np.concatenate(child),
        members=tuple(known for one in forests for known in one.members),
        **joined,
    )


def thresholds(forest: Forest, features: int) -> list[list[float]]:
    """Return, per feature, its finite split thresholds, sorted, at most a few thousand, evenly picked."""
    at = np.flatnonzero(forest.mode <= Mode.LT)
    # NumPy sorts numbers of 16 bits by counting them.
    feature = forest.feature[at].astype(np.uint16 if features < 2**16 else np.int64)
    value = forest.threshold[at[np.argsort(feature, kind="stable")]]
    ends = np.cumsum(np.bincount(feature, minlength=features))
    found = []
    for every in np.split(value, ends[: features - 1]):
        own = np.unique(every[:: -(-len(every) // _SORTED) or 1])
        own = own[np.isfinite(own)]
        picked = np.unique(np.linspace(0, len(own) - 1, min(len(own), MOST_THRESHOLDS)).astype(int))
        found.append(own[picked].tolist() if len(own) else [])
    return found


def picked(forest: Forest) -> dict[int, set[float]]:
    """Return the features that are split on by categories, and which of them any split names."""
    found: dict[int, set[float]] = {}
    at = np.flatnonzero(forest.mode == Mode.MEMBER)
    for feature, members in zip(forest.feature[at].tolist(), forest.members, strict=True):
        found.setdefault(feature, set()).update(members.tolist())
    return found

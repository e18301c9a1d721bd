"""Trees by operators of ai.onnx alone: every row goes down all trees at once, one level at a time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from modelrel.formats.onnx.graph import Nodes
from modelrel.formats.onnx.trees.arrays import Floats, Ints, Mode, Tree, with_leaves


def numbered(nodes: Nodes, x: str, trees: Sequence[Tree]) -> str:
    """Return the leaf that each row of `x` (N, features) ends in, numbered within its tree: int64, (N, trees).

    Splits and leaves of all trees have one numbering; a leaf leads to itself, so that it may be asked again.
    """
    splits = np.array([len(tree.feature) for tree in trees])
    leaves = np.array([len(tree.leaves) for tree in trees])
    first = np.cumsum(splits + leaves) - splits - leaves

    joined = partial(with_leaves, trees, leaves.tolist())
    own = [start + split + np.arange(more) for start, split, more in zip(first, splits, leaves, strict=True)]

    def children(name: str) -> Ints:
        parts = []
        for tree, start, split, ends in zip(trees, first, splits, own, strict=True):
            child = getattr(tree, name)
            parts += [np.where(child < 0, ~child + split, child) + start, ends]
        found: Ints = np.concatenate(parts).astype(np.int64)
        return found

    true, false, mode = children("true"), children("false"), joined("mode", 0)
    threshold = joined("threshold", 0.0)
    # x < t is x <= the number below t.
    threshold = np.where(mode == Mode.LT, np.nextafter(threshold, -np.inf), threshold)
    ask = _Level(nodes, x, (joined("feature", 0), threshold, joined("missing", 0)), _sets(trees, mode))
    count = nodes.add("Gather", nodes.add("Shape", x), nodes.constant([0], np.int64), axis=0)
    shape = nodes.add("Concat", count, nodes.constant([len(trees)], np.int64), axis=0)
    at = nodes.add("Expand", nodes.constant(first.reshape(1, -1), np.int64), shape)
    sides = nodes.constant(true), nodes.constant(false)
    for _ in range(_depth(true, false, first)):
        yes, no = (nodes.add("Gather", side, at, axis=0) for side in sides)
        at = nodes.add("Where", ask.holds(at), yes, no)
    return nodes.add("Sub", at, nodes.constant((first + splits).reshape(1, -1), np.int64))


class _Level:
    """The question that each row asks where it is."""

    def __init__(self, nodes: Nodes, x: str, said: tuple[Ints, Floats, Ints], sets: tuple[Ints, Any] | None) -> None:
        feature, threshold, missing = said
        self._nodes, self._x = nodes, x
        self._feature, self._threshold = nodes.constant(feature, np.int64), nodes.constant(threshold)
        self._missing = nodes.constant(missing.astype(np.bool_)) if missing.any() else ""
        self._sets = sets
        if sets is not None:
            number, table = sets
            self._width = table.shape[1]
            self._start = nodes.constant(np.maximum(number, 0) * self._width, np.int64)
            self._picks, self._table = nodes.constant(number >= 0), nodes.constant(table.ravel())

    def holds(self, at: str) -> str:
        """Return whether the split at each place `at` holds: bool, (N, trees)."""
        nodes = self._nodes
        value = nodes.add("GatherElements", self._x, nodes.add("Gather", self._feature, at, axis=0), axis=1)
        found = nodes.add("LessOrEqual", value, nodes.add("Gather", self._threshold, at, axis=0))
        if self._sets is not None:
            # The last column is what is no category; a gap is asked below, and no category is beyond the table.
            none = nodes.constant(float(self._width - 1))
            inside = nodes.add("GreaterOrEqual", value, nodes.constant(0.0))
            inside = nodes.add("And", inside, nodes.add("Less", value, none))
            whole = nodes.add("Equal", nodes.add("Floor", value), value)
            code = nodes.cast(nodes.add("Where", nodes.add("And", inside, whole), value, none), 7)
            place = nodes.add("Add", nodes.add("Gather", self._start, at, axis=0), code)
            member = nodes.add("Gather", self._table, place, axis=0)
            found = _either(nodes, nodes.add("Gather", self._picks, at, axis=0), member, found)
        if self._missing or self._sets is not None:
            gone = nodes.add("Gather", self._missing, at, axis=0) if self._missing else nodes.constant(value=False)
            found = _either(nodes, nodes.add("IsNaN", value), gone, found)
        return found


def _either(nodes: Nodes, condition: str, yes: str, no: str) -> str:
    """Return Where(condition, yes, no) of truth values, for which onnxruntime has no kernel."""
    first = nodes.add("And", condition, yes)
    return nodes.add("Or", first, nodes.add("And", nodes.add("Not", condition), no))


def _sets(trees: Sequence[Tree], mode: Any) -> tuple[Ints, Any] | None:
    """Return the number of each split's set (-1: none), and whether set s holds category c: bool (sets, width)."""
    members = [one for tree in trees for one in tree.members]
    if not members:
        return None
    width = int(max((one.max(initial=0) for one in members), default=0)) + 2
    table = np.zeros((len(members), width), np.bool_)
    for row, one in zip(table, members, strict=True):
        row[one.astype(np.int64)] = True
    number = np.full(len(mode), -1, np.int64)
    number[mode == Mode.MEMBER] = np.arange(len(members))
    return number, table


def _depth(true: Ints, false: Ints, roots: Ints) -> int:
    """Return how many splits the longest way has."""
    here, depth = np.unique(roots), 0
    while True:
        here = here[true[here] != here]
        if not len(here):
            return depth
        here = np.unique(np.concatenate([true[here], false[here]]))
        depth += 1

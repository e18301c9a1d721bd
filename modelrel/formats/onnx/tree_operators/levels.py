"""Trees by operators of ai.onnx alone: every row goes down all trees at once, one level at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelrel.formats.onnx.graph import Nodes
from modelrel.trees import Forest, Ints, Mode


def numbered(nodes: Nodes, x: str, forest: Forest) -> str:
    """Return the leaf that each row of `x` (N, features) ends in, numbered over all trees: int64, (N, T)."""
    leaf = forest.mode == Mode.LEAF
    # A leaf leads to itself whatever is asked: its "second child" is itself, and nothing is below or equal -infinity.
    places = np.arange(len(leaf))
    second = np.where(leaf, places, forest.child + 1)
    ask = _Level(nodes, x, forest, leaf)
    count = nodes.add("Gather", nodes.add("Shape", x), nodes.constant([0], np.int64), axis=0)
    shape = nodes.add("Concat", count, nodes.constant([len(forest.roots)], np.int64), axis=0)
    at = nodes.add("Expand", nodes.constant(forest.roots.reshape(1, -1), np.int64), shape)
    side = nodes.constant(second)
    for _ in range(forest.depth):
        # Siblings are adjacent: the first child stands one place before the second.
        at = nodes.add("Sub", nodes.add("Gather", side, at, axis=0), nodes.cast(ask.holds(at), 7))
    return nodes.add("Gather", nodes.constant(np.where(leaf, forest.child, 0)), at, axis=0)


class _Level:
    """The question that each row asks where it is."""

    def __init__(self, nodes: Nodes, x: str, forest: Forest, leaf: Any) -> None:
        self._nodes, self._x = nodes, x
        self._feature = nodes.constant(forest.feature, np.int64)
        # x < t is x <= the number below t.
        below = np.nextafter(forest.threshold, -np.inf)
        self._threshold = nodes.constant(np.where(forest.mode == Mode.LT, below, forest.threshold))
        self._split = nodes.constant(~leaf)
        missing = forest.missing & ~leaf
        self._missing = nodes.constant(missing) if missing.any() else ""
        self._sets = bool(forest.members)
        if self._sets:
            number, table = _table(forest)
            self._width = table.shape[1]
            self._start = nodes.constant(np.maximum(number, 0) * self._width, np.int64)
            self._picks, self._table = nodes.constant(number >= 0), nodes.constant(table.ravel())

    def holds(self, at: str) -> str:
        """Return whether the split at each place `at` holds, never for a leaf: bool, (N, T)."""
        nodes = self._nodes
        value = nodes.add("GatherElements", self._x, nodes.add("Gather", self._feature, at, axis=0), axis=1)
        found = nodes.add("LessOrEqual", value, nodes.add("Gather", self._threshold, at, axis=0))
        if self._sets:
            # The last column is what is no category; a gap is asked below, and no category is beyond the table.
            none = nodes.constant(float(self._width - 1))
            inside = nodes.add("GreaterOrEqual", value, nodes.constant(0.0))
            inside = nodes.add("And", inside, nodes.add("Less", value, none))
            whole = nodes.add("Equal", nodes.add("Floor", value), value)
            code = nodes.cast(nodes.add("Where", nodes.add("And", inside, whole), value, none), 7)
            place = nodes.add("Add", nodes.add("Gather", self._start, at, axis=0), code)
            member = nodes.add("Gather", self._table, place, axis=0)
            found = _either(nodes, nodes.add("Gather", self._picks, at, axis=0), member, found)
        if self._missing or self._sets:
            gone = nodes.add("Gather", self._missing, at, axis=0) if self._missing else nodes.constant(value=False)
            found = _either(nodes, nodes.add("IsNaN", value), gone, found)
        return nodes.add("And", found, nodes.add("Gather", self._split, at, axis=0))


def _either(nodes: Nodes, condition: str, yes: str, no: str) -> str:
    """Return Where(condition, yes, no) of truth values, for which onnxruntime has no kernel."""
    first = nodes.add("And", condition, yes)
    return nodes.add("Or", first, nodes.add("And", nodes.add("Not", condition), no))


def _table(forest: Forest) -> tuple[Ints, Any]:
    """Return the number of each node's set (-1: none), and whether set s holds category c: bool (sets, width)."""
    width = int(max((one.max(initial=0) for one in forest.members), default=0)) + 2
    table = np.zeros((len(forest.members), width), np.bool_)
    for row, one in zip(table, forest.members, strict=True):
        row[one.astype(np.int64)] = True
    number = np.full(len(forest.mode), -1, np.int64)
    number[forest.mode == Mode.MEMBER] = np.arange(len(forest.members))
    return number, table

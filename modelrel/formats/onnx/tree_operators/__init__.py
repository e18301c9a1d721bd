"""A forest's trees in ONNX operators.

| operators | what is written | for |
|---|---|---|
| v5 | ai.onnx.ml 5 TreeEnsemble, the smallest and fastest | onnxruntime 1.27 and newer |
| v3 | ai.onnx.ml 3 TreeEnsembleRegressor, which gives numbers of leaves; the sums are in float64 | older runtimes |
| core | operators of ai.onnx alone: all trees go down one level at a time | runtimes without ai.onnx.ml |

Every one compares in float64, or in float32 where the original reads float32 and only leaves are looked up, so that
each row takes the same leaf in each tree as in the original; all sums are in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import numpy as np

from modelrel.formats.onnx.graph import Nodes
from modelrel.formats.onnx.tree_operators import levels, v3, v5
from modelrel.trees import Forest, Ints
from modelrel.values import Operators

__all__ = ["leaves", "summed", "vectors", "written"]

_NUMBERED: Final[dict[Operators, Callable[[Nodes, str, Forest], str]]] = {"v3": v3.numbered, "core": levels.numbered}

# The converters that skl2onnx calls back take nothing of ours with them.
_OPERATORS: ContextVar[Operators] = ContextVar("operators", default="v5")


@contextmanager
def written(operators: Operators) -> Iterator[None]:
    """Write the trees inside this block with these operators."""
    token = _OPERATORS.set(operators)
    try:
        yield
    finally:
        _OPERATORS.reset(token)


def leaves(nodes: Nodes, x: str, forest: Forest, *, single: bool) -> str:
    """Return the leaf that each row ends in in each tree, numbered over all trees: int64, (N, T).

    `single`: the numbers of the float64 tensor `x` (N, features) are all numbers of float32.
    """
    if _OPERATORS.get() == "v5":
        return v5.numbered(nodes, x, forest, single=single)
    return _NUMBERED[_OPERATORS.get()](nodes, x, forest)


def summed(nodes: Nodes, x: str, forest: Forest, targets: Ints, count: int) -> str:
    """Add the trees, and return the name of their sums: float64, (N, count).

    `x` is a float64 tensor (N, features); tree t, whose leaves are single numbers, adds to column `targets[t]`.
    """
    if _OPERATORS.get() == "v5" and forest.linear is None:
        return v5.summed(nodes, x, forest, targets, count)
    leaf = leaves(nodes, x, forest, single=False)
    values = nodes.add("Gather", nodes.constant(forest.leaves[:, 0]), leaf, axis=0)
    if forest.linear is not None:
        values = _linear(nodes, x, forest, (leaf, values))
    # No MatMul by ones and zeros: onnxruntime 1.31 merges a division after it into a factor of float32.
    axis = nodes.constant([1], np.int64)
    if count == 1:
        return nodes.add("ReduceSum", values, axis, keepdims=1)

    def one(column: int) -> str:
        own = nodes.add("Gather", values, nodes.constant(np.flatnonzero(targets == column), np.int64), axis=1)
        return nodes.add("ReduceSum", own, axis, keepdims=1)

    return nodes.add("Concat", *(one(column) for column in range(count)), axis=1)


def vectors(nodes: Nodes, x: str, forest: Forest, *, single: bool) -> str:
    """Add trees whose leaves are vectors, in their order, and return the name of the sums: float64, (N, width).

    The operators know one number per leaf, so each tree gives the number of the leaf, and a table the vector.
    """
    found = nodes.add("Gather", nodes.constant(forest.leaves), leaves(nodes, x, forest, single=single), axis=0)
    return nodes.add("ReduceSum", found, nodes.constant([1], np.int64), keepdims=0)


def _linear(nodes: Nodes, x: str, forest: Forest, found: tuple[str, str]) -> str:
    """Return the values of linear leaves, (N, T), from their numbers and their plain values."""
    leaf, plain = found
    linear, trees = forest.linear, len(forest.roots)
    assert linear is not None
    width = linear.feature.shape[1]
    if not width:
        return nodes.add("Gather", nodes.constant(linear.constant), leaf, axis=0)

    def at(table: Any) -> str:
        return nodes.add("Gather", nodes.constant(table), leaf, axis=0)

    row = nodes.constant([0, trees * width], np.int64)
    index = nodes.add("Reshape", at(np.maximum(linear.feature, 0)), row)
    seen = nodes.add("GatherElements", x, index, axis=1)
    seen = nodes.add("Reshape", seen, nodes.constant([0, trees, width], np.int64))
    seen = nodes.add("Where", at(linear.feature >= 0), seen, nodes.constant(0.0))
    last = nodes.constant([2], np.int64)
    sums = nodes.add("ReduceSum", nodes.add("Mul", seen, at(linear.coefficient)), last, keepdims=0)
    gap = nodes.add("ReduceSum", nodes.cast(nodes.add("IsNaN", seen), 7), last, keepdims=0)
    return nodes.add("Where", nodes.cast(gap, 9), plain, nodes.add("Add", at(linear.constant), sums))

"""Tree ensembles: arrays that readers make (`arrays`), writers into ONNX operators, and a NumPy interpreter.

| operators | what is written | for |
|---|---|---|
| v5 | ai.onnx.ml 5 TreeEnsemble, the smallest and fastest | onnxruntime 1.27 and newer |
| v3 | ai.onnx.ml 3 TreeEnsembleRegressor, which gives numbers of leaves; the sums are in float64 | older runtimes |
| core | operators of ai.onnx alone: all trees go down one level at a time | runtimes without ai.onnx.ml |

Every one compares in float64, so that each row takes the same leaf in each tree as in the original.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, Final

import numpy as np

from modelrel.formats.onnx.graph import Nodes
from modelrel.formats.onnx.trees import levels, v3, v5
from modelrel.formats.onnx.trees.arrays import Floats, Ints, Linear, Mode, Tree, from_nodes, picked, thresholds
from modelrel.values import Operators

__all__ = [
    "Floats", "Ints", "Linear", "Mode", "Tree", "from_nodes", "looked_up", "picked", "summed", "thresholds", "written",
]  # fmt: skip

_NUMBERED: Final[dict[Operators, Callable[[Nodes, str, Sequence[Tree]], str]]] = {
    "v5": v5.numbered,
    "v3": v3.numbered,
    "core": levels.numbered,
}

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


def summed(nodes: Nodes, x: str, trees: Sequence[Tree], targets: Ints, count: int) -> str:
    """Add the trees, and return the name of their sums: float64, (N, count).

    `x` is a float64 tensor (N, features); tree i adds to column `targets[i]`.
    """
    linear = any(tree.linear is not None for tree in trees)
    if _OPERATORS.get() == "v5" and not linear:
        return v5.summed(nodes, x, trees, targets, count)
    leaf = _leaf(nodes, x, trees)
    values = nodes.add("Gather", nodes.constant(np.concatenate([tree.leaves for tree in trees])), leaf, axis=0)
    if linear:
        values = _linear(nodes, x, trees, (leaf, values))
    # No MatMul by ones and zeros: onnxruntime 1.31 merges a division after it into a factor of float32.
    columns = [np.flatnonzero(np.asarray(targets) == column) for column in range(count)]
    axis = nodes.constant([1], np.int64)

    def one(column: Ints) -> str:
        picked = nodes.add("Gather", values, nodes.constant(column, np.int64), axis=1)
        return nodes.add("ReduceSum", picked, axis, keepdims=1)

    if count == 1:
        return nodes.add("ReduceSum", values, axis, keepdims=1)
    return nodes.add("Concat", *(one(column) for column in columns), axis=1)


def looked_up(nodes: Nodes, x: str, trees: Sequence[Tree], tables: Sequence[Floats]) -> str:
    """Add trees whose leaves are vectors, and return the name of the mean of their leaves: float64, (N, width).

    `tables[i]` holds the vectors of tree i's leaves, (leaves, width). The operators know one number per leaf, so
    each tree gives the number of the leaf, and a table the vector. The trees are added up in their order.
    """
    sized = [replace(tree, leaves=np.zeros(len(table))) for tree, table in zip(trees, tables, strict=True)]
    vectors = nodes.add("Gather", nodes.constant(np.concatenate(tables)), _leaf(nodes, x, sized), axis=0)
    total = nodes.add("ReduceSum", vectors, nodes.constant([1], np.int64), keepdims=0)
    return nodes.add("Div", total, nodes.constant(float(len(trees))))


def _leaf(nodes: Nodes, x: str, trees: Sequence[Tree]) -> str:
    """Return the leaf that each row ends in in each tree, numbered over all trees: int64, (N, trees)."""
    sizes = np.array([len(tree.leaves) for tree in trees], np.int64)
    own = _NUMBERED[_OPERATORS.get()](nodes, x, trees)
    return nodes.add("Add", own, nodes.constant((np.cumsum(sizes) - sizes).reshape(1, -1)))


def _linear(nodes: Nodes, x: str, trees: Sequence[Tree], found: tuple[str, str]) -> str:
    """Return the values of linear leaves, (N, trees), from their numbers and their plain values."""
    leaf, plain = found
    said = [tree.linear or _flat(tree) for tree in trees]
    width = max(one.feature.shape[1] for one in said)
    if not width:
        return plain
    feature, coefficient = (
        np.concatenate([
            np.pad(getattr(one, name), ((0, 0), (0, width - one.feature.shape[1])), constant_values=empty)
            for one in said
        ])
        for name, empty in (("feature", -1), ("coefficient", 0))
    )  # fmt: skip
    constant = np.concatenate([one.constant for one in said])

    def at(table: Any) -> str:
        return nodes.add("Gather", nodes.constant(table), leaf, axis=0)

    row = nodes.constant([0, len(trees) * width], np.int64)
    index = nodes.add("Reshape", at(np.maximum(feature, 0)), row)
    seen = nodes.add("GatherElements", x, index, axis=1)
    seen = nodes.add("Reshape", seen, nodes.constant([0, len(trees), width], np.int64))
    seen = nodes.add("Where", at(feature >= 0), seen, nodes.constant(0.0))
    last = nodes.constant([2], np.int64)
    sums = nodes.add("ReduceSum", nodes.add("Mul", seen, at(coefficient)), last, keepdims=0)
    gap = nodes.add("ReduceSum", nodes.cast(nodes.add("IsNaN", seen), 7), last, keepdims=0)
    return nodes.add("Where", nodes.cast(gap, 9), plain, nodes.add("Add", at(constant), sums))


def _flat(tree: Tree) -> Linear:
    """Return the plain leaves of a tree as linear functions of nothing."""
    none = (len(tree.leaves), 0)
    return Linear(constant=tree.leaves, feature=np.zeros(none, np.int64), coefficient=np.zeros(none))

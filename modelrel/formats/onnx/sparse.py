"""Products with the matrix of a vectorizer, from its few cells instead of its many columns.

A matrix of texts has a column for each word, and a text has a hundred. Where all that a graph does with it is to
multiply it (as linear models, naive Bayes, reductions and neural networks do), the rows of the other matrix are picked
and added: at 50,000 columns that takes a fiftieth of the time, and a matrix of hashes of 2**20 columns is never made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

from modelrel.formats.onnx.graph import Nodes
from modelrel.tensors import Array


@dataclass(frozen=True)
class Block:
    """Some columns of a matrix: a tensor, or the cells of it; `width` -1: not known."""

    tensor: str
    width: int = -1
    columns: str = ""
    values: str = ""


def multiplied(graph: onnx.GraphProto, cells: Mapping[str, tuple[str, str, int]]) -> None:
    """Rewrite the products with matrices that are made of cells: name -> columns, values and width.

    `columns` and `values` are tensors (N, cells of a row). What nothing reads any more is removed.
    """
    constants = {constant.name: constant for constant in graph.initializer}
    blocks = {name: [Block(name, said[2], said[0], said[1])] for name, said in cells.items()}
    nodes = Nodes("modelrel_sparse")
    for node in graph.node:
        if node.op_type == "Identity" or (node.op_type == "Cast" and node.attribute[0].i == TensorProto.DOUBLE):
            if node.input[0] in blocks:
                blocks[node.output[0]] = blocks[node.input[0]]
        elif node.op_type == "Concat" and any(name in blocks for name in node.input):
            blocks[node.output[0]] = [block for name in node.input for block in blocks.get(name, [Block(name)])]
        elif node.op_type in ("MatMul", "Gemm") and node.input[0] in blocks and node.input[1] in constants:
            parts = _parts(blocks[node.input[0]], numpy_helper.to_array(constants[node.input[1]]))
            if parts and _plain(node):
                _write(node, parts, nodes)
                continue
        nodes.nodes.append(node)
    kept = needed(nodes.nodes, {value.name for value in graph.output})
    used = {name for node in kept for name in node.input} | {value.name for value in graph.output}
    fixed = [constant for constant in (*graph.initializer, *nodes.constants) if constant.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(fixed)


def _plain(node: NodeProto) -> bool:
    """Whether a node is a product, with a sum at most."""
    said = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    return not (said.get("transA") or said.get("transB")) and {said.get("alpha", 1.0), said.get("beta", 1.0)} == {1.0}


def _parts(blocks: Sequence[Block], matrix: Array) -> list[tuple[list[Block], Array]]:
    """Return blocks (one of cells, or several tensors side by side) with their rows of the matrix; [] if not known."""
    if matrix.ndim != 2:
        return []
    runs: list[list[Block]] = []
    for block in blocks:
        if runs and not block.columns and not runs[-1][-1].columns:
            runs[-1].append(block)
        else:
            runs.append([block])
    rest = len(matrix) - sum(run[0].width for run in runs if run[0].columns)
    if sum(not run[0].columns for run in runs) > 1 or rest < 0:
        return []
    found, at = [], 0
    for run in runs:
        size = run[0].width if run[0].columns else rest
        found.append((run, matrix[at : at + size]))
        at += size
    return found


def _write(node: NodeProto, parts: Sequence[tuple[list[Block], Array]], nodes: Nodes) -> None:
    terms = []
    for run, matrix in parts:
        rows = node.input[1] if len(parts) == 1 else nodes.constant(matrix)
        if run[0].columns:
            picked = nodes.add("Gather", rows, run[0].columns, axis=0)
            lying = nodes.add("Unsqueeze", run[0].values, nodes.constant([1], np.int64))
            terms.append(nodes.add("Squeeze", nodes.add("MatMul", lying, picked), nodes.constant([1], np.int64)))
        else:
            names = [block.tensor for block in run]
            joined = nodes.add("Concat", *names, axis=1) if len(names) > 1 else names[0]
            terms.append(nodes.add("MatMul", joined, rows))
    total = terms[0]
    for term in (*terms[1:], *node.input[2:]):
        total = nodes.add("Add", total, term)
    nodes.nodes.append(onnx.helper.make_node("Identity", [total], [node.output[0]]))


def needed(nodes: Sequence[NodeProto], wanted: set[str]) -> list[NodeProto]:
    """Return the nodes that something wanted depends on, in their order."""
    found = []
    for node in reversed(nodes):
        if wanted & set(node.output):
            found.append(node)
            wanted |= set(node.input)
            # A body (Scan, If, Loop) may read any tensor of the graph around it.
            wanted |= {
                name for entry in node.attribute if entry.HasField("g") for one in entry.g.node for name in one.input
            }
    return found[::-1]

"""The branches and loops of a graph: which rows take which way, seen by onnx's own evaluator."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.ops.op_if import If
from onnx.reference.ops.op_loop import Loop

from modelrel.errors import Refused
from modelrel.formats.onnx import settled
from modelrel.tensors import Array


def taken(model: onnx.ModelProto, rows: Sequence[Array], seconds: float) -> list[int]:
    """Return the numbers of rows that take each way of each If and enter each Loop; none without control flow.

    Each row is asked alone, for `seconds` at most. Raises `Refused` where a way is not taken by any.
    """
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    wanted = dict(_ways(watched.graph, []))
    if not wanted:
        return []
    seen: dict[tuple[str, bool], int] = {}
    now = [0]

    class Watched(If):  # type: ignore[misc]  # onnx's types are not looked at
        def _run(self, cond: Any, *args: Any, **options: Any) -> Any:
            seen.setdefault((self.onnx_node.name, bool(np.asarray(cond).item())), now[0])
            return super()._run(cond, *args, **options)

    class Entered(Loop):  # type: ignore[misc]
        def _run(self, M: Any, cond: Any, *args: Any, **options: Any) -> Any:  # noqa: N803 - the operator's word
            goes = (cond is None or bool(np.asarray(cond).item())) and (M is None or int(np.asarray(M).item()) > 0)
            seen.setdefault((self.onnx_node.name, goes), now[0])
            return super()._run(M, cond, *args, **options)

    Watched.__name__, Entered.__name__ = "If", "Loop"  # by which the evaluator knows them
    evaluator = ReferenceEvaluator(watched, new_ops=[Watched, Entered])
    names = [value.name for value in watched.graph.input]
    end = time.perf_counter() + seconds
    for row in range(len(rows[0])):
        now[0] = row
        evaluator.run(None, {name: array[row : row + 1] for name, array in zip(names, rows, strict=True)})
        if all((name, way) in seen for name, (_, ways) in wanted.items() for way in ways):
            return sorted(set(seen.values()))
        if time.perf_counter() > end:
            break
    name, (where, ways) = next(
        (name, said) for name, said in wanted.items() if not all((name, way) in seen for way in said[1])
    )
    missing = next(way for way in ways if (name, way) not in seen)
    raise Refused(
        f"none of {now[0] + 1} rows makes the condition of {where} {str(missing).lower()}, so that side of it is not "
        "proven to answer as the module does",
        "Log it with an input example whose rows take both sides.",
    )


def _ways(graph: onnx.GraphProto, found: list[Any]) -> list[Any]:
    """Number all control flow, and return (name, (what to call it, its ways)) of each."""
    for node in graph.node:
        if node.op_type in ("If", "Loop"):
            node.name = f"way {len(found)}"
            where = _where(node)
            kind = "a branch" if node.op_type == "If" else "a loop"
            found.append((node.name, (f"{kind}{where}", (True, False) if node.op_type == "If" else (True,))))
        for body in settled.bodies(node):
            _ways(body, found)
    return found


def _where(node: onnx.NodeProto) -> str:
    """Return the line that the exporter says, as file and number."""
    said = [entry.value for entry in node.metadata_props if entry.key.endswith("stack_trace")]
    lines = [line.strip() for text in (*said, node.doc_string) for line in text.splitlines() if "line " in line]
    if not lines:
        return ""
    file, _, rest = lines[-1].removeprefix('File "').partition('", line ')
    return f" ({file.rpartition('/')[2]}, line {rest.partition(',')[0]})"

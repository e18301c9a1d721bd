"""Named arrays in, named arrays out: what any loaded model is, and the only comparison of two answers.

A data-frame column is an array of shape (N, 1). Text is an array of dtype object that holds `str` (or None
where a value is missing); everything else has the NumPy dtype of its Open Inference datatype.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from modelrel.values import TensorSpec

Array = NDArray[Any]
Tensors = Mapping[str, Array]
"""Name -> array; the first dimension of every array is the row."""

Predict = Callable[[Tensors], dict[str, Array]]
"""Any model, once loaded."""

NUMPY: Final[dict[str, np.dtype[Any]]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(object),
}
"""Open Inference datatype -> NumPy dtype."""

_SORTED_BY: Final = 16
_NAMES: Final = {dtype: name for name, dtype in NUMPY.items()}


def datatype(dtype: np.dtype[Any]) -> str:
    """Return the Open Inference datatype of a NumPy dtype; raises KeyError where there is none."""
    return "BYTES" if dtype.kind in "OUST" else _NAMES[dtype.newbyteorder("=")]


def specs(tensors: Tensors) -> dict[str, TensorSpec]:
    """Return name -> what an array is, for any number of rows."""
    return {
        name: TensorSpec(name=name, datatype=datatype(array.dtype), shape=(-1, *array.shape[1:]))
        for name, array in tensors.items()
    }


def rows(tensors: Tensors) -> int:
    """Return the number of rows: the first dimension, which all arrays share (ValueError otherwise)."""
    counts = {len(array) for array in tensors.values()}
    if len(counts) != 1:
        raise ValueError(f"the arrays have different numbers of rows: {sorted(counts)}")
    return counts.pop()


def take(tensors: Tensors, index: Any) -> dict[str, Array]:
    """Return the rows that `index` selects (a slice or an index array)."""
    return {name: array[index] for name, array in tensors.items()}


def neighbours(tensors: Tensors) -> Array:
    """Return the order, (N,) int64, in which rows that are alike in the first numeric columns stand side by side."""
    flat = [array.reshape(len(array), -1) for array in tensors.values() if array.dtype.kind in "biuf"]
    keys = [column for array in flat for column in array[:, :_SORTED_BY].T][:_SORTED_BY]
    return np.asarray(np.lexsort(keys[::-1]) if keys else np.arange(rows(tensors)), np.int64)


def stack(parts: list[Tensors]) -> dict[str, Array]:
    """Return the rows of several sets of arrays under one another."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def held(tensors: Tensors, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """Return arrays in the datatypes of specs of the same names; what is beyond float32 becomes infinite."""
    with np.errstate(over="ignore"):
        return {spec.name: tensors[spec.name].astype(NUMPY[spec.datatype], copy=False) for spec in specs}


def errors(original: Array, copy: Array) -> tuple[Array, Array]:
    """Return absolute and relative error per row, in float64: shape (N,) each, the largest over the row.

    Two NaNs, and two infinities of one sign, are equal; a NaN against a number is infinitely wrong.
    """
    first = original.astype(np.float64).reshape(len(original), -1)
    second = copy.astype(np.float64).reshape(len(copy), -1)
    same = (first == second) | (np.isnan(first) & np.isnan(second))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        absolute = np.where(same, 0.0, np.abs(second - first))
        absolute = np.where(np.isnan(absolute), np.inf, absolute)
        relative = np.where(same, 0.0, absolute / np.abs(first))
        relative = np.where(np.isnan(relative), np.inf, relative)
    if first.shape[1] == 0:
        return np.zeros(len(first)), np.zeros(len(first))
    return absolute.max(axis=1), relative.max(axis=1)


def excess(original: Array, copy: Array, *, rtol: float, atol: float) -> Array:
    """Return by how much each row is beyond `atol + rtol * |original|`: shape (N,), > 0 means wrong."""
    first = original.astype(np.float64).reshape(len(original), -1)
    second = copy.astype(np.float64).reshape(len(copy), -1)
    same = (first == second) | (np.isnan(first) & np.isnan(second))
    with np.errstate(invalid="ignore", over="ignore"):
        allowed = atol + rtol * np.abs(first)
        over = np.abs(second - first) - np.where(np.isfinite(allowed), allowed, 0.0)
    over = np.where(same, -np.inf, np.where(np.isnan(over), np.inf, over))
    return over.max(axis=1) if first.shape[1] else np.full(len(first), -np.inf)


def disagree(original: Array, copy: Array) -> Array:
    """Return which rows have another label: shape (N,), bool; 1 and True and "1" are three labels."""
    first, second = original.reshape(len(original), -1), copy.reshape(len(copy), -1)
    if first.dtype.kind != second.dtype.kind and {first.dtype.kind, second.dtype.kind} != {"i", "u"}:
        return np.ones(len(first), np.bool_)
    return np.asarray((first != second).any(axis=1), np.bool_)


def differ(original: Array, copy: Array, *, rtol: float, atol: float) -> Array:
    """Return which rows are wrong: numbers beyond the tolerance, labels that are others: shape (N,), bool."""
    if original.dtype.kind != "f":
        return disagree(original, copy)
    return np.asarray(excess(original, copy, rtol=rtol, atol=atol) > 0)


def plain(array: Array) -> Any:
    """Return an array as JSON data: nested lists, NaN and infinities as None, text as text."""
    if array.dtype.kind == "f":
        finite = np.isfinite(array)
        if not finite.all():
            cut = array.astype(object)
            cut[~finite] = None
            return cut.tolist()
    return array.tolist()


def save(tensors: Tensors, path: Path) -> None:
    """Write arrays of any dtype to an .npz file; text (dtype object: str or None) travels as JSON."""
    names, packed = [], {}
    for number, (name, array) in enumerate(tensors.items()):
        text = array.dtype.kind in "OUST"
        names.append([name, list(array.shape) if text else None])
        content = json.dumps(array.astype(object).ravel().tolist()).encode() if text else array
        packed[f"a{number}"] = np.frombuffer(content, np.uint8) if isinstance(content, bytes) else content
    packed["names"] = np.frombuffer(json.dumps(names).encode(), np.uint8)
    with path.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **packed)


def load(path: Path) -> dict[str, Array]:
    """Read what `save` wrote; nothing in the file can run code. Raises ValueError or KeyError for another file."""
    with np.load(path, allow_pickle=False) as packed:
        found = {}
        for number, (name, shape) in enumerate(json.loads(packed["names"].tobytes())):
            array = packed[f"a{number}"]
            found[str(name)] = array if shape is None else text(json.loads(array.tobytes()), shape)
        return found


def text(values: list[Any], shape: tuple[int, ...]) -> Array:
    """Return a text array (dtype object) of `shape` from its elements in order."""
    array = np.empty(len(values), object)
    array[:] = values
    return array.reshape(shape)

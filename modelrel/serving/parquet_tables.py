"""Tables as ``application/vnd.apache.parquet``, by pyarrow, taken by a signature the way MLflow takes them.

Source: ``pandas.read_parquet``, and ``_enforce_mlflow_datatype`` and ``_enforce_tensor_schema`` of
``mlflow/models/utils.py``, version 3.17. Unlike JSON and CSV such a table says what it holds. MLflow widens columns
but never narrows: integers to wider integers, floats to wider floats, integers of up to 32 bits to double, 64-bit
integers to floats only where all are 0 or 1. A column of integers with nulls is one of doubles. What pandas wrote as
its index is no column.

A few bytes can stand for billions of rows here, so what a file would unpack to is limited before it is unpacked. Lists
are refused, because how long they are is not known before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from .answers import Refused
from .frames import Misfit, absent, require
from .tensors import DTYPES, Array

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .manifest import TensorSpec

MOST_VALUES: Final = 2**24
"""Values of all columns together."""

MOST_TEXT: Final = 2**28
"""Bytes of all strings of a column together."""


def columns_of_parquet(body: bytes, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """Read the columns that the signature names as arrays of shape [rows, 1]; others are ignored.

    Raises ``Refused``: 400, 413 for a table that is too large, 415 where pyarrow is not installed.
    """
    wanted = {spec.name for spec in specs}
    columns, rows = _columns(body, wanted)
    require(specs, columns)
    feeds = {}
    for spec in specs:
        if spec.name in columns:
            feeds[spec.name] = _widened(columns[spec.name], spec).reshape(-1, 1)
        else:
            feeds[spec.name] = absent(rows, spec)
    return feeds


def tensors_of_parquet(body: bytes, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """Read columns as the tensors of their names, or all columns as one matrix. Raises as the other does."""
    columns, _ = _columns(body, None)
    if len(specs) > 1 or specs[0].name in columns:
        require(specs, columns)
        return {spec.name: _cast(columns[spec.name], spec) for spec in specs if spec.name in columns}
    spec = specs[0]
    arrays = list(columns.values())
    if len(arrays) == 1:
        return {spec.name: _cast(arrays[0], spec)}
    if len({array.dtype.kind == "b" for array in arrays}) > 1:
        raise Misfit("the columns are numbers and truth values, which make no matrix")
    matrix = np.column_stack(arrays)
    if matrix.dtype != DTYPES[spec.datatype]:
        raise Misfit(f"the columns make a matrix of {matrix.dtype}, the model takes {spec.datatype}")
    return {spec.name: matrix}


def _columns(body: bytes, wanted: set[str] | None) -> tuple[Mapping[str, Array], int]:
    """Read columns, those that are wanted or all, as pandas would have them."""
    try:
        import pyarrow as pa
        import pyarrow.compute
        from pyarrow import parquet
    except ImportError as error:
        raise Refused(415, "this server cannot read Parquet: it lacks pyarrow (pip install pyarrow)") from error
    try:
        source = pa.BufferReader(body)
        file = parquet.ParquetFile(source)
        schema, rows = file.schema_arrow, file.metadata.num_rows
        kept = [name for name in schema.names if (wanted is None or name in wanted) and name not in _index(schema)]
        if len(set(kept)) != len(kept):
            raise Misfit("the table has a column twice")
        if rows == 0 or not kept:
            raise Misfit("the table has no rows" if rows == 0 else f"the table has none of {sorted(wanted or ())}")
        # Only what concerns the whole file is asked of the metadata: of a broken column pyarrow's ends the process.
        if rows * len(kept) > MOST_VALUES:
            raise Refused(413, f"the table has {rows} rows of {len(kept)} columns, {MOST_VALUES} values are the limit")
        kinds = {name: schema.field(name).type for name in kept}
        for name, kind in kinds.items():
            if not (_is_text(pa, kind) or _is_number(pa, kind) or pa.types.is_boolean(kind)):
                raise Misfit(f"the column {name!r} holds {kind}")
        text = [name for name in kept if _is_text(pa, kinds[name])]
        # Strings that repeat are stored once; read like that they stay so until it is known how much they are.
        packed = parquet.ParquetFile(pa.BufferReader(body), read_dictionary=text)
        table = packed.read(columns=kept, use_threads=False)
        nullable = _nullable(schema)
        for name in kept:
            if name in nullable and table.column(name).null_count:
                raise Misfit(f"the column {name!r} holds nullable integers, and a null")
        return {name: _array(pa, table.column(name), name) for name in kept}, rows
    except (pa.ArrowException, OSError, ValueError, LookupError) as error:
        raise Refused(400, f"the body is no Parquet table: {(str(error).splitlines() or [''])[0]}") from error


def _index(schema: Any) -> set[str]:
    """Return the columns that pandas wrote as its index."""
    said = schema.pandas_metadata or {}
    return {name for name in said.get("index_columns", ()) if isinstance(name, str)}


def _nullable(schema: Any) -> set[str]:
    """Return the columns of 64-bit integers that pandas reads as such though they hold nulls, not as doubles."""
    said = schema.pandas_metadata or {}
    return {one["name"] for one in said.get("columns", ()) if one.get("numpy_type") in ("Int64", "UInt64")}


def _is_text(pa: Any, kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_number(pa: Any, kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _array(pa: Any, column: Any, name: str) -> Array:
    """Turn a column into the array that pandas would make of it."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _text(pa, column, name)
    if pa.types.is_integer(kind) and column.null_count:
        return np.asarray(column.cast(pa.float64(), safe=False).to_numpy())
    if pa.types.is_boolean(kind) and column.null_count:
        raise Misfit(f"the column {name!r} is boolean, and null is neither true nor false")
    return np.asarray(column.to_numpy())


def _text(pa: Any, column: Any, name: str) -> Array:
    """Turn a column of strings, each kept once, into an array of ``str``."""
    if column.null_count:
        raise Misfit(f"the column {name!r} holds strings; null has no place in it")
    size, parts = 0, []
    for chunk in column.chunks:
        at = chunk.indices.to_numpy()
        size += int(pa.compute.binary_length(chunk.dictionary).to_numpy(zero_copy_only=False)[at].sum())
        if size > MOST_TEXT:
            raise Refused(413, f"the strings of the column {name!r} are longer than {MOST_TEXT} bytes together")
        parts.append(np.array(chunk.dictionary.to_pylist(), np.object_)[at])
    return np.concatenate(parts)


def _cast(array: Array, spec: TensorSpec) -> Array:
    """Make the tensor of one column. Raises ``Refused`` (400)."""
    if spec.shape not in ((-1,), (-1, 1)):
        raise Misfit(f"input {spec.name!r} has one value per row, the model takes {list(spec.shape)}")
    if array.dtype.kind == "O" or spec.datatype == "BYTES":
        return _widened(array, spec).reshape(spec.shape)
    with np.errstate(over="ignore", invalid="ignore"):
        return array.reshape(spec.shape).astype(DTYPES[spec.datatype])


def _widened(array: Array, spec: TensorSpec) -> Array:
    """Return a column as its dtype where MLflow converts it. Raises ``Refused`` (400)."""
    have, want = array.dtype, DTYPES[spec.datatype]
    if have == want:
        return array
    wider = (
        (have.kind == want.kind and have.kind in "iuf" and have.itemsize <= want.itemsize)
        or (have.kind == "u" and want.kind == "i" and have.itemsize < want.itemsize)
        or (have.kind in "iu" and want == np.float64 and have.itemsize <= 4)
        or (have == np.int64 and want.kind == "f" and want.itemsize >= 4 and bool(np.isin(array, (0, 1)).all()))
    )
    if wider:
        return array.astype(want)
    raise Misfit(f"the column {spec.name!r} holds {have}, which the model cannot take as {spec.datatype}")

"""MLflow's four JSON forms of a table, cast by the signature the way MLflow casts them.

Source: ``mlflow/utils/proto_json_utils.py`` (``dataframe_from_parsed_json``, ``cast_df_types_according_to_schema``,
``_cast_schema_type``, ``parse_instances_data``) and ``mlflow/models/utils.py`` (``_enforce_schema``), version 3.17,
with pandas 3. There a column goes through ``Series.astype`` or ``numpy.array(values, dtype)``; here always through the
latter, which says the same for what JSON can hold: numbers in strings are read, booleans are 0 and 1, null in a float
column is NaN and in an integer column an error, and **a fraction in an integer column is cut off** (2.5 becomes 2),
since a copy must answer what the original answers.

What this module refuses and MLflow takes is listed, with the reasons, in ``invocations``.
"""

from __future__ import annotations

from itertools import zip_longest
from math import nan
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .answers import Refused
from .tensors import DTYPES, Array

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .manifest import TensorSpec


class Misfit(Refused):
    """The request can be read, but does not fit the signature. MLflow tells the two apart in its ``error_code``."""

    def __init__(self, message: str) -> None:
        super().__init__(400, message)


class Frame(NamedTuple):
    """A table as it was sent: the names, and the values column by column."""

    names: list[object]
    columns: list[Sequence[object]]
    rows: int


def split_frame(data: object) -> Frame:
    """Read ``dataframe_split``: ``{"columns"?: [...], "index"?: [...], "data": [[...], ...]}``. Raises ``Refused``."""
    if not isinstance(data, dict) or not {"data"} <= data.keys() <= {"data", "columns", "index"}:
        raise Refused(400, "dataframe_split must be an object of data and, if need be, columns and index")
    rows, names, index = data["data"], data.get("columns"), data.get("index")
    if not isinstance(rows, list) or not isinstance(names, list | None) or not isinstance(index, list | None):
        raise Refused(400, "data, columns and index of a dataframe_split must be lists")
    if index is not None and len(index) != len(rows):
        raise Refused(400, f"index has {len(index)} entries for {len(rows)} rows")
    if not rows or not isinstance(rows[0], dict):
        return _of_rows(rows, names)
    frame = _of_records(rows)
    if names is None:
        return frame
    nothing: Sequence[object] = [nan] * frame.rows
    known = dict(zip(frame.names, frame.columns, strict=True))
    return Frame(names, [known.get(name, nothing) if isinstance(name, str) else nothing for name in names], frame.rows)


def records_frame(data: object) -> Frame:
    """Read ``dataframe_records``: ``[{column: value, ...}, ...]``. Raises ``Refused``."""
    if not isinstance(data, list):
        raise Refused(400, "dataframe_records must be a list of records")
    return _of_records(data) if data and isinstance(data[0], dict) else _of_rows(data, None)


def _of_rows(rows: list[object], names: list[object] | None) -> Frame:
    """Turn rows into columns. Short rows are filled up with null, as pandas does."""
    if rows and not isinstance(rows[0], list):
        rows = [[value] for value in rows]
    lists = [row for row in rows if isinstance(row, list)]
    if len(lists) != len(rows):
        raise Refused(400, "the rows of a data frame must all be lists")
    width = max(map(len, lists), default=0)
    if names is None:
        names = list(range(width))
    elif lists and len(names) != width:
        raise Refused(400, f"there are {len(names)} column names for {width} columns of data")
    columns: list[Sequence[object]] = list(zip_longest(*lists)) if lists else [()] * len(names)
    return Frame(names, columns, len(lists))


def _of_records(records: list[object]) -> Frame:
    """Turn records into columns. A key that a record lacks is NaN there, as in pandas."""
    rows = [record for record in records if isinstance(record, dict)]
    if len(rows) != len(records):
        raise Refused(400, "the records of a data frame must all be objects")
    names = list(dict.fromkeys(name for row in rows for name in row))
    return Frame(list(names), [[row.get(name, nan) for row in rows] for name in names], len(rows))


def columns_of_frame(frame: Frame, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """Cast the columns that the signature names to arrays of shape [rows, 1]; others are ignored.

    Raises ``Refused`` (400).
    """
    positions = {name: index for index, name in enumerate(frame.names) if isinstance(name, str)}
    require(specs, positions)
    if frame.rows == 0:
        raise Misfit("the data frame has no rows")
    feeds: dict[str, Array] = {}
    for spec in specs:
        if spec.name not in positions:
            feeds[spec.name] = absent(frame.rows, spec)
            continue
        position = positions[spec.name]
        if frame.names.index(spec.name) != position:
            raise Misfit(f"the column {spec.name!r} is sent twice")
        values = frame.columns[position]
        if any(isinstance(value, list) for value in values):
            raise Refused(400, f"the column {spec.name!r} holds lists, it takes one value per row")
        if spec.datatype == "BYTES" and not all(isinstance(value, str) for value in values):
            raise Refused(400, f"the column {spec.name!r} holds strings; other values and null have no place in it")
        feeds[spec.name] = as_column(cast(values, spec), values, spec)
    return feeds


def columns_of_tensors(data: object, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """Cast ``inputs`` or ``instances`` of a model of columns to arrays of shape [rows, 1].

    ``data`` is ``{column: [value, ...] or value}`` or ``[{column: value}, ...]``; a single value stands for every row.
    A model of one column takes a bare list as well. Raises ``Refused`` (400).
    """
    if isinstance(data, list) and data and all(isinstance(row, dict) for row in data):
        data = _by_column(data, specs)
    elif isinstance(data, list) and len(specs) == 1 and not any(isinstance(row, dict) for row in data):
        data = {specs[0].name: data}
    if not isinstance(data, dict):
        cast(data, specs[0])  # as MLflow, which misses the other columns after that
        raise Misfit(f"the model takes the columns {', '.join(spec.name for spec in specs)}: send them by name")
    require(specs, data)
    # A column the model does not know is ignored; but a table that it does not fit into is none.
    lengths = {len(value) for value in data.values() if isinstance(value, list)} or {1}
    if len(lengths) > 1 or 0 in lengths:
        raise Misfit(f"the columns must have the same number of values, and at least one, not {sorted(lengths)}")
    rows = lengths.pop()
    feeds: dict[str, Array] = {}
    sent = {spec.name: data[spec.name] for spec in specs if spec.name in data}
    filled = {name: value if isinstance(value, list) else [value] * rows for name, value in sent.items()}
    arrays = {spec.name: cast(filled[spec.name], spec) for spec in specs if spec.name in filled}
    for spec in specs:
        if spec.name in arrays:
            feeds[spec.name] = as_column(arrays[spec.name], filled[spec.name], spec)
        else:
            feeds[spec.name] = absent(rows, spec)
    return feeds


def _by_column(rows: list[dict[str, object]], specs: Sequence[TensorSpec]) -> dict[str, object]:
    columns: dict[str, object] = {}
    for spec in specs:
        lacking = sum(spec.name not in row for row in rows)
        if lacking and lacking < len(rows) and spec.datatype[:2] != "FP":
            raise Misfit(f"{lacking} of the rows lack the column {spec.name!r}")
        if lacking < len(rows):
            columns[spec.name] = [row.get(spec.name, nan) for row in rows]
    return columns


def require(specs: Sequence[TensorSpec], names: Mapping[str, object]) -> None:
    """Refuse a request (400) that lacks a required input, naming all that it lacks."""
    missing = [repr(spec.name) for spec in specs if spec.required and spec.name not in names]
    if missing:
        raise Misfit(f"the model needs the input {', '.join(missing)}")


def absent(rows: int, spec: TensorSpec) -> Array:
    """Return the values of an optional column that was not sent."""
    if spec.datatype[:2] != "FP":
        raise Refused(400, f"the column {spec.name!r} cannot be left out: {spec.datatype} has no value for missing")
    return np.full((rows, 1), nan, DTYPES[spec.datatype])


def as_column(array: Array, values: Sequence[object], spec: TensorSpec) -> Array:
    """Shape what was cast of the values of one column as [rows, 1]. Raises ``Refused`` (400)."""
    if array.ndim != 1:
        raise Misfit(f"the column {spec.name!r} holds lists, it takes one value per row")
    if spec.datatype == "BOOL" and any(value is None or value != value for value in values):  # noqa: PLR0124 (NaN)
        raise Refused(400, f"the column {spec.name!r} is boolean, and null is neither true nor false")
    return array.reshape(-1, 1)


def cast(values: object, spec: TensorSpec) -> Array:
    """Cast nested lists to an array of the input's dtype, of whatever shape they have. Raises ``Refused`` (400)."""
    try:
        if spec.datatype == "BYTES":
            text = np.array(values, np.str_)
            "".join(text.ravel().tolist()).encode()  # half a surrogate pair is no text, and the runtime wants UTF-8
            return text.astype(np.object_)
        with np.errstate(over="ignore"):
            return np.array(values, DTYPES[spec.datatype])
    except UnicodeEncodeError as error:
        raise Misfit(f"the input {spec.name!r} takes text, and half a surrogate pair is none") from error
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise Refused(400, f"the input {spec.name!r} takes {spec.datatype}: {error}") from error

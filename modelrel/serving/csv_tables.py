"""Tables as ``text/csv``, read the way pandas reads them for MLflow, without pandas.

Source: ``pandas.read_csv(text, dtype=signature)``, version 3.1, as MLflow calls it; RFC 4180 for the ``header``
parameter of the content type. What that makes of a field:

* quotes decide where a field ends and nothing else: ``"5"`` is a number, ``"NA"`` is missing; ``""`` in quotes is one;
* lines end with LF, CR or both; those that are empty, or blank without quotes, are no rows; a short row is filled up;
* the words of ``MISSING`` are NaN in a float column; in one of integers or booleans they are an error;
* a float is what C takes for one: no underscores, other digits or hexadecimal, but ``inf`` and ``infinity`` in any
  case; a column of nothing but true and false is 1 and 0;
* an integer may be written as a float that is whole (``2.0``, ``1e3``), never one that is not;
* a boolean is true or false in any case, or a column of nothing but 0 and 1;
* of two columns of one name the second is called ``name.1``; one without a name is ``Unnamed: 0``, by its position.

What this module refuses and pandas takes is listed, with the reasons, in ``invocations``.
"""

from __future__ import annotations

import re
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np

from .answers import Refused
from .frames import absent, require
from .tensors import DTYPES, Array

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .manifest import TensorSpec

MISSING: Final = frozenset(
    (
        *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
        *("<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
    )
)
"""What pandas takes for no value, in exactly these letters."""

_SPACE: Final = r"[ \t-\r]*"
_INTEGER: Final = re.compile(rf"{_SPACE}[+-]?[0-9]+{_SPACE}")
_FLOAT: Final = re.compile(
    rf"{_SPACE}[+-]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:e[+-]?[0-9]++)?{_SPACE}|[+-]?inf(?:inity)?",
    re.IGNORECASE | re.ASCII,
)
_NUMBERS: Final = msgspec.json.Decoder(list[float])

# Possessive here and above, so that no text is looked at twice; and a doubled quote is never taken for one that closes.
_FIELD: Final = re.compile(r'(?:"([^"]*+(?:""[^"]*+)*+)"([^,\r\n]*)|(?!")([^,\r\n]*))(,|\r\n?|\n|\Z)')


class Text(NamedTuple):
    """A table as it was sent: the fields of each column by its name, and those of a name that was there before."""

    columns: Mapping[str, Sequence[str]]
    rows: int
    again: Sequence[tuple[str, Sequence[str]]] = ()


def read_csv(body: bytes, names: Sequence[str] | None) -> Text:
    """Read a table of text.

    Its first row has the names, unless the caller knows that it has none: then ``names`` are those of the columns, or
    empty where it does not matter. Raises ``Refused`` (400).
    """
    try:
        text = body.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise Refused(400, f"the body is not UTF-8: {error.reason} (byte {error.start})") from error
    rows = list(_records(text))
    if not rows:
        raise Refused(400, "the body is empty")
    sent: Sequence[str] = rows.pop(0) if names is None else ()
    if names is None:
        names = _distinct(sent)
    else:
        names = names or [str(at) for at in range(len(rows[0]))]
        if any(len(row) != len(names) for row in rows):
            raise Refused(400, f"without a header each row must have {len(names)} fields: {', '.join(names)}")
    for number, row in enumerate(rows, 1):
        if len(row) > len(names):
            raise Refused(400, f"row {number} has {len(row)} fields, the header names {len(names)}")
    columns = [fields[:-1] for fields in zip_longest(*rows, [""] * len(names), fillvalue="")]
    again = [(name, fields) for name, called, fields in zip(sent, names, columns, strict=False) if name != called]
    return Text(dict(zip(names, columns, strict=True)), len(rows), again)


def columns_of_csv(table: Text, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """Read the columns that the signature names as arrays of shape [rows, 1]; others are ignored.

    Raises ``Refused`` (400).
    """
    require(specs, table.columns)
    if table.rows == 0:
        raise Refused(400, "the table has no rows")
    named = {spec.name: spec for spec in specs}
    for name, fields in table.again:  # pandas reads it as its namesake, and nobody asks for it
        if name in named:
            column(fields, named[name])
    feeds = {}
    for spec in specs:
        sent = table.columns.get(spec.name)
        feeds[spec.name] = absent(table.rows, spec) if sent is None else column(sent, spec).reshape(-1, 1)
    return feeds


def tensors_of_csv(table: Text, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """Read a table as tensors: all columns as one [rows, columns], or of several tensors each by its name.

    Raises ``Refused`` (400).
    """
    if table.rows == 0:
        raise Refused(400, "the table has no rows")
    if len(specs) == 1:
        matrix = np.column_stack([column(fields, specs[0]) for fields in table.columns.values()])
        return {specs[0].name: matrix.ravel() if len(specs[0].shape) == 1 else matrix}
    require(specs, table.columns)
    found = {}
    for spec in specs:
        if spec.name in table.columns:
            array = column(table.columns[spec.name], spec)
            found[spec.name] = array if len(spec.shape) == 1 else array.reshape(-1, 1)
    return found


def column(values: Sequence[str], spec: TensorSpec) -> Array:
    """Read the fields of one column as an array [rows] of its dtype. Raises ``Refused`` (400)."""
    dtype: np.dtype[Any] = DTYPES[spec.datatype]
    found: Any = None
    if dtype.kind == "O":
        found = None if MISSING.intersection(values) else values
    elif dtype.kind == "f":
        numbers = _floats(values)
        if numbers is not None and dtype == np.float64:
            return numbers
        found = _booleans(values, missing=np.nan) if numbers is None else numbers
    elif dtype.kind == "b":
        found = _booleans(values)
        if found is None:
            numbers = _floats(values)
            found = numbers if numbers is not None and np.isin(numbers, (0, 1)).all() else None
    else:
        found = _integers(values)
    try:
        if found is not None:
            with np.errstate(over="ignore"):
                return np.array(found, dtype)
    except OverflowError:
        pass
    lacking = "; a value is missing" if MISSING.intersection(values) and dtype.kind != "f" else ""
    raise Refused(400, f"the column {spec.name!r} does not hold {spec.datatype}{lacking}")


def _records(text: str) -> Iterator[list[str]]:
    """Yield the fields of each row."""
    if '"' not in text:
        for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
            if line.strip(" \t"):
                yield line.split(",")
        return
    at, row = 0, []
    while True:
        field = _FIELD.match(text, at)
        if field is None:
            raise Refused(400, f"the CSV ends within quotes that open at its character {at + 1}")
        quoted, rest, plain, end = field.groups()
        row.append(plain if quoted is None else quoted.replace('""', '"') + rest)
        at = field.end()
        if end != ",":
            if len(row) > 1 or quoted is not None or plain.strip(" \t"):
                yield row
            row = []
            if not end:
                return


def _distinct(names: Sequence[str]) -> list[str]:
    """Name columns as pandas does where they have no name, or that of another."""
    made = [name or f"Unnamed: {at}" for at, name in enumerate(names)]
    if len(set(made)) == len(made):
        return made
    taken, seen = set(made), dict[str, int]()
    for at, name in enumerate(made):
        count, called = seen.get(name, 0), name
        while count > 0:
            seen[name] = count + 1
            called = f"{name}.{count}"
            count = count + 1 if called in taken else seen.get(called, 0)
        made[at] = called
        taken.add(called)
        seen[called] = count + 1
    return made


def _floats(values: Sequence[str]) -> Array | None:
    """Read fields as float64, missing ones as NaN; None where one is no number."""
    try:
        # A number in JSON is the same number in C, and its decoder the quickest there is.
        plain = _NUMBERS.decode(f"[{','.join(values)}]")
        if len(plain) == len(values):
            return np.array(plain)
    except msgspec.DecodeError:
        pass  # one is missing, or no number, or written in another way
    found = []
    for value in values:
        if value in MISSING:
            found.append(np.nan)
        elif _FLOAT.fullmatch(value):
            found.append(float(value))
        else:
            return None
    return np.array(found, np.float64)


def _integers(values: Sequence[str]) -> list[int] | None:
    """Read fields as integers; None where one is missing or none."""
    if all(map(_INTEGER.fullmatch, values)):
        return list(map(int, values)) if max(map(len, values)) < 400 else None
    numbers = _floats(values)
    if numbers is None:
        return _booleans(values)
    if np.isfinite(numbers).all() and (numbers == np.trunc(numbers)).all():
        return list(map(int, numbers.tolist()))
    return None


def _booleans(values: Sequence[str], missing: Any = None) -> list[Any] | None:
    """Read fields as 1 and 0, missing ones as ``missing``; None where one is neither, or none is true or false."""
    words = {"true": 1, "false": 0}
    found = [words.get(value.lower(), missing if value in MISSING else None) for value in values]
    return None if None in found or not {0, 1}.intersection(found) else found

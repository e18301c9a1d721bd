"""Predict requests read at once: what is as it should be is checked and read in C, all else goes to ``careful``."""

from __future__ import annotations

import re
from math import nan
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import numpy as np
from msgspec.structs import astuple

from ..tensors import DTYPES
from . import careful

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..manifest import TensorSpec
    from ..model import Model
    from ..tensors import Array

    Read = tuple[str, dict[str, Array]]
    _Form = tuple[str, np.dtype[Any], tuple[int, ...], tuple[int, ...] | None]

_ESCAPED: Final = re.compile(r'["\\\x00-\x1f]')
"""Characters that JSON writes in another way."""

_FAULTS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError, TypeError, OverflowError)


class Reader:
    """Reads the predict requests of one model, or of one of its signatures.

    With ``by_place``, a row of a table may be a list of all its columns, in their order.
    """

    def __init__(self, model: Model, *, by_place: bool = False) -> None:
        self._model = model
        self._by_place = by_place and model.kind == "columns" and len(model.inputs) > 1
        self._specs = model.inputs
        self._names = [spec.name for spec in model.inputs]
        self._columns = model.kind == "columns"
        datatypes = {spec.datatype for spec in model.inputs}
        # Columns of one datatype, the usual case, are read as one matrix instead of one by one.
        self._matrix = DTYPES[datatypes.pop()] if self._columns and len(datatypes) == 1 else None
        self._forms = [(spec.name, DTYPES[spec.datatype], spec.shape, _tail(spec)) for spec in model.inputs]
        self._decoder: msgspec.json.Decoder[Any] | None = None
        if not any(map(_ESCAPED.search, self._names)):  # msgspec compares names as they are written in JSON
            self._row, self._table, request = _types(model, listed=self._by_place and self._matrix is not None)
            self._decoder = msgspec.json.Decoder(request)

    def read(self, body: bytes) -> Read:
        """Return ``instances`` or ``inputs``, and an array per input. Raises ``Refused`` (400)."""
        try:
            found = self._quick(self._decoder.decode(body)) if self._decoder is not None else None
        except _FAULTS:
            found = None
        return found or self.careful(careful.parse(body))

    def careful(self, document: dict[str, Any]) -> Read:
        """Return the same of a body that is parsed already. Raises ``Refused`` (400)."""
        form, value = careful.predict_form(document)
        if isinstance(value, list) and form == "instances":
            return form, careful.rows(list(map(self._named, value)) if self._by_place else value, self._model)
        return form, careful.columns(value, self._model)

    def _named(self, row: Any) -> Any:
        whole = isinstance(row, list) and len(row) == len(self._names)
        return dict(zip(self._names, row, strict=True)) if whole else row

    def _quick(self, request: Any) -> Read | None:
        """Read what fits; None, or an error of numpy's, for what does not."""
        instances, inputs = request.instances, request.inputs
        if inputs is msgspec.UNSET:
            if instances is msgspec.UNSET or not instances:
                return None
            feeds = self._rows(instances)
            return ("instances", feeds) if feeds else None
        if instances is not msgspec.UNSET:
            return None
        values = astuple(inputs) if type(inputs) is self._table else [inputs]
        if self._columns:
            rows = len(values[0])
            if not rows or any(len(column) != rows for column in values):
                return None
            if self._matrix is not None:
                return "inputs", dict(zip(self._names, np.array(values, self._matrix)[:, :, None], strict=True))
            return "inputs", {
                spec.name: np.array(column, DTYPES[spec.datatype]).reshape(rows, 1)
                for spec, column in zip(self._specs, values, strict=True)
            }
        feeds = _tensors(values, self._forms)
        return ("inputs", feeds) if feeds else None

    def _rows(self, instances: list[Any]) -> dict[str, Array] | None:
        if type(instances[0]) is not self._row:
            if not self._columns:
                return _tensors([instances], self._forms)
            if self._by_place:
                return self._turned(instances)
            return {self._names[0]: np.array(instances, DTYPES[self._specs[0].datatype]).reshape(len(instances), 1)}
        table = [astuple(row) for row in instances]
        if not self._columns:
            return _tensors(list(zip(*table, strict=True)), self._forms)
        if self._matrix is not None:
            return self._turned(table)
        return {
            spec.name: np.array(column, DTYPES[spec.datatype]).reshape(-1, 1)
            for spec, column in zip(self._specs, zip(*table, strict=True), strict=True)
        }

    def _turned(self, rows: list[Any]) -> dict[str, Array]:
        """Return the columns of a table of one datatype. Raises ``ValueError`` for rows of other lengths."""
        columns = np.ascontiguousarray(np.array(rows, self._matrix).T)[:, :, None]
        return dict(zip(self._names, columns, strict=True))


def _tail(spec: TensorSpec) -> tuple[int, ...] | None:
    """Return the shape of a row of the usual shape, any number of rows of a fixed size; None for others."""
    return spec.shape[1:] if spec.shape[:1] == (-1,) and -1 not in spec.shape[1:] else None


def _tensors(values: Sequence[Any], forms: Sequence[_Form]) -> dict[str, Array] | None:
    """Return the arrays of nested lists; None where one is not of the shape that the model takes."""
    feeds: dict[str, Array] = {}
    for (name, dtype, shape, tail), value in zip(forms, values, strict=True):
        array = np.array(value, dtype)
        if not array.size or (array.shape[1:] != tail and not _fits(array.shape, shape)):
            return None
        feeds[name] = array
    return feeds


def _fits(have: tuple[int, ...], want: tuple[int, ...]) -> bool:
    return len(have) == len(want) and all(size in (-1, own) for own, size in zip(have, want, strict=True))


def _types(model: Model, *, listed: bool) -> tuple[Any, Any, Any]:
    """Return the types of an instance by names, of inputs by names, and of the whole request.

    ``listed`` lets instances be lists of all columns, which are of one datatype.
    """
    columns = model.kind == "columns"
    # A column that may be left out is read carefully where it is, in a table; in a row it is NaN.
    ranks = [1 if columns else len(spec.shape) for spec in model.inputs]
    rows: list[Any] = []
    for at, (spec, rank) in enumerate(zip(model.inputs, ranks, strict=True)):
        field = f"f{at}", _nested(spec, rank - 1)
        rows.append((*field, nan) if careful.may_lack(spec, model) else field)
    whole = [(f"f{at}", _nested(spec, rank)) for at, (spec, rank) in enumerate(zip(model.inputs, ranks, strict=True))]
    names = {f"f{at}": spec.name for at, spec in enumerate(model.inputs)}
    row = msgspec.defstruct("Row", rows, rename=names, forbid_unknown_fields=True, kw_only=True, gc=False)
    table = msgspec.defstruct("Table", whole, rename=names, kw_only=True, gc=False)
    item: Any = row
    inputs: Any = table
    if len(names) == 1:
        item = _nested(model.inputs[0], ranks[0] - 1) | row
        inputs = _nested(model.inputs[0], ranks[0]) | table
    elif listed:
        item = _nested(model.inputs[0], 1) | row
    request = msgspec.defstruct(
        "Request",
        [
            ("instances", list[item] | msgspec.UnsetType, msgspec.UNSET),
            ("inputs", inputs | msgspec.UnsetType, msgspec.UNSET),
        ],
        gc=False,
    )
    return row, table, request


def _nested(spec: TensorSpec, depth: int) -> Any:
    """Return the type of lists of values, nested to a depth."""
    nested = _scalar(spec.datatype)
    for _ in range(depth):
        nested = list.__class_getitem__(nested)
    return nested


def _scalar(datatype: str) -> Any:
    """Return the type of a value: what is beyond it, or may have lost digits, is for ``careful`` to judge."""
    if datatype in careful.LARGEST_INTEGER:
        limit = float(careful.LARGEST_INTEGER[datatype])
        return Annotated[float, msgspec.Meta(ge=-limit, le=limit)]
    dtype = DTYPES[datatype]
    if dtype.kind in "iu" and datatype != "UINT64":  # beyond int64 the decoder cannot compare; numpy will refuse
        return Annotated[int, msgspec.Meta(ge=int(np.iinfo(dtype).min), le=int(np.iinfo(dtype).max))]
    return {"b": bool, "O": str}.get(dtype.kind, int)

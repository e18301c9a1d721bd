"""The prediction log: inputs and outputs of requests, a row for each row that was computed, as Parquet.

Columns: ``request_id``, ``row`` (from 0, within the request), ``time`` (UTC, when it was computed), ``model``,
``version`` (of the one that computed it), ``role`` ("answer", or "shadow" for a copy that only the log has seen),
``latency_ms`` (of the computation), and ``in.NAME`` and ``out.NAME`` for each input and output of the signature, of its
datatype. A value for each row is a scalar there, anything larger a list, nested as it was sent; an output that was not
asked for is null. A model whose inputs and outputs do not go by rows is recorded as one row for each request.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from .exchange import new_id
from .options import Unusable
from .record_files import Record, RecordFiles
from .tensors import DTYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .calls import Call
    from .manifest import TensorSpec
    from .model import Model
    from .models import Models
    from .options import Settings
    from .tensors import Array

KIND: Final = "predictions"
_OVERHEAD: Final = 512
"""Bytes of a record beyond its arrays, about."""

_ARROW: Final = {"BOOL": "bool_", "FP16": "float16", "FP32": "float32", "FP64": "float64", "BYTES": "string"}


class Prediction(NamedTuple):
    """What is kept of a call until it is written; ``time`` in nanoseconds since 1970."""

    id: str
    time: int
    role: str
    ms: float
    arrays: dict[str, Array]


class Predictions:
    """Takes a share of the calls that were computed. ``chance`` returns numbers from 0 to 1, for the sampling."""

    def __init__(
        self, files: RecordFiles, models: Models, settings: Settings, chance: Callable[[], float] = random.random
    ) -> None:
        """Raise ``Unusable`` where ``--log-omit`` names what no model has."""
        self._files = files
        self._share = settings.sample
        self._omitted = frozenset(settings.log_omit)
        self._chance = chance
        self._sheets: dict[tuple[str, str], PredictionSheet] = {}
        known = {
            spec.name
            for endpoint in models.snapshot.endpoints.values()
            for model in endpoint.versions.values()
            for spec in (*model.inputs, *model.outputs)
        }
        for name in settings.log_omit:
            if name not in known:
                raise Unusable(f"--log-omit names {name!r}, which is no input or output; there are {', '.join(known)}")

    def observe(self, call: Call, results: Sequence[Array], ms: float, role: str) -> None:
        """Record a call that was computed, in ``ms`` milliseconds, if it is of the share that is recorded.

        The answer to a request and its shadows are recorded together or not at all.
        """
        exchange = call.exchange
        chosen = exchange.recorded if exchange is not None else None
        if chosen is None:
            chosen = self._chance() < self._share
            if exchange is not None:
                exchange.recorded = chosen
        if not chosen:
            return
        model = call.model
        sheet = self._sheets.get((model.name, model.version))
        if sheet is None or sheet.model is not model:
            sheet = self._sheets[model.name, model.version] = PredictionSheet(model, self._omitted)
        arrays = {f"in.{name}": array for name, array in call.feeds.items()}
        for name, array in zip(call.outputs, results, strict=True):
            arrays[f"out.{name}"] = array
        name = exchange.id if exchange is not None else call.id or new_id()
        content = Prediction(name, time.time_ns(), role, ms, arrays)
        self._files.add(Record(sheet, sheet.rows(content), sheet.size(content), content))


class PredictionSheet:
    """The columns of one model version."""

    kind = KIND

    def __init__(self, model: Model, omitted: frozenset[str], by_row: bool | None = None) -> None:
        import pyarrow as pa

        self.model = model
        self.name = model.name
        self.version = model.version
        specs = [*(("in", spec) for spec in model.inputs), *(("out", spec) for spec in model.outputs)]
        self._columns = {f"{way}.{spec.name}": spec for way, spec in specs if spec.name not in omitted}
        self._all = [f"{way}.{spec.name}" for way, spec in specs]
        self._by_row = all(spec.shape[:1] == (-1,) for _, spec in specs) if by_row is None else by_row
        self._texts = [name for name, spec in self._columns.items() if spec.datatype == "BYTES"]
        self._omitted = omitted
        self._whole: PredictionSheet | None = None
        self.schema = pa.schema(
            [
                *about(),
                ("role", pa.string()),
                ("latency_ms", pa.float32()),
                *((name, column_type(spec, self._by_row)) for name, spec in self._columns.items()),
            ]
        )

    def rows(self, content: Prediction) -> int:
        """Return how many rows a record makes."""
        first = next(iter(content.arrays.values()))
        return len(first) if self._by_row and first.ndim else 1

    def size(self, content: Prediction) -> int:
        """Return how many bytes a record takes in memory, about."""
        arrays = content.arrays
        size = _OVERHEAD
        for array in arrays.values():
            size += array.nbytes
        for name in self._texts:
            if name in arrays:
                size += sum(map(len, arrays[name].ravel().tolist()))
        return size

    def fitting(self, content: Prediction) -> PredictionSheet:
        """Return the sheet of whole requests for a model that promised rows and did not keep to them."""
        if self._whole is None and self._by_row:
            rows = self.rows(content)
            if any(array.ndim == 0 or len(array) != rows for array in content.arrays.values()):
                self._whole = PredictionSheet(self.model, self._omitted, by_row=False)
        return self._whole or self

    def table(self, contents: Sequence[Prediction]) -> Any:
        """Return records as a table."""
        import pyarrow as pa

        rows = [self.rows(content) for content in contents]
        total = sum(rows)
        columns = [
            pa.array(_repeated([content.id for content in contents], rows), pa.string()),
            pa.array(np.concatenate([np.arange(count, dtype=np.int32) for count in rows])),
            pa.array(np.repeat([content.time // 1000 for content in contents], rows), pa.timestamp("us", tz="UTC")),
            pa.array(_repeated([self.name], [total]), pa.string()),
            pa.array(_repeated([self.version], [total]), pa.string()),
            pa.array(_repeated([content.role for content in contents], rows), pa.string()),
            pa.array(np.repeat(np.array([content.ms for content in contents], np.float32), rows)),
        ]
        for name, spec in self._columns.items():
            kind = column_type(spec, self._by_row)
            parts = []
            for some, array in self._runs(name, contents, rows):
                parts.append(pa.nulls(some, kind) if array is None else column(array, spec, kind))
            columns.append(pa.chunked_array(parts, kind))
        return pa.table(columns, schema=self.schema)

    def _runs(
        self, name: str, contents: Sequence[Prediction], rows: Sequence[int]
    ) -> Iterator[tuple[int, Array | None]]:
        """Join the arrays of a column as far as their rows are alike: (rows, array), or None where it is missing."""
        pending: list[Array] = []
        for content, count in zip(contents, rows, strict=True):
            array = content.arrays.get(name)
            if array is not None and not self._by_row:
                array = array[None]
            if pending and (array is None or array.shape[1:] != pending[0].shape[1:]):
                yield sum(map(len, pending)), np.concatenate(pending)
                pending = []
            if array is None:
                yield count, None
            else:
                pending.append(array)
        if pending:
            yield sum(map(len, pending)), np.concatenate(pending)


def _repeated(values: list[str], counts: Sequence[int]) -> Array:
    return np.repeat(np.array(values, object), counts)


def _depth(spec: TensorSpec, by_row: bool) -> int:
    """Return how deep the lists of a column are nested; a row of one value is that value."""
    shape = spec.shape[1:] if by_row else spec.shape
    return 0 if by_row and shape in ((), (1,)) else len(shape)


def about() -> list[tuple[str, Any]]:
    """Return the columns, with pyarrow's types, that every record begins with, those of feedback too."""
    import pyarrow as pa

    return [
        ("request_id", pa.string()),
        ("row", pa.int32()),
        ("time", pa.timestamp("us", tz="UTC")),
        ("model", pa.string()),
        ("version", pa.string()),
    ]


def column_type(spec: TensorSpec, by_row: bool) -> Any:
    """Return pyarrow's type for one row, or else the whole, of a tensor."""
    import pyarrow as pa

    kind = getattr(pa, _ARROW.get(spec.datatype, spec.datatype.lower()))()
    for _ in range(_depth(spec, by_row)):
        kind = pa.list_(kind)
    return kind


def column(array: Array, spec: TensorSpec, kind: Any) -> Any:
    """Return an array, whose first dimension are the rows of a column, as pyarrow's of the type ``kind``."""
    import pyarrow as pa

    depth = 0
    leaf = kind
    while pa.types.is_list(leaf):
        depth, leaf = depth + 1, leaf.value_type
    dtype = DTYPES[spec.datatype]
    flat = array.ravel() if array.dtype == dtype else array.astype(dtype).ravel()
    if dtype.kind == "O":
        flat = np.array([_text(value) for value in flat.tolist()], object)
    made = pa.array(flat, leaf)
    for at in range(depth, 0, -1):
        lists = int(np.prod(array.shape[:at]))
        offsets = np.arange(lists + 1, dtype=np.int32) * array.shape[at]
        made = pa.ListArray.from_arrays(offsets, made)
    return made


def _text(value: object) -> str | None:
    """Return a string of a tensor as text; bytes that are none as escapes."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value if value is None or isinstance(value, str) else str(value)

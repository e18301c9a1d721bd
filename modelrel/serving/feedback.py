"""``POST /v2/models/NAME[/versions/VERSION]/feedback``: what was true, for a request that was answered before.

    {"id": "the request's", "truth": {"output": value}, "row"?: 0, "comment"?: "why"}

``id`` is the request's id of V2, or what the header ``x-request-id`` of its answer said. ``truth`` has values of the
model's outputs, of their datatypes. With ``row`` they are those of that row; without, a list has one for each row of
the request, and a bare value is the only row's. Feedback lies beside the predictions, in files of its own, to be joined
by ``request_id`` and ``row``; whether there was such a request, the server does not know.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import msgspec
import numpy as np

from .answers import Refused, as_json, decode
from .calls import Route
from .exchange import ID_LENGTH
from .tensors import from_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .answers import Answer
    from .calls import Handler, Routes
    from .manifest import TensorSpec
    from .model import Model
    from .models import Models, Snapshot
    from .record_files import RecordFiles
    from .tensors import Array

    Provider = Callable[[Models, Snapshot], Routes]

KIND: Final = "feedback"
_OVERHEAD: Final = 512
_INLINE_BYTES: Final = 16 * 1024  # a longer body is read on a thread


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=ID_LENGTH)]
    truth: Annotated[dict[str, msgspec.Raw], msgspec.Meta(min_length=1)]
    row: Annotated[int, msgspec.Meta(ge=0, lt=2**31)] | None = None
    comment: Annotated[str, msgspec.Meta(max_length=4096)] | None = None


_decoder: Final = msgspec.json.Decoder(_Body)


class Truth(NamedTuple):
    """One piece of feedback: ``rows`` are the numbers of the rows, ``arrays`` have one entry for each."""

    id: str
    time: int
    rows: Array
    comment: str | None
    arrays: dict[str, Array]


class FeedbackSheet:
    """The columns of the feedback on a model; ``version`` is "" for feedback that names none."""

    kind = KIND

    def __init__(self, model: Model, version: str) -> None:
        import pyarrow as pa

        from .predictions import about, column_type

        self.name = model.name
        self.version = version
        self.specs = {spec.name: spec for spec in model.outputs}
        self.schema = pa.schema(
            [
                *about(),
                ("comment", pa.string()),
                *((f"truth.{name}", column_type(spec, by_row=True)) for name, spec in self.specs.items()),
            ]
        )

    def fitting(self, _content: Truth) -> FeedbackSheet:
        """Return itself: what does not fit was refused."""
        return self

    def table(self, contents: Sequence[Truth]) -> Any:
        """Return feedback as a table."""
        import pyarrow as pa

        return pa.concat_tables([self._table(content) for content in contents])

    def _table(self, content: Truth) -> Any:
        import pyarrow as pa

        from .predictions import column, column_type

        count = len(content.rows)
        columns = [
            pa.array([content.id] * count, pa.string()),
            pa.array(content.rows, pa.int32()),
            pa.array([content.time // 1000] * count, pa.timestamp("us", tz="UTC")),
            pa.array([self.name] * count, pa.string()),
            pa.array([self.version or None] * count, pa.string()),
            pa.array([content.comment] * count, pa.string()),
        ]
        for name, spec in self.specs.items():
            kind = column_type(spec, by_row=True)
            array = content.arrays.get(name)
            columns.append(pa.nulls(count, kind) if array is None else column(array, spec, kind))
        return pa.table(columns, schema=self.schema)


class Feedback:
    """Reads and keeps the feedback on a model."""

    def __init__(self, model: Model, version: str, files: RecordFiles) -> None:
        self._sheet = FeedbackSheet(model, version)
        self._files = files

    def __call__(self, _headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer one request: 200 with the number of rows. Raises ``Refused``, 503 where the disk takes no more."""
        from .record_files import Record

        sent = decode(_decoder, body)
        arrays = {name: self._values(name, raw, sent.row) for name, raw in sent.truth.items()}
        counts = {name: len(array) for name, array in arrays.items()}
        if len(set(counts.values())) > 1:
            said = ", ".join(f"{name!r} {count}" for name, count in counts.items())
            raise Refused(400, f"the truth has different numbers of rows: {said}")
        count = next(iter(counts.values()))
        first = sent.row or 0
        rows = np.arange(first, first + count, dtype=np.int32)
        truth = Truth(sent.id, time.time_ns(), rows, sent.comment, arrays)
        if not self._files.add(Record(self._sheet, count, _OVERHEAD + len(body), truth)):
            raise Refused(503, "feedback cannot be recorded now; try again later", {"retry-after": "5"})
        return as_json({"id": sent.id, "rows": count})

    def _values(self, name: str, raw: msgspec.Raw, row: int | None) -> Array:
        """Return the values of an output, a row each. Raises ``Refused``."""
        spec = self._sheet.specs.get(name)
        if spec is None:
            raise Refused(400, f"the model has no output {name!r}; it has {', '.join(self._sheet.specs)}")
        data = bytes(raw)
        inner = () if spec.shape[1:] in ((), (1,)) else spec.shape[1:]
        listed = data[:1] == b"["
        if row is not None or not listed:  # one row: as if it were the only one of a list
            data = b"[" + data + b"]"
        try:
            shape = _shape(data, len(inner) + 1)
            array = from_json(msgspec.Raw(data), spec.datatype, shape)
            _check(shape, spec)
        except Refused as error:
            raise Refused(error.status, f"the truth of {name!r}: {error}") from error
        return array


def _shape(data: bytes, rank: int) -> list[int]:
    """Return the shape that nested lists have along their first elements."""
    value = msgspec.json.decode(data)
    shape = []
    for _ in range(rank):
        if not isinstance(value, list) or not value:
            raise Refused(400, f"a list nested {rank} deep was expected, with something in it")
        shape.append(len(value))
        value = value[0]
    return shape


def _check(shape: list[int], spec: TensorSpec) -> None:
    inner = list(spec.shape[1:]) if spec.shape[1:] not in ((), (1,)) else []
    if len(shape) != len(inner) + 1 or any(want not in (-1, have) for have, want in zip(shape[1:], inner, strict=True)):
        raise Refused(400, f"a row has the shape {shape[1:]}, the model gives {inner}")


def routes(files: RecordFiles | None) -> Provider:
    """Return the provider of the feedback routes; without a prediction log they say how to have one."""

    def handler(model: Model, version: str) -> Handler:
        return _off if files is None else Feedback(model, version, files)

    def provider(_models: Models, snapshot: Snapshot) -> Routes:
        found: Routes = {}
        for endpoint in snapshot.endpoints.values():
            base = f"/v2/models/{endpoint.name}"
            found[f"{base}/feedback"] = Route("POST", handler(endpoint.default, ""), _INLINE_BYTES, endpoint.default)
            for version, model in endpoint.versions.items():
                route = Route("POST", handler(model, version), _INLINE_BYTES, model)
                found[f"{base}/versions/{version}/feedback"] = route
        return found

    return provider


def _off(_headers: Mapping[str, str], _body: bytes) -> Answer:
    raise Refused(501, "this server keeps no feedback; it does with --log-predictions")

"""MLflow's ``POST /invocations``, for one model.

Source: ``mlflow/pyfunc/scoring_server/__init__.py``, version 3.17. The answers to the same bytes are MLflow's, in
status, ``error_code`` and predictions, except for these. What MLflow makes of a request that is refused here is nothing
to rely on:

* no text: MLflow hands the model whatever a string column of a data frame holds, and NaN or None for what is missing in
  a CSV or in Parquet; a tensor of strings has no other values (``inputs`` and ``instances`` become text in both);
* no truth: MLflow makes null False in one form and True in another, and a list True; it is neither;
* no number: MLflow takes an empty list for no value at all, in some forms;
* beyond its datatype: MLflow lets an integer of a data frame wrap around to another number;
* another index: MLflow repeats the only row for an index of several entries, as pandas does;
* columns for rows: MLflow takes an object of columns as the ``data`` of a data frame, by an accident of pandas;
* no rows: MLflow hands the model an empty table;
* left out: MLflow gives the model a table without an optional column; here it is NaN in a column of floats, and must be
  sent in any other;
* params: MLflow ignores those of a model that declares none; a converted model refuses any, as its original may have
  used them and the copy cannot (a Python model gets them, and MLflow looks at them there);
* a shifted row: MLflow takes the first fields of a CSV's rows for an index where they are more than the names in the
  header, so that every value is read as that of the column before;
* too large: MLflow unpacks a few bytes of Parquet to any size; here there is a limit, and the status is 413;
* no pyarrow: MLflow always has it; a server without it, such as that of an image, answers 415 to Parquet, and says how
  to install it;
* lists: MLflow takes lists in Parquet for the rows of a tensor; here they are refused, because how much they unpack to
  is not known before they do;
* a model that fails: MLflow answers 400 whatever a model raises; here it is 500, as nothing says that the client erred;
* nested too deeply: MLflow answers 500, from an exception; here it is 400;
* no content type: MLflow answers 500, from an exception; here it is 415;
* refusals: MLflow's 415 is plain text, its 404 and 405 have ``detail``; here all are JSON with ``error``, and on this
  path ``error_code`` and ``message``; none has a stack trace;
* tables for tensors: MLflow answers 400 to any CSV for a model of tensors; here its columns are one tensor, or several
  by name;
* header: ``text/csv; header=absent`` (RFC 4180) is 415 there; here the columns are those of the model, in its order, as
  in the tables that SageMaker's batch transform cuts into pieces;
* accept: MLflow always answers in JSON; here a client that accepts ``text/csv`` alone gets a line for each row;
* version: ``/version`` says this server's, as plain text, not MLflow's.
"""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import msgspec
import numpy as np

from .answers import Answer, Refused, as_json, decode, encode
from .calls import Call, Route
from .frames import Misfit, cast, columns_of_frame, columns_of_tensors, records_frame, split_frame
from .tensors import DTYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .calls import Routes
    from .frames import Frame
    from .model import Model
    from .models import Models, Snapshot
    from .tensors import Array

T = TypeVar("T")

FORMS: Final = ("dataframe_split", "dataframe_records", "instances", "inputs")

# MLflow hands a body with one of these keys to the model unread; no converted model takes chat messages.
_CHAT_KEYS: Final = frozenset({"messages", "prompt", "input"})

_JSON: Final = "application/json"
_CSV: Final = "text/csv"
_PARQUET: Final = "application/vnd.apache.parquet"
_CSV_HEADERS: Final = {"content-type": "text/csv; charset=utf-8; header=absent"}
# HTTP status -> what MLflow calls it (``mlflow/exceptions.py``).
_CODES: Final = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "ENDPOINT_NOT_FOUND",
    409: "ALREADY_EXISTS",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL_ERROR",
    501: "NOT_IMPLEMENTED",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def failure(error: Refused) -> Answer:
    """Say a refusal: ``error`` for clients of this server, the other two fields for MLflow's."""
    message = str(error)
    code = "INVALID_PARAMETER_VALUE" if isinstance(error, Misfit) else _CODES.get(error.status, "BAD_REQUEST")
    return as_json({"error": message, "error_code": code, "message": message}, error.status)


def routes(_models: Models, snapshot: Snapshot) -> Routes:
    """Return the scoring route; it names no model, so it is that of the first one."""
    first = snapshot.first
    if first is None:
        return {}
    model = first.default
    return {"/invocations": Route("POST", Invocations(model).invoke, model.inline_bytes, model, first)}


class _Split(msgspec.Struct, Generic[T], forbid_unknown_fields=True, gc=False):
    """A data frame of one datatype; what else it may be is for the general reader."""

    columns: msgspec.Raw
    data: list[list[T]]
    index: list[Any] | None = None


class _Plain(msgspec.Struct, Generic[T], forbid_unknown_fields=True, gc=False):
    """The plainest request."""

    dataframe_split: _Split[T]


class Invocations:
    """MLflow's scoring route of one model."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._specs = model.inputs
        self._names = [spec.name for spec in model.inputs]
        self._wanted = [model.predict_output]
        self._decoder = msgspec.json.Decoder()
        datatypes = {spec.datatype for spec in model.inputs}
        # Columns of one such datatype, the usual case, are read as one matrix instead of one by one.
        self._matrix_dtype: np.dtype[Any] | None = None
        if model.kind == "columns" and len(datatypes) == 1 and datatypes <= {"FP64", "INT64", "INT32"}:
            self._matrix_dtype = DTYPES[datatypes.pop()]
            floats = self._matrix_dtype.kind == "f"
            self._plain: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
                _Plain[float | None] if floats else _Plain[int]
            )
            self._known = encode(self._names)

    def invoke(self, headers: Mapping[str, str], body: bytes) -> Call:
        """Read ``POST /invocations``. Raises ``Refused``."""
        content_type = headers.get("content-type")
        if content_type != _JSON:
            read = self._reader(content_type)
            if read is not None:
                return Call(self._model, self._wanted, read(body), _renderer(headers))
        feeds = self._matrix(body) if self._matrix_dtype is not None else None
        if feeds is not None:
            return Call(self._model, self._wanted, feeds, _renderer(headers))
        return self.call(*_form(self._read(body)), _renderer(headers))

    def call(self, form: str, data: object, params: object, render: Callable[[Call, list[Array]], Answer]) -> Call:
        """Return the call that one of the four forms asks for. Raises ``Refused``."""
        feeds = self._columns(form, data) if self._model.kind == "columns" else self._tensors(form, data)
        return Call(self._model, self._wanted, feeds, render, params=self._params(params))

    def _params(self, sent: object) -> Mapping[str, Any] | None:
        if self._model.format == "python" and sent is not None:  # MLflow itself looks at them, in the model's process
            if not isinstance(sent, dict):
                raise Misfit("params must be an object")
            return sent
        if sent:
            raise Refused(400, "this model takes no params")
        return None

    def _reader(self, content_type: str | None) -> Callable[[bytes], dict[str, Array]] | None:
        """Return what reads a body that is not JSON; None for one that is. Raises ``Refused`` (415)."""
        mime, header = _content_type(content_type)
        if mime == _CSV:
            return lambda body: self._csv(body, header)
        return self._parquet if mime == _PARQUET else None

    def _csv(self, body: bytes, header: bool) -> dict[str, Array]:
        from .csv_tables import columns_of_csv, read_csv, tensors_of_csv

        if self._model.kind == "columns":
            return columns_of_csv(read_csv(body, None if header else self._names), self._specs)
        unnamed = self._names if len(self._names) > 1 else ()
        return self._fitting(tensors_of_csv(read_csv(body, None if header else unnamed), self._specs))

    def _parquet(self, body: bytes) -> dict[str, Array]:
        from .parquet_tables import columns_of_parquet, tensors_of_parquet

        if self._model.kind == "columns":
            return columns_of_parquet(body, self._specs)
        return self._fitting(tensors_of_parquet(body, self._specs))

    def _read(self, body: bytes) -> object:
        try:
            return self._decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            # MLflow reads with the standard library, which also knows NaN, Infinity and a byte order mark.
            try:
                return json.loads(body)
            except (ValueError, RecursionError):
                return decode(self._decoder, body)  # neither can: the message of the first has the position

    def _columns(self, form: str, data: object) -> dict[str, Array]:
        if form == "dataframe_split":
            return columns_of_frame(split_frame(data), self._specs)
        if form == "dataframe_records":
            return columns_of_frame(records_frame(data), self._specs)
        if form == "instances":
            _check_instances(data)
        return columns_of_tensors(data, self._specs)

    def _matrix(self, body: bytes) -> dict[str, Array] | None:
        """Read the plainest data frame at once: exactly the model's columns, all of one datatype; None for another."""
        try:
            frame = self._plain.decode(body).dataframe_split
            matrix = np.array(frame.data, self._matrix_dtype)
        except (ValueError, TypeError, OverflowError, RecursionError):
            return None  # column by column the message says which one it is, and a short row is filled up
        if matrix.ndim != 2 or len(matrix) == 0 or matrix.shape[1] != len(self._names):
            return None
        if frame.index is not None and len(frame.index) != len(matrix):
            return None
        sent = bytes(frame.columns)
        if sent != self._known:
            if msgspec.json.decode(sent) != self._names:
                return None
            self._known = sent  # a client writes them with the same spaces each time
        columns = np.ascontiguousarray(matrix.T)[:, :, None]
        return dict(zip(self._names, columns, strict=True))

    def _tensors(self, form: str, data: object) -> dict[str, Array]:
        if form.startswith("dataframe"):
            frame = split_frame(data) if form == "dataframe_split" else records_frame(data)
            named = self._tensors_of_frame(frame)
        else:
            named = self._tensors_by_name(data, form)
        return self._fitting({name: cast(named[name], spec) for spec in self._specs if (name := spec.name) in named})

    def _fitting(self, named: Mapping[str, Array]) -> dict[str, Array]:
        """Return the model's inputs, each of its shape. Raises ``Refused`` (400)."""
        feeds: dict[str, Array] = {}
        for spec in self._specs:
            if spec.name not in named:
                raise Misfit(f"the model needs the input {spec.name!r}")
            array = named[spec.name]
            fits = array.ndim == len(spec.shape) and all(
                want in (-1, have) for have, want in zip(array.shape, spec.shape, strict=True)
            )
            if not fits or array.size == 0:
                raise Misfit(
                    f"input {spec.name!r} has the shape {list(array.shape)}, the model takes {list(spec.shape)}"
                )
            feeds[spec.name] = array
        return feeds

    def _tensors_by_name(self, data: object, form: str) -> Mapping[str, object]:
        if isinstance(data, dict):
            if len(self._specs) == 1 and self._names[0] not in data:
                raise Refused(400, f"the model takes one input, {self._names[0]!r}, not {', '.join(map(repr, data))}")
            return data
        if data is None:
            raise Refused(400, "null is no tensor")
        if form == "instances" and isinstance(data, list) and data and isinstance(data[0], dict):
            rows = [row for row in data if isinstance(row, dict)]
            if len(rows) != len(data) or any(row.keys() != rows[0].keys() for row in rows):
                raise Refused(400, "instances must all be objects with the same keys")
            return {name: [row[name] for row in rows] for name in rows[0]}
        if len(self._specs) > 1:
            raise Refused(400, f"the model takes the inputs {', '.join(self._names)}: send them by name")
        return {self._names[0]: data}

    def _tensors_of_frame(self, frame: Frame) -> Mapping[str, object]:
        """Read a data frame as tensors: columns of lists by name, or all columns as one matrix."""
        if frame.rows == 0:
            raise Refused(400, "the data frame has no rows") if frame.columns else Misfit("the data frame is empty")
        if all(name in frame.names for name in self._names):
            return {name: frame.columns[frame.names.index(name)] for name in self._names}
        if len(self._specs) > 1:
            raise Refused(400, f"the model takes the inputs {', '.join(self._names)}: send them by name")
        if len(frame.columns) == 1 and self._specs[0].shape != (-1, 1):
            if len({len(value) if isinstance(value, list) else -1 for value in frame.columns[0]}) > 1:
                raise Misfit("the lists of a column must all have the same length")
            return {self._names[0]: frame.columns[0]}
        return {self._names[0]: list(zip(*frame.columns, strict=True))}


def _form(payload: object) -> tuple[str, object, object]:
    """Find which of the four forms a body has, and the params beside. Raises ``Refused`` unless it is exactly one."""
    if not isinstance(payload, dict):
        raise Refused(400, f"the body must be a JSON object with one of {', '.join(FORMS)}")
    found = [form for form in FORMS if form in payload]
    if not found and _CHAT_KEYS & payload.keys():
        raise Misfit(f"the model takes {', '.join(FORMS)}, no chat")
    if len(found) != 1:
        raise Refused(400, f"the body must have exactly one of {', '.join(FORMS)}; it has {', '.join(found) or 'none'}")
    if len(payload) > 1 and _CHAT_KEYS & payload.keys():
        raise Misfit(f"the model takes {found[0]}, not {', '.join(sorted(_CHAT_KEYS & payload.keys()))}")
    return found[0], payload[found[0]], payload.get("params")


def _check_instances(data: object) -> None:
    """Refuse instances with a key that another one lacks: MLflow counts the values of each column."""
    if isinstance(data, list) and data and isinstance(data[0], dict):
        keys = data[0].keys()
        if any(not isinstance(row, dict) or row.keys() != keys for row in data):
            raise Refused(400, "instances must all be objects with the same keys")


def _content_type(content_type: str | None) -> tuple[str, bool]:
    """Return the media type, and whether a table of text has a header. Raises ``Refused`` (415)."""
    if content_type is None:
        raise Refused(415, f"there is no content type; send {_JSON}")
    mime, *parameters = (part.strip() for part in content_type.split(";"))
    if mime not in (_JSON, _CSV, _PARQUET):
        raise Refused(415, f"the content type {content_type!r} is not supported; send {_JSON}, {_CSV} or {_PARQUET}")
    header = True
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if mime == _CSV and key == "header" and value in ("present", "absent"):
            header = value == "present"
        elif key != "charset" or value.lower() != "utf-8":
            raise Refused(415, f"the content type parameter {parameter!r} is not supported; only charset=utf-8 is")
    return mime, header


def _renderer(headers: Mapping[str, str]) -> Callable[[Call, list[Array]], Answer]:
    """Return what writes the answer: JSON but where nothing else than CSV is accepted."""
    accepted = headers.get("accept")
    if accepted is None or accepted.partition(";")[0] != _CSV or "," in accepted:
        return _render
    return _as_csv


def _render(call: Call, results: list[Array]) -> Answer:
    return Answer(200, call.model.headers, _encoded(results[0]))


def _as_csv(_call: Call, results: list[Array]) -> Answer:
    """Write a line for each row, without a header: what a batch transform puts beside, or after, the lines it sent."""
    import csv

    predictions = results[0].reshape(len(results[0]), -1) if results[0].ndim else results[0].reshape(1, 1)
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows(predictions.tolist())
    return Answer(200, _CSV_HEADERS, written.getvalue().encode())


def _encoded(predictions: Array) -> bytes:
    """Write the predictions as MLflow does, with NaN and Infinity as bare literals."""
    body = {"predictions": predictions.tolist()}
    encoded = encode(body)
    # The encoder writes null for a float that is no number. Labels may hold the text as well: then it is just slower.
    return json.dumps(body).encode() if b"null" in encoded else encoded

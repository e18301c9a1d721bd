"""MLflow's ``POST /invocations``, for one model.

Source: ``mlflow/pyfunc/scoring_server/__init__.py``. The answers to the same bytes are MLflow's, in status and in
predictions; ``frames`` says which values are refused here that MLflow lets through. Besides those:

* a missing Content-Type is 415 (MLflow: 500, from an exception);
* ``params`` that are not empty are refused (MLflow ignores them, with a warning in its log, for a model that declares
  none; a converted model cannot know what its original would have done with them);
* a body nested too deeply is 400 (MLflow: 500, from an exception);
* errors are always JSON and carry ``error`` beside MLflow's ``error_code`` and ``message``;
* ``text/csv`` and parquet are 415 for now.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from .answers import JSON_HEADERS, Answer, Refused, decode, encode
from .frames import cast, columns_of_frame, columns_of_tensors, records_frame, split_frame
from .tensors import DTYPES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .frames import Frame
    from .model import Model
    from .tensors import Array

FORMS: Final = ("dataframe_split", "dataframe_records", "instances", "inputs")

# MLflow hands a body with one of these keys to the model unread; no converted model takes chat messages.
_CHAT_KEYS: Final = frozenset({"messages", "prompt", "input"})

_JSON: Final = "application/json"
_LATER: Final = frozenset({"text/csv", "application/vnd.apache.parquet"})
_CODES: Final = {500: "INTERNAL_ERROR", 503: "TEMPORARILY_UNAVAILABLE"}


def mlflow_error(error: Refused) -> dict[str, str]:
    """Return the fields of an error body: ``error`` for clients of this server, the other two for MLflow's."""
    message = str(error)
    return {"error": message, "error_code": _CODES.get(error.status, "BAD_REQUEST"), "message": message}


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

    def invoke(self, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer ``POST /invocations``. Raises ``Refused``, or ``InferenceFailed`` from the runtime."""
        content_type = headers.get("content-type")
        if content_type != _JSON:
            _check_content_type(content_type)
        if "content-encoding" in headers and headers["content-encoding"] != "identity":
            raise Refused(415, f"the content encoding {headers['content-encoding']!r} is not supported")
        form, data = _form(self._read(body))
        feeds = self._columns(form, data) if self._model.kind == "columns" else self._tensors(form, data)
        predictions = self._model.run(self._wanted, feeds)[0]
        return Answer(200, JSON_HEADERS, _encoded(predictions))

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
            return self._matrix(data) or columns_of_frame(split_frame(data), self._specs)
        if form == "dataframe_records":
            return columns_of_frame(records_frame(data), self._specs)
        if form == "instances":
            _check_instances(data)
        return columns_of_tensors(data, self._specs)

    def _matrix(self, data: object) -> dict[str, Array] | None:
        """Read the plainest data frame at once: exactly the model's columns, all of one datatype."""
        if self._matrix_dtype is None or not isinstance(data, dict) or data.get("columns") != self._names:
            return None
        if len(data) != 2 or "data" not in data:
            return None
        try:
            matrix = np.array(data["data"], self._matrix_dtype)
        except (ValueError, TypeError, OverflowError, RecursionError):
            return None  # column by column the message says which one it is, and a short row is filled up
        if matrix.ndim != 2 or len(matrix) == 0 or matrix.shape[1] != len(self._names):
            return None
        columns = np.ascontiguousarray(matrix.T)[:, :, None]
        return dict(zip(self._names, columns, strict=True))

    def _tensors(self, form: str, data: object) -> dict[str, Array]:
        if form.startswith("dataframe"):
            frame = split_frame(data) if form == "dataframe_split" else records_frame(data)
            named = self._tensors_of_frame(frame)
        else:
            named = self._tensors_by_name(data, form)
        feeds: dict[str, Array] = {}
        for spec in self._specs:
            if spec.name not in named:
                raise Refused(400, f"the model needs the input {spec.name!r}")
            array = cast(named[spec.name], spec)
            fits = array.ndim == len(spec.shape) and all(
                want in (-1, have) for have, want in zip(array.shape, spec.shape, strict=True)
            )
            if not fits or array.size == 0:
                raise Refused(
                    400, f"input {spec.name!r} has the shape {list(array.shape)}, the model takes {list(spec.shape)}"
                )
            feeds[spec.name] = array
        return feeds

    def _tensors_by_name(self, data: object, form: str) -> Mapping[str, object]:
        if isinstance(data, dict):
            return data
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
        if all(name in frame.names for name in self._names):
            return {name: frame.columns[frame.names.index(name)] for name in self._names}
        if len(self._specs) > 1:
            raise Refused(400, f"the model takes the inputs {', '.join(self._names)}: send them by name")
        if len(frame.columns) == 1 and self._specs[0].shape != (-1, 1):
            return {self._names[0]: frame.columns[0]}
        return {self._names[0]: list(zip(*frame.columns, strict=True))}


def _form(payload: object) -> tuple[str, object]:
    """Find which of the four forms a body has. Raises ``Refused`` unless it is exactly one."""
    if not isinstance(payload, dict):
        raise Refused(400, f"the body must be a JSON object with one of {', '.join(FORMS)}")
    found = [form for form in FORMS if form in payload]
    if len(found) != 1:
        raise Refused(400, f"the body must have exactly one of {', '.join(FORMS)}; it has {', '.join(found) or 'none'}")
    if len(payload) > 1:
        if _CHAT_KEYS & payload.keys():
            raise Refused(400, f"the model takes {found[0]}, not {', '.join(sorted(_CHAT_KEYS & payload.keys()))}")
        if payload.get("params"):
            raise Refused(400, "this model takes no params")
    return found[0], payload[found[0]]


def _check_instances(data: object) -> None:
    """Refuse instances with a key that another one lacks: MLflow counts the values of each column."""
    if isinstance(data, list) and data and isinstance(data[0], dict):
        keys = data[0].keys()
        if any(not isinstance(row, dict) or row.keys() != keys for row in data):
            raise Refused(400, "instances must all be objects with the same keys")


def _check_content_type(content_type: str | None) -> None:
    if content_type is None:
        raise Refused(415, "there is no content type; send application/json")
    mime, *parameters = (part.strip() for part in content_type.split(";"))
    if mime in _LATER:
        raise Refused(415, f"{mime} is not supported by this server; send application/json")
    if mime != _JSON:
        raise Refused(415, f"the content type {content_type!r} is not supported; send application/json")
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key != "charset" or value.lower() != "utf-8":
            raise Refused(415, f"the content type parameter {parameter!r} is not supported; only charset=utf-8 is")


def _encoded(predictions: Array) -> bytes:
    """Write the predictions as MLflow does, with NaN and Infinity as bare literals."""
    body = {"predictions": predictions.tolist()}
    encoded = encode(body)
    # The encoder writes null for a float that is no number. Labels may hold the text as well: then it is just slower.
    return json.dumps(body).encode() if b"null" in encoded else encoded

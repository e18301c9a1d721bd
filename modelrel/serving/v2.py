"""Open Inference Protocol V2 over REST, for one model.

Source: ``specification/protocol/inference_rest.md`` of the open-inference-protocol repository. Where servers differ,
the answers here are the ones every client accepts: KServe's client wants JSON from the health routes, Triton's wants
``error`` in every failure.

What a client may rely on beyond the specification:

* an input may be sent as another datatype if no value changes on the way (INT64 for FP64, as long as it is exact);
* ``null`` is NaN, in both directions, for floating point tensors;
* columns (inputs of the shape [-1, 1]) may be sent as [N] too;
* reserved and unknown parameters are accepted and do nothing, as the specification has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import numpy as np

from . import VERSION
from .answers import JSON_HEADERS, Answer, Refused, as_json, decode, encode
from .tensors import DTYPES, Array, cast_exactly, from_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .manifest import TensorSpec
    from .model import Model

Parameters = dict[str, str | int | float | bool]

_MISSING: Final = msgspec.Raw(b"")
_JSON_TYPES: Final = frozenset(
    {"", "application/json", "application/octet-stream", "application/x-www-form-urlencoded"}
)


class _Input(msgspec.Struct, gc=False):
    name: str
    shape: list[Annotated[int, msgspec.Meta(ge=0)]]
    datatype: str
    data: msgspec.Raw = _MISSING
    parameters: Parameters | None = None


class _Wanted(msgspec.Struct, gc=False):
    name: str
    parameters: Parameters | None = None


class _Request(msgspec.Struct, gc=False):
    inputs: list[_Input]
    id: str | None = None
    parameters: Parameters | None = None
    outputs: list[_Wanted] | None = None


class _Output(msgspec.Struct, gc=False):
    name: str
    shape: tuple[int, ...]
    datatype: str
    data: list[object]


class _Response(msgspec.Struct, gc=False, omit_defaults=True):
    model_name: str
    model_version: str
    outputs: list[_Output]
    id: str | None = None


class _Reader:
    """Reads one input of the model out of requests."""

    def __init__(self, spec: TensorSpec, kind: str) -> None:
        self._datatype: str = spec.datatype
        self._shape = list(spec.shape)
        self._column = kind == "columns"
        # The usual shape, any number of rows of fixed size, is compared at once instead of dimension by dimension.
        self._row = self._shape[1:] if self._shape[:1] == [-1] and -1 not in self._shape[1:] else None

    def read(self, sent: _Input) -> Array:
        """Return the array that was sent, in the dtype and rank the model takes. Raises ``Refused``."""
        try:
            array = self._read(sent)
        except Refused as error:
            raise Refused(error.status, f"input {sent.name!r}: {error}") from error
        return array.reshape(-1, 1) if self._column else array

    def _read(self, sent: _Input) -> Array:
        if not sent.shape or sent.shape[1:] != self._row or sent.shape[0] == 0:
            self._check_shape(sent.shape)
        if sent.datatype != self._datatype or sent.datatype == "FP16":
            _check_datatype(sent.datatype)
        if sent.data is _MISSING:
            raise Refused(400, "there is no data (binary tensors are not supported)")
        array = from_json(sent.data, sent.datatype, sent.shape)
        return array if sent.datatype == self._datatype else cast_exactly(array, sent.datatype, self._datatype)

    def _check_shape(self, shape: list[int]) -> None:
        if 0 in shape:
            raise Refused(400, f"the shape {shape} has no elements")
        if self._column and len(shape) == 1:
            return
        if len(shape) != len(self._shape) or any(
            want not in {have, -1} for have, want in zip(shape, self._shape, strict=True)
        ):
            raise Refused(400, f"the shape is {shape}, the model takes {self._shape}")


def _check_datatype(datatype: str) -> None:
    if datatype not in DTYPES:
        raise Refused(400, f"there is no datatype {datatype!r}")
    if datatype == "FP16":
        raise Refused(400, "FP16 has no JSON form; send FP32")


class OpenInference:
    """The V2 routes of one model; everything that does not depend on a request is computed here, once."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._decoder = msgspec.json.Decoder(_Request)
        self._inputs = {spec.name: _Reader(spec, model.kind) for spec in model.inputs}
        self._outputs = {spec.name: spec for spec in model.outputs}
        self._output_names = [spec.name for spec in model.outputs]
        self.server = as_json({"name": "modelrel", "version": VERSION, "extensions": []})
        self.live = as_json({"live": True})
        self.ready = as_json({"ready": True, "live": True})
        self.model_ready = as_json({"name": model.name, "ready": True})
        self.model_metadata = as_json(
            {
                "name": model.name,
                "versions": [model.version],
                "platform": "onnxruntime_onnx",
                "inputs": [_described(spec) for spec in model.inputs],
                "outputs": [_described(spec) for spec in model.outputs],
            }
        )

    def infer(self, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer ``POST .../infer``. Raises ``Refused``, or ``InferenceFailed`` from the runtime."""
        _check_headers(headers)
        request = decode(self._decoder, body)
        names = self._wanted(request.outputs)
        results = self._model.run(names, self._feeds(request.inputs))
        outputs = [self._output(name, array) for name, array in zip(names, results, strict=True)]
        response = _Response(self._model.name, self._model.version, outputs, request.id)
        return Answer(200, JSON_HEADERS, encode(response))

    def _wanted(self, outputs: list[_Wanted] | None) -> list[str]:
        if not outputs:
            return self._output_names
        names = [output.name for output in outputs]
        for name in names:
            if name not in self._outputs:
                raise Refused(400, f"the model has no output {name!r}; it has {', '.join(self._output_names)}")
        if len(set(names)) != len(names):
            raise Refused(400, "an output is asked for twice")
        return names

    def _feeds(self, inputs: list[_Input]) -> dict[str, Array]:
        feeds: dict[str, Array] = {}
        for sent in inputs:
            reader = self._inputs.get(sent.name)
            if reader is None:
                raise Refused(400, f"the model has no input {sent.name!r}; it has {', '.join(self._inputs)}")
            if sent.name in feeds:
                raise Refused(400, f"the input {sent.name!r} is sent twice")
            feeds[sent.name] = reader.read(sent)
        if len(feeds) != len(self._inputs):
            self._fill(feeds)
        if len(feeds) > 1 and self._model.kind == "columns":
            rows = len(next(iter(feeds.values())))
            for name, array in feeds.items():
                if len(array) != rows:
                    raise Refused(400, f"input {name!r} has {len(array)} rows, input {next(iter(feeds))!r} has {rows}")
        return feeds

    def _fill(self, feeds: dict[str, Array]) -> None:
        """Put NaN where an optional column was left out. Raises ``Refused`` for what cannot be left out."""
        missing = [spec for spec in self._model.inputs if spec.name not in feeds]
        optional = self._model.kind == "columns" and bool(feeds)
        needed = [repr(spec.name) for spec in missing if spec.required or spec.datatype[:2] != "FP" or not optional]
        if needed:
            raise Refused(400, f"the model needs the input {', '.join(needed)}")
        rows = len(next(iter(feeds.values())))
        for spec in missing:
            feeds[spec.name] = np.full((rows, 1), np.nan, DTYPES[spec.datatype])

    def _output(self, name: str, array: Array) -> _Output:
        datatype = self._outputs[name].datatype
        if datatype == "FP16":
            raise Refused(400, f"output {name!r} is FP16, which has no JSON form; ask for other outputs")
        return _Output(name, array.shape, datatype, array.ravel().tolist())


def _described(spec: TensorSpec) -> dict[str, object]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _check_headers(headers: Mapping[str, str]) -> None:
    """Refuse what a JSON reader would misread: packed bodies and bodies that say they are something else."""
    if "inference-header-content-length" in headers:
        raise Refused(400, "binary tensors are not supported; send the tensors as JSON (binary_data=False)")
    encoding = headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise Refused(415, f"the content encoding {encoding!r} is not supported; send the body as it is")
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type not in _JSON_TYPES and not content_type.endswith("+json"):
        raise Refused(415, f"the content type {content_type!r} is not supported; send application/json")

"""Open Inference Protocol V2 over REST.

Source: ``specification/protocol/inference_rest.md`` of the open-inference-protocol repository. Where servers differ,
the answers here are the ones every client accepts: KServe's client wants JSON from the health routes, Triton's wants
``error`` in every failure.

What a client may rely on beyond the specification:

* an input may be sent as another datatype if no value changes on the way (INT64 for FP64, as long as it is exact);
* ``null`` is NaN, in both directions, for floating point tensors;
* columns (inputs of the shape [-1, 1]) may be sent as [N] too;
* a request about no rows is answered with no rows;
* tensors may travel as bytes, both ways (``binary``), and models be loaded and unloaded (``repository``);
* reserved and unknown parameters are accepted and do nothing, as the specification has it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import msgspec
import numpy as np

from . import VERSION, binary
from .answers import Answer, Refused, as_json, decode, encode, signed
from .calls import Call, Route, always
from .columns import Columns
from .repository import without_paths
from .signature import NoRows, Signature
from .tensors import Array, from_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from .calls import Handler, Routes
    from .manifest import TensorSpec
    from .model import Model
    from .models import Endpoint, Models, Snapshot
    from .signature import S

    Render = Callable[[Call, list[Array]], Answer]

Parameters = dict[str, str | int | float | bool]

EXTENSIONS: Final = ("binary_tensor_data", "model_repository")

_MISSING: Final = msgspec.Raw(b"")
_JSON: Final = "application/json"
_JSON_TYPES: Final = frozenset({"", _JSON, "application/octet-stream", "application/x-www-form-urlencoded"})


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


class _Bytes(NamedTuple):
    """An input whose values lie behind the JSON, or in it after all."""

    name: str
    shape: list[int]
    datatype: str
    data: memoryview | _Input


class _Output(msgspec.Struct, gc=False):
    name: str
    shape: tuple[int, ...]
    datatype: str
    data: list[object]


class _BinaryOutput(msgspec.Struct, gc=False):
    name: str
    shape: tuple[int, ...]
    datatype: str
    parameters: dict[str, int]


class _Response(msgspec.Struct, gc=False, omit_defaults=True):
    model_name: str
    model_version: str
    outputs: Sequence[_Output | _BinaryOutput]
    id: str | None = None


class OpenInference:
    """The inference route of one model; everything that does not depend on a request is computed here, once."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._signature = Signature(model)
        self._decoder = msgspec.json.Decoder(_Request)
        self._columns = Columns(model) if model.kind == "columns" else None
        self._datatypes = {spec.name: spec.datatype for spec in model.outputs}
        self._fp16 = [spec.name for spec in model.outputs if spec.datatype == "FP16"]

    def infer(self, headers: Mapping[str, str], body: bytes) -> Answer | Call:
        """Read ``POST .../infer``. Raises ``Refused``."""
        if headers.get("content-type") != _JSON or "content-encoding" in headers:
            _check_headers(headers)
        if binary.HEADER in headers:
            return self._with_bytes(body, binary.json_size(headers, body))
        request = decode(self._decoder, body)
        if self._columns is not None and (feeds := self._columns.read(request.inputs)):
            names, render = self._asked(request)
            return Call(self._model, names, feeds, render, request.id)
        return self._called(request, request.inputs, _from_json)

    def _with_bytes(self, body: bytes, size: int) -> Answer | Call:
        """Read a request whose first ``size`` bytes are JSON. Raises ``Refused``."""
        if not size:
            return self._raw(memoryview(body))
        request = decode(self._decoder, body[:size])
        tail = binary.Tail(memoryview(body)[size:])
        inputs = []
        for sent in request.inputs:
            told = sent.parameters and sent.parameters.get(binary.SIZE)
            if told is not None and sent.data is not _MISSING:
                raise Refused(400, f"input {sent.name!r} has both data and {binary.SIZE}")
            inputs.append(_Bytes(sent.name, sent.shape, sent.datatype, sent if told is None else tail.take(told)))
        tail.end()
        return self._called(request, inputs, _from_bytes)

    def _raw(self, body: memoryview) -> Answer | Call:
        """Read a body that is nothing but the one input of the model. Raises ``Refused``."""
        if len(self._model.inputs) != 1:
            raise Refused(400, f"the model takes {len(self._model.inputs)} inputs: say with JSON which is which")
        spec = self._model.inputs[0]
        shape = binary.raw_shape(spec, len(body))
        request = _Request([], parameters={"binary_data_output": True})
        return self._called(request, [_Bytes(spec.name, shape, spec.datatype, body)], _from_raw)

    def _called(self, request: _Request, inputs: Sequence[S], read: Callable[[S], Array]) -> Answer | Call:
        names, render = self._asked(request)
        try:
            feeds = self._signature.feeds(inputs, read)
        except NoRows:
            call = Call(self._model, names, {}, render, request.id)
            return signed(render(call, self._signature.no_rows(inputs, read, names)), self._model.headers)
        return Call(self._model, names, feeds, render, request.id)

    def _asked(self, request: _Request) -> tuple[list[str], Render]:
        """Return the outputs to compute and how to say them. Raises ``Refused``."""
        if not request.outputs and request.parameters is None and not self._fp16:
            return self._signature.output_names, self._in_json
        wanted = request.outputs or []
        names = self._signature.wanted([output.name for output in wanted])
        all_raw = _switch(request.parameters, "binary_data_output", default=False)
        raw = [_switch(output.parameters, "binary_data", default=all_raw) for output in wanted]
        raw = raw or [all_raw] * len(names)
        for name, as_bytes in zip(names, raw, strict=True):
            if name in self._fp16 and not as_bytes:
                raise Refused(400, f"output {name!r} is FP16, which has no JSON form; ask for it with binary_data")
        return names, partial(self._in_bytes, raw) if any(raw) else self._in_json

    def _in_json(self, call: Call, results: list[Array]) -> Answer:
        outputs = [
            _Output(name, array.shape, self._datatypes[name], array.ravel().tolist())
            for name, array in zip(call.outputs, results, strict=True)
        ]
        return Answer(200, call.model.headers, encode(_Response(call.model.name, call.model.version, outputs, call.id)))

    def _in_bytes(self, raw: Sequence[bool], call: Call, results: list[Array]) -> Answer:
        """Say the results with those outputs behind the JSON that are ``raw``."""
        outputs: list[_Output | _BinaryOutput] = []
        parts: list[bytes | memoryview] = [b""]
        for name, array, as_bytes in zip(call.outputs, results, raw, strict=True):
            datatype = self._datatypes[name]
            if as_bytes:
                parts.append(binary.written(array, datatype))
                outputs.append(_BinaryOutput(name, array.shape, datatype, {binary.SIZE: len(parts[-1])}))
            else:
                outputs.append(_Output(name, array.shape, datatype, array.ravel().tolist()))
        parts[0] = encode(_Response(call.model.name, call.model.version, outputs, call.id))
        headers = {"content-type": "application/octet-stream", binary.HEADER: str(len(parts[0]))}
        return Answer(200, headers, b"".join(parts))


def _from_json(sent: _Input) -> Array:
    if sent.datatype == "FP16":
        raise Refused(400, "FP16 has no JSON form; send it as binary data, or FP32")
    if sent.parameters is not None and binary.SIZE in sent.parameters:
        raise Refused(400, f"{binary.SIZE} takes the header Inference-Header-Content-Length")
    if sent.data is _MISSING:
        raise Refused(400, "there is no data")
    return from_json(sent.data, sent.datatype, sent.shape)


def _from_bytes(sent: _Bytes) -> Array:
    if isinstance(sent.data, _Input):
        return _from_json(sent.data)
    return binary.read(sent.data, sent.datatype, sent.shape)


def _from_raw(sent: _Bytes) -> Array:
    if sent.datatype != "BYTES":
        return _from_bytes(sent)
    assert isinstance(sent.data, memoryview)
    return np.array([binary.text(sent.data, 0)], np.object_).reshape(sent.shape)


def _switch(parameters: Parameters | None, name: str, *, default: bool) -> bool:
    value = default if parameters is None else parameters.get(name, default)
    if not isinstance(value, bool):
        raise Refused(400, f"the parameter {name} must be true or false")
    return value


def failure(error: Refused) -> Answer:
    """Say a refusal: ``{"error": sentence}``."""
    return as_json({"error": str(error)}, error.status)


def routes(_models: Models, snapshot: Snapshot) -> Routes:
    """Return the V2 routes of all that is served, and of what should be but is not ready."""
    server = always(as_json({"name": "modelrel", "version": VERSION, "extensions": EXTENSIONS}))
    found: Routes = {
        "/v2": Route("GET", server),
        "/v2/": Route("GET", server),
        "/v2/health/live": Route("GET", always(as_json({"live": True}))),
        "/v2/health/ready": Route("GET", lambda _headers, _body: _whether({"live": True}, snapshot.ready)),
    }
    for base, told in unready(snapshot):
        found |= _of_none(base, told)
    for base, model, endpoint in served(snapshot):
        found |= _of_model(base, model, snapshot, endpoint)
    return found


def served(snapshot: Snapshot) -> Iterator[tuple[str, Model, Endpoint | None]]:
    """Yield the path of every model, without and with its version; the endpoint where the server chooses that."""
    for endpoint in snapshot.endpoints.values():
        base = f"/v2/models/{endpoint.name}"
        yield base, endpoint.default, endpoint
        for version, model in endpoint.named.items():
            yield f"{base}/versions/{version}", model, None


def unready(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    """Yield the path of every model that is known but not there to answer, and a sentence that says why."""
    for state in snapshot.states:
        if state.state != "READY":
            why = f" ({without_paths(state.reason)})" if state.reason else ""
            told = f"model {state.name!r} is not ready: {state.state}{why}"
            base = f"/v2/models/{state.name}"
            if state.name not in snapshot.endpoints:
                yield base, told
            yield f"{base}/versions/{state.version}", told


def refusing(told: str) -> Handler:
    """Return the handler that refuses each request (503)."""

    def refuse(_headers: Mapping[str, str], _body: bytes) -> Answer:
        raise Refused(503, told)

    return refuse


def _of_model(base: str, model: Model, snapshot: Snapshot, endpoint: Endpoint | None) -> Routes:
    described: dict[str, object] = {
        "name": model.name,
        "versions": list(snapshot.endpoints[model.name].versions),
        "platform": model.platform,
        "inputs": [_described(spec) for spec in model.inputs],
        "outputs": [_described(spec) for spec in model.outputs],
    }
    if model.classes is not None:
        described["properties"] = {"predict": model.predict_output, "classes": encode(model.classes).decode()}
    return {
        base: Route("GET", always(as_json(described))),
        f"{base}/ready": Route("GET", lambda _headers, _body: _whether({"name": model.name}, model.ready)),
        f"{base}/infer": Route("POST", OpenInference(model).infer, model.inline_bytes, model, endpoint),
    }


def _whether(said: Mapping[str, object], ready: bool) -> Answer:
    return as_json({**said, "ready": ready}, 200 if ready else 503)


def _of_none(base: str, told: str) -> Routes:
    return {
        base: Route("GET", refusing(told)),
        f"{base}/ready": Route("GET", always(as_json({"ready": False, "error": told}, 503))),
        f"{base}/infer": Route("POST", refusing(told)),
    }


def _described(spec: TensorSpec) -> dict[str, object]:
    tensor: dict[str, object] = {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}
    return tensor if spec.required else tensor | {"parameters": {"required": False}}


def _check_headers(headers: Mapping[str, str]) -> None:
    """Refuse what a JSON reader would misread: bodies that say they are something else."""
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type not in _JSON_TYPES and not content_type.endswith("+json"):
        raise Refused(415, f"the content type {content_type!r} is not supported; send application/json")

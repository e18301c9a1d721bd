"""Open Inference Protocol V2 in protobuf messages: the same routes as over REST, for the transport in ``rpc``.

Their paths are REST's with ``grpc:`` before and the call behind, such as ``grpc:/v2/models/NAME/infer``. Bodies are
messages; refusals are said as over REST, and the transport puts them in gRPC's words.
"""

from __future__ import annotations

from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from . import VERSION, binary, repository
from .answers import Answer, Refused, signed
from .calls import Call, Route, always
from .messages import MESSAGES
from .signature import NoRows, Signature
from .tensors import DTYPES, Array
from .v2 import EXTENSIONS, refusing, served, unready

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .calls import Handler, Routes
    from .manifest import TensorSpec
    from .model import Model
    from .models import Models, Snapshot

SCHEME: Final = "grpc:"
"""What the paths begin with, so that no path of an HTTP request is one of them."""

HEADERS: Final[Mapping[str, str]] = {"content-type": "application/grpc"}

_CONTENTS: Final = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Datatype -> the field that its values are in. FP16 has none and travels raw."""


class _Sent(NamedTuple):
    """One input: its message, and its values where they are raw."""

    name: str
    shape: list[int]
    datatype: str
    tensor: Any
    raw: bytes | None


def parsed(name: str, body: bytes) -> Any:
    """Return the message of a body. Raises ``Refused`` (400)."""
    try:
        return MESSAGES[name].FromString(body)
    except DecodeError as error:
        raise Refused(400, "the request is no message of the protocol") from error


def said(message: str, /, **fields: object) -> Answer:
    """Return a message as an answer."""
    return Answer(200, HEADERS, MESSAGES[message](**fields).SerializeToString())


class GrpcInference:
    """``ModelInfer`` of one model."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._signature = Signature(model)
        self._datatypes = {spec.name: spec.datatype for spec in model.outputs}
        self._fp16 = {spec.name for spec in model.outputs if spec.datatype == "FP16"}

    def infer(self, _headers: Mapping[str, str], body: bytes) -> Answer | Call:
        """Read a ``ModelInferRequest``. Raises ``Refused``."""
        request = parsed("InferRequest", body)
        names = self._signature.wanted([output.name for output in request.outputs])
        inputs = _inputs(request)
        # A request in raw contents is answered in them; FP16 has no other form, and an answer is in one form.
        raw = bool(request.raw_input_contents) or not self._fp16.isdisjoint(names)
        render = self._raw if raw else self._typed
        try:
            feeds = self._signature.feeds(inputs, _read)
        except NoRows:
            call = Call(self._model, names, {}, render, request.id)
            return signed(render(call, self._signature.no_rows(inputs, _read, names)), self._model.headers)
        return Call(self._model, names, feeds, render, request.id or None)

    def _raw(self, call: Call, results: list[Array]) -> Answer:
        response = self._response(call, results)
        for tensor, array in zip(response.outputs, results, strict=True):
            response.raw_output_contents.append(bytes(binary.written(array, tensor.datatype)))
        return Answer(200, HEADERS, response.SerializeToString())

    def _typed(self, call: Call, results: list[Array]) -> Answer:
        response = self._response(call, results)
        for tensor, array in zip(response.outputs, results, strict=True):
            values = array.ravel().tolist()
            if tensor.datatype == "BYTES":
                values = [value.encode() if isinstance(value, str) else bytes(value) for value in values]
            getattr(tensor.contents, _CONTENTS[tensor.datatype]).extend(values)
        return Answer(200, HEADERS, response.SerializeToString())

    def _response(self, call: Call, results: list[Array]) -> Any:
        outputs = [
            MESSAGES["Tensor"](name=name, datatype=self._datatypes[name], shape=array.shape)
            for name, array in zip(call.outputs, results, strict=True)
        ]
        return MESSAGES["InferResponse"](
            model_name=call.model.name, model_version=call.model.version, id=call.id or "", outputs=outputs
        )


def _inputs(request: Any) -> list[_Sent]:
    """Return the inputs of a request. Raises ``Refused`` where raw contents do not fit them."""
    raw: Sequence[bytes | None] = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise Refused(400, f"there are {len(raw)} raw_input_contents for {len(request.inputs)} inputs")
    if not raw:
        raw = [None] * len(request.inputs)
    found = []
    for tensor, data in zip(request.inputs, raw, strict=True):
        shape = list(tensor.shape)
        if any(size < 0 for size in shape):
            raise Refused(400, f"input {tensor.name!r}: the shape {shape} has a size below 0")
        if data is not None and tensor.HasField("contents"):
            raise Refused(400, f"input {tensor.name!r} has contents beside raw_input_contents")
        found.append(_Sent(tensor.name, shape, tensor.datatype, tensor, data))
    return found


def _read(sent: _Sent) -> Array:
    if sent.raw is not None:
        return binary.read(sent.raw, sent.datatype, sent.shape)
    field = _CONTENTS.get(sent.datatype)
    if field is None:
        raise Refused(400, f"{sent.datatype} has no typed contents; send it in raw_input_contents")
    filled = [descriptor.name for descriptor, _ in sent.tensor.contents.ListFields()]
    if any(name != field for name in filled):
        raise Refused(400, f"values of {sent.datatype} belong in {field}, not in {filled[0]}")
    values = getattr(sent.tensor.contents, field)
    if len(values) != prod(sent.shape):
        raise Refused(400, f"contents have {len(values)} elements, the shape {sent.shape} asks for {prod(sent.shape)}")
    if sent.datatype == "BYTES":
        texts = [binary.text(element, index) for index, element in enumerate(values)]
        return np.array(texts, np.object_).reshape(sent.shape)
    dtype = DTYPES[sent.datatype]
    wide = dtype if dtype.itemsize > 2 or dtype.kind == "b" else np.dtype(np.int64)
    array = np.fromiter(values, wide, len(values))
    if wide != dtype:
        limits = np.iinfo(dtype)
        if array.min(initial=0) < limits.min or array.max(initial=0) > limits.max:
            raise Refused(400, f"a value does not fit {sent.datatype}")
    return array.astype(dtype, copy=False).reshape(sent.shape)


def routes(models: Models, snapshot: Snapshot) -> Routes:
    """Return what answers the calls of the protocol."""
    root = f"{SCHEME}/v2"
    server = said("Server", name="modelrel", version=VERSION, extensions=EXTENSIONS)
    found: Routes = {
        f"{root}/health/live": Route("POST", always(said("Live", live=True))),
        f"{root}/health/ready": Route("POST", lambda _headers, _body: said("Ready", ready=snapshot.ready)),
        f"{root}/metadata": Route("POST", always(server)),
        f"{root}/repository/index": Route("POST", _index(snapshot)),
        f"{root}/repository/load": Route("POST", _change(models, "load"), -1),
        f"{root}/repository/unload": Route("POST", _change(models, "unload"), -1),
    }
    for base, told in unready(snapshot):
        found |= {f"{SCHEME}{base}/{call}": Route("POST", refusing(told)) for call in ("ready", "metadata", "infer")}
    for base, model, endpoint in served(snapshot):
        described = said(
            "Model",
            name=model.name,
            versions=list(snapshot.endpoints[model.name].versions),
            platform=model.platform,
            inputs=[_described(spec) for spec in model.inputs],
            outputs=[_described(spec) for spec in model.outputs],
        )
        infer = GrpcInference(model).infer
        found |= {
            f"{SCHEME}{base}/ready": Route("POST", partial(_ready, model)),
            f"{SCHEME}{base}/metadata": Route("POST", always(described)),
            f"{SCHEME}{base}/infer": Route("POST", infer, model.inline_bytes, model, endpoint),
        }
    return found


def _ready(model: Model, _headers: Mapping[str, str], _body: bytes) -> Answer:
    return said("Ready", ready=model.ready)


def _described(spec: TensorSpec) -> Any:
    return MESSAGES["Described"](name=spec.name, datatype=spec.datatype, shape=spec.shape)


def _index(snapshot: Snapshot) -> Handler:
    def answer(_headers: Mapping[str, str], body: bytes) -> Answer:
        states = repository.index(snapshot, ready=parsed("IndexRequest", body).ready)
        return said("Index", models=[MESSAGES["State"](**state._asdict()) for state in states])

    return answer


def _change(models: Models, action: str) -> Handler:
    def change(_headers: Mapping[str, str], body: bytes) -> Answer:
        request = parsed("ChangeRequest", body)
        if action == "load":
            repository.load(models, request.model_name, [parameter.key for parameter in request.parameters])
        else:
            repository.unload(models, request.model_name)
        return Answer(200, HEADERS, b"")

    return change

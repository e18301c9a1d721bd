"""The Open Inference Protocol V2 as OpenAPI, with the schemas of the models that are there.

Source: ``specification/protocol/open_inference_rest.yaml`` of the open-inference-protocol repository and, for the
repository and the binary tensors, Triton's extensions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from .. import examples
from .parts import (
    COMPUTING,
    READING,
    Json,
    Served,
    absent,
    answered,
    answering,
    any_of,
    bases,
    described,
    dimensions,
    golden,
    json_body,
    label,
    nested,
    sendable,
    value,
)

if TYPE_CHECKING:
    from ..manifest import TensorSpec
    from ..model import Model
    from ..models import Endpoint

TAG: Final = "Open Inference Protocol V2"
BINARY: Final = "binary_tensor_data"
_INDEX_PATH: Final = "/v2/repository/index"
_HEADER: Final = "Inference-Header-Content-Length"

_PARAMETERS: Final[Json] = {
    "type": ["object", "null"],
    "additionalProperties": {"type": ["string", "number", "boolean"]},
}
_TENSOR: Final[Json] = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": {"type": "string"},
        "datatype": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": -1}},
    },
}
_METADATA: Final[Json] = {
    "type": "object",
    "required": ["name", "versions", "platform", "inputs", "outputs"],
    "properties": {
        "name": {"type": "string"},
        "versions": {"type": "array", "items": {"type": "string"}},
        "platform": {"type": "string"},
        "inputs": {"type": "array", "items": _TENSOR},
        "outputs": {"type": "array", "items": _TENSOR},
    },
}
_INDEX: Final[Json] = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["name", "state", "reason"],
        "properties": {
            "name": {"type": "string"},
            "version": {"type": "string"},
            "state": {"enum": ["UNKNOWN", "READY", "UNAVAILABLE", "LOADING", "UNLOADING"]},
            "reason": {"type": "string"},
        },
    },
}


def paths(served: Served) -> dict[str, Json]:
    """Return the description of every V2 path there can be."""
    found = _server(served)
    for endpoint in served.snapshot.endpoints.values():
        named = {f"/v2/models/{endpoint.name}/versions/{label}": version for label, version in endpoint.labels.items()}
        there = {base: endpoint.versions[version] for base, version in named.items() if version in endpoint.versions}
        for base, model in (there | bases("/v2/models", endpoint)).items():
            found |= _of_model(served, endpoint, base, model)
    for base, name in absent("/v2/models", served.snapshot).items():
        found |= _of_none(served, base, name)
    for name in _known(served):
        for verb in ("load", "unload"):
            found[_change(name, verb)] = {
                "tags": [TAG],
                "summary": f"{verb.capitalize()} every version of {name}",
                "requestBody": {"required": False, "content": json_body({"type": "object"})},
                "responses": {"200": {"description": "Done.", "content": json_body({})}, **served.refusals(COMPUTING)},
            }
    return found


def unlisted(served: Served) -> dict[str, str]:
    """Return path -> verb of what is answered without being among the routes: loading and unloading of known names."""
    if _INDEX_PATH not in served.routes:
        return {}
    return {_change(name, verb): "POST" for name in _known(served) for verb in ("load", "unload")}


def _known(served: Served) -> list[str]:
    return list(dict.fromkeys(state.name for state in served.snapshot.states))


def _change(name: str, verb: str) -> str:
    return f"/v2/repository/models/{name}/{verb}"


def _of_none(served: Served, base: str, name: str) -> dict[str, Json]:
    """Describe the routes of a model that is not there: they say why."""
    told = _get(served, f"Why {name} is not there", {})
    return {
        base: told,
        f"{base}/ready": _ready(served, f"Whether {name} is loaded", []),
        f"{base}/infer": {
            **told,
            "requestBody": {"required": False, "content": json_body({})},
            "responses": {"200": {"description": "Never.", "content": json_body({})}, **served.refusals(COMPUTING)},
        },
    }


def _server(served: Served) -> dict[str, Json]:
    about = _get(served, "What the server is", {
        "type": "object", "required": ["name", "version", "extensions"],
        "properties": {"name": {"type": "string"}, "version": {"type": "string"},
                       "extensions": {"type": "array", "items": {"type": "string"}}},
    })  # fmt: skip
    live = {"type": "object", "required": ["live"], "properties": {"live": {"const": True}}}
    asked = {"type": "object", "properties": {"ready": {"type": "boolean"}}}
    return {
        "/v2": about,
        "/v2/": about,
        "/v2/health/live": _get(served, "Whether the server runs", live),
        "/v2/health/ready": _ready(served, "Whether every model is loaded", ["ready", "live"]),
        _INDEX_PATH: {
            "tags": [TAG],
            "summary": "Every model that was asked for, its state, and why it is not there",
            "requestBody": {"required": False, "content": json_body(asked)},
            "responses": {
                "200": {"description": "The index.", "content": json_body(_INDEX)},
                **served.refusals(COMPUTING),
            },
        },
    }


def _of_model(served: Served, endpoint: Endpoint, base: str, model: Model) -> dict[str, Json]:
    name = label(model)
    answers = [served.schema("V2Response", label(one), _response(one)) for one in answering(endpoint, model, base)]
    request = served.schema("V2Request", name, _request(model))
    return {
        base: _get(served, f"Metadata of {model.name}", served.schema("V2Metadata", "", _METADATA)),
        f"{base}/ready": _ready(served, f"Whether {model.name} is loaded", ["name", "ready"]),
        f"{base}/infer": {
            "tags": [TAG],
            "summary": f"Ask {model.name}",
            "description": f"Takes {described(model.inputs)}; gives {described(model.outputs)}.",
            **_infer(served, request, any_of(answers), golden(model, examples.open_inference)),
        },
        f"{base}/feedback": _feedback(served, model),
    }


def _infer(served: Served, request: Json, response: Json, known: Json) -> Json:
    """Return body and answers of an inference; the binary form too where the server advertises it."""
    body, answer = json_body(request, known), json_body(response)
    found: Json = {}
    if BINARY in _extensions(served):
        raw = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
        body |= {"application/octet-stream": raw}
        answer |= {"application/octet-stream": raw}
        found["parameters"] = [
            {
                "name": _HEADER,
                "in": "header",
                "required": False,
                "description": "Bytes of JSON in front of the tensors' raw bytes; 0 for one raw tensor alone.",
                "schema": {"type": "integer", "minimum": 0},
            }
        ]
    # no rows at all as one raw tensor are a header and no body
    found["requestBody"] = {"required": "parameters" not in found, "content": body}
    found["responses"] = {"200": {"description": "The outputs.", "content": answer}, **served.refusals(COMPUTING)}
    return found


def _feedback(served: Served, model: Model) -> Json:
    names = {"enum": [spec.name for spec in model.outputs]}
    truth = {"type": "object", "minProperties": 1, "propertyNames": names}
    asked = {
        "type": "object",
        "required": ["id", "truth"],
        "properties": {
            "id": {"type": "string", "minLength": 1, "description": "That of the request."},
            "truth": {**truth, "description": "Values by output: a list of one for each row, or that of one row."},
            "row": {"type": ["integer", "null"], "minimum": 0},
            "comment": {"type": ["string", "null"]},
        },
        "additionalProperties": False,
    }
    kept = {"type": "object", "properties": {"id": {"type": "string"}, "rows": {"type": "integer"}}}
    return {
        "tags": [TAG],
        "summary": f"Record the truth about an answer of {model.name}",
        "requestBody": {"required": True, "content": json_body(asked)},
        "responses": {
            "200": {"description": "Recorded.", "content": json_body(kept)},
            **served.refusals((*COMPUTING, 501)),
        },
    }


def _extensions(served: Served) -> list[str]:
    """Return what the server says of itself that it can do."""
    from ..answers import Answer

    if "/v2" not in served.routes:
        return []
    told = served.routes["/v2"].handler({}, b"")
    return list(msgspec.json.decode(told.body)["extensions"]) if isinstance(told, Answer) else []


def _get(served: Served, summary: str, schema: Json) -> Json:
    answers = {"200": {"description": summary + ".", "content": json_body(schema)}, **served.refusals(READING)}
    return {"tags": [TAG], "summary": summary, "responses": answers}


def _ready(served: Served, summary: str, required: list[str]) -> Json:
    """Describe a readiness route; its 503 has the same fields, or is an error of the server."""
    schema = {
        "type": "object",
        "required": required,
        "properties": {"name": {"type": "string"}, "ready": {"type": "boolean"}, "live": {"type": "boolean"}},
    }
    found = _get(served, summary, schema)
    error = {"$ref": "#/components/schemas/Error"}
    found["responses"]["503"] = {"description": "Not ready.", "content": json_body({"anyOf": [schema, error]})}
    return found


def _request(model: Model) -> Json:
    kinds = [_input(spec, model.kind) for spec in model.inputs]
    needed = [spec for spec in model.inputs if spec.required or model.kind != "columns" or spec.datatype[:2] != "FP"]
    names = {"enum": [spec.name for spec in model.outputs]}
    wanted = {"type": "object", "required": ["name"], "properties": {"name": names, "parameters": _PARAMETERS}}
    return {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": ["string", "null"]},
            "parameters": _PARAMETERS,
            "inputs": {
                "type": "array",
                "items": any_of(kinds),
                "minItems": max(len(needed), 1),
                "maxItems": len(kinds),
            },
            "outputs": {
                "type": ["array", "null"],
                "items": wanted,
                "maxItems": len(model.outputs),
                "uniqueItems": True,
            },
        },
    }


def _input(spec: TensorSpec, kind: str) -> Json:
    datatypes = sendable(spec.datatype)
    # one of the datatypes that hold others too: what is sent as INT8 for FP64 is a number as well
    item = {"type": "integer"} if datatypes[0] in datatypes[-8:] and len(datatypes) == 8 else value(spec.datatype)
    forms = [nested(item, [-1], 0), *([nested(item, spec.shape, 0)] if len(spec.shape) > 1 else [])]
    shapes = [dimensions(spec.shape, 0), dimensions([-1], 0)] if kind == "columns" else [dimensions(spec.shape, 0)]
    return {
        "type": "object",
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"const": spec.name},
            "shape": any_of(shapes),
            "datatype": {"enum": datatypes},
            "parameters": _PARAMETERS,
            "data": any_of(forms),
        },
    }


def _response(model: Model) -> Json:
    outputs = [
        {
            "type": "object",
            "required": ["name", "shape", "datatype", "data"],
            "properties": {
                "name": {"const": spec.name},
                "shape": answered(spec.shape),
                "datatype": {"const": spec.datatype},
                "parameters": _PARAMETERS,
                "data": nested(value(spec.datatype), [-1], 0),
            },
        }
        for spec in model.outputs
        if spec.datatype != "FP16"
    ]
    return {
        "type": "object",
        "required": ["model_name", "model_version", "outputs"],
        "properties": {
            "model_name": {"const": model.name},
            "model_version": {"const": model.version},
            "id": {"type": "string"},
            "parameters": _PARAMETERS,
            "outputs": {"type": "array", "items": any_of(outputs) if outputs else {}, "maxItems": len(model.outputs)},
        },
    }

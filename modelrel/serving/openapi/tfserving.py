"""TensorFlow Serving's REST interface as OpenAPI, and KServe's V1, which shares its paths.

Source: ``tensorflow_serving/g3doc/api_rest.md``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .. import examples
from .parts import COMPUTING, READING, Json, Served, absent, bases, described, golden, json_body

if TYPE_CHECKING:
    from ..model import Model

TAG: Final = "TensorFlow Serving"

_STATUS: Final[Json] = {
    "type": "object",
    "properties": {
        "model_version_status": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["version", "state", "status"],
                "properties": {
                    "version": {"type": "string"},
                    "state": {"enum": ["UNKNOWN", "START", "LOADING", "AVAILABLE", "UNLOADING", "END"]},
                    "status": {
                        "type": "object",
                        "properties": {"error_code": {"type": "string"}, "error_message": {"type": "string"}},
                    },
                },
            },
        },
        "name": {"type": "string"},
        "ready": {"type": "boolean"},
    },
}
_METADATA: Final[Json] = {
    "type": "object",
    "required": ["model_spec", "metadata"],
    "properties": {"model_spec": {"type": "object"}, "metadata": {"type": "object"}},
}
_PREDICT: Final[Json] = {
    "type": "object",
    "properties": {
        "signature_name": {"type": "string"},
        "instances": {"type": "array", "minItems": 1},
        "inputs": {"description": "One tensor, or tensors by name."},
    },
    "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
}
_PREDICTED: Final[Json] = {
    "type": "object",
    "properties": {"predictions": {"type": "array"}, "outputs": {}},
    "oneOf": [{"required": ["predictions"]}, {"required": ["outputs"]}],
}
_EXAMPLES: Final[Json] = {
    "type": "object",
    "required": ["examples"],
    "properties": {
        "signature_name": {"type": "string"},
        "context": {"type": "object"},
        "examples": {"type": "array", "minItems": 1, "items": {"type": "object"}},
    },
}
_RESULTS: Final[Json] = {"type": "object", "required": ["results"], "properties": {"results": {"type": "array"}}}


def paths(served: Served) -> dict[str, Json]:
    """Return the description of every path there can be under ``/v1``."""
    listed = {"type": "object", "required": ["models"], "properties": {"models": {"type": "array"}}}
    found = {"/v1/models": _get(served, "The names of all models (KServe's V1)", listed)}
    for endpoint in served.snapshot.endpoints.values():
        places = bases("/v1/models", endpoint)
        for name, version in endpoint.labels.items():
            if version in endpoint.versions:
                places[f"/v1/models/{endpoint.name}/labels/{name}"] = endpoint.versions[version]
        for base, model in places.items():
            found |= _of_model(served, base, model)
    for base, name in absent("/v1/models", served.snapshot).items():
        found[base] = _get(served, f"The state of {name}", _STATUS)
    return found


def _of_model(served: Served, base: str, model: Model) -> dict[str, Json]:
    takes = f"Takes {described(model.inputs)}; gives {described(model.outputs)}."
    known = golden(model, examples.tensorflow_serving)
    return {
        base: _get(served, f"The state of {model.name}", _STATUS),
        f"{base}/metadata": _get(served, f"The signatures of {model.name}", _METADATA),
        f"{base}:predict": _post(served, f"Ask {model.name}", json_body(_PREDICT, known), _PREDICTED, takes),
        f"{base}:classify": _post(served, f"Classify with {model.name}", json_body(_EXAMPLES), _RESULTS, takes),
        f"{base}:regress": _post(served, f"Regress with {model.name}", json_body(_EXAMPLES), _RESULTS, takes),
        f"{base}:explain": _post(served, f"Explain {model.name}", json_body({"type": "object"}), {}, takes),
    }


def _get(served: Served, summary: str, schema: Json) -> Json:
    answers = {"200": {"description": summary + ".", "content": json_body(schema)}, **served.refusals((400, *READING))}
    return {"tags": [TAG], "summary": summary, "responses": answers}


def _post(served: Served, summary: str, body: Json, answer: Json, description: str) -> Json:
    return {
        "tags": [TAG],
        "summary": summary,
        "description": description,
        "requestBody": {"required": True, "content": body},
        "responses": {
            "200": {"description": summary + ".", "content": json_body(answer)},
            **served.refusals((*COMPUTING, 501)),
        },
    }

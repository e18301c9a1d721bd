"""MLflow's scoring route as OpenAPI.

Source: ``mlflow/pyfunc/scoring_server/__init__.py``. Values are cast by the signature, text that holds a number is
read as one: so the schemas say the forms, and which values can never fit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .. import examples
from .parts import COMPUTING, READING, Json, Served, described, golden, json_body, label, value

if TYPE_CHECKING:
    from ..manifest import TensorSpec
    from ..model import Model

TAG: Final = "MLflow"
VERTEX: Final = "Vertex AI"
_FORMS: Final = ("dataframe_split", "dataframe_records", "instances", "inputs")


def paths(served: Served) -> dict[str, Json]:
    """Return the description of the routes in MLflow's form: of the first model, since they name none."""
    first = served.snapshot.first
    if first is None:
        return {}
    model = first.default
    known = golden(model, examples.mlflow)
    tables: Json = {"schema": {"type": "string", "description": "Columns by the names of the inputs."}}
    body = json_body(served.schema("MLflowRequest", label(model), _request(model)), known)
    answer = served.schema("MLflowResponse", label(model), _response(model))
    scoring = {
        "tags": [TAG],
        "summary": f"Ask {model.name} in one of MLflow's forms",
        "description": f"Takes {described(model.inputs)}; gives {model.predict_output}.",
        "requestBody": {
            "required": True,
            "content": {**body, "text/csv": tables, "application/vnd.apache.parquet": tables},
        },
        "responses": {
            "200": {"description": "The predictions.", "content": json_body(answer)},
            **served.refusals(COMPUTING),
        },
    }
    return {"/invocations": scoring, **_platforms(served, model)}


def _platforms(served: Served, model: Model) -> dict[str, Json]:
    """Describe the routes that Vertex AI names in the environment."""
    found: dict[str, Json] = {}
    if health := getattr(served.settings, "health_route", None):
        ready = {"type": "object", "properties": {"ready": {"type": "boolean"}}}
        answers = {"200": {"description": "It is.", "content": json_body(ready)}, **served.refusals(READING)}
        found[health] = {"tags": [VERTEX], "summary": "Whether every model is loaded", "responses": answers}
    if predict := getattr(served.settings, "predict_route", None):
        asked: Json = {
            "type": "object",
            "required": ["instances"],
            "properties": {"instances": {"type": "array"}, "parameters": {}},
        }
        answer = {"type": "object", "required": ["predictions"], "properties": {"predictions": {"type": "array"}}}
        found[predict] = {
            "tags": [VERTEX],
            "summary": f"Ask {model.name} as Vertex AI does",
            "requestBody": {"required": True, "content": json_body(asked)},
            "responses": {
                "200": {"description": "The predictions.", "content": json_body(answer)},
                **served.refusals(COMPUTING),
            },
        }
    return found


def _request(model: Model) -> Json:
    forms: Json = {
        "dataframe_split": {
            "type": "object",
            "required": ["data"],
            "properties": {
                "columns": {"type": ["array", "null"]},
                "index": {"type": ["array", "null"]},
                "data": {"type": "array", "minItems": 1},
            },
            "additionalProperties": False,
        },
        "dataframe_records": {"type": "array", "minItems": 1, "items": _record(model)},
        "instances": {},
        "inputs": {},
    }
    return {
        "type": "object",
        "properties": {**forms, "params": {"description": "An object: parameters, where the model has any."}},
        "oneOf": [{"required": [form]} for form in _FORMS],
    }


def _record(model: Model) -> Json:
    if model.kind != "columns":
        return {}
    return {"type": ["object", "array"], "properties": {spec.name: _cell(spec) for spec in model.inputs}}


def _cell(spec: TensorSpec) -> Json:
    """Return the schema of a value of a data frame: text must be text, the rest is cast."""
    if spec.datatype == "BYTES":
        return {"type": "string"}
    return {"type": ["number", "string", "boolean", "null"], "description": spec.datatype}


def _response(model: Model) -> Json:
    """Return the schema of an answer; where a float is no number, the JSON has the bare word NaN, as MLflow's."""
    spec = next(spec for spec in model.outputs if spec.name == model.predict_output)
    item = value(spec.datatype)
    predictions: Json = {"type": "array"}
    if len(spec.shape) == 1:
        predictions["items"] = item
    return {"type": "object", "required": ["predictions"], "properties": {"predictions": predictions}}

"""What the descriptions of all protocols are made of: JSON schemas of tensors, and answers that go wrong.

JSON Schema 2020-12, as OpenAPI 3.1 has it. A schema says what is necessary, and all that JSON Schema can say: that
``data`` has as many values as ``shape`` asks for it cannot.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ..answers import encode
from ..examples import first_row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ..calls import Routes
    from ..examples import Row, Values
    from ..manifest import TensorSpec
    from ..model import Model
    from ..models import Endpoint, Snapshot
    from ..options import Settings

Json = dict[str, Any]

INTEGERS: Final = ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64")
FLOATS: Final = ("FP16", "FP32", "FP64")

REASONS: Final[Mapping[int, str]] = {
    400: "The request does not fit the model; the sentence says where.",
    401: "The key is missing or wrong.",
    403: "A web page of another site asks, and may not.",
    404: "There is no such model, version or path (any more).",
    405: "The path answers another verb.",
    408: "The body did not arrive in time.",
    413: "The body is larger than the server takes.",
    415: "The body is of a content type or encoding that is not read here.",
    429: "The server has as many requests as it takes; try again after Retry-After seconds.",
    500: "The model could not compute the request.",
    501: "The model cannot do this.",
    503: "The model, or the server, is not ready.",
    504: "The request took longer than the server's limit.",
}

READING: Final = (404, 405, 429, 500, 503)
"""What may go wrong with a GET."""

EXAMPLE_BYTES: Final = 4096
"""Longer examples are left out: nobody reads them, and a document of 10 image models would be megabytes."""

COMPUTING: Final = (400, 403, 404, 405, 408, 413, 415, 429, 500, 503, 504)
"""What may go wrong with a request that has a body and a model behind it."""


@dataclass(slots=True)
class Served:
    """What is described: the routes there are, the models behind them, and the components collected on the way.

    ``settings`` are those of the server, None where it has none.
    """

    routes: Routes
    snapshot: Snapshot
    settings: Settings | None = None
    schemas: Json = field(default_factory=dict)
    _names: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def keys(self) -> bool:
        """Whether clients must send a key."""
        return bool(self.settings and (self.settings.api_key or self.settings.api_key_file))

    def schema(self, what: str, of: str, schema: Json) -> Json:
        """Put a schema among the components, once, and return the reference to it.

        The two together name it; the name of a component has letters, digits, ``.``, ``-`` and ``_`` only.
        """
        if (what, of) not in self._names:
            plain = name = re.sub(r"[^A-Za-z0-9._-]+", "_", f"{what}-{of}" if of else what)
            number = 1
            while name in self.schemas:
                number += 1
                name = f"{plain}.{number}"
            self._names[what, of] = name
            self.schemas[name] = schema
        return {"$ref": f"#/components/schemas/{self._names[what, of]}"}

    def refusals(self, statuses: Iterable[int]) -> Json:
        """Return the answers of an operation that go wrong."""
        asked = (*statuses, 401) if self.keys else statuses
        return {str(status): {"$ref": f"#/components/responses/Refused{status}"} for status in sorted(asked)}


def refused() -> Json:
    """Return the components of refusals: every one is ``{"error": sentence}``, MLflow's with two more fields."""
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    found: Json = {}
    for status, reason in REASONS.items():
        found[f"Refused{status}"] = {"description": reason, "content": content}
    seconds = {"description": "Seconds to wait.", "schema": {"type": "string"}}
    found["Refused429"]["headers"] = {"Retry-After": seconds}
    found["Refused405"]["headers"] = {"Allow": {"description": "What it answers.", "schema": {"type": "string"}}}
    return found


ERROR: Final[Json] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {"type": "string", "description": "One sentence."},
        "error_code": {"type": "string", "description": "MLflow's word for the kind of error."},
        "message": {"type": "string", "description": "The sentence again, where MLflow's clients look for it."},
    },
}


def label(model: Model) -> str:
    """Return the name of a model's schemas."""
    return f"{model.name}-{model.version}"


def bases(prefix: str, endpoint: Endpoint) -> dict[str, Model]:
    """Return the paths of a name without version, and with each, and who answers there."""
    found = {f"{prefix}/{endpoint.name}": endpoint.default}
    found |= {f"{prefix}/{endpoint.name}/versions/{version}": model for version, model in endpoint.versions.items()}
    return found


def absent(prefix: str, snapshot: Snapshot) -> dict[str, str]:
    """Return the paths of what was asked for and is not there, and the name that it was asked for by."""
    found = {}
    for name, version, _, _ in snapshot.states:
        if name not in snapshot.endpoints:
            found[f"{prefix}/{name}"] = name
        if name not in snapshot.endpoints or version not in snapshot.endpoints[name].versions:
            found[f"{prefix}/{name}/versions/{version}"] = name
    return found


def answering(endpoint: Endpoint, model: Model, path: str) -> list[Model]:
    """Return the models that may answer a request to ``path``: with variants, any of them."""
    if path.endswith(f"/{endpoint.name}") and endpoint.variants:
        return [variant for variant, _ in endpoint.variants]
    return [model]


def any_of(schemas: Sequence[Json]) -> Json:
    """Return what fits one of several schemas."""
    return schemas[0] if len(schemas) == 1 else {"anyOf": list(schemas)}


def json_body(schema: Json, examples: Json | None = None) -> Json:
    """Return a request body, or the content of an answer, in JSON."""
    content: Json = {"schema": schema}
    if examples:
        content["examples"] = examples
    return {"application/json": content}


def value(datatype: str) -> Json:
    """Return the schema of one value as a tensor of this datatype has it in JSON; null is NaN."""
    if datatype in INTEGERS:
        bits = int(re.sub(r"\D", "", datatype))
        low, high = (0, 2**bits - 1) if datatype[0] == "U" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        return {"type": "integer", "minimum": low, "maximum": high}
    return {"type": {"BOOL": "boolean", "BYTES": "string"}.get(datatype, ["number", "null"])}


def nested(item: Json, shape: Sequence[int], least: int) -> Json:
    """Return the schema of lists nested to a shape; -1 is any length from ``least``."""
    schema = item
    for size in reversed(shape):
        bounds = {"minItems": size, "maxItems": size} if size >= 0 else {"minItems": least}
        schema = {"type": "array", "items": schema, **bounds}
    return schema


def dimensions(shape: Sequence[int], least: int) -> Json:
    """Return the schema of a ``shape`` that fits; -1 is any number from ``least``."""
    kinds = [_dimension(size, least) for size in shape]
    bounds: Json = {"type": "array", "minItems": len(shape), "maxItems": len(shape)}
    if any(kind != kinds[0] for kind in kinds):
        return {**bounds, "prefixItems": kinds}
    return {**bounds, "items": kinds[0] if kinds else {}}


def answered(shape: Sequence[int]) -> Json:
    """Return the schema of the ``shape`` of an answer, of words that every reader of OpenAPI knows."""
    kinds = [_dimension(size, 0) for size in sorted(set(shape))]
    return {"type": "array", "minItems": len(shape), "maxItems": len(shape), "items": any_of(kinds) if kinds else {}}


def _dimension(size: int, least: int) -> Json:
    return {"type": "integer", "const": size} if size >= 0 else {"type": "integer", "minimum": least}


def sendable(datatype: str) -> list[str]:
    """Return the datatypes that may be sent for one in JSON: those whose values need not change on the way."""
    if datatype in INTEGERS:
        return [datatype, *(other for other in INTEGERS if other != datatype)]
    if datatype in FLOATS:
        floats = [other for other in FLOATS if other not in (datatype, "FP16")]
        own = [] if datatype == "FP16" else [datatype]
        return [*own, *floats, *INTEGERS]
    return [datatype]


def described(specs: Sequence[TensorSpec]) -> str:
    """Return tensors in words, for a description."""
    return ", ".join(f"{spec.name} ({spec.datatype} {list(spec.shape)})" for spec in specs)


def golden(model: Model, request: Callable[[Model, Row], Values | None]) -> Json:
    """Return the golden row as the example of a request, where the folder has one that is short enough to read."""
    row = first_row(model)
    sent = request(model, row) if row else None
    if sent is None or len(encode(sent)) > EXAMPLE_BYTES:
        return {}
    return {"golden": {"summary": "a row that the release was proven with", "value": sent}}

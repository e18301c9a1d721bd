"""What a server says about itself, as OpenAPI: health, version, metrics, the page, this document, examples."""

from __future__ import annotations

from typing import Final

from .. import examples
from .parts import READING, Json, Served, json_body

TAG: Final = "Server"

HEALTH: Final = frozenset({"/ping", "/health", "/v2/health/live", "/v2/health/ready"})
"""What is asked by load balancers and containers, which have no key."""

_TEXT: Final[Json] = {"schema": {"type": "string"}}


def paths(served: Served) -> dict[str, Json]:
    """Return the description of every path of the server itself there can be."""
    health = _get(served, "Whether the server answers, in MLflow's and SageMaker's way", {"application/json": {}})
    version = {"text/plain": _TEXT, "application/json": {"schema": {"type": "string"}}}
    page = {"text/html": _TEXT, "application/json": {"schema": {"type": "object"}}}
    limits = {
        "type": "object",
        "properties": {
            "MaxConcurrentTransforms": {"type": "integer"},
            "BatchStrategy": {"enum": ["MULTI_RECORD", "SINGLE_RECORD"]},
            "MaxPayloadInMB": {"type": "integer"},
        },
    }
    found = {
        "/": _get(served, "A page for people: models, signatures, provenance, a request to try", page),
        "/openapi.json": _get(served, "This document", json_body({"type": "object"})),
        "/ping": health,
        "/health": health,
        "/version": _get(served, "The version of the server", version),
        "/metrics": _get(served, "Metrics for Prometheus", {"text/plain": _TEXT}),
        "/execution-parameters": _get(served, "What SageMaker's batch transform may send", json_body(limits)),
    }
    for endpoint in served.snapshot.endpoints.values():
        for version_name, model in endpoint.versions.items():
            for name, protocol in examples.PROTOCOLS.items():
                path = f"/examples/{endpoint.name}/versions/{version_name}/{name}"
                summary = f"A request for {model.name} that it is known to answer: {protocol.title}"
                found[path] = _get(served, summary, json_body({"type": "object"}))
    return found


def _get(served: Served, summary: str, content: Json) -> Json:
    answers = {"200": {"description": summary + ".", "content": content}, **served.refusals(READING)}
    return {"tags": [TAG], "summary": summary, "responses": answers}

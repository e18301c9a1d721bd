"""What somebody meets who knows nothing of the server yet: the page at ``/``, ``/openapi.json``, examples to send."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

from .answers import Answer, Refused, as_json
from .calls import Route

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .calls import Handler, Routes
    from .model import Model
    from .models import Endpoint, Snapshot
    from .options import Settings

_THREAD: Final = -1


def add(found: Routes, snapshot: Snapshot, settings: Settings | None = None) -> None:
    """Add the routes that tell people and tools about all the others, which must be in ``found`` already.

    What they say is made when it is asked for, once: a server that nobody looks at pays nothing for it.
    """
    keys = bool(settings and (settings.api_key or settings.api_key_file))

    @cache
    def page() -> Answer:
        from .page import page

        return page(found, snapshot, keys=keys)

    @cache
    def document() -> Answer:
        from .openapi import document

        return as_json(document(found, snapshot, settings))

    def index(headers: Mapping[str, str], _body: bytes) -> Answer:
        wanted = headers.get("accept", "")
        return _index(snapshot) if "application/json" in wanted and "text/html" not in wanted else page()

    found["/"] = Route("GET", index, _THREAD)
    found["/openapi.json"] = Route("GET", lambda _headers, _body: document(), _THREAD)
    for endpoint in snapshot.endpoints.values():
        for version, model in endpoint.versions.items():
            if model.golden_file is not None:
                for protocol in asked_at(found, snapshot, endpoint, model):
                    found[example_path(endpoint.name, version, protocol)] = Route(
                        "GET", _example(model, protocol), _THREAD
                    )


def locked(error: Refused, path: str, headers: Mapping[str, str]) -> Answer | None:
    """Return the page that asks a person for a key, where a browser came to ``/`` without one; else None.

    ``error`` is why the request is refused; a program gets that in JSON.
    """
    if error.status != 401 or path != "/" or "text/html" not in headers.get("accept", ""):
        return None
    from .page import locked

    answer = locked()
    return answer._replace(headers={**answer.headers, **error.headers})


def asked_at(found: Routes, snapshot: Snapshot, endpoint: Endpoint, model: Model) -> dict[str, str]:
    """Return protocol -> the path where a version is asked, of the protocols that are served.

    The path names the version where there are others. MLflow's names nothing: it is that of the first model.
    """
    name = endpoint.name if len(endpoint.versions) == 1 else f"{endpoint.name}/versions/{model.version}"
    first = endpoint is snapshot.first and model is endpoint.default and not endpoint.variants
    paths = {"v2": f"/v2/models/{name}/infer", "tfserving": f"/v1/models/{name}:predict"}
    if first:
        paths["mlflow"] = "/invocations"
    return {protocol: path for protocol, path in paths.items() if path in found}


def example_path(name: str, version: str, protocol: str) -> str:
    """Return where a golden row is handed out as a request."""
    return f"/examples/{name}/versions/{version}/{protocol}"


def _example(model: Model, protocol: str) -> Handler:
    return lambda _headers, _body: _example_of(model, protocol)


def _example_of(model: Model, protocol: str) -> Answer:
    from .examples import PROTOCOLS, first_row

    row = first_row(model)
    sent = PROTOCOLS[protocol].request(model, row) if row else None
    if sent is None:
        raise Refused(404, f"there is no example of {model.name}/{model.version} in this form")
    return as_json(sent)


def _index(snapshot: Snapshot) -> Answer:
    models = [
        {"name": name, "version": version, "state": state, "reason": reason}
        for name, version, state, reason in snapshot.states
    ]
    return as_json({"models": models, "openapi": "/openapi.json"})

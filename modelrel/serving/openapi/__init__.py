"""The OpenAPI 3.1 document of a server, made from its routes and the signatures of the models behind them.

Source: the OpenAPI Specification 3.1.1, https://spec.openapis.org/oas/v3.1.1. One module describes each protocol; it is
here and not beside the protocol's own code, because a server that nobody asks for the document never imports it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from .. import VERSION
from . import mlflow, server, tfserving, v2
from .parts import ERROR, Served, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..calls import Routes
    from ..models import Snapshot
    from ..options import Settings

    Describe = Callable[[Served], Mapping[str, dict[str, Any]]]

DESCRIBERS: Final[tuple[Describe, ...]] = (server.paths, v2.paths, mlflow.paths, tfserving.paths)
"""What describes paths, as the routes have them. More may be described than there is: what is there is shown."""


def document(routes: Routes, snapshot: Snapshot, settings: Settings | None = None) -> dict[str, Any]:
    """Return the document of all routes that have a description; ``settings`` say whether clients must send a key."""
    served = Served(routes, snapshot, settings)
    known: dict[str, dict[str, Any]] = {}
    for describe in DESCRIBERS:
        known |= describe(served)
    verbs = {path: route.verb for path, route in routes.items() if path in known} | v2.unlisted(served)
    names = _Names()
    paths = {
        quote(path, safe="/:@!$&'()*+,;=-._~"): {
            verb.lower(): {"operationId": names.unique(verb, path), **known[path], **_open(served, path)}
        }
        for path, verb in verbs.items()
    }
    models = ", ".join(f"{name}/{end.default.version}" for name, end in snapshot.endpoints.items())
    tags = dict.fromkeys(tag for path in verbs for tag in known[path]["tags"])
    components: dict[str, Any] = {"schemas": {"Error": ERROR, **served.schemas}, "responses": refused()}
    found = {
        "openapi": "3.1.0",
        "info": {"title": "modelrel", "version": VERSION, "description": f"Released models: {models}."},
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in tags],
        "paths": paths,
        "components": components,
    }
    if served.keys:
        header = {"type": "apiKey", "in": "header", "name": "X-Api-Key"}
        components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}, "header": header}
        found["security"] = [{"bearer": []}, {"header": []}]
    return found


def undescribed(routes: Routes, snapshot: Snapshot, settings: Settings | None = None) -> list[str]:
    """Return the paths that the document leaves out because nothing describes them."""
    served = Served(routes, snapshot, settings)
    known = {path for describe in DESCRIBERS for path in describe(served)}
    return [path for path in routes if path not in known and path.startswith("/")]  # others are not HTTP's


def _open(served: Served, path: str) -> dict[str, Any]:
    """Say of a path that it needs no key, where the others do: those who ask whether a server is up have none."""
    return {"security": []} if served.keys and path in server.HEALTH else {}


class _Names:
    """Operation ids: letters, digits and ``_``, each once."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def unique(self, verb: str, path: str) -> str:
        plain = name = f"{verb.lower()}{re.sub(r'[^A-Za-z0-9]+', '_', path).rstrip('_')}" or "root"
        number = 1
        while name in self._taken:
            number += 1
            name = f"{plain}_{number}"
        self._taken.add(name)
        return name

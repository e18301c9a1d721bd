"""Requests to answers, without a transport: the ASGI application, a Lambda handler and tests all call ``answer``."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from . import VERSION
from .answers import TEXT_HEADERS, Answer, Refused, as_json
from .invocations import Invocations, mlflow_error
from .v2 import OpenInference

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .model import Model

    Handler = Callable[[Mapping[str, str], bytes], Answer]
    Routes = dict[str, tuple[str, Handler]]

_log: Final = logging.getLogger("modelrel.serving")


def answer(model: Model, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
    """Answer one HTTP request. It never raises: every failure is an answer with ``{"error": ...}`` in it.

    ``method`` is upper case, ``path`` percent-decoded and without the query, ``headers`` have lower-case names,
    ``body`` is complete and within whatever limit the carrier sets.
    """
    try:
        return _handler(model, method, path)(headers, body)
    except Refused as error:
        return failure(path, error)
    except Exception:  # noqa: BLE001 (the last line of defence)
        # Of the reason a client learns nothing: it may hold paths, data of others or the inside of the model.
        _log.exception("%s %s failed", method, path)
        return failure(path, Refused(500, "the model could not compute this request"))


def _handler(model: Model, method: str, path: str) -> Handler:
    verb, handler = _routes(model).get(path) or _lost(model, path)
    if verb != method and (verb, method) != ("GET", "HEAD"):
        allowed = "GET, HEAD" if verb == "GET" else verb
        raise Refused(405, f"{quote(path)} answers {allowed}, not {method}", {"allow": allowed})
    return handler


def failure(path: str, error: Refused) -> Answer:
    """Render a refusal in the dialect of the route it happened on."""
    fields = mlflow_error(error) if path == "/invocations" else {"error": str(error)}
    refused = as_json(fields, error.status)
    return refused._replace(headers={**refused.headers, **error.headers}) if error.headers else refused


@lru_cache(maxsize=64)
def _routes(model: Model) -> Routes:
    """List every path of the model, so that finding one is a single look-up."""
    v2 = OpenInference(model)
    ping = Answer(200, {"content-type": "application/json"}, b"\n")
    version = Answer(200, TEXT_HEADERS, VERSION.encode())
    routes: Routes = {
        "/v2": ("GET", _always(v2.server)),
        "/v2/": ("GET", _always(v2.server)),
        "/v2/health/live": ("GET", _always(v2.live)),
        "/v2/health/ready": ("GET", _always(v2.ready)),
        "/ping": ("GET", _always(ping)),
        "/health": ("GET", _always(ping)),
        "/version": ("GET", _always(version)),
        "/invocations": ("POST", Invocations(model).invoke),
    }
    for base in (f"/v2/models/{model.name}", f"/v2/models/{model.name}/versions/{model.version}"):
        routes[base] = ("GET", _always(v2.model_metadata))
        routes[f"{base}/ready"] = ("GET", _always(v2.model_ready))
        routes[f"{base}/infer"] = ("POST", v2.infer)
    return routes


def _always(fixed: Answer) -> Handler:
    return lambda _headers, _body: fixed


def _lost(model: Model, path: str) -> tuple[str, Handler]:
    """Say why a path leads nowhere: another model, another version, or no route at all."""
    parts = path.split("/")
    if len(parts) >= 4 and path.startswith("/v2/models/"):
        if not path.startswith(f"/v2/models/{model.name}/") and path != f"/v2/models/{model.name}":
            raise Refused(404, f"there is no model {parts[3]!r} here, only {model.name!r}")
        rest = path[len(f"/v2/models/{model.name}/") :].split("/")
        if len(rest) >= 2 and rest[0] == "versions" and rest[1] != model.version:
            raise Refused(404, f"model {model.name!r} has no version {rest[1]!r} here, only {model.version!r}")
    raise Refused(404, f"there is nothing at {quote(path, errors='replace')}")

"""Requests to answers, without a transport: the ASGI application, a Lambda handler and tests all call ``answer``."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from . import VERSION, front, invocations, repository, v2
from .answers import JSON_HEADERS, TEXT_HEADERS, Answer, Refused, quoted, signed
from .calls import Route, always
from .compression import unpacked
from .model import Model
from .models import Models, Snapshot
from .v1 import V1

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .calls import Routes
    from .options import Settings

    Provider = Callable[[Models, Snapshot], Routes]

_log: Final = logging.getLogger("modelrel.serving")

UNPACKED_BYTES: Final = 64 * 1024 * 1024
"""Largest body that ``answer`` unpacks."""


class Router:
    """The routes to all that is served, made anew where what is served has changed."""

    def __init__(self, models: Models, *more: Provider, settings: Settings | None = None) -> None:
        """Keep the models, what gives routes beyond those of every server, and what the settings say about forms.

        The routes of every server keep their paths; the page at ``/`` says what the settings are.
        """
        self.models = models
        self._settings = settings
        self._v1 = V1() if settings is None else V1(settings.v1, settings.pass_through)
        self._providers = (*more, *PROVIDERS, self._v1.routes)
        # One value, so that a thread never sees the routes of one snapshot beside another.
        self._made = models.snapshot, self._listed(models.snapshot)

    def add(self, *more: Provider) -> None:
        """Add what gives routes beyond those of every server."""
        self._providers += more
        self._made = self.models.snapshot, self._listed(self.models.snapshot)

    def route(self, method: str, path: str) -> Route:
        """Return the route of a path. Raises ``Refused``: 404 where there is none, 405 for another verb."""
        snapshot = self.models.snapshot
        known, routes = self._made
        if snapshot is not known:
            routes = self._listed(snapshot)
            self._made = snapshot, routes
        found = routes.get(path) or repository.found(self.models, path)
        if path[:4].lower() == "/v1/" and (found is None or found.verb != method):
            return self._v1.lost(routes, snapshot, method, path)
        if found is None:
            raise _lost(snapshot, path.removeprefix("grpc:"))
        if found.verb != method and (found.verb, method) != ("GET", "HEAD"):
            allowed = "GET, HEAD" if found.verb == "GET" else found.verb
            raise Refused(405, f"{quoted(path)} answers {allowed}, not {method}", {"allow": allowed})
        return found

    def entered(self, method: str, path: str) -> Route:
        """Return the route of a path as ``route`` does, its model entered: whoever gets it has to leave the model."""
        found = self.route(method, path)
        while found.model is not None and not found.model.enter():
            # It was unloaded between the two steps. What is served instead was published before that.
            fresh = self.route(method, path)
            if fresh is found:
                raise Refused(503, "the server is stopping")
            found = fresh
        return found

    def _listed(self, snapshot: Snapshot) -> Routes:
        found: Routes = {}
        for provider in self._providers:
            found |= provider(self.models, snapshot)
        front.add(found, snapshot, self._settings)
        return found


def answer(served: Model | Router, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
    """Answer one HTTP request. It never raises: every failure is an answer with ``{"error": ...}`` in it.

    ``method`` is upper case, ``path`` percent-decoded and without the query, ``headers`` have lower-case names,
    ``body`` is complete and within whatever limit the carrier sets; one that is packed (gzip, deflate) is unpacked.
    """
    router = _alone(served) if isinstance(served, Model) else served
    try:
        route = router.entered(method, path)
        try:
            if "content-encoding" in headers:
                headers, body = unpacked(headers, body, UNPACKED_BYTES)
            found = route.handler(headers, body)
            if isinstance(found, Answer):
                return found
            found.headers = headers
            results = found.model.run(found.outputs, found.feeds, found.params)
            return signed(found.render(found, results), found.model.headers)
        finally:
            if route.model is not None:
                route.model.leave()
    except Exception as error:  # noqa: BLE001 (the last line of defence)
        return failed(method, path, error)


@lru_cache(maxsize=8)
def _alone(model: Model) -> Router:
    return Router(Models.of(model))


def failed(method: str, path: str, error: Exception) -> Answer:
    """Turn whatever was raised into an answer in the dialect of the route it happened on."""
    if isinstance(error, Refused):
        return failure(path, error)
    # Of the reason a client learns nothing: it may hold paths, data of others or the inside of the model.
    _log.error("%s %s failed", method, path, exc_info=error)
    return failure(path, Refused(500, "the model could not compute this request"))


def failure(path: str, error: Refused) -> Answer:
    """Render a refusal in the dialect of the route it happened on."""
    render = next((dialect for start, dialect in DIALECTS.items() if path.startswith(start)), v2.failure)
    refused = render(error)
    return refused._replace(headers={**refused.headers, **error.headers}) if error.headers else refused


DIALECTS: Final[dict[str, Callable[[Refused], Answer]]] = {"/invocations": invocations.failure}
"""Start of a path -> how its protocol says a refusal; the Open Inference Protocol's way is the rest's."""


def _server(_models: Models, snapshot: Snapshot) -> Routes:
    """Return the routes that say how the server is: MLflow's, and so SageMaker's."""
    ping = always(Answer(404 if snapshot.first is None else 200, JSON_HEADERS, b"\n"))
    version = always(Answer(200, TEXT_HEADERS, VERSION.encode()))
    return {"/ping": Route("GET", ping), "/health": Route("GET", ping), "/version": Route("GET", version)}


PROVIDERS: Final[tuple[Provider, ...]] = (_server, v2.routes, repository.routes, invocations.routes)
"""What gives the routes of every server; a later one wins."""


def _lost(snapshot: Snapshot, path: str) -> Refused:
    """Say why a path leads nowhere: another model, another version, or no route at all."""
    parts = path.split("/")
    if len(parts) >= 4 and path.startswith("/v2/models/"):
        names = sorted((name for name in snapshot.endpoints if path.startswith(f"/v2/models/{name}/")), key=len)
        if not names and path[len("/v2/models/") :] not in snapshot.endpoints:
            known = ", ".join(map(repr, snapshot.endpoints))
            return Refused(404, f"there is no model {parts[3]!r} here, only {known}")
        if names:
            endpoint = snapshot.endpoints[names[-1]]
            rest = path[len(f"/v2/models/{endpoint.name}/") :].split("/")
            if len(rest) >= 2 and rest[0] == "versions" and rest[1] not in endpoint.named:
                known = ", ".join(map(repr, endpoint.named))
                return Refused(404, f"model {endpoint.name!r} has no version {rest[1]!r} here, only {known}")
    return Refused(404, f"there is nothing at {quoted(path)}")

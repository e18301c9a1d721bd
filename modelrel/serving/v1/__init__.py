"""TensorFlow Serving's REST API and KServe's V1, the two protocols below ``/v1``.

Source: ``g3doc/api_rest.md``, ``model_servers/http_rest_api_util.cc`` and ``model_servers/http_rest_api_handler.cc`` of
tensorflow/serving; ``docs/predict-api`` of kserve. They agree on predict, and not on what ``GET /v1/models/NAME`` says:
``form`` decides whose word it is, and with it what ``GET /v1/models`` and ``:explain`` answer. In KServe's form an
instance may also be a list of a table's columns in their order, as its servers of scikit-learn, XGBoost and LightGBM
models take it.

Where this server differs from TF Serving, besides what ``careful``, ``examples`` and ``answers`` name: a version may be
any word and not just a number; HEAD is answered where GET is; and an unknown model is said before the body is read.
"""

from __future__ import annotations

import re
from functools import cache, cached_property
from typing import TYPE_CHECKING, Final

from ..answers import JSON_HEADERS, Answer, Refused, as_json
from ..calls import Route, always
from .metadata import metadata, shortened, status

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..calls import Call, Handler, Routes
    from ..model import Model
    from ..models import Endpoint, Models, Snapshot
    from .verbs import Verbs

FORMS: Final = ("tfserving", "kserve")

_MOST: Final = 2**63 - 1  # a version is an int64


@cache
def _path() -> re.Pattern[str]:
    """Return the form of all paths. A decoded name may have any character, so it ends where the rest begins."""
    version = "(?:/versions/(?P<version>[^/:]+)|/labels/(?P<label>.+?))?"
    verb = "(?:/(?P<metadata>metadata)|:(?P<verb>classify|regress|predict|explain))?"
    return re.compile(f"/v1/models(?:/(?P<name>.+?))?{version}{verb}", re.IGNORECASE | re.DOTALL)


class V1:
    """The routes below ``/v1``. ``form`` is one of ``FORMS``; ``fields`` are passed through, several by commas too."""

    def __init__(self, form: str = "tfserving", fields: Sequence[str] = ()) -> None:
        self._kserve = form == "kserve"
        self._fields = tuple(dict.fromkeys(name for said in fields for name in said.split(",") if name))

    def routes(self, _models: Models, snapshot: Snapshot) -> Routes:
        """Return the routes of all that is served."""
        found: Routes = {}
        if self._kserve:
            found["/v1/models"] = Route("GET", always(as_json({"models": list(snapshot.endpoints)})))
        for endpoint in snapshot.endpoints.values():
            base = f"/v1/models/{endpoint.name}"
            found |= self._of(base, endpoint.default, endpoint)
            found[base] = Route("GET", self._state(snapshot, endpoint.name))
            for version, model in endpoint.versions.items():
                found |= self._of(f"{base}/versions/{version}", model, None)
                found[f"{base}/versions/{version}"] = Route("GET", status(snapshot, endpoint.name, version))
            for label, version in endpoint.labels.items():
                if version in endpoint.versions:
                    found |= self._of(f"{base}/labels/{label}", endpoint.versions[version], None)
                    found[f"{base}/labels/{label}"] = Route("GET", status(snapshot, endpoint.name, version))
        return found | self._absent(snapshot)

    def _absent(self, snapshot: Snapshot) -> Routes:
        """Return the routes that say what became of models that are not loaded."""
        found: Routes = {}
        for name, version, _, _ in snapshot.states:
            base = f"/v1/models/{name}"
            if name not in snapshot.endpoints:
                found[base] = Route("GET", self._state(snapshot, name))
            if name not in snapshot.endpoints or version not in snapshot.endpoints[name].versions:
                found[f"{base}/versions/{version}"] = Route("GET", status(snapshot, name, version))
        return found

    def _state(self, snapshot: Snapshot, name: str) -> Handler:
        if not self._kserve:
            return status(snapshot, name)
        unready = as_json({"name": name, "ready": False}, 503)
        if name not in snapshot.endpoints:
            return always(unready)
        ready, models = as_json({"name": name, "ready": True}), snapshot.endpoints[name].default.signatures.values()
        return lambda _headers, _body: ready if all(model.ready for model in models) else unready

    def _of(self, base: str, model: Model, endpoint: Endpoint | None) -> Routes:
        late = _Late(model, self._fields, by_place=self._kserve)
        longest = min(one.inline_bytes for one in model.signatures.values())
        asked = {"predict": late.predict, "classify": late.classify, "regress": late.regress}
        found = {f"{base}:{verb}": Route("POST", ask, longest, model, endpoint) for verb, ask in asked.items()}
        return found | {f"{base}/metadata": Route("GET", metadata(model))}

    def lost(self, routes: Routes, snapshot: Snapshot, method: str, path: str) -> Route:
        """Return the route of a path that is spelt another way, or of OPTIONS. Raises ``Refused`` for what is none.

        Of a path below /v1 TF Serving never says 404 but where the model or the version is not there, nor 405.
        """
        if method == "OPTIONS":
            return Route("OPTIONS", _options)
        parts = _path().fullmatch(path)
        got = parts.groupdict() if parts else {}
        verb = (got.get("verb") or "").lower()
        if not parts or (method == "POST") is not bool(verb) or method not in ("GET", "HEAD", "POST"):
            raise _malformed(method, path)
        if verb == "explain":
            if not self._kserve:
                raise _malformed(method, path)
            raise Refused(501, "this server explains nothing: its models have no explainer")
        if not got["name"]:
            return self._nameless(routes, got, method, path)
        end = f":{verb}" if verb else "/metadata" if got["metadata"] else ""
        middle = f"/versions/{got['version']}" if got["version"] else f"/labels/{got['label']}" if got["label"] else ""
        found = routes.get(f"/v1/models/{got['name']}{middle}{end}")
        if found is not None and found.verb == ("GET" if method == "HEAD" else method):
            return found
        raise _unknown(snapshot, got, method, path, asks_status=not end)

    def _nameless(self, routes: Routes, got: Mapping[str, str | None], method: str, path: str) -> Route:
        if got["version"] or got["label"] or got["verb"]:
            raise _malformed(method, path)
        if not self._kserve:
            raise Refused(400, "Missing model name in request.")
        return routes["/v1/models"]


def _malformed(method: str, path: str) -> Refused:
    return Refused(400, f"Malformed request: {method} {shortened(path)}")


def _unknown(
    snapshot: Snapshot, got: Mapping[str, str | None], method: str, path: str, *, asks_status: bool
) -> Refused:
    """Say which part of a path is not there."""
    name, version, label = shortened(str(got["name"])), got["version"], got["label"]
    endpoint = snapshot.endpoints.get(str(got["name"]))
    known = endpoint is not None and (version is None or version in endpoint.versions)
    if (label is None or (endpoint and label in endpoint.labels)) and known:
        return _malformed(method, path)
    if endpoint is None and (":" in name or "/" in name):
        return _malformed(method, path)
    if label is not None:
        return Refused(400, f"Unrecognized servable version label: {shortened(label)}")
    if version is None:
        any_version = f"Could not find any versions of model {name}"
        return Refused(404, any_version if asks_status else f"Servable not found for request: Latest({name})")
    if not (version.isascii() and version.isdigit()):
        return _malformed(method, path)
    if len(version) > 19 or int(version) > _MOST:
        return Refused(400, f"Failed to convert version: {shortened(version)} to numeric.")
    one_version = f"Could not find version {int(version)} of model {name}"
    return Refused(404, one_version if asks_status else f"Servable not found for request: Specific({name}, {version})")


def _options(headers: Mapping[str, str], _body: bytes) -> Answer:
    """Answer OPTIONS: a web page's origin gets an empty 200. Which pages may ask on is another matter."""
    if not headers.get("origin", "").lower().startswith(("http://", "https://")):
        raise Refused(400, "Malformed request: OPTIONS without an Origin of http or https")
    return Answer(200, JSON_HEADERS, b"")


class _Late:
    """The verbs of one model; nothing of them is made, or imported, before the first request."""

    def __init__(self, model: Model, fields: Sequence[str], *, by_place: bool) -> None:
        self._model = model
        self._fields = fields
        self._by_place = by_place

    @cached_property
    def _verbs(self) -> Verbs:
        from .verbs import Verbs

        return Verbs(self._model, self._fields, by_place=self._by_place)

    def predict(self, _headers: Mapping[str, str], body: bytes) -> Call:
        """Read ``POST ...:predict``. Raises ``Refused``."""
        return self._verbs.predict(body)

    def classify(self, _headers: Mapping[str, str], body: bytes) -> Call:
        """Read ``POST ...:classify``. Raises ``Refused``."""
        return self._verbs.classify(body)

    def regress(self, _headers: Mapping[str, str], body: bytes) -> Call:
        """Read ``POST ...:regress``. Raises ``Refused``."""
        return self._verbs.regress(body)

"""The model repository extension of V2: what could be served, and loading and unloading it while requests run.

Source: ``docs/protocol/extension_model_repository.md`` of triton-inference-server/server. The repository is the
folders that the server was started with. A client names models, never files: a name is compared with the names in the
manifests of those folders and used for nothing else.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from .answers import Answer, Refused, as_json, decode
from .calls import Route
from .manifest import BrokenModel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .calls import Routes
    from .models import Models, Snapshot, State

INDEX: Final = "/v2/repository/index"
MODELS: Final = "/v2/repository/models/"

_PATH: Final = re.compile(r"(?<![\w.:/-])/(?:[^\s/:'\"]+/)*(?P<name>[^\s/:'\"]*)")
_ON_A_THREAD: Final = -1  # they read files, and a load takes seconds


class _IndexRequest(msgspec.Struct):
    ready: bool = False


class _ChangeRequest(msgspec.Struct):
    parameters: dict[str, str | int | float | bool | None] = {}


_index_request: Final = msgspec.json.Decoder(_IndexRequest)
_change_request: Final = msgspec.json.Decoder(_ChangeRequest)


def index(snapshot: Snapshot, *, ready: bool) -> Sequence[State]:
    """Return every version of every model, or those that are ready."""
    return [
        state._replace(reason=without_paths(state.reason))
        for state in snapshot.states
        if state.state == "READY" or not ready
    ]


def load(models: Models, name: str, parameters: Sequence[str]) -> None:
    """Load a model, or load it again. ``parameters`` are the names of those that the client gave.

    Raises ``Refused``: 404 for a name that the folders do not have, 400 with the reason where it cannot be loaded.
    """
    replaced = [given for given in parameters if given == "config" or given.startswith("file:")]
    if replaced:
        raise Refused(400, f"models are loaded as they lie in their folders, so there can be no {replaced[0][:40]!r}")
    try:
        models.load(name)
    except KeyError as error:
        raise _unknown(name) from error
    except BrokenModel as error:
        raise Refused(400, f"model {name!r} cannot be loaded: {without_paths(str(error))}") from error


def unload(models: Models, name: str) -> None:
    """Stop serving a model. Raises ``Refused`` (404) for a name that is not known."""
    try:
        models.unload(name)
    except KeyError as error:
        raise _unknown(name) from error


def without_paths(reason: str) -> str:
    """Return a reason as a client may read it: absolute paths are cut to their last part."""
    return _PATH.sub(r"\g<name>", reason)


def _unknown(name: str) -> Refused:
    return Refused(404, f"there is no model {name[:100]!r} in the repository")


def routes(_models: Models, snapshot: Snapshot) -> Routes:
    """Return the route of the index."""

    def answer(_headers: Mapping[str, str], body: bytes) -> Answer:
        asked = decode(_index_request, body) if body.strip() else _IndexRequest()
        return as_json([state._asdict() for state in index(snapshot, ready=asked.ready)])

    return {INDEX: Route("POST", answer)}


def found(models: Models, path: str) -> Route | None:
    """Return the route that loads or unloads a model; which models there are to load is known when it is asked for."""
    if not path.startswith(MODELS):
        return None
    name, _, action = path.removeprefix(MODELS).rpartition("/")
    if action not in {"load", "unload"} or not name:
        return None

    def change(_headers: Mapping[str, str], body: bytes) -> Answer:
        asked = decode(_change_request, body) if body.strip() else _ChangeRequest()
        if action == "load":
            load(models, name, list(asked.parameters))
        else:
            unload(models, name)
        return as_json({})

    return Route("POST", change, _ON_A_THREAD)

"""What SageMaker and Vertex AI ask of a container, beside the protocols that every server speaks.

Sources: Amazon SageMaker's developer guide (custom inference code for hosting and for batch transform) and the
reference of CreateTransformJob; Vertex AI's "custom container requirements for inference". Of SageMaker's routes,
``/ping`` and ``/invocations`` are MLflow's; headers such as ``X-Amzn-SageMaker-Custom-Attributes`` do nothing. Those of
Vertex AI have the paths that the platform gives them, and exist only where it does; a path that the server has anyway
(``/ping``, ``/v2/models/churn/infer``) keeps its own meaning, which is what raw predictions need.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from .answers import JSON_HEADERS, Answer, Refused, as_json, decode, encode
from .calls import Call, Route, always
from .invocations import Invocations
from .options import MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .calls import Routes
    from .model import Model
    from .models import Models, Snapshot
    from .options import Settings
    from .tensors import Array

PAYLOAD_MB: Final = 6
"""What SageMaker takes for the size of a batch unless it is told otherwise."""

IN_FLIGHT_MB: Final = 100
"""What all batches of a transform that are under way may have together."""


def provider(settings: Settings) -> Callable[[Models, Snapshot], Routes]:
    """Return what gives the routes of the platforms, by the settings of a server."""
    batches = always(as_json(execution_parameters(settings)))

    def routes(_models: Models, snapshot: Snapshot) -> Routes:
        found: Routes = {"/execution-parameters": Route("GET", batches)}
        if settings.health_route:
            status = 200 if snapshot.ready else 503
            found[settings.health_route] = Route("GET", always(as_json({"ready": snapshot.ready}, status)))
        first = snapshot.first
        if settings.predict_route and first is not None:
            model = first.default
            found[settings.predict_route] = Route("POST", Vertex(model).predict, model.inline_bytes, model, first)
        return found

    return routes


def execution_parameters(settings: Settings) -> dict[str, object]:
    """Return how SageMaker should cut a batch transform: a batch for each core, as large as is usual.

    A transform job that says so itself is not asked for it.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    payload = max(min(PAYLOAD_MB, settings.max_body // MIB), 1)  # 0 would mean chunks of any size
    return {
        "MaxConcurrentTransforms": min(cores, settings.max_in_flight, IN_FLIGHT_MB // payload),
        "BatchStrategy": "MULTI_RECORD",
        "MaxPayloadInMB": payload,
    }


class _Request(msgspec.Struct, gc=False):
    instances: list[Any]
    parameters: Any = None


class Vertex:
    """Vertex AI's prediction route of one model.

    ``{"instances": [...], "parameters"?: {...}}`` -> ``{"predictions": [...]}``, one for each instance. An instance is
    an object of the model's columns or tensors by name; or a list of the columns in their order, which is what batch
    predictions from CSV send; or the row of a model's only tensor. ``parameters`` are MLflow's ``params``. NaN is null,
    because the platform reads the answer as JSON, which has no NaN.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._invocations = Invocations(model)
        self._names = [spec.name for spec in model.inputs]
        self._decoder = msgspec.json.Decoder(_Request)

    def predict(self, _headers: Mapping[str, str], body: bytes) -> Call:
        """Read a request. Raises ``Refused``."""
        request = decode(self._decoder, body)
        if not request.instances:
            raise Refused(400, "there are no instances")
        instances = request.instances
        if self._model.kind == "columns" and isinstance(instances[0], list):
            instances = [self._named(row) for row in instances]
        return self._invocations.call("instances", instances, request.parameters, _render)

    def _named(self, row: object) -> dict[str, object]:
        if not isinstance(row, list) or len(row) != len(self._names):
            raise Refused(400, f"an instance must have {len(self._names)} values: {', '.join(self._names)}")
        return dict(zip(self._names, row, strict=True))


def _render(_call: Call, results: list[Array]) -> Answer:
    return Answer(200, JSON_HEADERS, encode({"predictions": np.atleast_1d(results[0]).tolist()}))

"""gRPC: a port of its own, on the event loop of HTTP's, for the routes of ``grpc_v2`` and gRPC's own health service.

A request becomes what an HTTP request becomes, a path and a body, so that whatever decides over those decides over
these too. What comes back with another status than 200 is said in gRPC's words.
"""

from __future__ import annotations

import asyncio
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc

from .answers import Refused
from .door import NoPort
from .grpc_v2 import HEADERS, SCHEME, parsed, routes, said
from .messages import MESSAGES
from .rpc_port import address

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from .answers import Answer
    from .options import Settings

    Ask = Callable[[str, str, Mapping[str, str], bytes], Awaitable[Answer]]
    Method = Callable[[bytes, Any], Awaitable[bytes]]

__all__ = ["Rpc", "routes"]

SERVICE: Final = "inference.GRPCInferenceService"
HEALTH: Final = "grpc.health.v1.Health"
SERVING: Final = 1
NOT_SERVING: Final = 2

READY: Final = f"{SCHEME}/v2/health/ready"

REASON_LENGTH: Final = 1000
"""Characters of a reason: it travels in a header, of which clients take some kilobytes."""

_OF_HTTP: Final = frozenset({"accept-encoding", "content-encoding", "content-length", "origin", "sec-fetch-site"})
"""Headers that mean something to HTTP; as metadata of a call they mean nothing."""

_PATHS: Final = {
    "ServerLive": f"{SCHEME}/v2/health/live",
    "ServerMetadata": f"{SCHEME}/v2/metadata",
    "RepositoryIndex": f"{SCHEME}/v2/repository/index",
    "RepositoryModelLoad": f"{SCHEME}/v2/repository/load",
    "RepositoryModelUnload": f"{SCHEME}/v2/repository/unload",
}

CODES: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""HTTP status of an answer -> status of the call. What is missing is UNKNOWN."""


class Rpc:
    """The gRPC server of one process. Made, started and stopped on the event loop."""

    def __init__(self, ask: Ask, settings: Settings) -> None:
        """Take what answers requests: method, path, headers and body, as ``Engine.answer`` does, to an answer."""
        self._ask = ask
        self._settings = settings
        self._server: Any = None

    async def start(self) -> None:
        """Listen on the port, which was taken before the models were loaded.

        Raises ``NoPort`` where it cannot be had after all, OSError where a certificate cannot be read any more.
        """
        settings = self._settings
        self._server = grpc.aio.server(
            maximum_concurrent_rpcs=settings.max_in_flight,
            options=[
                ("grpc.max_receive_message_length", settings.max_body),
                ("grpc.max_send_message_length", -1),
                # The port is held by a socket of ours that nobody listens on; several workers share it.
                ("grpc.so_reuseport", 1),
            ],
        )
        self._server.add_generic_rpc_handlers((_service(SERVICE, self._methods()), _service(HEALTH, self._health())))
        where = address(settings)
        try:
            if settings.tls_cert is None:
                self._server.add_insecure_port(where)
            else:
                certificate = Path(settings.tls_cert).read_bytes()
                key = Path(settings.tls_key or settings.tls_cert).read_bytes()
                self._server.add_secure_port(where, grpc.ssl_server_credentials([(key, certificate)]))
        except RuntimeError as error:
            raise NoPort(f"gRPC cannot listen on {where}") from error
        await self._server.start()

    async def stop(self) -> None:
        """Take no new calls, and give those that run the grace time."""
        if self._server is not None:
            await self._server.stop(self._settings.grace)

    def _methods(self) -> dict[str, Method]:
        not_ready = said("Ready", ready=False).body
        found = {
            "ServerReady": self._call(partial(_fixed, path=READY), not_ready),
            "ModelReady": self._call(partial(_of_model, call="ready"), not_ready),
            "ModelMetadata": self._call(partial(_of_model, call="metadata")),
            "ModelInfer": self._call(partial(_of_model, call="infer")),
        }
        for name, path in _PATHS.items():
            found[name] = self._call(partial(_fixed, path=path))
        return found

    def _health(self) -> dict[str, Method]:
        ready = self._call(_health_path, b"")

        async def check(body: bytes, context: Any) -> bytes:
            is_ready = MESSAGES["Ready"].FromString(await ready(body, context)).ready
            return said("Health", status=SERVING if is_ready else NOT_SERVING).body

        return {"Check": check}

    def _call(self, path_of: Callable[[bytes], str], unready: bytes | None = None) -> Method:
        """Return the method that answers what a path does; ``unready`` where that is not there or not ready."""
        timeout = self._settings.timeout or None

        async def call(body: bytes, context: Any) -> bytes:
            metadata = context.invocation_metadata()
            headers = {name: value for name, value in metadata if isinstance(value, str) and name not in _OF_HTTP}
            headers["content-type"] = HEADERS["content-type"]
            try:
                async with asyncio.timeout(timeout):
                    answer = await self._ask("POST", path_of(body), headers, body)
            except Refused as error:
                await context.abort(CODES[error.status], str(error)[:REASON_LENGTH])
            except TimeoutError:
                await context.abort(CODES[504], "the model takes longer than a request may")
            if len(answer.headers) > 1:
                told = [(name, value) for name, value in answer.headers.items() if name != "content-type"]
                context.set_trailing_metadata(tuple(told))
            if answer.status == 200:
                return answer.body
            if answer.status in {404, 503} and unready is not None:
                return unready
            await context.abort(CODES.get(answer.status, grpc.StatusCode.UNKNOWN), _reason(answer))
            raise AssertionError  # abort raises

        return call


def _fixed(_body: bytes, path: str) -> str:
    return path


def _of_model(body: bytes, call: str) -> str:
    """Return the path of a call about a model. Raises ``Refused`` (400)."""
    address = parsed("Address", body)
    version = f"/versions/{address.version}" if address.version else ""
    return f"{SCHEME}/v2/models/{address.name}{version}/{call}"


def _health_path(body: bytes) -> str:
    """Return where to ask for the health of this server, or of the one service it has. Raises ``Refused``."""
    service = parsed("HealthRequest", body).service
    if service not in {"", SERVICE}:
        raise Refused(404, f"there is no service {service[:100]!r} here, only {SERVICE}")
    return READY


def _reason(answer: Answer) -> str:
    """Return the sentence of a refusal."""
    try:
        return str(json.loads(answer.body)["error"])[:REASON_LENGTH]
    except (ValueError, KeyError, TypeError):
        return f"HTTP status {answer.status}"


def _service(name: str, methods: Mapping[str, Method]) -> Any:
    handlers = {method: grpc.unary_unary_rpc_method_handler(call) for method, call in methods.items()}
    return grpc.method_handlers_generic_handler(name, handlers)

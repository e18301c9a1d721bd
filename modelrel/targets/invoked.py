"""A started Lambda function: events go in through a Runtime API of ours, results come out, by AWS's runtime client."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from modelrel.delivered import Check, Package
from modelrel.errors import Refused
from modelrel.targets import events
from modelrel.targets.delivery import Response, Running, Send
from modelrel.targets.process import Started, ended
from modelrel.targets.questions import Golden
from modelrel.targets.runtime_api import LIMIT, Result, RuntimeApi, runtime_api

HANDLER: Final = "handler.handler"
MEMORY_MB: Final = 1769

# AWS's base images for Lambda: the function is here, the runtime client there
TASK: Final = "/var/task"
RUNTIME: Final = "/var/runtime"


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function that runs, and the Runtime API that it asks for events."""

    api: RuntimeApi
    program: Started

    def running(self) -> Running:
        """Return what a smoke test talks to."""
        return Running(
            runner=self.program.runner,
            send=self.sender(events.http_api),
            started=self.program.at,
            memory_bytes=self.program.memory_bytes,
            log=self.program.log,
            shapes={
                **{name: self.sender(shape) for name, shape in events.SHAPES.items()},
                "direct invocation": self.direct,
            },
        )

    def sender(self, shape: events.Shape) -> Send:
        """Return what puts an HTTP request to the function as an event of this shape."""

        def send(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Response:
            result = self._invoke(shape(method, path, headers, body))
            if result is None:
                return Response(413, {}, b'{"message": "Request Entity Too Large"}')
            return events.response(result.payload) if result.ok else Response(502, {}, result.payload)

        return send

    def direct(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Response:
        """Invoke the function with the body as its event."""
        result = self._invoke(events.direct(method, path, headers, body))
        if result is None:
            return Response(413, {}, b'{"message": "Request must be smaller than 6291456 bytes"}')
        return Response(200 if result.ok else 400, {}, result.payload)

    def _invoke(self, event: events.Event) -> Result | None:
        """Return the function's result; None for an event that Lambda does not hand on."""
        written = events.dumps(event)
        if len(written) > LIMIT:
            return None
        try:
            return self.api.invoke(written, self.program.exit_code)
        except ConnectionError as error:
            raise ended(str(error), self.program.log()) from error


def restored(package: Package, start: Callable[[str, ExitStack], Started]) -> Check:
    """Start the function once more, as SnapStart does, and ask it after it was restored from its snapshot.

    `start` takes the address of a Runtime API, and what ends the function. Raises `Refused` for a wrong answer, and
    where the function answers without having been restored.
    """
    golden = Golden.of(package.parity)
    with runtime_api() as api, ExitStack() as stack:
        function = Function(api=api, program=start(api.address, stack))
        error = golden.judge_infer(function.sender(events.http_api)(*golden.infer()))
        if not api.restored.is_set():
            raise Refused(
                "the function takes events before it is restored from its snapshot",
                "SnapStart needs AWS's runtime client (awslambdaric), version 3 or later.",
            )
    return Check(name="after a restore from a snapshot", detail=f"{golden.rows} rows, largest error {error:.3g}")


def variables(execution: str, task: PurePath, api: str, *, restores: bool) -> dict[str, str]:
    """Return what Lambda sets for a function: `execution` is AWS_EXECUTION_ENV, "" for an image, which has none.

    `restores`: it is started to take a snapshot of it.
    """
    # AWS Lambda developer guide, "Defined runtime environment variables"; no credentials: the function needs none
    return {
        "AWS_LAMBDA_RUNTIME_API": api,
        "_HANDLER": HANDLER,
        "LAMBDA_TASK_ROOT": str(task),
        "LAMBDA_RUNTIME_DIR": RUNTIME,
        **({"AWS_EXECUTION_ENV": execution} if execution else {}),
        "AWS_LAMBDA_FUNCTION_NAME": "model",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(MEMORY_MB),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start" if restores else "on-demand",
        "AWS_LAMBDA_LOG_FORMAT": "Text",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/model",
        "AWS_LAMBDA_LOG_STREAM_NAME": "smoke",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
    }

"""What the command line and the environment decide: one table, from which the parser and the help are made."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from . import traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MIB: Final = 1024 * 1024
PREFIX: Final = "MODELREL_"
PORT_VARIABLES: Final = ("PORT", "AIP_HTTP_PORT", "SAGEMAKER_BIND_TO_PORT")
FOLDER_VARIABLE: Final = "MODELREL_MODEL_DIR"
ROUTE_VARIABLES: Final = {"health_route": "AIP_HEALTH_ROUTE", "predict_route": "AIP_PREDICT_ROUTE"}
"""What Vertex AI calls its routes."""


class Unusable(Exception):
    """What the settings ask for cannot be had; the message is one sentence for whoever starts the server."""


class Option(NamedTuple):
    """One option: ``--flag-name`` of the field ``flag_name``, and the variable ``MODELREL_FLAG_NAME``.

    ``read`` turns text into a value and raises ``ValueError``; ``many`` options may be given several times, in the
    variable separated by commas. A ``read`` of None makes a switch that takes no value.
    """

    name: str
    read: Callable[[str], Any] | None
    default: Any
    metavar: str
    help: str
    many: bool = False

    @property
    def flag(self) -> str:
        """The flag on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The variable in the environment."""
        return PREFIX + self.name.upper()


def port_number(text: str) -> int:
    """Read a port. Raises ``ValueError``."""
    if not (text.isascii() and text.isdigit() and int(text) < 65536):
        raise ValueError(f"must be a port number, not {text!r}")
    return int(text)


def count(text: str) -> int:
    """Read a whole number from 1. Raises ``ValueError``."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ValueError(f"must be a whole number from 1, not {text!r}")
    return int(text)


def amount(text: str) -> float:
    """Read a number from 0. Raises ``ValueError``."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise ValueError(f"must be a number from 0, not {text!r}")
    return number


def amount_of_entries(text: str) -> int:
    """Read a whole number from 0. Raises ``ValueError``."""
    return 0 if text == "0" else count(text)


def share(text: str) -> float:
    """Read a number from 0 to 1. Raises ``ValueError``."""
    number = amount(text)
    if number > 1:
        raise ValueError(f"must be from 0 to 1, not {text!r}")
    return number


def one_of(*words: str) -> Callable[[str], str]:
    """Return what reads one of some words. It raises ``ValueError``."""

    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"must be {' or '.join(words)}, not {text!r}")
        return text

    return read


OPTIONS: Final = (
    # where it listens
    Option("host", str, "127.0.0.1", "ADDRESS", "address to listen on"),
    Option("port", port_number, 8080, "PORT", "port to listen on, 0 for any"),
    Option("grpc_port", port_number, None, "PORT", "port for the Open Inference Protocol over gRPC"),
    Option("workers", count, 1, "N", "processes that answer, with one listening socket"),
    Option("threads", count, None, "N", "threads that compute one request (1)"),
    # what it takes
    Option("max_body", count, 64 * MIB, "BYTES", "largest request body, unpacked"),
    Option("max_in_flight", count, 1024, "N", "requests at once; more are answered 429"),
    Option("timeout", amount, 60.0, "SECONDS", "time for one request, then 504; 0 for no limit"),
    Option("grace", amount, 25.0, "SECONDS", "time for running requests after a stop signal"),
    # which version answers
    Option("label", traffic.label, (), "NAME/LABEL=VERSION", "a name for a version", many=True),
    Option(
        "weight", traffic.weight, (), "NAME/VERSION=WEIGHT", "share of the requests that name no version", many=True
    ),
    Option("sticky", traffic.sticky, None, "header:NAME|field:NAME", "what keeps a client at one of several versions"),
    Option(
        "shadow",
        traffic.shadow,
        (),
        "NAME/VERSION",
        "gets a copy of requests; its answers are only recorded",
        many=True,
    ),
    # how it computes
    Option("max_batch", count, 1, "ROWS", "rows of concurrent requests that are computed together"),
    Option("max_wait_ms", amount, 2.0, "MS", "how long a request waits for others"),
    Option(
        "python",
        str,
        (),
        "[NAME=]PROGRAM",
        "interpreter, or folder of packages, for models of the format python",
        many=True,
    ),
    Option("python_workers", count, 1, "N", "processes of each such model"),
    Option("cache", amount_of_entries, 0, "N", "answers that are kept for requests that are exactly the same"),
    # what it says
    Option("v1", one_of("tfserving", "kserve"), "tfserving", "WHOSE", "whose form GET /v1/models/NAME has"),
    Option("pass_through", str, (), "FIELD", "fields of TF Serving requests that come back untouched", many=True),
    # what it records
    Option("log_predictions", str, None, "DIR", "record inputs and outputs there, as Parquet"),
    Option("sample", share, 1.0, "SHARE", "share of the requests that is recorded"),
    Option("log_omit", str, (), "FIELD", "inputs and outputs that are not recorded", many=True),
    Option("log_max_mb", amount, 64.0, "MB", "size at which a new file of records is begun"),
    Option("log_max_s", amount, 300.0, "SECONDS", "age at which a new file of records is begun"),
    Option("no_access_log", None, False, "", "no line for each request"),
    Option("otel", None, False, "", "send traces by OpenTelemetry"),
    # who may ask
    Option("api_key", str, None, "KEY", "what clients must send (better: a file, or the variable)"),
    Option("api_key_file", str, None, "FILE", "keys that clients may send, one a line"),
    Option("tls_cert", str, None, "FILE", "certificate, PEM"),
    Option("tls_key", str, None, "FILE", "its key, PEM"),
    Option("cors", str, (), "ORIGIN", "web pages that may ask; * for any", many=True),
)
"""Every option of the server, in the order of the help."""


class Settings(argparse.Namespace):
    """The value of every option of ``OPTIONS`` by its name, and ``folders``: the model folders to serve.

    Of a server with several workers, ``shared`` is a folder that only its processes can read, and ``worker`` the
    number of this one, from 0; else they are None and 0. ``health_route`` and ``predict_route`` are the paths that
    Vertex AI asks for, None elsewhere.
    """

    folders: tuple[str, ...]
    shared: str | None
    worker: int
    health_route: str | None
    predict_route: str | None
    host: str
    port: int
    grpc_port: int | None
    workers: int
    threads: int | None
    max_body: int
    max_in_flight: int
    timeout: float
    grace: float
    label: tuple[traffic.Label, ...]
    weight: tuple[traffic.Share, ...]
    sticky: traffic.Sticky | None
    shadow: tuple[traffic.Shadow, ...]
    max_batch: int
    max_wait_ms: float
    python: tuple[str, ...]
    python_workers: int
    cache: int
    v1: str
    pass_through: tuple[str, ...]
    log_predictions: str | None
    sample: float
    log_omit: tuple[str, ...]
    log_max_mb: float
    log_max_s: float
    no_access_log: bool
    otel: bool
    api_key: str | None
    api_key_file: str | None
    tls_cert: str | None
    tls_key: str | None
    cors: tuple[str, ...]


def defaults(folders: Sequence[str] = (), **changes: Any) -> Settings:
    """Return the settings of a server that nobody said anything to, but for ``changes``."""
    given = {option.name: option.default for option in OPTIONS} | dict.fromkeys(ROUTE_VARIABLES) | changes
    return Settings(folders=tuple(folders), shared=None, worker=0, **given)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; what is not given there is absent from its result."""
    made = argparse.ArgumentParser(
        prog="serving",
        description="Serve released models over HTTP. Every option can be set by a variable too: --max-body by "
        f"{PREFIX}MAX_BODY, and so on.",
        epilog="Also: healthcheck [--port PORT]",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    made.add_argument(
        "folders", nargs="*", metavar="DIR", help=f"model folders, or folders of them (default: ${FOLDER_VARIABLE})"
    )
    for option in OPTIONS:
        words = f"{option.help} (default: {option.default})" if option.default not in (None, (), False) else option.help
        if option.read is None:
            made.add_argument(option.flag, dest=option.name, action="store_true", help=words)
        else:
            action = "append" if option.many else "store"
            made.add_argument(option.flag, dest=option.name, metavar=option.metavar, action=action, help=words)
    return made


def read(words: Sequence[str], environment: Mapping[str, str] | None = None) -> Settings:
    """Read the command line; what it does not say is taken from the environment, else it is the default.

    Exits (2) with a sentence for what makes no sense.
    """
    environment = os.environ if environment is None else environment
    made = parser()
    given = vars(made.parse_intermixed_args(words))
    settings = defaults(given.pop("folders", ()))
    for option in OPTIONS:
        try:
            value = _value(option, given, environment)
        except ValueError as error:
            made.error(str(error))
        if value is not None:
            setattr(settings, option.name, value)
    try:
        _platform(settings, environment)
    except ValueError as error:
        made.error(str(error))
    if not settings.folders:
        folder = _mounted(environment) or environment.get(FOLDER_VARIABLE)
        if not folder:
            made.error(f"no model folder: name one, or set {FOLDER_VARIABLE}")
        settings.folders = (folder,)
    return settings


def _platform(settings: Settings, environment: Mapping[str, str]) -> None:
    """Read what Vertex AI and SageMaker ask for. Raises ``ValueError``."""
    for name, variable in ROUTE_VARIABLES.items():
        route = environment.get(variable)
        if route and not route.startswith("/"):
            raise ValueError(f"{variable} must be a path, not {route!r}")
        setattr(settings, name, route or None)
    # Of the containers of one endpoint each may only listen in its own range, besides the port that it is given.
    allowed = environment.get("SAGEMAKER_SAFE_PORT_RANGE")
    if allowed and settings.grpc_port:
        first, _, last = allowed.partition("-")
        if not port_number(first) <= settings.grpc_port <= port_number(last):
            raise ValueError(f"--grpc-port {settings.grpc_port} is not in SAGEMAKER_SAFE_PORT_RANGE, {allowed}")


def _mounted(environment: Mapping[str, str]) -> str | None:
    """Return the folder where SageMaker put the model of an endpoint, if there is one of ours in it.

    It comes before that of the image: who gives an endpoint a model means that one.
    """
    folder = Path(environment.get("SAGEMAKER_BASE_DIR") or "/opt/ml", "model")
    return str(folder) if (folder / "modelrel.json").is_file() else None


def _value(option: Option, given: Mapping[str, Any], environment: Mapping[str, str]) -> Any:
    """Return the value of an option, from the command line or else from the environment; None where neither has it."""
    source, said = option.flag, given.get(option.name)
    if said is None:
        names = (*PORT_VARIABLES, option.variable) if option.name == "port" else (option.variable,)
        source = next((name for name in names if environment.get(name)), "")
        if not source:
            return None
        said = environment[source]
        if option.many:
            said = [part for part in said.split(",") if part]
    if option.read is None:
        return said not in (False, "0", "false", "no", "off")
    try:
        return tuple(map(option.read, said)) if option.many else option.read(str(said))
    except ValueError as error:
        raise ValueError(f"{source} {error}") from error

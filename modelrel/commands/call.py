"""What every command shares: the options that all take, the settings behind them, and how a result is shown."""

from __future__ import annotations

import functools
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from modelrel.commands.settings import Settings, read
from modelrel.errors import Interrupted

if TYPE_CHECKING:
    from rich.console import RenderableType

    from modelrel.commands.progress import Progress
    from modelrel.registry import Registry
    from modelrel.steps.release import Release, ReleaseOptions

MODEL: Final = typer.Argument(
    metavar="MODEL",
    help="churn/7, churn@candidate, churn (latest), models:/churn/7, runs:/ID/path, or a folder with an MLmodel file.",
)
Model = Annotated[str, MODEL]

_SHARED: Final = "Options of every command"


@dataclass(slots=True)
class Call:
    """One call of the command line: what all commands were told, and where their result goes."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    registry_uri: str = ""
    dist: Path = Path("dist")
    settings: Settings = field(default_factory=lambda: Settings({}))

    def registry(self, say: Callable[[str], None] | None = None) -> Registry:
        """Return the registry that the user means; `say` hears when it is asked again (else stderr does)."""
        from modelrel.registry import Registry

        return Registry(self.registry_uri, say or (lambda text: self.progress().say(text)))

    def progress(self) -> Progress:
        """Return what shows progress on stderr."""
        from modelrel.commands.progress import Progress

        return Progress(quiet=self.quiet, verbose=self.verbose)

    def result(self, value: Any, *shown: RenderableType) -> None:
        """Put the result on stdout: as the one JSON document, or as what a person reads."""
        if self.json:
            print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
        elif not self.quiet:
            from rich.console import Console

            # a log or a pipe has no width of its own: 80 columns would fold every row of a table
            console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
            for part in shown:
                console.print(part, markup=False)

    @contextmanager
    def release(self, text: str, options: ReleaseOptions, *, elsewhere: bool = False) -> Iterator[Release]:
        """Give the release of the model that `text` names, with its folder held.

        `elsewhere` is for a version (`models:/churn/6`) of a registry that is not asked: only its folder is there.
        """
        from modelrel.registry import reference
        from modelrel.steps import pull
        from modelrel.steps.held import locked
        from modelrel.steps.release import Release

        progress = self.progress()
        registry = self.registry(progress.say)
        try:
            given = reference.parse(text)
            located = given if elsewhere else pull.locate(given, registry)
            found = Release(located, registry, self.dist, options, progress)
            with locked(found.folder, progress.say):
                try:
                    yield found
                finally:
                    found.relisted()
        finally:
            progress.stop()


_CALL: ContextVar[Call] = ContextVar("call")
WANTS_JSON: Final = ContextVar("wants_json", default=False)
"""Set by `main` before anything is parsed, so that a wrong command line is answered in JSON as well."""


def call() -> Call:
    """Return the call that is being carried out."""
    return _CALL.get()


def _shared(
    registry: Annotated[
        str | None,
        typer.Option(metavar="URI", help="The model registry (else MLflow's own variables, else sqlite:///mlflow.db)."),
    ] = None,
    dist: Annotated[Path | None, typer.Option(metavar="DIR", help="The release folder (dist).")] = None,
    json_: Annotated[
        bool, typer.Option("--json", help="One JSON document on stdout, everything else on stderr.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what the libraries say, too.")] = False,
    *,
    reads: bool = True,
) -> Call:
    settings = read(Path.cwd()) if reads else Settings({})
    uri = settings.pick("release", "registry", registry, "") or mlflow_uri()
    return Call(
        json=json_ or WANTS_JSON.get(),
        quiet=quiet,
        verbose=verbose,
        registry_uri=uri,
        dist=Path(settings.pick("release", "dist", str(dist) if dist else None, "dist")),
        settings=settings,
    )


def mlflow_uri() -> str:
    """Return the registry that MLflow itself would take, from its variables."""
    for name in ("MLFLOW_REGISTRY_URI", "MLFLOW_TRACKING_URI"):
        if os.environ.get(name):
            return os.environ[name]
    return "sqlite:///mlflow.db"


@functools.cache
def _added() -> tuple[inspect.Parameter, ...]:
    """Return the options that every command has; reading them from their annotations takes time, once."""
    found = []
    for name, parameter in inspect.signature(_shared, eval_str=True).parameters.items():
        if name == "reads":
            continue
        parameter.annotation.__metadata__[0].rich_help_panel = _SHARED
        found.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    return tuple(found)


def shared(command: Callable[..., None], *, reads: bool = True) -> Callable[..., None]:
    """Add the options of every command to one command; inside it, `call()` gives what they say.

    `reads` is False for what must work whatever the settings are.
    """
    own = inspect.signature(command, eval_str=True)
    added = _added()

    @functools.wraps(command)
    def run(**given: Any) -> None:
        shared_values = {one.name: given.pop(one.name) for one in added}
        made = _shared(**shared_values, reads=reads)
        _CALL.set(made)
        quieten(verbose=made.verbose)
        try:
            command(**given)
        except KeyboardInterrupt as error:
            # typer would turn it into a silent exit
            raise Interrupted("interrupted", "Run the same command again: it goes on where it was.") from error

    mine = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own.parameters.values()]
    run.__signature__ = own.replace(parameters=[*mine, *added])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in [*mine, *added]}
    return run


def quieten(*, verbose: bool) -> None:
    """Keep the chatter of libraries out of sight; with `verbose` it goes to stderr."""
    import logging
    import warnings

    # onnxruntime reports its use to its makers unless this is set before it is imported
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    if verbose:
        logging.basicConfig(level=logging.INFO, stream=sys.stderr)
        logging.getLogger("modelrel").setLevel(logging.DEBUG)  # what the model and its libraries print, line by line
        return
    warnings.filterwarnings("ignore")
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    logging.disable(logging.WARNING)

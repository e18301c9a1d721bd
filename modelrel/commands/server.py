"""`modelrel serve`: the reference server in a process of its own, its end told as an exit code."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from modelrel import serving
from modelrel.errors import Interrupted, Invalid, ModelrelError, Unavailable
from modelrel.serving.options import OPTIONS, PREFIX, Option

if TYPE_CHECKING:
    from modelrel.commands.call import Call

MANIFEST: Final = "modelrel.json"
_READY: Final = re.compile(r"modelrel serving (?P<models>.+) on (?P<url>https?://\S+)$")
_PANEL: Final = "Options of the server"
_SECRET: Final = frozenset({"api_key"})
"""Options that go to the server by a variable, because anybody on the machine can read command lines."""


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add every option of the server to a command, which gets those that were given as `given`: name -> text."""
    own = [parameter for parameter in inspect.signature(command, eval_str=True).parameters.values()
           if parameter.name != "given"]  # fmt: skip
    added = [_parameter(option) for option in OPTIONS]

    def run(**said: Any) -> None:
        given = {option.name: said.pop(option.name) for option in OPTIONS}
        command(**said, given={name: value for name, value in given.items() if value not in (None, False, [])})

    run.__name__, run.__doc__, run.__module__ = command.__name__, command.__doc__, command.__module__
    run.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    return run


def _parameter(option: Option) -> inspect.Parameter:
    default = ", ".join(option.default) if option.many else option.default
    words = f"{option.help} ({default})" if default not in (None, "", False) else option.help
    words = f"{words[0].upper()}{words[1:]}{'; repeat it' if option.many else ''}."
    kind: Any = bool if option.read is None else list[str] | None if option.many else str | None
    metavar = option.metavar or None
    annotation = Annotated[kind, typer.Option(option.flag, metavar=metavar, help=words, rich_help_panel=_PANEL)]
    nothing = False if option.read is None else None
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=nothing, annotation=annotation)


def checked(given: Mapping[str, Any]) -> None:
    """Raise `Invalid` for a value that the server would not take."""
    for option in OPTIONS:
        said = given.get(option.name, ())
        for text in said if option.many else [said] if said and option.read else []:
            try:
                option.read(str(text)) if option.read else None
            except ValueError as error:
                raise Invalid(f"{option.flag} {error}", "See: modelrel serve --help") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Model folders to serve, or folders of them, and the labels that are to name versions: `NAME/LABEL=VERSION`."""

    folders: tuple[Path, ...]
    labels: tuple[str, ...] = ()


def servable(path: Path, form: str = "") -> Served | None:
    """Return what to serve where `path` is a model folder, a package, a release, or a folder of these; else None.

    Of a release it is the copy in the format `form` ("": ONNX, else the first there is). Raises `Invalid` where the
    copies are of other formats.
    """
    if not path.is_dir() or (path / "MLmodel").is_file():
        return None
    if found := _one(path, form):
        return Served(folders=(found,))
    inner = sorted(child for child in path.iterdir() if child.is_dir())
    if not form and any((child / MANIFEST).is_file() or (child / "model" / MANIFEST).is_file() for child in inner):
        return Served(folders=(path,))  # the server lists these itself, also those that are added later
    several = tuple(folder for child in inner if (folder := _one(child, form)))
    return Served(folders=several) if several else None


def _one(path: Path, form: str) -> Path | None:
    for folder in (path, path / "model", path / "context" / "model"):
        if (folder / MANIFEST).is_file():
            return _of_format([folder], form, path)
    if not any((path / name).is_file() for name in ("SourceModel.json", f"onnx/{MANIFEST}")):
        return None  # no release
    copies = sorted((folder for folder in path.iterdir() if (folder / MANIFEST).is_file()), key=_preferred)
    return _of_format(copies, form, path) if copies else None


def _of_format(folders: Sequence[Path], form: str, path: Path) -> Path:
    formats = [str(_said(folder).get("format", "")) for folder in folders]
    if not form:
        return folders[0]
    if form not in formats:
        raise Invalid(
            f"{path} has no {form} copy, only {', '.join(formats)}",
            f"Make it first: modelrel convert MODEL --to {form}.",
        )
    return folders[formats.index(form)]


def _said(folder: Path) -> dict[str, Any]:
    """Return the manifest of a model folder; {} where it cannot be read: the server says so in its own words."""
    try:
        said = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _preferred(folder: Path) -> tuple[bool, str]:
    return folder.name != "onnx", folder.name


@dataclass(slots=True)
class _Child:
    """The server's process, and the signals that go to it. Before it is there, a signal is an interruption."""

    process: subprocess.Popen[str] | None = None
    held: list[str] = field(default_factory=list)

    def forward(self, number: int, _frame: FrameType | None) -> None:
        if self.process is None:
            raise Interrupted("interrupted", "Run the same command again: it goes on where it was.")
        self.process.send_signal(number)


def run(served: Served, given: Mapping[str, Any], call: Call) -> None:
    """Serve until a signal ends it; the server's lines go to stderr, and one JSON document to stdout where asked.

    Raises `Unavailable` where the port is in use, `Invalid` where nothing can be served.
    """
    child = _Child()
    before = {number: signal.signal(number, child.forward) for number in (signal.SIGTERM, signal.SIGINT)}
    command, environment = _started(served, given, quiet=call.quiet)
    try:
        # A group of its own: Ctrl-C would reach the server twice, from the terminal and from here, and the second ends
        # requests that the first lets finish.
        # What a library prints goes with the rest to stderr: stdout is for the one document.
        child.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, process_group=0
        )
        _passed_on(child, child.process, served, call)
        code = child.process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if code:
        raise _failure(code, child.held)


def _passed_on(child: _Child, process: subprocess.Popen[str], served: Served, call: Call) -> None:
    """Pass on what the server says until it ends; what it said before it was ready is the reason if it never is."""
    assert process.stdout is not None  # a pipe was asked for
    ready = False
    for line in process.stdout:
        found = None if ready else _READY.match(line.rstrip("\n"))
        if found:
            ready = True
            _tell(found, served, child, call)
        elif ready:
            print(line, end="", file=sys.stderr, flush=True)
        else:
            child.held.append(line)


def _started(served: Served, given: Mapping[str, Any], *, quiet: bool) -> tuple[list[str], dict[str, str]]:
    """Return the command line of the server, and its environment."""
    command = [sys.executable, "-m", serving.__name__, *map(str, served.folders)]
    from modelrel.commands import interpreter

    interpreters = interpreter.variables(list(_folders(served.folders)))
    environment = {**os.environ, **interpreters, "PYTHONUNBUFFERED": "1"}
    values = dict(given)
    if served.labels:
        values["label"] = [*served.labels, *given.get("label", ())]
    if quiet:
        values["no_access_log"] = True
    for option in OPTIONS:
        value = values.get(option.name)
        if value is None:
            continue
        if option.name in _SECRET:
            environment[PREFIX + option.name.upper()] = str(value)
        elif option.read is None:
            command.append(option.flag)
        else:
            command += [f"{option.flag}={text}" for text in (value if option.many else [value])]
    return command, environment


def _tell(found: re.Match[str], served: Served, child: _Child, call: Call) -> None:
    """Say that the server is ready, after what it said before."""
    for line in child.held:
        print(line, end="", file=sys.stderr)
    child.held.clear()
    if call.json:
        models = described(served, found["models"])
        call.result({"model": found["models"], "url": found["url"], "models": models})
        sys.stdout.flush()
    elif not call.quiet:
        print(found.string, file=sys.stderr, flush=True)


def described(served: Served, ready: str) -> list[dict[str, str]]:
    """Return name, version, format and folder of the models that the server says it serves."""
    found = []
    for folder in _folders(served.folders):
        one = {key: str(_said(folder).get(key, "")) for key in ("name", "version", "format")}
        if f", {one['name']}/{one['version']}, " in f", {ready}, ":
            found.append({**one, "folder": str(folder)})
    return found


def _folders(folders: Iterable[Path]) -> Iterable[Path]:
    for folder in folders:
        if (folder / MANIFEST).is_file():
            yield folder
        else:
            yield from sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))
            yield from sorted(path.parent for path in folder.glob(f"*/model/{MANIFEST}"))


def _failure(code: int, held: Sequence[str]) -> ModelrelError:
    lines = [line.strip() for line in held if line.strip()]
    sentence = re.sub(r"^(modelrel )?serving: (error: )?", "", lines[-1] if lines else "")
    if code == Unavailable.exit_code:
        return Unavailable(sentence, "Choose another port with --port, or 0 for a free one.")
    if code == Invalid.exit_code:
        return Invalid(sentence, "Package the model again, or see: modelrel serve --help")
    return ModelrelError(f"the server ended with {code}: {sentence}", "Run it again with -v.")

"""The command line: one thin file a group of commands; `main` is the one place that exits."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType

import typer

from modelrel.archive import disk_error
from modelrel.commands.call import WANTS_JSON
from modelrel.errors import Interrupted, Invalid, ModelrelError


def _app() -> typer.Typer:
    from modelrel.commands import (
        attestation,
        compare,
        deliver,
        history,
        look,
        model,
        pipeline,
        policy,
        promotion,
        rebuild,
    )

    app = typer.Typer(
        name="modelrel",
        help="Release machine-learning models: pull, convert, verify, package, smoke-test, promote.",
        epilog="Every command takes --registry URI, --dist DIR, --json, --quiet and -v.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for group in (model, deliver, promotion, history, rebuild, look, policy, attestation, compare, pipeline):
        group.register(app)

    @app.callback(invoke_without_command=True)
    def version(
        show: bool = typer.Option(False, "--version", help="Show the version.", is_eager=True),
    ) -> None:
        if show:
            _print_version()
            raise typer.Exit

    return app


def _print_version() -> None:
    from modelrel import __version__

    print(f"modelrel {__version__}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code (README has the table)."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words == ["--version"]:
        _print_version()
        return 0
    words = _globals_last(words)
    WANTS_JSON.set("--json" in words)
    previous = signal.signal(signal.SIGTERM, _terminated)
    try:
        _app()(words, prog_name="modelrel", standalone_mode=False)
    except ModelrelError as error:
        return _stop(error)
    except (KeyboardInterrupt, typer.Abort):
        return _stop(Interrupted("interrupted", ""))
    except typer.TyperException as error:
        return _stop(Invalid(error.format_message().rstrip("."), _usage_hint(error)))
    except BrokenPipeError:
        # whoever read our output went away, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _stop(disk_error(error) or _bug(error))
    except Exception as error:  # noqa: BLE001  # the one place where a bug may arrive
        return _stop(_bug(error))
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 0


def _globals_last(words: list[str]) -> list[str]:
    """Let the options of every command stand in front of the command, too, as people write them."""
    flags, valued = {"--json", "--quiet", "-q", "--verbose", "-v"}, {"--registry", "--dist"}
    taken = 0
    while taken < len(words) and (
        words[taken] in flags | valued or words[taken].startswith(("--registry=", "--dist="))
    ):
        taken += 2 if words[taken] in valued else 1
    if not taken or taken >= len(words):
        return words
    return [words[taken], *words[:taken], *words[taken + 1 :]]


def _terminated(_signal: int, _frame: FrameType | None) -> None:
    raise Interrupted("terminated", "Run the same command again: it goes on where it was.")


def _bug(error: Exception) -> ModelrelError:
    traceback.print_exception(error)
    return ModelrelError(f"a bug in modelrel: {error!r}", "Please report it with the traceback above.")


def _usage_hint(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "modelrel"
    return f"See: {path} --help"


def _stop(error: ModelrelError) -> int:
    if WANTS_JSON.get():
        body = {"code": error.exit_code, "kind": error.kind, "message": error.message, "hint": error.hint}
        body |= {} if error.evidence is None else {"evidence": error.evidence}
        text = json.dumps({"error": body}, indent=2, ensure_ascii=False)
        print(text.encode(errors="backslashreplace").decode())  # a message may quote what is no text
    else:
        from rich.console import Console
        from rich.text import Text

        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print(Text.assemble(("error: ", "bold red"), error.message))
        if error.hint:
            console.print(Text.assemble(("hint: ", "bold"), error.hint))
    if os.environ.get("GITHUB_ACTIONS") == "true":
        from modelrel.commands.outputs import annotation

        print(annotation(error), file=sys.stderr)
    return error.exit_code

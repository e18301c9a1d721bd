"""Every way a release can stop, each with the exit code that CI reads.

| exit | class | means |
|---|---|---|
| 1 | (any other exception) | a bug in modelrel: the traceback is shown |
| 2 | `Invalid` | the command, the configuration or the input is wrong |
| 3 | `Unavailable` | something outside is missing or silent |
| 4 | `Refused` | a gate refused the model or the release |
| 5 | `Conflict` | somebody else changed the registry meanwhile |
| 130 | `Interrupted` | the user stopped it |
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import ClassVar


class ModelrelError(Exception):
    """A stop that the user can act on: one sentence, and one hint that says what to do."""

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "error"
    evidence: object = None
    """What was found, as JSON data, for who asked for `--json`."""

    def __init__(self, message: str, hint: str = "") -> None:
        """Keep the sentence (`message`) and the advice (`hint`, may be empty)."""
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type[ModelrelError], tuple[str, str]]:
        """Pickle with both arguments, so an error can cross a process border."""
        return (type(self), (self.message, self.hint))


class Invalid(ModelrelError):
    """The command, the configuration or the input is wrong."""

    exit_code = 2
    kind = "invalid"


class Unavailable(ModelrelError):
    """Something outside is missing or silent: a registry, an engine, a library, disk space."""

    exit_code = 3
    kind = "unavailable"


class Refused(ModelrelError):
    """A gate refused the model or the release."""

    exit_code = 4
    kind = "refused"


class Conflict(ModelrelError):
    """Somebody else changed the registry meanwhile: read again, then try again."""

    exit_code = 5
    kind = "conflict"


class Interrupted(ModelrelError):
    """The user stopped the command (Ctrl-C or SIGTERM)."""

    exit_code = 130
    kind = "interrupted"


FAMILIES = (Invalid, Unavailable, Refused, Conflict, Interrupted)
"""The families in the order of README's table."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "Did you mean X? " for the nearest known name, or "" where none is near.

    >>> did_you_mean("dokcer", ["docker", "lambda"])
    'Did you mean docker? '
    """
    near = difflib.get_close_matches(name, list(known), 1, 0.5)
    return f"Did you mean {near[0]}? " if near else ""


def by_kind(kind: str, message: str, hint: str) -> ModelrelError:
    """Rebuild an error that a worker process reported by its `kind`."""
    for family in FAMILIES:
        if family.kind == kind:
            return family(message, hint)
    return ModelrelError(message, hint)


def redacted(text: str) -> str:
    """Return a text without what addresses in it keep secret: user and password, and what follows a question mark.

    >>> redacted("no answer from https://me:hush@index.example/simple/x?token=1 today")
    'no answer from https://***@index.example/simple/x?*** today'
    """
    bare = re.sub(r"([A-Za-z][A-Za-z0-9+.-]*://)[^/\s'\"`]*@", r"\1***@", text)
    return re.sub(r"([A-Za-z][A-Za-z0-9+.-]*://[^\s?#'\"`]*)[?#][^\s'\"`)]+", r"\1?***", bare)

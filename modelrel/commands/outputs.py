"""What a pipeline is told of a command, however it ends: outputs for later steps, a summary to read, JUnit XML.

GitHub: `$GITHUB_OUTPUT`, `$GITHUB_STEP_SUMMARY`, annotations. GitLab: a dotenv report. Both, and Jenkins: JUnit.
Sources: GitHub's "Workflow commands", GitLab's "artifacts:reports:dotenv" and "Unit test reports".
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from modelrel.errors import Invalid, ModelrelError, Refused, Unavailable

if TYPE_CHECKING:
    from modelrel.delivered import Package, Promotion, Pushed
    from modelrel.promoted import Rule
    from modelrel.steps.release import Release
    from modelrel.steps.stages import StageResult

_PANEL: Final = "Options for pipelines"
_DOTENV_BYTES: Final = 5120  # GitLab refuses a larger report

Junit = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write JUnit XML: a test case for each stage and rule.", rich_help_panel=_PANEL),
]
Dotenv = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write the outputs as RELEASE_KEY=value lines.", rich_help_panel=_PANEL),
]


@dataclass(slots=True, kw_only=True)
class Told:
    """What is known of a command for its pipeline, filled while it runs; `model` is as the user named it."""

    command: str
    model: str
    junit: Path | None = None
    dotenv: Path | None = None
    dry_run: bool = False
    run: Release | None = None
    packages: list[Package] = field(default_factory=list)
    pushed: list[Pushed] = field(default_factory=list)
    promotion: Promotion | None = None
    stop: BaseException | None = None

    @property
    def stages(self) -> tuple[StageResult, ...]:
        """The stages that ended."""
        return tuple(self.run.results) if self.run else ()

    @property
    def running(self) -> tuple[str, float]:
        """The stage at which it stopped ("": none began), and how many seconds that took."""
        from modelrel.commands.progress import Progress

        listener = self.run.listener if self.run else None
        return (listener.running, listener.seconds) if isinstance(listener, Progress) else ("", 0.0)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules of the policy's verdict, where one was reached: of the promotion, or of what refused it."""
        from modelrel.promoted import Rule

        if self.promotion:
            return self.promotion.verdict.rules
        found = getattr(self.stop, "evidence", None)
        if not isinstance(found, Mapping) or "policy" not in found:
            return ()
        return tuple(Rule(**rule) for rule in found.get("rules", ()))

    @property
    def version(self) -> str:
        """The version (or what else names it), "" where it was not found."""
        return self.run.located.value if self.run else ""

    @property
    def name(self) -> str:
        """The model's name as the registry has it."""
        return self.run.located.name if self.run else self.model

    @property
    def label(self) -> str:
        """How people call it: `churn/7`."""
        return f"{self.name}/{self.version}" if self.version else self.name

    @property
    def report(self) -> Path | None:
        """The page that `modelrel report` wrote, where it did."""
        from modelrel.steps.summary import REPORT

        page = self.run.folder / REPORT if self.run else None
        return page if page and page.is_file() else None

    @property
    def error(self) -> tuple[str, str]:
        """What stopped it, and the hint; both "" where nothing did."""
        if self.stop is None:
            return "", ""
        if isinstance(self.stop, ModelrelError):
            return self.stop.message, self.stop.hint
        return ("interrupted", "") if isinstance(self.stop, KeyboardInterrupt) else (repr(self.stop), "")

    @property
    def exit_code(self) -> int:
        """What the command will exit with."""
        if isinstance(self.stop, ModelrelError):
            return self.stop.exit_code
        return {type(None): 0, KeyboardInterrupt: 130}.get(type(self.stop), 1)

    @property
    def verdict(self) -> str:
        """`passed` or `refused`, "" where nothing was judged."""
        if isinstance(self.stop, Refused) or any(rule.outcome != "passed" for rule in self.rules):
            return "refused"
        return "passed" if self.rules else ""


@contextmanager
def told(command: str, model: str, junit: Path | None, dotenv: Path | None) -> Iterator[Told]:
    """Give what a command fills while it runs; at its end, good or bad, everything that was asked for is written.

    Raises `Invalid` where a file cannot be written; where the command failed already, that stays the error.
    """
    from modelrel.commands.call import call

    pick = call().settings.pick
    files = [pick("release", key, str(path or "") or None, "") for key, path in (("junit", junit), ("dotenv", dotenv))]
    named = [Path(text) if text else None for text in files]
    found = Told(command=command, model=model, junit=named[0], dotenv=named[1])
    for path in named:
        if path is not None and path.is_dir():
            raise Invalid(f"{path} is a folder, not a file to write", "Give --junit and --dotenv the name of a file.")
    try:
        yield found
    except BaseException as stop:
        found.stop = stop
        with suppress(OSError, Unavailable):  # why the command stopped matters more than that this could not be told
            _write(found)
        raise
    try:
        _write(found)
    except OSError as error:
        raise Invalid(f"{error.filename} cannot be written: {error.strerror}", "Check the path.") from error


def _write(one: Told) -> None:
    from modelrel import archive

    if one.junit is not None:
        from modelrel.commands.junit import xml

        one.junit.parent.mkdir(parents=True, exist_ok=True)
        archive.write(one.junit, xml(one))
    if one.dotenv is not None:
        one.dotenv.parent.mkdir(parents=True, exist_ok=True)
        archive.write(one.dotenv, dotenv_text(values(one)).encode())
    if os.environ.get("GITHUB_OUTPUT"):
        _append(Path(os.environ["GITHUB_OUTPUT"]), github_text(values(one)))
    if os.environ.get("GITHUB_STEP_SUMMARY"):
        from modelrel.commands.summary import LIMIT, markdown

        path = Path(os.environ["GITHUB_STEP_SUMMARY"])
        there = path.stat().st_size if path.is_file() else 0
        _append(path, markdown(one, LIMIT - there))


def _append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8", errors="backslashreplace", newline="\n") as stream:
        stream.write(text)


def values(one: Told) -> dict[str, str]:
    """Return the outputs by name; all of them are there always, empty where there is nothing to say."""
    from modelrel.steps import pull

    done = one.promotion if not one.dry_run else None
    image = next((package.image for package in one.packages if package.image), None)
    message, _ = one.error
    return {
        "model": one.name,
        "version": one.version,
        "uri": pull.uri_of(one.run.located) if one.run else "",
        "folder": str(one.run.folder) if one.run else "",
        "targets": ",".join(package.target for package in one.packages),
        "changed": _yes(any(stage.outcome == "done" for stage in one.stages)),
        "dry_run": _yes(one.dry_run),
        "verdict": one.verdict,
        "promoted": done.to if done else "",
        "previous": one.promotion.previous if one.promotion else "",
        "image": next(iter(image.tags), "") if image else "",
        "digest": (image.manifest or image.id) if image else "",
        "pushed": "\n".join(f"{push.name}@{push.digest}" for push in one.pushed),
        "packages": json.dumps({package.target: _package(package) for package in one.packages}),
        "exit_code": str(one.exit_code),
        "error": message,
    }


def _package(package: Package) -> dict[str, Any]:
    return {"sha256": package.digest, "size": package.size, "path": str(package.folder / package.artifact)}


def _yes(what: bool) -> str:
    return "true" if what else "false"


def github_text(found: Mapping[str, str]) -> str:
    """Return outputs as `$GITHUB_OUTPUT` takes them; a text of several lines stands between random delimiters."""
    lines = []
    for name, value in found.items():
        if len(value.splitlines()) < 2 and not value.endswith(("\n", "\r")):
            lines.append(f"{name}={value}\n")
        else:
            delimiter = f"modelrel-{secrets.token_hex(16)}"
            lines.append(f"{name}<<{delimiter}\n{value}\n{delimiter}\n")
    return "".join(lines)


def dotenv_text(found: Mapping[str, str]) -> str:
    """Return outputs as a dotenv report: names in capitals behind `RELEASE_`, every value on one line.

    GitLab takes no quotes, no comments and 5 KiB at most: what does not fit is left out, longest first.
    """
    flat = {f"RELEASE_{name.upper()}": " ".join(value.split()) for name, value in found.items()}
    while sum(len(f"{name}={value}\n".encode()) for name, value in flat.items()) > _DOTENV_BYTES:
        flat[max(flat, key=lambda name: len(flat[name].encode()))] = ""
    return "".join(f"{name}={value}\n" for name, value in flat.items())


def annotation(error: ModelrelError) -> str:
    """Return an error as GitHub shows it beside a run: a workflow command, escaped."""
    said = f"{error.message}\n{error.hint}" if error.hint else error.message
    return f"::error title={_escaped(f'modelrel: {error.kind}', ':,')}::{_escaped(said)}"


def _escaped(text: str, more: str = "") -> str:
    return re.sub(f"[%\r\n{more}]", lambda match: f"%{ord(match[0]):02X}", text)

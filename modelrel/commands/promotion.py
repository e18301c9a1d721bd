"""Commands about what a registry points at: promote."""

from __future__ import annotations

import getpass
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from modelrel.commands import model as about_model
from modelrel.commands import outputs
from modelrel.commands.call import Model, call, shared

if TYPE_CHECKING:
    from modelrel.delivered import Promotion
    from modelrel.promoted import Change
    from modelrel.registry import Registry
    from modelrel.steps.release import Release

Stage = Annotated[str | None, typer.Option(metavar="STAGE", help="Move it to a classic stage instead.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would change in the registry; change nothing.")]
Message = Annotated[str | None, typer.Option("--message", "-m", metavar="TEXT", help="Why; kept in the history.")]

Expect = Annotated[
    str | None,
    typer.Option("--expect", metavar="VERSION", help="Only if this version holds it now (none: if none does)."),
]
Into = Annotated[
    str | None,
    typer.Option("--into", metavar="URI", help="Carry the version into this registry, and promote it there."),
]
As = Annotated[str | None, typer.Option("--as", metavar="NAME", help="What the model is called there (the same).")]

NOBODY: Final = "nobody"
"""What `Change.expect` says where no version may hold the alias."""


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(shared(promote))


def promote(
    model: Model, to: Annotated[str | None, typer.Option("--to", metavar="ALIAS", help="The alias to move.")] = None,
    stage: Stage = None, message: Message = None, expect: Expect = None, dry_run: DryRun = False,
    into: Into = None, name: As = None,
    junit: outputs.Junit = None, dotenv: outputs.Dotenv = None,
) -> None:  # fmt: skip
    """Move a registry alias (or stage) to this version, on the evidence that is on disk."""
    from modelrel.show import verdict_table
    from modelrel.steps.promote import refused

    asked = replace(
        change(to, stage, message or ""), expect=NOBODY if expect in {"none", NOBODY} else number("--expect", expect)
    )
    options = about_model.options()
    with outputs.told("promote", model, junit, dotenv) as told, call().release(model, options) as release:
        told.run, told.dry_run = release, dry_run
        smokes = release.evidence()
        told.packages = [smoke.package for smoke in smokes]
        told.promotion = done = release.promoted(smokes, asked, call().settings.policy, dry_run=dry_run,
                                                 into=destination(into, name, release.located.name))  # fmt: skip
        if not dry_run:
            release.summary()
        would_refuse = dry_run and done.verdict.refused
        if not (would_refuse and call().json):  # then the refusal is the one document, with the verdict in it
            call().result({"promotion": plain(done), "stages": about_model.results(release)},
                          *([verdict_table(done.verdict)] if dry_run else []), sentence(done, release))  # fmt: skip
        if would_refuse:
            refused(done)


def destination(uri: str | None, name: str | None, here: str) -> tuple[Registry, str] | None:
    """Return the registry that a version is to be carried into and its name there, None where it stays."""
    from modelrel.errors import Invalid
    from modelrel.registry import Registry

    if not uri and name:
        raise Invalid("--as names the model in another registry, and no other is named", "Say which: --into URI.")
    return (Registry(uri), name or here) if uri else None


def number(option: str, text: str | None) -> str:
    """Return the version number that an option names ("" for none); raises `Invalid` for what is none."""
    from modelrel.errors import Invalid

    if text and not text.isdecimal():
        raise Invalid(f"{option} is {text!r}, which is no version number", f"For example: {option} 6.")
    return str(int(text)) if text else ""


def change(alias: str | None, stage: str | None, message: str = "") -> Change:
    """Return what was asked; raises `Invalid` where it is neither an alias nor a stage, or both."""
    from modelrel.errors import Invalid
    from modelrel.promoted import Change
    from modelrel.steps.promote import check_target as check

    if bool(alias) == bool(stage):
        raise Invalid("name an alias or a stage, one of them", "For example: --to champion, or --stage Production.")
    to = check("alias", alias) if alias else check("stage", str(stage))
    return Change(kind="alias" if alias else "stage", to=to, by=user(), message=message)


def plain(done: Promotion) -> dict[str, Any]:
    """Return a promotion as JSON data."""
    from modelrel.show import as_json

    found: dict[str, Any] = as_json(done)
    return {**found, "targets": [smoke.package.target for smoke in done.smokes]}


def sentence(done: Promotion, release: Release) -> str:
    """Return how a promotion ended, in one line."""
    outcome = release.results[-1].outcome
    what = f"{done.kind} {done.to} of {done.name}"
    if outcome == "up to date":
        return f"{what} is at version {done.version} already"
    verb = "moved" if outcome == "done" else "would move"
    verb += " back" if done.event == "rolled back" else ""
    return f"{what} {verb} from {done.previous or 'nobody'} to version {done.version or '(a copy)'}"


def user() -> str:
    """Return who asks: as told, as the CI says, or who is logged in."""
    for name in ("MODELREL_USER", "GITHUB_ACTOR", "GITLAB_USER_LOGIN"):
        if os.environ.get(name):
            return os.environ[name]
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a numeric user without a name, as in containers
        return str(os.getuid())

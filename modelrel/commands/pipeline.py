"""Commands for pipelines: init, webhook."""

from __future__ import annotations

import os
import shlex
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from modelrel.commands import model as about_model
from modelrel.commands.call import call, shared

if TYPE_CHECKING:
    from modelrel.registry.webhook import Event


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(shared(init))
    app.command()(shared(webhook))


def init(
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="A model, to choose targets that it can have.")
    ] = None,
    ci: Annotated[str | None, typer.Option("--ci", metavar="WHERE", help="github or gitlab: a pipeline, too.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over files that are there.")] = False,
) -> None:
    """Write a modelrel.toml to start from, and a pipeline for GitHub or GitLab."""
    from dataclasses import replace
    from pathlib import Path

    from modelrel.commands import initial
    from modelrel.errors import Invalid, did_you_mean

    kind = next((known for known in initial.KINDS if known == ci), None)
    if ci and not kind:
        raise Invalid(f"there is no pipeline for {ci!r}", f"{did_you_mean(ci, initial.KINDS)}Choose github or gitlab.")
    plan = initial.Plan()
    if model:
        with call().release(model, about_model.options()) as release:
            plan = initial.plan(release.source(), release.possible(quick=False))
    plan = replace(plan, registry=_told_registry())
    texts, left = initial.texts(plan, kind), initial.to_do(plan, kind)
    changed = initial.write(texts, Path.cwd(), force=force)
    call().result(
        {"written": changed, "unchanged": [name for name in texts if name not in changed], "to_set": left},
        *(f"{'wrote' if name in changed else 'the same already:'} {name}" for name in texts),
        *(f"• set {what}" for what in left),
    )


def _told_registry() -> str:
    """Return the registry that the command line or the settings name, "" for another or one that holds a secret."""
    from modelrel.commands.call import mlflow_uri
    from modelrel.registry.lookup import hide_credentials

    uri = call().registry_uri
    return "" if uri == mlflow_uri() or hide_credentials(uri) != uri else uri


def webhook(
    secret_env: Annotated[
        str, typer.Option("--secret-env", metavar="NAME", help="The variable that holds the webhook's secret.")
    ],
    header: Annotated[
        list[str] | None,
        typer.Option("--header", "-H", metavar="NAME: VALUE", help="A header of the request; repeat it."),
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="How old an event may be (300 seconds).")
    ] = None,
) -> None:
    """Check an event of an MLflow webhook (its body on stdin), and print the command that it asks for."""
    from modelrel.registry.webhook import LIMIT, checked

    secret = _secret(secret_env)
    headers = _headers(header or [])
    allowed = _seconds(call().settings.pick("webhook", "tolerance", tolerance, 300.0))
    body = sys.stdin.buffer.read(LIMIT + 1)
    if len(body) > LIMIT:
        from modelrel.errors import Invalid

        raise Invalid(
            f"the body is longer than {LIMIT:,} bytes, so it is no event of a registry", "Check what is sent."
        )
    event = checked(body, headers, secret, time.time(), allowed)
    words = _words(event)
    if call().json:
        call().result({"event": event.kind, "delivery": event.delivery, "model": event.name, "version": event.version,
                       "alias": event.alias, "command": words, "shell": shlex.join(words)})  # fmt: skip
    elif words:
        print(shlex.join(words))  # one line, however long: a shell reads it


def _seconds(tolerance: float) -> float:
    from modelrel.errors import Invalid

    if not 0 <= tolerance < float("inf"):
        raise Invalid(f"--tolerance is {tolerance:g}, not a number of seconds", "Give 0 or more; leave it out for 300.")
    return tolerance


def _secret(name: str) -> str:
    from modelrel.errors import Invalid

    if not os.environ.get(name):
        raise Invalid(f"the variable {name} is not set, so no signature can be checked",
                      "Set it to the secret that the webhook was created with.")  # fmt: skip
    return os.environ[name]


def _headers(given: list[str]) -> dict[str, str]:
    """Return the headers by name: those given, else as a web server hands them to a program (CGI, RFC 3875)."""
    from modelrel.errors import Invalid
    from modelrel.registry.webhook import HEADERS

    found = {name: os.environ.get(f"HTTP_{name.upper().replace('-', '_')}", "") for name in HEADERS}
    known = {name.lower(): name for name in HEADERS}
    for text in given:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise Invalid(
                f"--header has {text!r}, which is not NAME: VALUE", f"For example: --header '{HEADERS[1]}: 1'."
            )
        if name.strip().lower() in known:
            found[known[name.strip().lower()]] = value
    return found


def _words(event: Event) -> list[str]:
    """Return the command that an event asks for by `[webhook]` of the settings, [] for none."""
    from modelrel.errors import Invalid

    pick = call().settings.pick
    aliases = pick("webhook", "alias", None, ["candidate"])
    alias, stage = pick("release", "promote", None, ""), pick("release", "stage", None, "")
    if alias in aliases:
        raise Invalid(
            f"[webhook] alias names {alias}, which is where a release promotes to: each would start the next one",
            "Name the alias that asks for a release, for example candidate.",
        )
    asked = event.kind == "model_version_alias.created" and event.alias in aliases
    tried = event.kind == "model_version.created" and pick("webhook", "created", None, True)
    if not asked and not tried:
        return []
    targets = [word for name in pick("release", "target", None, [""]) if name for word in ("--target", name)]
    to = ["--promote", alias] if alias else ["--stage", stage] if stage else []
    return ["modelrel", "release", _model(event), *targets, *to, *(["--dry-run"] if tried else [])]


def _model(event: Event) -> str:
    """Return how MODEL names the version of an event; raises `Invalid` where nothing names it and it alone."""
    from contextlib import suppress

    from modelrel.errors import Invalid
    from modelrel.registry import reference

    for text in (f"{event.name}/{event.version}", f"models:/{event.name}/{event.version}"):
        with suppress(Invalid):
            found = reference.parse(text)
            if (found.kind, found.name, found.value) == ("version", event.name, event.version) and text[0] != "-":
                return text
    raise Invalid(f"the event is about {event.name!r} version {event.version!r}, which MODEL cannot name",
                  "Give the model another name in the registry.")  # fmt: skip

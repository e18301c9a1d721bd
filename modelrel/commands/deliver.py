"""Commands about the delivery: package, serve, smoke, push, promote, release."""

from __future__ import annotations

import getpass
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from modelrel.commands import delivery, server
from modelrel.commands import model as about_model
from modelrel.commands.call import Model, call, shared
from modelrel.commands.model import (
    Agreement,
    Budget,
    Data,
    Drop,
    Env,
    Force,
    Label,
    MaxError,
    MeanError,
    Memory,
    OperatorsOption,
    Opset,
    Quantize,
    Seconds,
    SignatureOption,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from modelrel.delivered import Promotion, Pushed
    from modelrel.steps.release import Release, ReleaseOptions

Target = Annotated[
    list[str] | None,
    typer.Option("--target", "-t", metavar="TARGET", help="docker, oci, lambda, tflite, npm, kserve …; repeat it."),
]
Alias = Annotated[str | None, typer.Option(metavar="ALIAS", help="The alias to move to this version.")]
Stage = Annotated[str | None, typer.Option(metavar="STAGE", help="Move it to a classic stage instead.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would change in the registry; change nothing.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (package, serve, smoke, push, promote, release):
        app.command()(shared(command))


def targets(given: list[str] | None) -> list[str]:
    """Return the targets that were asked for, each once; raises `Invalid` where there are none."""
    from modelrel.errors import Invalid
    from modelrel.steps import package as step
    from modelrel.targets import TARGETS

    asked = call().settings.pick("release", "target", given, [])
    if not asked:
        raise Invalid("no target was named", f"Add --target: {', '.join(TARGETS)}.")
    for name in asked:
        step.of(name)
    return list(dict.fromkeys(asked))


def _options(asked: list[str], force: str, given: dict[str, Any]) -> ReleaseOptions:
    from dataclasses import replace

    found = about_model.options("onnx", force, **given)
    return replace(found, package=delivery.options(asked, given["package"]))


@delivery.with_options
def package(model: Model, *, given: dict[str, Any], target: Target = None, force: Force = False) -> None:
    """Lay out the verified copy for a target, and build the image where an engine answers."""
    from rich.text import Text

    from modelrel.show import as_json, megabytes, table

    asked = targets(target)
    with call().release(model, _options(asked, "package" if force else "", {"package": given})) as release:
        made = [release.packaged(name) for name in asked]
        pushed = _pushed(release, asked)
        release.summary()
        shown: list[RenderableType] = []
        for one in made:
            unpacked = sum(one.parts.values())
            parts = [
                (name, megabytes(weight), f"{weight / max(unpacked, 1):.0%}")
                for name, weight in sorted(one.parts.items(), key=lambda part: -part[1])
            ]
            total = [("all of it", megabytes(unpacked), "")] if len(parts) > 1 else []
            total += [("as delivered", megabytes(one.size), "")] if one.size != unpacked else []
            shown.append(table(f"{one.target}: {release.folder / one.artifact}", ("part", "size", "share"),
                               [*parts, *total]))  # fmt: skip
        shown += [Text(f"• {note}") for note in release.notes()]
        call().result(
            {"packages": [{**as_json(one), "sha256": one.digest} for one in made], "folder": str(release.folder),
             "pushed": [as_json(one) for one in pushed], "stages": about_model.results(release)},
            *shown, *map(_sentence_of_push, pushed),
        )  # fmt: skip


@server.with_options
def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Models as everywhere, or folders: of a package, a release, or of several of these.",
        ),
    ],
    *,
    given: dict[str, Any],
    to: Annotated[
        str | None, typer.Option("--to", metavar="FORMAT", help="The format to serve: onnx, tflite, pmml or python.")
    ] = None,
) -> None:
    """Start the reference server on converted models, or on packages."""
    server.checked(given)
    found = [_servable(text, to or "") for text in models]
    folders = dict.fromkeys(folder for one in found for folder in one.folders)
    labels = dict.fromkeys(label for one in found for label in one.labels)
    server.run(server.Served(folders=tuple(folders), labels=tuple(labels)), given, call())


def _servable(text: str, form: str) -> server.Served:
    """Return the folder behind one argument: as it is, or pulled, converted and verified first."""
    from modelrel.registry import reference

    there = server.servable(Path(text).expanduser(), form)
    if there is not None:
        return there
    with call().release(text, about_model.options(form or "onnx")) as release:
        folder = (release.folder / release.parity().manifest.path).parent
        asked, located = reference.parse(text), release.located
    named = asked.kind in ("alias", "stage")
    return server.Served(folders=(folder,), labels=(f"{located.name}/{asked.value}={located.value}",) if named else ())


@delivery.with_options
def smoke(model: Model, *, given: dict[str, Any], target: Target = None, force: Force = False) -> None:
    """Start the built artifact as its platform would, send it real requests, and check the answers."""
    from modelrel.show import as_json, table

    asked = targets(target)
    with call().release(model, _options(asked, "smoke" if force else "", {"package": given})) as release:
        # `package` may have been told options that this command was not: what was built is what is smoked
        reports = [release.smoked(name, as_packaged=not given.keys() - {"to"}) for name in asked]
        release.summary()
        shown = [
            table(f"{report.package.target}, by {report.runner}", ("check", "seen"),
                  [(check.name, check.detail) for check in report.checks])
            for report in reports
        ]  # fmt: skip
        call().result(
            {"smokes": [{**as_json(one), "target": one.package.target, "package_sha256": one.package_digest}
                        for one in reports], "stages": about_model.results(release)},
            *shown,
        )  # fmt: skip


def push(
    model: Model, *,
    target: Annotated[
        str | None, typer.Option("--target", "-t", metavar="TARGET", help="docker, oci, modelpack …: what to push.")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="NAME:TAG", help="REGISTRY/NAME:TAG to push to.")] = None,
    format: Annotated[str | None, typer.Option(metavar="FORMAT", help="Which of several formats.")] = None,
    force: Force = False,
) -> None:  # fmt: skip
    """Put the package on disk into a registry of images; it is made and smoke-tested where it is not yet."""
    from modelrel.errors import Invalid
    from modelrel.show import as_json

    asked = targets([target] if target else None)
    if len(asked) > 1:
        raise Invalid(f"{len(asked)} targets cannot have one name", "Choose one with --target.")
    given = {"to": format} if format else {}
    with call().release(model, _options(asked, "push" if force else "", {"package": given})) as release:
        done = release.pushed(asked[0], to or "", as_packaged=True)
        release.summary()
        call().result({"pushed": as_json(done), "stages": about_model.results(release)}, _sentence_of_push(done))


def _pushed(release: Release, asked: list[str]) -> list[Pushed]:
    """Push what is to be pushed; that is smoke-tested first."""
    return [release.pushed(name) for name in asked if release.options.package[name].push]


def _sentence_of_push(done: Pushed) -> str:
    if not done.sent and not done.mounted:
        return f"{done.name} is {done.digest}; all of it was there already"
    return (
        f"{done.name} is {done.digest}; {done.sent} blobs sent ({done.sent_bytes:,} bytes), {done.mounted} mounted, "
        f"{done.there} there already"
    )


def promote(
    model: Model, to: Annotated[str | None, typer.Option("--to", metavar="ALIAS", help="The alias to move.")] = None,
    stage: Stage = None, dry_run: DryRun = False,
) -> None:  # fmt: skip
    """Move a registry alias (or stage) to this version, on the evidence that is on disk."""
    from modelrel.steps.promote import check_target as check

    kind, name = _destination(to, stage)
    name = check(kind, name)
    with call().release(model, about_model.options()) as release:
        done = release.promoted(release.evidence(), kind, name, _user(), dry_run=dry_run)
        if not dry_run:
            release.summary()
        call().result({"promotion": _promotion(done), "stages": about_model.results(release)}, _sentence(done, release))


@delivery.with_options
def release(
    model: Model, *, given: dict[str, Any], target: Target = None, promote: Alias = None, stage: Stage = None,
    data: Data = None, opset: Opset = None, operators: OperatorsOption = None, quantize: Quantize = None,
    label: Label = None, agreement: Agreement = None, max_error: MaxError = None, mean_error: MeanError = None,
    drop: Drop = None, budget: Budget = None, seconds: Seconds = None, memory: Memory = None, env: Env = None,
    signature: SignatureOption = None, force: Force = False,
) -> None:  # fmt: skip
    """Do all of it: pull, convert, verify, package, smoke-test, and promote."""
    from modelrel.steps.promote import check_target as check

    said = {
        "data": data, "opset": opset, "operators": operators, "seconds": seconds, "memory": memory, "env": env,
        "budget": budget, "quantize": quantize, "label": label, "agreement": agreement, "max_error": max_error,
        "mean_error": mean_error, "drop": drop, "signature": signature, "package": given,
    }  # fmt: skip
    asked = targets(target)
    pick = call().settings.pick
    alias, classic = (promote, stage) if promote or stage else (
        pick("release", "promote", None, ""), pick("release", "stage", None, "")
    )  # fmt: skip
    destination = _destination(alias, classic) if alias or classic else None
    if destination is not None:
        destination = (destination[0], check(*destination))
    everything = "pull convert verify package smoke"
    with call().release(model, _options(asked, everything if force else "", said)) as run:
        smokes = tuple(run.smoked(name) for name in asked)
        _pushed(run, asked)
        promotion = run.promoted(smokes, *destination, _user()) if destination else None
        summary = run.summary()
        _finish(run, promotion, summary)


def _finish(run: Release, promotion: Promotion | None, summary: Path) -> None:
    from rich.text import Text

    from modelrel.show import megabytes, table

    rows = [
        (one.stage, one.outcome, one.detail, f"{one.seconds:.2f} s", megabytes(one.size) if one.size else "")
        for one in run.results
    ]
    same = all(one.outcome == "up to date" for one in run.results)
    end = "nothing to do: everything is up to date" if same else f"released {run.folder}"
    label = f"{run.located.name}/{run.located.value}"
    call().result(
        {
            "model": run.located.name,
            "folder": str(run.folder),
            "summary": str(summary),
            "changed": not same,
            "stages": about_model.results(run),
            "promotion": _promotion(promotion) if promotion else None,
            "notes": run.notes(),
        },
        table(f"{label if run.located.kind == 'version' else run.located.name}",
              ("stage", "result", "what", "time", "size"), rows),
        *(Text(f"• {note}") for note in run.notes()),
        f"{end}; every file with its sha256: {summary}",
    )  # fmt: skip


def _destination(alias: str | None, stage: str | None) -> tuple[Literal["alias", "stage"], str]:
    from modelrel.errors import Invalid

    if bool(alias) == bool(stage):
        raise Invalid("name an alias or a stage, one of them", "For example: --to champion, or --stage Production.")
    return ("alias", alias) if alias else ("stage", str(stage))


def _promotion(done: Promotion) -> dict[str, Any]:
    from modelrel.show import as_json

    found: dict[str, Any] = as_json(done)
    return {**found, "targets": [smoke.package.target for smoke in done.smokes]}


def _sentence(done: Promotion, release: Release) -> str:
    outcome = release.results[-1].outcome
    what = f"{done.kind} {done.to} of {done.name}"
    if outcome == "up to date":
        return f"{what} is at version {done.version} already"
    verb = "would move" if outcome == "would change" else "moved"
    return f"{what} {verb} from {done.previous or 'nobody'} to version {done.version}"


def _user() -> str:
    for name in ("MODELREL_USER", "GITHUB_ACTOR", "GITLAB_USER_LOGIN"):
        if os.environ.get(name):
            return os.environ[name]
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a numeric user without a name, as in containers
        return str(os.getuid())

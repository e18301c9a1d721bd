"""Commands about the delivery: package, serve, smoke, push, release."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelrel.commands import attestation, delivery, outputs, promotion, server
from modelrel.commands import model as about_model
from modelrel.commands.call import Model, call, shared
from modelrel.commands.model import (
    Agreement,
    AllowPickle,
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

    from modelrel.delivered import Pushed
    from modelrel.steps.release import Release, ReleaseOptions

Target = Annotated[
    list[str] | None,
    typer.Option("--target", "-t", metavar="TARGET", help="docker, oci, lambda, tflite, npm, kserve …; repeat it."),
]
Alias = Annotated[str | None, typer.Option(metavar="ALIAS", help="The alias to move to this version.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (package, serve, smoke, push, release):
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


def options_of(asked: list[str], force: str, given: dict[str, Any]) -> ReleaseOptions:
    """Return the options of a release for targets; `force` names the stages that are done again."""
    from dataclasses import replace

    found = about_model.options("onnx", force, **given)
    return replace(found, package=delivery.options(asked, given["package"]))


@delivery.with_options
def package(
    model: Model, *, given: dict[str, Any], target: Target = None, force: Force = False, junit: outputs.Junit = None,
    dotenv: outputs.Dotenv = None,
) -> None:  # fmt: skip
    """Lay out the verified copy for a target, and build the image where an engine answers."""
    from rich.text import Text

    from modelrel.show import as_json, megabytes, table

    asked = targets(target)
    options = options_of(asked, "package" if force else "", {"package": given})
    with outputs.told("package", model, junit, dotenv) as told, call().release(model, options) as release:
        told.run = release
        for name in asked:
            told.packages.append(release.packaged(name))
        made = told.packages
        told.pushed = pushed = _pushed(release, asked)
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
    with call().release(model, options_of(asked, "smoke" if force else "", {"package": given})) as release:
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
    with call().release(model, options_of(asked, "push" if force else "", {"package": given})) as release:
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


@delivery.with_options
def release(
    model: Model, *, given: dict[str, Any], target: Target = None, promote: Alias = None, stage: promotion.Stage = None,
    message: promotion.Message = None, dry_run: promotion.DryRun = False, data: Data = None, opset: Opset = None,
    operators: OperatorsOption = None, quantize: Quantize = None, label: Label = None, agreement: Agreement = None,
    max_error: MaxError = None, mean_error: MeanError = None, drop: Drop = None, budget: Budget = None,
    seconds: Seconds = None, memory: Memory = None, env: Env = None, signature: SignatureOption = None,
    allow_pickle: AllowPickle = None, key: attestation.Key = None, force: Force = False,
    junit: outputs.Junit = None, dotenv: outputs.Dotenv = None,
) -> None:  # fmt: skip
    """Do all of it: pull, convert, verify, package, smoke-test, attest, and promote."""
    said = {
        "data": data, "opset": opset, "operators": operators, "seconds": seconds, "memory": memory, "env": env,
        "budget": budget, "quantize": quantize, "label": label, "agreement": agreement, "max_error": max_error,
        "mean_error": mean_error, "drop": drop, "signature": signature, "allow_pickle": allow_pickle, "package": given,
    }  # fmt: skip
    asked = targets(target)
    pick = call().settings.pick
    alias, classic = (promote, stage) if promote or stage else (
        pick("release", "promote", None, ""), pick("release", "stage", None, "")
    )  # fmt: skip
    change = promotion.change(alias, classic, message or "") if alias or classic else None
    everything, signer = "pull convert verify package smoke attest", attestation.signer(key)
    options = options_of(asked, everything if force else "", said)
    with outputs.told("release", model, junit, dotenv) as told, call().release(model, options) as run:
        told.run, told.dry_run = run, dry_run
        places = _places(run, asked)
        smokes = []
        for name in asked:
            smokes.append(run.attested(run.smoked(name), signer).smoke)
            told.packages.append(smokes[-1].package)
        told.pushed = [] if dry_run else _pushed(run, asked)
        if change:
            told.promotion = run.promoted(tuple(smokes), change, call().settings.policy, dry_run=dry_run)
        _finish(told, run, places)


def _places(run: Release, asked: list[str]) -> dict[str, str]:
    """Return where each target would be pushed; raises `Invalid` for a name that is none, before any work is done."""
    from modelrel.steps import push as step

    return {name: step.checked(name, place) for name in asked if (place := run.options.package[name].push)}


def _finish(told: outputs.Told, run: Release, places: dict[str, str]) -> None:
    from rich.text import Text

    from modelrel.show import megabytes, table, verdict_table
    from modelrel.steps.promote import refused

    summary, done = run.summary(), told.promotion
    rows = [
        (one.stage, one.outcome, one.detail, f"{one.seconds:.2f} s", megabytes(one.size) if one.size else "")
        for one in run.results
    ]
    same = all(one.outcome == "up to date" for one in run.results)
    end = "nothing to do: everything is up to date" if same else f"released {run.folder}"
    label = f"{run.located.name}/{run.located.value}" if run.located.kind == "version" else run.located.name
    shown: list[RenderableType] = [
        table(label, ("stage", "result", "what", "time", "size"), rows),
        *([verdict_table(done.verdict)] if done and told.dry_run else []),
        *(Text(f"• {note}") for note in run.notes()),
    ]
    if told.dry_run:
        shown += [f"would push {name} as {place}" for name, place in places.items()]
        end = "a dry run: no registry was changed"
        if done and done.verdict.refused:
            if not call().json:  # there the one document is the error, with the verdict in it
                call().result({}, *shown, end)
            refused(done)
    call().result(
        {
            "model": run.located.name,
            "folder": str(run.folder),
            "summary": str(summary),
            "changed": not same,
            "dry_run": told.dry_run,
            "would_push": places if told.dry_run else {},
            "stages": about_model.results(run),
            "promotion": promotion.plain(done) if done else None,
            "notes": run.notes(),
        },
        *shown,
        f"{end}; every file with its sha256: {summary}",
    )

"""Commands about what a registry pointed at: history, and rollback to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from modelrel.commands import model as about_model
from modelrel.commands import promotion
from modelrel.commands.call import call, shared

if TYPE_CHECKING:
    from rich.table import Table

    from modelrel.delivered import Promotion
    from modelrel.promoted import Entry

Name = Annotated[str, typer.Argument(metavar="NAME", help="A registered model.")]

_COLOURS = {"promoted": "green", "rolled back": "yellow", "refused": "red", "outside": "magenta"}


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (history, rollback):
        app.command()(shared(command))


def history(
    name: Name,
    alias: Annotated[
        str | None, typer.Option("--alias", metavar="ALIAS", help="Of this alias (or stage) only.")
    ] = None,
) -> None:
    """Show who moved which alias from which version to which, when and why; what was refused or not ours, too."""
    from modelrel.registry import reference, story

    registry, asked = call().registry(), reference.parse(name)
    alias = alias or (asked.value if asked.kind in {"alias", "stage"} else None)
    found = registry.known_model(asked.name)
    told = [entry for entry in story.of(found) if alias in (None, entry.to)]
    now = {to: version for to, version in found.aliases.items() if alias in (None, to)}
    what = f"{found.name}@{alias}" if alias else found.name
    call().result(
        {"model": found.name, "aliases": now, "history": [dataclasses.asdict(entry) for entry in told]},
        _table(what, told) if told else f"{what} has no history: nothing was promoted yet",
    )


def _table(title: str, told: Iterable[Entry]) -> Table:
    from rich.text import Text

    from modelrel.show import table

    rows = []
    for entry in told:
        outside = entry.event == "outside"
        what = Text("outside modelrel" if outside else entry.event, _COLOURS[entry.event])
        moved = f"{entry.previous or 'nobody'} → {entry.version or 'nobody'}"
        when = f"after {entry.at}" if outside and entry.at else entry.at
        why = "; ".join(part for part in (entry.message, *entry.rules) if part)
        evidence = ", ".join(f"{target} {sha256[:12]}" for target, sha256 in entry.evidence.items())
        rows.append((when, what, f"{entry.kind} {entry.to}", moved, entry.by, why, evidence))
    return table(title, ("when", "what", "of", "from → to", "who", "why", "evidence"), rows)


def rollback(
    name: Name,
    alias: Annotated[str | None, typer.Option("--alias", metavar="ALIAS", help="The alias to move back.")] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="VERSION", help="Back to this version, which must have held it.")
    ] = None,
    stage: promotion.Stage = None, message: promotion.Message = None, dry_run: promotion.DryRun = False,
) -> None:  # fmt: skip
    """Move an alias back to the version that held it before and whose evidence still verifies."""
    from modelrel.registry import reference
    from modelrel.steps import into
    from modelrel.steps import promote as promote_step
    from modelrel.steps import rollback as step

    asked, model = replace(promotion.change(alias, stage, message or ""), rollback=True), reference.parse(name).name
    held = step.held(call().registry(), model, asked, promotion.number("--to", to))
    expecting = replace(asked, expect=held.now or promotion.NOBODY)

    def attempt(version: str) -> tuple[Promotion, str]:
        # released where it is, or carried over from where it was
        own = (call().dist / reference.folder_name(model, version) / "SourceModel.json").is_file()
        came = None if own else into.came(call().registry(), model, version)
        uri, route = came or (f"{model}/{version}", None)
        with call().release(uri, about_model.options(), elsewhere=route is not None) as release:
            policy = call().settings.policy
            done = release.promoted(release.evidence(), expecting, policy, dry_run=dry_run, into=route)
            promote_step.refused(done)
            if not dry_run:
                release.summary()
            return done, promotion.sentence(done, release)

    (done, sentence), skipped = step.back(held, asked, call().registry(), attempt)
    call().result(
        {"promotion": promotion.plain(done), "skipped": [dataclasses.asdict(one) for one in skipped]},
        *(f"skipped version {one.version}: {one.why}" for one in skipped),
        sentence,
    )

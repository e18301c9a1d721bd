"""The command that makes a release again from its records, and compares."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelrel.commands.call import call, shared

if TYPE_CHECKING:
    from modelrel.steps.rebuild import Rebuilt

Where = Annotated[
    str, typer.Argument(metavar="RELEASE", help="A release folder, its release.json, or a model as everywhere.")
]
Only = Annotated[
    list[str] | None, typer.Option("--target", "-t", metavar="TARGET", help="Only packages of this target; repeat it.")
]
Verify = Annotated[bool, typer.Option("--verify", help="Refuse the release (exit 4) where a digest differs.")]
Templates = Annotated[str | None, typer.Option(metavar="DIR", help="Your templates, as they were given then.")]
House = Annotated[str | None, typer.Option(metavar="DIR", help="A folder of wheels, for machines without an index.")]


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(shared(rebuild))


def rebuild(
    release: Where, target: Only = None, verify: Verify = False, templates: Templates = None, wheelhouse: House = None
) -> None:
    """Package again from the records of a release, in a temporary folder, and compare every digest."""
    from modelrel.errors import Invalid, did_you_mean
    from modelrel.steps import rebuild as step

    pick = call().settings.pick
    own, house = (
        Path(found) if (found := pick("release", name, given, "")) else None
        for name, given in (("templates", templates), ("wheelhouse", wheelhouse))
    )
    with _held(release) as folder:
        packages = step.recorded(folder)
        there = list(dict.fromkeys(package.target for package in packages))
        for name in target or ():
            if name not in there:
                hint = f"{did_you_mean(name, there)}Packaged are: {', '.join(there) or 'none'}."
                raise Invalid(f"{folder} has no package for {name!r}", hint)
        if not packages:
            raise Invalid(f"{folder} has no packages", "Make one: modelrel package MODEL --target TARGET.")
        progress, done = call().progress(), []
        try:
            for package in packages:
                if not target or package.target in target:
                    progress.begin(f"rebuild {package.target}")
                    done.append(step.rebuild(package, own, house, progress.note))
        finally:
            progress.stop()
        _told(folder, done, verify=verify)


@contextmanager
def _held(release: str) -> Iterator[Path]:
    """Give the folder of a release, held."""
    from modelrel.steps import summary
    from modelrel.steps.held import locked
    from modelrel.steps.release import ReleaseOptions

    path = Path(release).expanduser()
    folder = path.parent if path.name == summary.NAME and path.is_file() else path
    if (folder / "SourceModel.json").is_file():
        with locked(folder, call().progress().say):
            yield folder
        return
    with call().release(release, ReleaseOptions()) as found:
        yield found.folder


def _told(folder: Path, done: list[Rebuilt], *, verify: bool) -> None:
    from rich.text import Text

    from modelrel.errors import Refused
    from modelrel.show import megabytes, table

    wrong = [(one, difference) for one in done for difference in one.differences]
    value = {"folder": str(folder), "same": not wrong, "packages": [_plain(one) for one in done]}
    rows = [
        (f"{one.package.converted.format}/{one.package.target}", f"{one.files:,}", megabytes(one.size),
         f"{len(one.differences):,} differ" if one.differences else "the same bytes", f"{one.seconds:.1f} s")
        for one in done
    ]  # fmt: skip
    parted = [(difference.path, difference.detail) for _, difference in wrong]
    shown = [table(f"{folder}, packaged again", ("package", "files", "size", "result", "time"), rows)]
    shown += [table("", ("differs", "where"), parted)] if parted else []
    notes = [Text(f"• {one.package.target}: {note}") for one in done for note in one.notes]
    if not (wrong and verify):
        call().result(value, *shown, *notes)
        return
    if not call().json:
        call().result(value, *shown, *notes)
    first, more = wrong[0][1], f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    refusal = Refused(
        f"{first.path}{more} has other bytes when it is packaged again: {first.detail}",
        "Compare the versions of modelrel, jinja2, uv and Python of then and now, and who changed the release.",
    )
    refusal.evidence = value
    raise refusal


def _plain(one: Rebuilt) -> dict[str, Any]:
    from modelrel.show import as_json

    package = one.package
    return {
        "target": package.target, "format": package.converted.format, "sha256": package.digest, "files": one.files,
        "size": one.size, "seconds": one.seconds, "differences": [as_json(each) for each in one.differences],
        "notes": list(one.notes),
    }  # fmt: skip

"""Commands about what is there: on this machine (doctor), and in modelrel (formats)."""

from __future__ import annotations

from typing import Annotated

import typer

from modelrel.commands.call import call, shared

KnownBad = Annotated[
    bool, typer.Option("--known-bad", help="Show which versions of which library are known to be wrong, and where.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (doctor, formats):
        app.command()(shared(command))


def doctor() -> None:
    """Show which tools, libraries and services are there, and what each missing one costs."""
    from rich.text import Text

    from modelrel.errors import Unavailable
    from modelrel.show import as_json, table
    from modelrel.steps import doctor as step

    findings = step.examine(call().registry_uri, call().dist)
    colours = {"ok": "green", "missing": "yellow", "broken": "red"}
    rows = [
        (one.name, Text(one.state, colours[one.state]), one.detail, "" if one.state == "ok" else one.cost)
        for one in findings
    ]
    broken = [one.name for one in findings if one.state == "broken"]
    call().result(
        {"findings": [as_json(one) for one in findings], "healthy": not broken},
        table("", ("what", "state", "found", "what its absence costs"), rows),
    )
    if broken and not call().json:
        raise Unavailable(f"modelrel cannot work here: {', '.join(broken)}", "Install it again: pip install modelrel")


def formats(known_bad: KnownBad = False) -> None:
    """Show which flavor of model can become which format, for which targets; or what is known to go wrong."""
    from modelrel.flavors import FLAVORS
    from modelrel.formats import FORMATS
    from modelrel.show import table
    from modelrel.steps import convert
    from modelrel.targets import TARGETS

    if known_bad:
        faults = [(name, fault) for name, form in FORMATS.items() for fault in form.KNOWN_BAD]
        said = [
            (name, f"{fault.library} {fault.versions}", fault.condition, fault.wrong, fault.action, fault.source)
            for name, fault in faults
        ]
        keys = ("format", "library", "where", "what goes wrong", "action", "source")
        call().result([dict(zip(keys, one, strict=True)) for one in said], table("", keys, said))
        return
    can = {flavor: [name for name, form in FORMATS.items() if flavor in form.FLAVORS] for flavor in FLAVORS}
    tools = {name: convert.tools(name) for name in FORMATS}
    written = {name: ", ".join(f"{tool} {version}" for tool, version in found.items()) for name, found in tools.items()}
    fitting = {name: [key for key, target in TARGETS.items() if name in target.FORMATS] for name in FORMATS}
    rows = [(flavor, name, ", ".join(fitting[name]), written[name]) for flavor, names in can.items() for name in names]
    call().result(
        {"flavors": can, "targets": fitting, "tools": tools},
        table("", ("flavor", "format", "targets", "written and run with"), rows),
    )

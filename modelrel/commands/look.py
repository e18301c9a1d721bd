"""Commands about this machine: doctor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelrel.commands.call import call, shared

if TYPE_CHECKING:
    import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(shared(doctor))


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

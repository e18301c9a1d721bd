"""Commands about the policy: check, schema, approve."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from modelrel.commands.call import Model, call, shared
from modelrel.commands.settings import FILE

Given = Annotated[Path, typer.Argument(metavar="FILE", help=f"The file ({FILE} in the current folder).")]
Why = Annotated[str | None, typer.Option("--message", "-m", metavar="TEXT", help="Why; kept with it.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(shared(check, reads=False))
    app.command()(shared(schema, reads=False))
    app.command()(shared(approve))


def check(file: Given = Path(FILE)) -> None:
    """Check the settings and the policy: exit 0 valid, 4 a policy that can never be met, 2 wrong; all of it at once."""
    from modelrel.commands.checked import examined
    from modelrel.errors import Invalid, Refused
    from modelrel.show import table

    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise Invalid(f"{file} cannot be read: {error.strerror}", "Name the file: modelrel check FILE.") from error
    except UnicodeDecodeError as error:
        raise Invalid(f"{file} is not UTF-8: byte {error.start:,} is none", "TOML is UTF-8: save it so.") from error
    found = examined(text, file.parent)
    if not found:
        call().result({"file": str(file), "findings": []}, f"{file} is valid")
        return
    if not call().json:
        rows = [(f"{file}:{one.line}", "wrong" if one.wrong else "refused", one.message, one.hint) for one in found]
        call().result({}, table("", ("where", "what", "found", "what to do"), rows))
    wrong = [one for one in found if one.wrong]
    shown = "; ".join(f"line {one.line}: {one.message}" for one in (wrong or found)[:5])
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    stop = Invalid(f"{file} is wrong: {shown}{more}", "Correct it.") if wrong else Refused(
        f"{file} is valid, but its policy can never be met: {shown}{more}", "Correct the policy.")  # fmt: skip
    stop.evidence = {"file": str(file), "findings": [asdict(one) for one in found]}
    raise stop


def schema() -> None:
    """Print the JSON Schema of modelrel.toml, for editors and for checking it elsewhere."""
    import json

    from modelrel.commands.schema import schema as made

    print(json.dumps(made(), indent=2, ensure_ascii=False))


def approve(model: Model, message: Why = None) -> None:
    """Say in the registry that you approve of this version; a policy may want that of others than the author."""
    from modelrel.commands.model import options
    from modelrel.commands.promotion import user
    from modelrel.policy import Approval
    from modelrel.steps import grounds

    with call().release(model, options()) as release:
        source = release.source()
        at = datetime.now(UTC).isoformat(timespec="seconds")
        one = Approval(by=user(), at=at, source=source.digest, message=message or "")
        grounds.approve(source, one, release.registry)
        call().result({"approval": asdict(one), "model": source.name, "version": source.version},
                      f"{one.by} approves of {source.label} (files {source.digest[:12]}…)")  # fmt: skip

"""The JSON Schema of modelrel.toml: from the settings, the help of the command line, the targets and the policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from modelrel.commands.settings import FILE, RULES, TABLE, variable

_KINDS: Final[Mapping[type, Mapping[str, Any]]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    list: {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]},
}
_SECTIONS: Final = {
    "release": "what every command starts from",
    "interface": "how a server shows a model other than it was logged",
    "verify": "how original and copy are compared",
    "webhook": "what events of the registry ask for",
}
_WEBHOOK: Final = {
    "alias": "Aliases that ask for a release when they are set.",
    "created": "Whether a new version is tried dry.",
}
_INTERFACE: Final = {
    "outputs": 'Outputs that are served, and their names: ["NEW=OLD"].',
    "pass_through": 'Fields that come back as they were sent: ["id", "row:INT64"].',
    "image": "The input that is sent as an encoded image.",
    "resize": "How an image is made the tensor's size: nearest, bilinear, bicubic, lanczos or box.",
    "scale": "What a pixel is multiplied by: 1/255.",
    "offset": "What is added to it then.",
}


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a modelrel.toml."""
    from modelrel import policy

    helps = _helps()
    sections = {name: _section(name, helps) for name in TABLE}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": FILE,
        "description": "settings of modelrel, and the rules of promotion",
        "type": "object",
        "properties": {**sections, RULES: policy.schema()},
        "additionalProperties": False,
    }


def _section(name: str, helps: Mapping[str, str]) -> dict[str, Any]:
    from modelrel.targets import TARGETS

    ours = {"interface": _INTERFACE, "webhook": _WEBHOOK}
    own = ours.get(name, dict(TARGETS[name].VALUES) if name in TARGETS else {})
    properties = {}
    for key, kind in TABLE[name].items():
        said = (own.get(key) or helps.get(key) or "").rstrip(".")
        description = f"{said[:1].upper()}{said[1:]}. " if said else ""
        properties[key] = {"description": f"{description}Environment: {variable(name, key)}.", **_KINDS[kind]}
    return {
        "type": "object",
        "description": _SECTIONS.get(name, f"settings of the target {name}"),
        "properties": properties,
        "additionalProperties": False,
    }


def _helps() -> dict[str, str]:
    """Return option -> its help on the command line; what `release` says of it goes before what others say."""
    import typer.main

    from modelrel.commands import _app

    commands: Any = typer.main.get_command(_app())
    first = ["release", "verify", "convert"]
    found: dict[str, str] = {}
    for name in [*first, *(name for name in commands.commands if name not in first)]:
        for option in commands.commands[name].params:
            text = getattr(option, "help", "") or ""
            if option.name and text:
                found.setdefault(option.name.rstrip("_"), text)
    return found

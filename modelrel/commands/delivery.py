"""The options of packaging: one table for the command line, and what a target is told of them and of the settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from modelrel.commands.call import call
from modelrel.commands.settings import FILE, TABLE
from modelrel.errors import Invalid, did_you_mean
from modelrel.quantities import size

if TYPE_CHECKING:
    from modelrel.values import PackageOptions

_PANEL: Final = "Options of targets"


@dataclass(frozen=True, slots=True)
class Option:
    """An option of `package`, `smoke` and `release`: `field` is that of `PackageOptions` which it sets.

    `of` is the section of the settings where it stands for all targets, "" for that of each target.
    """

    name: str
    kind: type
    metavar: str
    help: str
    field: str = ""
    of: str = ""


OPTIONS: Final = (
    Option("to", str, "FORMAT", "The format of the copy inside (the target's own).", "format"),
    Option("python", str, "X.Y", "Python of the artifact."),
    Option("platform", str, "OS/ARCH", "linux/amd64 or linux/arm64; for oci also both, with a comma."),
    Option("arch", str, "ARCH", "For Lambda: x86_64 or arm64.", "platform"),
    Option("base_image", str, "IMAGE", "The image to build on: a name, an OCI layout folder, or a tar."),
    Option("tag", list, "NAME:TAG", "Name of the image; repeat it.", "tags"),
    Option("render_only", bool, "", "For docker: stop after the build context."),
    Option("builder", str, "WHO", "For docker: who writes the image: auto, engine, or oci (modelrel itself)."),
    Option("manifest", str, "KIND", "Of images that modelrel writes: oci or docker manifests."),
    Option("push", str, "NAME:TAG", "Put what was built into a registry of images, under this name."),
    Option("image", str, "IMAGE", "The image that deploy files name (the one just built)."),
    Option("micro", bool, "", "For tflite: add C source for microcontrollers."),
    Option("max_size", str, "SIZE", "Refuse a package that is larger, for example 30MB."),
    Option("wheelhouse", str, "DIR", "A folder of wheels, for machines without an index.", of="release"),
    Option("set", list, "NAME=VALUE", "A setting of the target's own; repeat it.", "values"),
    Option("templates", str, "DIR", "Your templates, which win over ours.", of="release"),
)
"""Every option of packaging; README's table and the settings are checked against it."""


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add every option of packaging to a command, which gets those that were given as `given`: name -> value."""
    own = [one for one in inspect.signature(command, eval_str=True).parameters.values() if one.name != "given"]

    def run(**said: Any) -> None:
        given = {option.name: said.pop(option.name) for option in OPTIONS}
        command(**said, given={name: value for name, value in given.items() if value not in (None, [])})

    run.__name__, run.__doc__, run.__module__ = command.__name__, command.__doc__, command.__module__
    parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own]
    run.__signature__ = inspect.Signature([*parameters, *map(_parameter, OPTIONS)])  # type: ignore[attr-defined]
    return run


def _parameter(option: Option) -> inspect.Parameter:
    kind: Any = {bool: bool | None, list: list[str] | None}.get(option.kind, str | None)
    flag = f"--{option.name.replace('_', '-')}"
    told = typer.Option(flag, metavar=option.metavar or None, help=option.help, rich_help_panel=_PANEL)
    return inspect.Parameter(
        option.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, told]
    )


def options(asked: Sequence[str], given: Mapping[str, Any]) -> dict[str, PackageOptions]:
    """Return the options of each target: command line, then its own section of the settings.

    Raises `Invalid` for an option that none of the targets takes, and for values that are none.
    """
    from modelrel.steps import package as step
    from modelrel.targets import TARGETS

    given = {**given, "set": _set(asked, given["set"])} if "set" in given else given
    found = {}
    for target in asked:
        takes = {option.name: option for option in OPTIONS if _takes(target, option)}
        found[target] = _options(target, takes, {name: given[name] for name in given if name in takes})
    for option in OPTIONS:
        if option.name in given and not any(_takes(target, option) for target in asked):
            fitting = [name for name in TARGETS if _takes(name, option)]
            flag = f"--{option.name.replace('_', '-')}"
            raise Invalid(f"{flag} is not for {', '.join(asked)}", f"It is for {', '.join(fitting)}: leave it out.")
    for target, chosen in found.items():
        step.checked(target, chosen)
    _one_place_each(found)
    return found


def _one_place_each(found: Mapping[str, PackageOptions]) -> None:
    """Raise `Invalid` where two targets would be pushed under one name: the second would take the first one's tag."""
    places: dict[str, str] = {}
    for target, chosen in found.items():
        other = places.setdefault(chosen.push, target) if chosen.push else target
        if other != target:
            raise Invalid(
                f"{other} and {target} would both be pushed as {chosen.push}, and the second would replace the first",
                f"Give each its own place: push them one by one with modelrel push, or set [{target}] push in {FILE}.",
            )


def _takes(target: str, option: Option) -> bool:
    """Return whether a target takes an option: Lambda's machines go by `--arch`, all others' by `--platform`."""
    from modelrel.steps import package as step
    from modelrel.targets.delivery import SHARED

    if option.name in ("arch", "platform") and (option.name == "arch") != target.startswith("lambda"):
        return False
    if option.name == "set":
        return bool(step.of(target).VALUES)
    return (option.field or option.name) in step.of(target).OPTIONS | SHARED


def _options(target: str, takes: Mapping[str, Option], given: Mapping[str, Any]) -> PackageOptions:
    from modelrel.values import PackageOptions

    pick = call().settings.pick
    said: dict[str, Any] = {}
    for name, option in takes.items():
        section = option.of or target
        if name in TABLE.get(section, {}):
            said[name] = pick(section, name, given.get(name), None)
        else:
            said[name] = given.get(name)
    found: dict[str, Any] = {
        takes[name].field or name: value for name, value in said.items() if value not in (None, "", [])
    }
    if "platform" in found and target.startswith("lambda"):
        found["platform"] = _machine(found["platform"])
    if "max_size" in found:
        found["max_size"] = size(found["max_size"], "--max-size")
    found |= {name: Path(found[name]) for name in ("templates", "wheelhouse") if name in found}
    found |= {"tags": tuple(found["tags"])} if "tags" in found else {}
    own = _values(target, found.pop("values", {}))
    return PackageOptions(**found, values=own)


def _machine(arch: str) -> str:
    names = {"x86_64": "linux/amd64", "amd64": "linux/amd64", "arm64": "linux/arm64", "aarch64": "linux/arm64"}
    if arch not in names:
        raise Invalid(f"--arch is {arch!r}", "Lambda has x86_64 and arm64.")
    return names[arch]


def _values(target: str, said: Mapping[str, str]) -> dict[str, str]:
    """Return a target's own settings: `--set NAME=VALUE`, then its section of the settings."""
    from modelrel.steps import package as step

    known = step.of(target).VALUES
    pick = call().settings.pick
    found = {name: str(value) for name in known if (value := pick(target, name, None, None)) is not None}
    return found | {name: value for name, value in said.items() if name in known}


def _set(asked: Sequence[str], said: Sequence[str]) -> dict[str, str]:
    """Return the settings of `--set`, by name; raises `Invalid` for one that none of the targets knows."""
    from modelrel.steps import package as step

    known = {name: None for target in asked for name in step.of(target).VALUES}
    found = {}
    for text in said:
        name, equals, value = text.partition("=")
        if not equals or name not in known:
            hint = f"{did_you_mean(name, known)}Known to {', '.join(asked)}: {', '.join(known) or 'none'}."
            raise Invalid(f"--set has {text!r}, which is not NAME=VALUE with a known name", hint)
        found[name] = value
    return found

"""Package: a verified model becomes something that a platform runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from modelrel import archive, extras, render
from modelrel.delivered import Package
from modelrel.errors import Invalid, did_you_mean
from modelrel.targets import TARGETS, payload
from modelrel.targets.delivery import Note, Places, Target
from modelrel.values import PackageOptions, ParityReport, digest


def package(parity: ParityReport, target: str, options: PackageOptions, note: Note = lambda _: None) -> Package:
    """Lay out a delivery in `<folder>/<format>/<target>/`, which is replaced as a whole once it is complete.

    Raises `Invalid` for an unknown target, options that do not fit it, or a template that does not render;
    `Unavailable` where wheels or a base image cannot be had; `Refused` where the result breaks a platform's limit.
    """
    room = of(target)
    if parity.converted.format != room.FORMAT:
        raise Invalid(f"the target {target} delivers {room.FORMAT}, not {parity.converted.format}", "Convert to it.")
    chosen = room.options(options)
    top = folder(parity, target)
    with archive.fresh_folder(top) as into:
        draft = room.assemble(parity, chosen, Places(into=into, previous=top), note)
        files = archive.describe_tree(into, into)
    at = top.relative_to(parity.source.folder).as_posix()
    return Package(
        parity=parity,
        target=target,
        platform=draft.platform,
        python=draft.python,
        files=tuple(replace(file, path=f"{at}/{file.path}") for file in files),
        artifact=f"{at}/{draft.artifact}",
        size=draft.size,
        parts=draft.parts,
        image=draft.image,
        notes=draft.notes,
    )


def folder(parity: ParityReport, target: str) -> Path:
    """Return the folder of a delivery; the record beside the files is the caller's."""
    return parity.source.folder / parity.converted.format / target


def stands(package: Package, options: PackageOptions) -> bool:
    """Return whether what a packaging left outside the release folder (an image) is still there."""
    return of(package.target).stands(package, options)


def tools(target: str, options: PackageOptions) -> Mapping[str, str]:
    """Return what else decides the bytes: versions, and digests of the templates and of the serving folder."""
    room = of(target)
    chosen = room.options(options)
    ours = {name: archive.sha256(path) for name, path in payload.serving_files().items()}
    return {
        **extras.versions(*room.TOOLS),
        "python": chosen.python,
        "platform": chosen.platform,
        "serving": digest(ours),
        "templates": digest([_digests(top) for top in _template_folders(target, options)]),
        "SOURCE_DATE_EPOCH": os.environ.get("SOURCE_DATE_EPOCH", ""),
    }


def _template_folders(target: str, options: PackageOptions) -> list[Path]:
    ours = [render.templates_dir() / target]
    return ours if options.templates is None or not options.templates.is_dir() else [*ours, options.templates]


def _digests(top: Path) -> dict[str, str]:
    return {name: archive.sha256(top / name) for name in render.names(top)}


def of(name: str) -> Target:
    """Return the module of a target; raises `Invalid`, naming the nearest, where there is none of this name."""
    if name in TARGETS:
        return TARGETS[name]
    hint = f"{did_you_mean(name, TARGETS)}Targets: {', '.join(TARGETS)}."
    raise Invalid(f"there is no target {name!r}", hint)

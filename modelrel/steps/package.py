"""Package: a verified model becomes something that a platform runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Final

from modelrel import archive, extras, records, render, wheelhouse
from modelrel.delivered import Package
from modelrel.errors import Invalid, Refused, did_you_mean
from modelrel.measured import Quantize
from modelrel.targets import TARGETS, as_is, payload
from modelrel.targets.delivery import SHARED, Draft, Note, Places, Target
from modelrel.targets.tflite.variants import MODES, modes
from modelrel.values import PackageOptions, ParityReport, digest


def package(  # noqa: PLR0913  # each is a value of the chain
    parity: ParityReport,
    target: str,
    options: PackageOptions,
    note: Note = lambda _: None,
    image: Package | None = None,
    *,
    variants: tuple[ParityReport, ...] = (),
) -> Package:
    """Lay out a delivery in `<folder>/<format>/<target>/`, which is replaced as a whole once it is complete.

    `image` is the packaged image, for a target that deploys one; `variants` are proven copies of the same model that
    go beside it. Raises `Invalid` for an unknown target, options that
    do not fit it, or a template that does not render; `Unavailable` where wheels or a base image cannot be had;
    `Refused` where the result breaks a platform's limit, or `options.max_size`.
    """
    room = of(target)
    form(target, parity.converted.format)
    chosen = checked(target, suited(parity, target, options))
    top = folder(parity, target)
    draft: Draft | None = None
    try:
        with wheelhouse.only(chosen.wheelhouse), archive.fresh_folder(top) as into:
            draft = room.assemble(parity, chosen, Places(into=into, previous=top, image=image, variants=variants), note)
            _fits(draft, options.max_size)
            files = archive.describe_tree(into, into)
    except Refused as error:
        archive.write(top / "Package.refused.json", _refusal(error, target, chosen, draft))
        raise
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
        notes=(*draft.notes, *render.strays(target, options.templates)),
        options=replace(chosen, templates=None, wheelhouse=None),
        own_templates=own_templates(target, options.templates),
        source_date_epoch=_epoch(),
        deploys=image.target if image else "",
        variants=variants,
        tools=tools(target, options),
    )


def _refusal(error: Refused, target: str, options: PackageOptions, draft: Draft | None) -> bytes:
    """Return the record of a refused package: why, and what was measured until then."""
    content = {
        "record": "Package.refused",
        "message": error.message,
        "hint": error.hint,
        "target": target,
        "python": options.python,
        "platform": options.platform,
        "max_size": options.max_size,
        "size": draft.size if draft else None,
        "parts": dict(draft.parts) if draft else {},
    }
    return records.seal(content)


def form(target: str, asked: str = "") -> str:
    """Return the format that a target is to deliver ("": its own); raises `Invalid` where it does not deliver it."""
    formats = of(target).FORMATS
    if asked and asked not in formats:
        raise Invalid(
            f"the target {target} delivers {' or '.join(formats)}, not {asked}", f"Choose --to {'|'.join(formats)}."
        )
    return asked or formats[0]


def checked(target: str, options: PackageOptions) -> PackageOptions:
    """Return the options of a target with its defaults; raises `Invalid` for one that it does not take."""
    room = of(target)
    given = {one.name for one in fields(options) if getattr(options, one.name) != one.default} - {"values"}
    for name in sorted(given - room.OPTIONS - SHARED):
        option = f"--{FLAGS.get(name, name).replace('_', '-')}"
        takes = [known for known, other in TARGETS.items() if name in other.OPTIONS]
        raise Invalid(f"{option} is not for the target {target}", f"It is for {', '.join(takes)}: leave it out.")
    for name in sorted(options.values.keys() - room.VALUES.keys()):
        known = f"{did_you_mean(name, room.VALUES)}It knows: {', '.join(room.VALUES) or 'none'}."
        raise Invalid(f"the target {target} has no setting {name!r}", known)
    return room.options(options)


def suited(parity: ParityReport, target: str, options: PackageOptions) -> PackageOptions:
    """Return the options with the Python that made the model, where it goes as it is and nobody asks for another.

    A target that does not have that Python keeps its own default.
    """
    room, own = of(target), as_is.python(parity)
    if options.python or not own or "python" not in room.OPTIONS:
        return options
    try:
        room.options(replace(PackageOptions(), python=own))
    except Invalid:
        return options
    return replace(options, python=own)


FLAGS: Final = {"tags": "tag"}
"""Fields of `PackageOptions` whose option has another name."""


def _fits(draft: Draft, limit: int) -> None:
    if not limit or draft.size <= limit:
        return
    biggest = sorted(draft.parts.items(), key=lambda part: -part[1])[:4]
    listed = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in biggest)
    raise Refused(
        f"the package has {draft.size:,} bytes, --max-size is {limit:,}; the biggest parts: {listed}",
        "Make the model smaller (fewer or shallower trees, --quantize), or allow more.",
    )


def variants(target: str, options: PackageOptions) -> Mapping[str, Quantize]:
    """Return the other copies that a package carries, by name, and how; raises `Invalid` for an unknown one."""
    return modes(options.values.get("variants", "")) if "variants" in of(target).VALUES else {}


def beside(folder: Path) -> tuple[str, ...]:
    """Return the names of the copies that a packaged folder carries beside its model."""
    return tuple(name for name in MODES if (folder / name).is_dir())


def folder(parity: ParityReport, target: str) -> Path:
    """Return the folder of a delivery; the record beside the files is the caller's."""
    return parity.source.folder / parity.converted.format / target


def stands(package: Package, options: PackageOptions) -> bool:
    """Return whether what a packaging left outside the release folder (an image) is still there."""
    return of(package.target).stands(package, options)


def tools(target: str, options: PackageOptions) -> Mapping[str, str]:
    """Return what else decides the bytes: versions, and digests of the templates and of the serving folder."""
    room = of(target)
    chosen = checked(target, options)
    known = payload.serving_digests()
    ours = {name: known[path] for name, path in payload.serving_files().items()}
    return {
        **extras.versions(*room.TOOLS),
        "python": chosen.python,
        "platform": chosen.platform,
        "serving": digest(ours),
        "templates": digest([_digests(top) for top in _template_folders(target, options)]),
        "SOURCE_DATE_EPOCH": _epoch(),
    }


def own_templates(target: str, folder: Path | None) -> str:
    """Return one digest over the user's templates that a target may use, "" where there are none."""
    found = [_digests(top) for top in _template_folders(target, PackageOptions(templates=folder))[1:]]
    return digest(found) if found else ""


def _epoch() -> str:
    return os.environ.get("SOURCE_DATE_EPOCH", "")


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

"""What a user may write for MODEL, and the one model version that it names."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from modelrel.errors import Invalid

STAGES: Final = ("None", "Staging", "Production", "Archived")
"""MLflow's classic stages; they match without regard to case."""

FORMS: Final = "NAME, NAME/7, NAME@alias, models:/NAME/7, runs:/ID/path, or a folder with an MLmodel file"

_LONGEST: Final = 180
_NAME = r"[^/:@\x00-\x1f]+"
_VERSION = re.compile(rf"(?P<name>{_NAME})/(?P<rest>[^/@]+)")
_ALIAS = re.compile(rf"(?P<name>{_NAME})@(?P<alias>[\w-]+)")
_RUN = re.compile(r"runs:/(?P<run>[A-Za-z0-9_-]+)/(?P<path>.+)")
_LOGGED = re.compile(r"models:/(?P<id>m-[0-9a-f]{32})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A model as the user named it. `value` is the version, alias, stage, run path or folder, by `kind`."""

    kind: Literal["version", "alias", "stage", "latest", "run", "logged", "folder"]
    name: str
    value: str
    text: str


def stage_name(text: str) -> str | None:
    """Return the canonical name of a classic stage, or None where `text` is not one."""
    return next((stage for stage in STAGES if stage.lower() == text.lower()), None)


def parse(text: str) -> Reference:
    """Return what `text` names.

    Raises `Invalid` for anything else than the accepted forms (`FORMS`).
    """
    folder = Path(text).expanduser()
    if (folder / "MLmodel").is_file():
        return Reference(kind="folder", name=_folder_name(folder), value=str(folder), text=text)
    if text.startswith((".", "/", "~")) or (folder.is_dir() and "/" in text and not text.startswith("models:")):
        what = "has no MLmodel file in it" if folder.is_dir() else "does not exist"
        raise Invalid(f"the folder {text} {what}", "Name a folder that MLflow's save_model or log_model wrote.")
    if match := _RUN.fullmatch(text):
        return Reference(kind="run", name=match["path"].rstrip("/").rpartition("/")[2], value=text, text=text)
    if match := _LOGGED.fullmatch(text):
        return Reference(kind="logged", name=match["id"], value=match["id"], text=text)
    return _registered(text, text.removeprefix("models:/"))


def _registered(text: str, body: str) -> Reference:
    if match := _ALIAS.fullmatch(body):
        return Reference(kind="alias", name=match["name"], value=match["alias"], text=text)
    if match := _VERSION.fullmatch(body):
        rest, name = match["rest"], match["name"]
        if rest.isdecimal():
            return Reference(kind="version", name=name, value=str(int(rest)), text=text)
        if rest.lower() == "latest":
            return Reference(kind="latest", name=name, value="", text=text)
        if stage := stage_name(rest):
            return Reference(kind="stage", name=name, value=stage, text=text)
        raise Invalid(
            f"{text}: {rest!r} is neither a version number nor a stage",
            f"Write {name}/7 for a version, {name}@{rest} for an alias, or a stage: {', '.join(STAGES)}.",
        )
    if re.fullmatch(_NAME, body) and body.strip():
        return Reference(kind="latest", name=body, value="", text=text)
    raise Invalid(f"{text!r} does not name a model", f"MODEL is {FORMS}.")


def _folder_name(folder: Path) -> str:
    return re.sub(r"[^\w.-]+", "-", folder.resolve().name).strip("-.") or "model"


def folder_name(name: str, version: str) -> str:
    """Return the name of the release folder of a version; safe for any registered name.

    >>> folder_name("churn", "7")
    'churn-7'
    """
    safe = re.sub(r"[^\w.-]+", "_", name).lstrip(".") or "model"
    if len(safe.encode()) > _LONGEST:
        # file systems end at 255 bytes; the digest keeps two long names apart
        cut = safe.encode()[:_LONGEST].decode(errors="ignore")
        safe = f"{cut}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return f"{safe}-{version}"

"""What `modelrel init` writes: a modelrel.toml, and a pipeline that tries releases on merge requests and makes them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from modelrel import __version__
from modelrel.commands.settings import FILE

if TYPE_CHECKING:
    from modelrel.steps.inspect import Verdict
    from modelrel.values import SourceModel

Kind = Literal["github", "gitlab"]
KINDS: Final[tuple[Kind, ...]] = ("github", "gitlab")

ACTIONS: Final = {
    "checkout": "de0fac2e4500dabe0009e67214ff5f5447ce83dd  # v6.0.2",
    "setup_python": "a309ff8b426b58ec0e2a45f0f869d46889d02405  # v6.2.0",
    "cache": "668228422ae6a00e4ad889ee87cd7109ec5666a7  # v5.0.4",
    "upload_artifact": "043fb46d1a93c77aae656e7c1c64a875d1fc6a0a  # v7.0.1",
}
"""Actions of GitHub's own, by commit and version; the pipeline uses nobody else's."""

_EXTRAS: Final = frozenset({"xgboost", "lightgbm", "catboost", "tensorflow", "pytorch", "transformers"})
"""Flavors whose library is an extra of the same name."""

_SET: Final[dict[Kind, tuple[str, ...]]] = {
    "github": (
        "repository variable MLFLOW_TRACKING_URI",
        "secrets MLFLOW_TRACKING_USERNAME and _PASSWORD, or _TOKEN, in the environments pull-requests and production",
        "secret MODELREL_KEY in production, to sign the evidence (may be missing)",
        "secret MLFLOW_WEBHOOK_SECRET in production, where a webhook starts releases (may be missing)",
    ),
    "gitlab": (
        "CI/CD variable MLFLOW_TRACKING_URI",
        "masked variables MLFLOW_TRACKING_USERNAME and _PASSWORD, or _TOKEN",
        "masked, protected variable MODELREL_KEY, to sign the evidence (may be missing)",
        "masked, protected variable MLFLOW_WEBHOOK_SECRET, where a webhook starts releases (may be missing)",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the files say: `possible` are further targets, `as_is` those delivered in the format python."""

    name: str = "my-model"
    registry: str = ""
    targets: tuple[str, ...] = ("docker",)
    possible: tuple[str, ...] = ()
    as_is: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ("accuracy",)
    alias: str = "champion"
    requirement: str = f"modelrel=={__version__}"
    python: str = "3.12"
    actions: Mapping[str, str] = field(default_factory=lambda: ACTIONS)
    evidence: tuple[str, ...] = ("dist/*/*.json", "dist/*/*.html", "dist/*/*/*.json", "dist/*/*/*/*.json",
                                 "dist/*/*/*/evidence/")  # fmt: skip

    @property
    def model(self) -> str:
        """What a merge request is tried with: the version that asks for a release now."""
        return f"{self.name}@candidate"

    @property
    def margins(self) -> str:
        """Its metrics as the keys of a table in TOML, each with a margin."""
        return ", ".join(f"{json.dumps(name)} = 0.01" for name in self.metrics)


def plan(source: SourceModel, possible: Mapping[str, Verdict]) -> Plan:
    """Return what fits a model: an image, of its ONNX copy where it can have one, else of the model as it is."""
    can = {form: verdict for form, verdict in possible.items() if verdict.can == "yes"}
    as_is = "onnx" not in can and "python" in can
    others = dict.fromkeys(target for verdict in can.values() for target in verdict.targets if target != "docker")
    extra = f"[{source.flavor}]" if source.flavor in _EXTRAS else ""
    return Plan(
        name=source.name,
        possible=tuple(others),
        metrics=tuple(sorted(source.metrics))[:3] or Plan().metrics,
        as_is=("docker",) if as_is else (),
        requirement=f"modelrel{extra}=={__version__}",
    )


def texts(what: Plan, kind: Kind | None) -> dict[str, str]:
    """Return path -> text of every file that `init` writes."""
    from modelrel.render import render

    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for room in ("init", *([kind] if kind else [])):
            for path in render(room, Path(folder) / room, {"plan": what}):
                found[path.relative_to(Path(folder) / room).as_posix()] = path.read_text(encoding="utf-8")
    return found


def write(found: Mapping[str, str], folder: Path, *, force: bool) -> list[str]:
    """Write the files below a folder; return those that are new or other than before.

    Raises `Invalid` where one of them is there and says something else, unless it is forced: then none is written.
    """
    from modelrel import archive
    from modelrel.errors import Invalid

    changed = [name for name, text in found.items() if not _says(folder / name, text)]
    there = [name for name in changed if (folder / name).exists() or (folder / name).is_symlink()]
    if there and not force:
        raise Invalid(f"{_and(there)} {'is' if len(there) == 1 else 'are'} there already, and nothing was written",
                      "Move it away, or write over it with --force.")  # fmt: skip
    for name in changed:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        archive.write(folder / name, found[name].encode())
    return changed


def _says(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()


def _and(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def to_do(what: Plan, kind: Kind | None) -> list[str]:
    """Return what is left to the person: secrets, and what the files leave open."""
    left = [] if what.name != Plan().name or not kind else [f"MODEL in the pipeline: {what.model} is a placeholder"]
    left += [] if what.registry or kind else [f"the registry, in {FILE} or as MLFLOW_TRACKING_URI"]
    return [*left, *(_SET[kind] if kind else ())]

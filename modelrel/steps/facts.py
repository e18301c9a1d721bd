"""Facts: all that is known of one model version, from its release folder and, for the rest, from its registry."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import yaml

from modelrel import pickles, records
from modelrel.delivered import Attestation, Package, Promotion, Pushed, SmokeReport
from modelrel.errors import Invalid, ModelrelError, Unavailable
from modelrel.formats import FORMATS
from modelrel.promoted import Entry
from modelrel.registry import ModelInfo, Registry, VersionInfo, history, mlmodel
from modelrel.registry.reference import Reference
from modelrel.steps import evidence, grounds, pull
from modelrel.steps.stages import Value
from modelrel.values import ConvertedModel, ParityReport, SourceModel

_SMALL: Final = ("MLmodel", "requirements.txt")

Problem = Callable[[str], None]
"""Takes a sentence about a record that cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A package as it is on disk, and what came of it so far; None where that is still to be done."""

    package: Package
    smoke: SmokeReport | None = None
    pushed: Pushed | None = None
    attestation: Attestation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A converted model, its proof (None: not verified), and what was packaged of it."""

    converted: ConvertedModel
    parity: ParityReport | None = None
    deliveries: tuple[Delivery, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of a version. `source` has no files where it was not pulled; `size` is in bytes, 0 where unknown.

    `aliases`, `stage`, `tags` and `description` are those of the version in its registry now; `history` are the lines
    of the whole model. `pickles` is the verdict on the pulled files, "" where there are none. `problems` are sentences
    about what cannot be used or told.
    """

    source: SourceModel
    size: int
    copies: tuple[Copy, ...] = ()
    promotions: tuple[Promotion, ...] = ()
    history: tuple[Entry, ...] = ()
    aliases: tuple[str, ...] = ()
    stage: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    pickles: str = ""
    problems: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """How people call it: `churn/7`."""
        return self.source.label

    @property
    def pulled(self) -> bool:
        """Whether its files are on disk."""
        return bool(self.source.files)

    @property
    def deliveries(self) -> tuple[Delivery, ...]:
        """Every package, of all formats."""
        return tuple(one for copy in self.copies for one in copy.deliveries)

    @property
    def smokes(self) -> tuple[SmokeReport, ...]:
        """The smoke reports of all packages that have one."""
        return tuple(one.smoke for one in self.deliveries if one.smoke is not None)


def of(located: Reference, registry: Registry, dist: Path) -> Known:
    """Return what is known of a version that `pull.locate` found; nothing is made, and nothing is changed.

    Records that are not about the bytes on disk are named in `problems` and left out. Raises `Unavailable` where the
    registry is silent.
    """
    folder, problems = pull.release_folder(located, dist), list[str]()
    version, model = _registered(located, registry)
    source = _read(SourceModel, folder / "SourceModel.json", problems.append, folder=folder)
    if source is not None:
        # as MLflow counted, which a version that is not pulled has too
        size = _logged_size(source.model_dir) or sum(file.size for file in source.files)
        copies = tuple(copy for form in FORMATS if (copy := _copy(source, form, problems.append)))
    else:
        source, size = _described(located, registry, version, folder)
        problems.append("not pulled: what its registry says is all that is known of it")
        copies = ()
    known = Known(source=source, size=size, copies=copies, problems=tuple(problems))
    return replace(
        known,
        promotions=_promotions(folder, known.smokes),
        history=history.entries(model) if model else (),
        aliases=tuple(sorted(alias for alias, number in (model.aliases if model else {}).items()
                             if number == source.version)),
        stage=version.stage if version and version.stage != "None" else "",
        tags=version.tags if version else {},
        description=version.description if version else "",
        pickles=_pickled(source),
    )  # fmt: skip


def _registered(located: Reference, registry: Registry) -> tuple[VersionInfo | None, ModelInfo | None]:
    if located.kind != "version":
        return None, None
    return registry.version(located.name, located.value), registry.model(located.name)


def _described(
    located: Reference, registry: Registry, version: VersionInfo | None, folder: Path
) -> tuple[SourceModel, int]:
    """Return what a registry alone says of a version that was not pulled, and its size."""
    with tempfile.TemporaryDirectory(prefix="modelrel-facts-") as work:
        for name in _SMALL:
            with suppress(Invalid, Unavailable):  # then it is not known before it is pulled
                (Path(work) / name).write_bytes(registry.file(pull.uri_of(located), name))
        found, size = _small(Path(work)), _logged_size(Path(work))
    run = registry.run(version.run_id if version else (found.run_id if found else ""))
    plain = SourceModel(
        folder=folder, name=located.name, version=pull.version_of(located), uri=pull.uri_of(located),
        registry=registry.shown, flavor="", flavors=(), signature=None,
        run_id=version.run_id if version else "", experiment=run.experiment,
        metrics={**run.metrics, **registry.measured(found.model_id if found else "")}, params=run.params,
        tags=run.tags, git_commit=run.git_commit, datasets=run.datasets,
    )  # fmt: skip
    if found is None:
        return plain, size
    return replace(
        plain, flavor=found.flavor, flavors=found.flavors, signature=found.signature, signatures=found.signatures,
        run_id=plain.run_id or found.run_id, model_id=found.model_id, mlflow_version=found.mlflow_version,
        python_version=found.python_version, requirements=found.requirements, input_example=found.input_example,
    ), size  # fmt: skip


def _small(folder: Path) -> mlmodel.MLmodel | None:
    """Return what an MLmodel file says alone, None where there is none that can be read."""
    try:
        return mlmodel.read(folder)
    except (OSError, ModelrelError):
        return None


def _logged_size(folder: Path) -> int:
    """Return the bytes of a model as MLflow counted them when it was logged, 0 where it did not."""
    try:
        return int(yaml.safe_load((folder / _SMALL[0]).read_text(encoding="utf-8"))["model_size_bytes"])
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        return 0


def _read(kind: type[Value], path: Path, problem: Problem, **parents: object) -> Value | None:
    found = records.read(kind, path, None, **parents)
    if found is None and path.is_file():
        name = "/".join(path.parts[-3:])
        problem(f"{name} was left out: files changed since it was written, or another modelrel wrote it")
    return found


def _copy(source: SourceModel, form: str, problem: Problem) -> Copy | None:
    folder = source.folder / form
    converted = _read(ConvertedModel, folder / "ConvertedModel.json", problem, source=source)
    if converted is None:
        return None
    parity = _read(ParityReport, folder / "ParityReport.json", problem, converted=converted)
    if parity is None:
        return Copy(converted=converted)
    made = [_delivery(path.parent, parity, problem) for path in sorted(folder.glob("*/Package.json"))]
    return Copy(converted=converted, parity=parity, deliveries=tuple(one for one in made if one))


def _delivery(folder: Path, parity: ParityReport, problem: Problem) -> Delivery | None:
    try:
        variants = evidence.variants(folder, parity.source, parity.source.label)
    except ModelrelError as error:
        problem(error.message)
        return None
    package = _read(Package, folder / "Package.json", problem, parity=parity, variants=variants)
    if package is None:
        return None
    smoke = _read(SmokeReport, folder / "SmokeReport.json", problem, package=package)
    pushed = _read(Pushed, folder / "Pushed.json", problem, package=package)
    attested = None if smoke is None else _read(Attestation, folder / "Attestation.json", problem, smoke=smoke)
    return Delivery(package=package, smoke=smoke, pushed=pushed, attestation=attested)


def _promotions(folder: Path, smokes: tuple[SmokeReport, ...]) -> tuple[Promotion, ...]:
    """Return the promotions on record that stand on the smoke reports that are there now."""
    by_identity = {records.identity(one): one for one in smokes}
    found = []
    for path in sorted(folder.glob("Promotion.*.json")):
        try:
            given = [by_identity[one] for one in json.loads(path.read_bytes())["from"]["smokes"]]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # it is about other artifacts
        promotion = records.read(Promotion, path, None, smokes=tuple(given))
        found += [promotion] if promotion else []
    return tuple(found)


def _pickled(source: SourceModel) -> str:
    """Return the verdict on what loading the pulled files would run, "" where they are not there."""
    return pickles.worst(grounds.pickled(source)) if source.files else ""

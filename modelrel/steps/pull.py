"""Pull: one model version, from the registry (or a folder) into the release folder."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from modelrel import archive
from modelrel.errors import Invalid
from modelrel.registry import Registry, RunInfo, mlmodel
from modelrel.registry.reference import Reference, folder_name
from modelrel.values import SourceModel, digest, digest_files


def locate(reference: Reference, registry: Registry) -> Reference:
    """Return the reference with its alias, stage or "latest" resolved once, to a version number.

    Raises `Invalid` where it names nothing, `Unavailable` where the registry is silent.
    """
    if reference.kind not in {"alias", "stage", "latest", "version"}:
        return reference
    found = registry.resolve(reference)
    return Reference(kind="version", name=found.name, value=found.version, text=reference.text)


def version_of(reference: Reference) -> str:
    """Return the version that a located reference stands for.

    A registered version has its number; a run the start of its id; a folder the start of its content's digest.
    """
    if reference.kind == "run":
        return reference.value.removeprefix("runs:/").partition("/")[0][:8]
    if reference.kind == "logged":
        return reference.value[2:10]
    if reference.kind == "folder":
        top = Path(reference.value)
        return digest_files(archive.describe_tree(top, top))[:8]
    return reference.value


def uri_of(reference: Reference) -> str:
    """Return the one URI that names the located model for good: `models:/churn/7`."""
    if reference.kind == "folder":
        return Path(reference.value).name
    if reference.kind == "logged":
        return f"models:/{reference.value}"
    return reference.value if reference.kind == "run" else f"models:/{reference.name}/{reference.value}"


def release_folder(reference: Reference, dist: Path) -> Path:
    """Return where the release of a located model lives: `dist/churn-7`."""
    return dist / folder_name(reference.name, version_of(reference))


def key(reference: Reference, registry: Registry) -> str:
    """Return the digest of what is asked: the same one means that there is nothing to fetch."""
    where = "" if reference.kind == "folder" else hashlib.sha256(registry.shown.encode()).hexdigest()
    return digest(["pull", uri_of(reference), version_of(reference), where])


def pull(
    reference: Reference, registry: Registry, folder: Path, note: Callable[[str], None] = lambda _: None
) -> SourceModel:
    """Fetch the files of a located model into `folder/source` and return what is known of it.

    Files arrive in a temporary folder that takes its place when they are complete. Raises `Invalid` (no MLmodel,
    an unsafe artifact name), `Unavailable` (registry or artifact store silent, disk full).
    """
    with archive.fresh_folder(folder / "source") as work:
        if reference.kind == "folder":
            _copy(Path(reference.value), work)
        else:
            note(f"downloading {uri_of(reference)}")
            registry.download(uri_of(reference), work, note)
        found = mlmodel.read(work)
        note("reading what its run logged")
        run = _run(reference, registry, found.run_id)
        _check_text(found, run)
    files = archive.describe_tree(folder / "source", folder)
    return SourceModel(
        folder=folder,
        name=reference.name,
        version=version_of(reference),
        uri=uri_of(reference),
        registry="" if reference.kind == "folder" else registry.shown,
        flavor=found.flavor,
        flavors=found.flavors,
        signature=found.signature,
        signatures=found.signatures,
        run_id=found.run_id,
        experiment=run.experiment,
        model_id=found.model_id,
        mlflow_version=found.mlflow_version,
        python_version=found.python_version,
        requirements=found.requirements,
        metrics=run.metrics,
        params=run.params,
        tags=run.tags,
        git_commit=run.git_commit,
        datasets=run.datasets,
        input_example=found.input_example,
        files=files,
    )


def _check_text(model: mlmodel.MLmodel, run: RunInfo) -> None:
    """Raise `Invalid` for half a character (a lone surrogate), which no file here can hold."""
    try:
        json.dumps([asdict(model), asdict(run)], ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:
        near = ascii(error.object[max(0, error.start - 30) : error.end + 10])
        raise Invalid(
            f"MLmodel, or what the run logged, holds text that is not Unicode: {near}",
            "Log the model again with names that are text.",
        ) from error


def _run(reference: Reference, registry: Registry, run_id: str) -> RunInfo:
    if reference.kind == "folder":
        return RunInfo()
    if reference.kind == "version":
        known = registry.version(reference.name, reference.value)
        run_id = known.run_id if known and known.run_id else run_id
    return registry.run(run_id)


def _copy(top: Path, into: Path) -> None:
    if not (top / "MLmodel").is_file():
        raise Invalid(f"the folder {top} has no MLmodel file in it", "Name a folder that MLflow wrote.")
    for path in archive.walk(top):
        target = archive.within(into, path.relative_to(top).as_posix())
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)

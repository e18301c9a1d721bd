"""A model version carried from one registry into another: its files, and what its run logged, by MLflow itself.

The version is created last, when every file was read back and is the same: what was broken off before is a run that
is deleted again (or, after a kill, one that is still "running"), never a version.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from modelrel import archive
from modelrel.errors import Refused, Unavailable
from modelrel.registry.lookup import quoted
from modelrel.values import File, SourceModel

if TYPE_CHECKING:
    from modelrel.registry import Registry

SHA256: Final = "modelrel.source_sha256"
"""The tag of a version that was carried over: the digest of all its files (`SourceModel.digest`)."""

_FOLDER: Final = "model"
_BATCH: Final = 100  # of parameters and of tags in one request (`mlflow.utils.validation`)
_OWN: Final = ("mlflow.parentRunId", "mlflow.runName", "mlflow.rootRunId", "modelrel.")
"""Tags of a run that are about its place in the registry it comes from."""

Item = TypeVar("Item")


def there(registry: Registry, name: str, sha256: str) -> str:
    """Return the newest version of a model that was carried over with this digest, "" where there is none."""
    with registry.mlflow.told(f"looking for a copy in {name}"):
        found = registry.mlflow.client.search_model_versions(f"name={quoted(name)}", max_results=1000)
    return str(max((int(one.version) for one in found if one.tags.get(SHA256) == sha256), default=""))


def carry(
    registry: Registry, name: str, source: SourceModel, tags: Mapping[str, str], note: Callable[[str], None]
) -> str:
    """Make a version of what was pulled, and return its number; `tags` are put on it beside its digest.

    Raises `Refused` where the other registry gives back other bytes, `Unavailable` where it is silent.
    """
    mlflow = registry.mlflow
    client = mlflow.client
    note(f"making a run for {source.label} in {registry.shown}")
    with mlflow.told("making a run"):
        run = client.create_run(_experiment(client, source.experiment or "modelrel", registry.uri))
    uri = f"{run.info.artifact_uri}/{_FOLDER}"
    try:
        with mlflow.told(f"copying {source.label}"):
            _log(client, run.info.run_id, source)
            note(f"copying {len(source.files)} files")
            client.log_artifacts(run.info.run_id, str(source.folder / "source"), _FOLDER)
        note("reading them back")
        _compare(registry, uri, source.files)
        with mlflow.told(f"registering {name}"):
            client.set_terminated(run.info.run_id, "FINISHED")
            if registry.model(name) is None:
                client.create_registered_model(name)
            made = client.create_model_version(
                name, uri, run.info.run_id, tags={**tags, SHA256: source.digest}, await_creation_for=0
            )
    except BaseException as stop:
        if isinstance(stop, Unavailable):
            with suppress(Unavailable):
                if found := there(registry, name, source.digest):
                    return found  # it was created, and only the answer got lost
        with suppress(Exception):
            client.delete_run(run.info.run_id)
        raise
    return str(made.version)


def _experiment(client: Any, name: str, uri: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage == "active":
        return str(found.experiment_id)
    place = None
    if uri.startswith("sqlite:///"):
        # MLflow would take the folder that somebody happens to stand in
        place = (Path(uri.removeprefix("sqlite:///")).resolve().parent / "mlartifacts").as_uri()
    return str(client.create_experiment(name if found is None else f"{name} (modelrel)", artifact_location=place))


def _log(client: Any, run_id: str, source: SourceModel) -> None:
    """Log what the run logged: metrics, parameters, tags, and which data sets it was about (not where they lie)."""
    import time

    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

    at = int(time.time() * 1000)
    tags = {key: value for key, value in source.tags.items() if not key.startswith(_OWN)}
    tags["mlflow.runName"] = f"{source.label} of {source.registry}"
    for some in _batches(Metric(key, value, at, 0) for key, value in source.metrics.items()):
        client.log_batch(run_id, metrics=some)
    for few in _batches(Param(key, value) for key, value in source.params.items()):
        client.log_batch(run_id, params=few)
    for few in _batches(RunTag(key, value) for key, value in tags.items()):
        client.log_batch(run_id, tags=few)
    inputs = [
        DatasetInput(
            dataset=Dataset(name=one.name, digest=one.digest, source_type="carried", source=source.uri),
            tags=[InputTag(key="mlflow.data.context", value=one.context)] if one.context else [],
        )
        for one in source.datasets
    ]
    if inputs:
        client.log_inputs(run_id, datasets=inputs)


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    rest = iter(items)
    while some := list(islice(rest, _BATCH)):
        yield some


def _compare(registry: Registry, uri: str, files: Iterable[File]) -> None:
    """Read everything back, and raise `Refused` where it is not what was sent."""
    wanted = {file.path.removeprefix("source/"): file.sha256 for file in files}
    with tempfile.TemporaryDirectory(prefix="modelrel-carried-") as work:
        registry.mlflow.download(uri, Path(work), lambda _: None)
        came = {path.relative_to(work).as_posix(): archive.sha256(path) for path in archive.walk(Path(work))}
    wrong = sorted(name for name in wanted.keys() | came.keys() if wanted.get(name) != came.get(name))
    if wrong:
        raise Refused(
            f"the registry {registry.shown} gives back other bytes than it was sent: {wrong[0]}"
            f"{f' (and {len(wrong) - 1} more)' if len(wrong) > 1 else ''}",
            "Look at its artifact store; nothing was registered.",
        )

"""The one door to MLflow itself: every write to the registry, and whatever cannot be read without it.

Importing mlflow takes seconds, so it happens in here, when something is asked that `registry.lookup` can't tell or
`registry.artifacts` can't fetch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from modelrel import archive
from modelrel.errors import Invalid, Unavailable
from modelrel.registry import artifacts
from modelrel.registry.datasets import Logged, described
from modelrel.registry.lookup import RunInfo, VersionInfo, hide_credentials

_DEFAULTS: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""Settings of MLflow that hold unless the user set them: a registry that is down is told in seconds, not minutes."""

_MISSING: Final = frozenset({"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"})
_WRONG: Final = frozenset({"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE", "RESOURCE_ALREADY_EXISTS"})


@contextmanager
def _told(uri: str, doing: str) -> Iterator[None]:
    """Turn MLflow's and the network's errors into ours."""
    from mlflow.exceptions import MlflowException

    shown = hide_credentials(uri)
    try:
        yield
    except MlflowException as error:
        first = str(error.message).strip().splitlines()[0] if str(error.message).strip() else str(error)
        first = first.replace(uri.rstrip("/"), shown.rstrip("/"))  # it names the address with its password
        if error.error_code in _MISSING or error.error_code in _WRONG:
            raise Invalid(f"{doing}: the registry {shown} says: {first}", "Check the name.") from error
        raise Unavailable(f"{doing}: the registry {shown} says: {first}", "Look at the registry's log.") from error
    except OSError as error:
        if error.errno is not None and not _network(error):
            raise
        raise Unavailable(
            f"{doing}: the registry {shown} does not answer: {error}", "Check that it runs; then try again."
        ) from error


def _network(error: OSError) -> bool:
    import requests

    return isinstance(error, (ConnectionError, TimeoutError, requests.exceptions.RequestException))


class Mlflow:
    """A registry, by way of the mlflow package."""

    def __init__(self, uri: str) -> None:
        """Connect to `uri`. Raises `Unavailable` where MLflow refuses the address or cannot reach it."""
        for name, value in _DEFAULTS.items():
            os.environ.setdefault(name, value)
        import mlflow

        self.uri = uri
        with _told(uri, "opening"):
            try:
                mlflow.set_tracking_uri(uri)
                mlflow.set_registry_uri(uri)
                self._client: Any = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
            except ModuleNotFoundError as error:
                raise Unavailable(
                    f"the registry {hide_credentials(uri)} needs the library {error.name}",
                    f"Install it: pip install {error.name}",
                ) from error

    # reading: the same questions as lookup.Lookup

    def names(self) -> list[str]:
        """Return the names of all registered models."""
        with _told(self.uri, "listing the models"):
            return [model.name for model in self._client.search_registered_models(max_results=500)]

    def version(self, name: str, version: str) -> VersionInfo | None:
        """Return one version."""
        found = self._maybe(lambda: self._client.get_model_version(name, version), f"reading {name}/{version}")
        if found is None:
            return None
        return VersionInfo(
            name=name,
            version=str(found.version),
            run_id=found.run_id or "",
            source=found.source or "",
            stage=found.current_stage or "",
            tags=dict(found.tags),
        )

    def alias(self, name: str, alias: str) -> str | None:
        """Return the version number that an alias points at."""
        return self.aliases(name).get(alias)

    def aliases(self, name: str) -> dict[str, str]:
        """Return alias -> version number of a model."""
        found = self._maybe(lambda: self._client.get_registered_model(name), f"reading {name}")
        return {alias: str(version) for alias, version in found.aliases.items()} if found else {}

    def latest(self, name: str, stage: str = "") -> str | None:
        """Return the highest version number, in a stage where one is named."""
        quoted = "'" + name.replace("'", "''") + "'"
        with _told(self.uri, f"reading the versions of {name}"):
            found = self._client.search_model_versions(f"name={quoted}", max_results=1000)
        numbers = [int(entry.version) for entry in found if not stage or entry.current_stage == stage]
        return str(max(numbers)) if numbers else None

    def _maybe(self, ask: Callable[[], Any], doing: str) -> Any:
        from mlflow.exceptions import MlflowException

        with _told(self.uri, doing):
            try:
                return ask()
            except MlflowException as error:
                if error.error_code in _MISSING:
                    return None
                raise

    def run(self, run_id: str) -> RunInfo:
        """Return what a run logged; an empty one where the run is gone."""
        found = self._maybe(lambda: self._client.get_run(run_id), f"reading run {run_id}") if run_id else None
        if found is None:
            return RunInfo()
        experiment = self._maybe(
            lambda: self._client.get_experiment(found.info.experiment_id), "reading the experiment"
        )
        datasets = tuple(
            described(
                Logged(*(getattr(entry.dataset, name) for name in Logged._fields)),
                next((tag.value for tag in entry.tags if tag.key == "mlflow.data.context"), ""),
                self.uri,
            )
            for entry in (found.inputs.dataset_inputs if found.inputs else [])
        )
        return RunInfo.of(
            experiment.name if experiment else "",
            dict(found.data.metrics),
            dict(found.data.params),
            dict(found.data.tags),
            datasets,
        )

    def download(self, uri: str, into: Path, note: Callable[[str], None]) -> None:
        """Download every artifact of a model (`models:/churn/7`, `runs:/ID/model`) into the empty folder `into`.

        Raises `Invalid` for an artifact whose name leads outside, or a link; `Unavailable` where the files
        cannot be had.
        """
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        with _told(self.uri, f"downloading {uri}"):
            repository: Any = get_artifact_repository(self._logged_model(uri) or uri)
            # models:/ and runs:/ wrap the store that holds the files
            while hasattr(repository, "repo"):
                repository = repository.repo
            local = getattr(repository, "artifact_dir", None)
            if local is not None:
                artifacts.copied(Path(local), into, note)
                return
            found = list(_listed(repository, None))
            # all names are checked before the first byte is fetched
            targets = [(name, archive.within(into, name)) for name in found]
            for name, target in targets:
                note(name)
                target.parent.mkdir(parents=True, exist_ok=True)
                fetched = Path(repository.download_artifacts(name, dst_path=str(into)))
                if fetched.resolve() != target.resolve():
                    raise Invalid(f"the artifact {name!r} was written to another place", "Log the model again.")
        for _ in archive.walk(into):
            pass  # a link or a device among them raises

    def _logged_model(self, uri: str) -> str | None:
        """Return the URI of the model that a run logged under a name; since MLflow 3 it lies outside the run."""
        if not uri.startswith("runs:/"):
            return None
        run_id, _, name = uri.removeprefix("runs:/").rstrip("/").partition("/")
        run = self._maybe(lambda: self._client.get_run(run_id), f"reading run {run_id}")
        if run is None:
            raise Invalid(
                f"the registry {hide_credentials(self.uri)} has no run {run_id!r}", "Check the id of the run."
            )
        search = getattr(self._client, "search_logged_models", None)
        if search is None:  # MLflow 2
            return None
        quoted = "'" + name.replace("'", "''") + "'"
        token = None
        while True:
            page = search([run.info.experiment_id], filter_string=f"name = {quoted}", page_token=token)
            for model in page:
                if model.source_run_id == run_id:
                    return f"models:/{model.model_id}"
            token = page.token
            if not token:
                return None

    # writing

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point an alias at a version. Raises `Invalid` where MLflow refuses the alias name."""
        with _told(self.uri, f"setting the alias {alias!r} of {name}"):
            self._client.set_registered_model_alias(name, alias, version)

    def set_stage(self, name: str, version: str, stage: str) -> None:
        """Move a version to a classic stage; what was in Staging or Production there is archived."""
        with _told(self.uri, f"moving {name}/{version} to the stage {stage}"):
            self._client.transition_model_version_stage(
                name, version, stage, archive_existing_versions=stage in {"Staging", "Production"}
            )

    def set_tags(self, name: str, version: str, tags: dict[str, str]) -> None:
        """Write tags on a version."""
        with _told(self.uri, f"tagging {name}/{version}"):
            for key, value in tags.items():
                self._client.set_model_version_tag(name, version, key, value)


def _listed(repository: Any, path: str | None) -> Iterator[str]:
    for entry in repository.list_artifacts(path):
        if entry.is_dir:
            yield from _listed(repository, entry.path)
        else:
            yield str(entry.path)

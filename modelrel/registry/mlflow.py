"""The one door to MLflow itself: every write to the registry, and whatever cannot be read without it.

Importing mlflow takes seconds, so it happens in here, when something is asked that `registry.quick` can't tell or
`registry.artifacts` can't fetch.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any, Final

from modelrel import archive
from modelrel.errors import Invalid, Unavailable, redacted
from modelrel.registry import artifacts
from modelrel.registry.datasets import Logged, described
from modelrel.registry.lookup import ModelInfo, RunInfo, VersionInfo, hide_credentials, quoted
from modelrel.registry.patience import PASSING, Patience, Stumbled, setting
from modelrel.registry.writing import no_stages

_DEFAULTS: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""Settings of MLflow that hold unless the user set them."""

_RETRIES: Final = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
_TIMEOUT: Final = "MLFLOW_HTTP_REQUEST_TIMEOUT"
_BACKOFF: Final = "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR"
_PASSING: Final = frozenset(
    {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED"}
)

_STORES: Final = frozenset({"botocore", "boto3", "s3transfer", "google", "azure"})
_MISSING: Final = frozenset({"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"})
_WRONG: Final = frozenset({"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE", "RESOURCE_ALREADY_EXISTS"})


@contextmanager
def _told(uri: str, doing: str) -> Iterator[None]:
    """Turn MLflow's and the network's errors into ours."""
    from mlflow.exceptions import MlflowException

    shown = hide_credentials(uri)
    try:
        with _once(), redirect_stdout(sys.stderr):  # what MLflow prints is no document of ours
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
    except Exception as error:
        # the libraries of stores (S3, Google, Azure) have families of their own, none of which need be installed
        if type(error).__module__.partition(".")[0] not in _STORES:
            raise
        raise Unavailable(
            f"{doing}: the store of the artifacts says: {redacted(str(error))[:300]}",
            "Check its address and who you are there (for S3: MLFLOW_S3_ENDPOINT_URL, AWS_ACCESS_KEY_ID).",
        ) from error


@contextmanager
def _once() -> Iterator[None]:
    """Keep MLflow from sending a request again.

    It repeats those that write, too: an alias that was set, moved on by somebody else, and set again, is a move that
    is lost. What reads is asked again by `Patience`, where MLflow's variables may have fractions; MLflow
    itself stops at them.
    """
    now = {_RETRIES: "0", _BACKOFF: "0"}
    now[_TIMEOUT] = str(max(1, round(setting(_TIMEOUT, 30.0))))  # MLflow's own would be two minutes
    before = {name: os.environ.get(name) for name in now}
    os.environ.update(now)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _stumbled(error: Unavailable) -> Stumbled | None:
    """Return what may pass of what stopped us, or None."""
    from mlflow.exceptions import MlflowException

    cause: BaseException | None = error.__cause__
    if isinstance(cause, MlflowException) and cause.error_code not in _PASSING:
        return None
    status = getattr(cause, "response", None)  # of botocore's ClientError
    if isinstance(status, dict) and status.get("ResponseMetadata", {}).get("HTTPStatusCode") not in PASSING:
        return None
    found: set[str] = set()
    while cause is not None and len(found) < 20:
        found.add(type(cause).__name__)
        cause = cause.__cause__ or cause.__context__
    if "SSLCertVerificationError" in found:
        return None
    nobody = bool(found & {"NewConnectionError", "NameResolutionError", "ConnectTimeoutError"})
    return Stumbled(error.message.partition(" says: ")[2][:120] or error.message, nobody=nobody)


def _network(error: OSError) -> bool:
    import requests

    return isinstance(error, (ConnectionError, TimeoutError, requests.exceptions.RequestException))


class Mlflow:
    """A registry, by way of the mlflow package."""

    def __init__(self, uri: str, patience: Patience | None = None) -> None:
        """Connect to `uri`. Raises `Unavailable` where MLflow refuses the address or cannot reach it."""
        for name, value in _DEFAULTS.items():
            os.environ.setdefault(name, value)
        import mlflow

        self.uri = uri
        self._patience = patience or Patience()
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

    @property
    def client(self) -> Any:
        """MLflow's own client, for `registry.carried`; what it raises is translated by `told`."""
        return self._client

    def told(self, doing: str) -> AbstractContextManager[None]:
        """Turn MLflow's and the network's errors into ours."""
        return _told(self.uri, doing)

    # reading: the same questions as lookup.Lookup

    def names(self) -> list[str]:
        """Return the names of all registered models."""
        found = self._read("listing the models", lambda: self._client.search_registered_models(max_results=500))
        return [model.name for model in found]

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
            description=found.description or "",
        )

    def model(self, name: str) -> ModelInfo | None:
        """Return a model with its aliases and tags."""
        found = self._maybe(lambda: self._client.get_registered_model(name), f"reading {name}")
        if found is None:
            return None
        return ModelInfo(
            name=name,
            aliases={alias: str(version) for alias, version in found.aliases.items()},
            tags={key: value or "" for key, value in found.tags.items()},
            description=found.description or "",
        )

    def latest(self, name: str, stage: str = "") -> str | None:
        """Return the highest version number, in a stage where one is named."""
        found = self._read(
            f"reading the versions of {name}",
            lambda: self._client.search_model_versions(f"name={quoted(name)}", max_results=1000),
        )
        numbers = [int(entry.version) for entry in found if not stage or entry.current_stage == stage]
        return str(max(numbers)) if numbers else None

    def _maybe(self, ask: Callable[[], Any], doing: str) -> Any:
        from mlflow.exceptions import MlflowException

        def found() -> Any:
            try:
                return ask()
            except MlflowException as error:
                if error.error_code in _MISSING:
                    return None
                raise

        return self._read(doing, found)

    def _read(self, doing: str, ask: Callable[[], Any]) -> Any:
        """Return what `ask` returns, which only reads; asked again where that may help."""

        def once() -> Any:
            try:
                with _told(self.uri, doing):
                    return ask()
            except Unavailable as error:
                if passing := _stumbled(error):
                    raise passing from error
                raise

        try:
            return self._patience.read(once)
        except Stumbled as stumbled:
            raise stumbled.__cause__ or stumbled from None

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

        doing, where = f"downloading {uri}", self._logged_model(uri) or uri
        repository: Any = self._read(doing, lambda: get_artifact_repository(where))
        # models:/ and runs:/ wrap the store that holds the files
        while hasattr(repository, "repo"):
            repository = repository.repo
        local = getattr(repository, "artifact_dir", None)
        if local is not None:
            artifacts.copied(Path(local), into, note)
            return
        found = self._read(doing, lambda: list(_listed(repository, None)))
        # all names are checked before the first byte is fetched
        targets = [(name, size, archive.within(into, name)) for name, size in found]
        for name, size, target in targets:
            note(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            if self._read(doing, partial(_fetched, repository, name, size, into)) != target.resolve():
                raise Invalid(f"the artifact {name!r} was written to another place", "Log the model again.")
        for _ in archive.walk(into):
            pass  # a link or a device among them raises

    def file(self, uri: str, name: str) -> bytes:
        """Return one file of a model; raises `Unavailable` (or `Invalid`) where it cannot be had."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        with tempfile.TemporaryDirectory(prefix="modelrel-file-") as work, _told(self.uri, f"reading {name} of {uri}"):
            repository: Any = get_artifact_repository(self._logged_model(uri) or uri)
            try:
                return Path(repository.download_artifacts(name, dst_path=work)).read_bytes()
            except FileNotFoundError as error:
                raise Unavailable(
                    f"{uri} has no file {name} (any more)", "Its artifacts were moved or deleted."
                ) from error

    def measured(self, model_id: str) -> dict[str, float]:
        """Return the metrics of a logged model (MLflow 3), each as last logged."""
        ask = getattr(self._client, "get_logged_model", None)
        found = self._maybe(lambda: ask(model_id), f"reading {model_id}") if ask else None
        last = sorted(found.metrics or [] if found else [], key=lambda one: (one.step or 0, one.timestamp or 0))
        return {one.key: float(one.value) for one in last}

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
        token = None
        while True:
            page = search([run.info.experiment_id], filter_string=f"name = {quoted(name)}", page_token=token)
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
        """Move a version to a classic stage; what was in Staging or Production there is archived.

        Raises `Invalid` where MLflow has dropped them.
        """
        if not hasattr(self._client, "transition_model_version_stage"):
            raise no_stages(hide_credentials(self.uri))
        with _told(self.uri, f"moving {name}/{version} to the stage {stage}"):
            self._client.transition_model_version_stage(
                name, version, stage, archive_existing_versions=stage in {"Staging", "Production"}
            )

    def delete_alias(self, name: str, alias: str) -> None:
        """Take an alias away."""
        with _told(self.uri, f"removing the alias {alias!r} of {name}"):
            self._client.delete_registered_model_alias(name, alias)

    def set_model_tag(self, name: str, key: str, value: str) -> None:
        """Write a tag on the model itself. A database may end a value at 5,000 characters (`dbmodels.models`)."""
        with _told(self.uri, f"tagging {name}"):
            self._client.set_registered_model_tag(name, key, value)

    def delete_model_tag(self, name: str, key: str) -> None:
        """Take a tag of the model away."""
        with _told(self.uri, f"removing a tag of {name}"):
            self._client.delete_registered_model_tag(name, key)

    def set_tags(self, name: str, version: str, tags: dict[str, str]) -> None:
        """Write tags on a version."""
        with _told(self.uri, f"tagging {name}/{version}"):
            for key, value in tags.items():
                self._client.set_model_version_tag(name, version, key, value)


def _listed(repository: Any, path: str | None) -> Iterator[tuple[str, int | None]]:
    """Yield name and size of every file; a store may not know the size."""
    for entry in repository.list_artifacts(path):
        if entry.is_dir:
            yield from _listed(repository, entry.path)
        else:
            yield str(entry.path), entry.file_size


def _fetched(repository: Any, name: str, size: int | None, into: Path) -> Path:
    """Download one file and return where it is; raises `ConnectionError` where its size is not what was listed."""
    path = Path(repository.download_artifacts(name, dst_path=str(into)))
    came = path.stat().st_size
    if size is not None and came != size:
        path.unlink()
        raise ConnectionError(f"{came} of {size} bytes of {name} came")
    return path.resolve()

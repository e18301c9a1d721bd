"""Reading who holds what in a registry without importing mlflow (which takes seconds): sqlite and REST.

Sources: the tables of `mlflow.store.model_registry.dbmodels.models` and `mlflow.store.tracking.dbmodels.models`;
MLflow REST API 2.0 (`registered-models/get`, `model-versions/get`, `model-versions/get-download-uri`,
`model-versions/search`, `logged-models/ID`, `runs/get`, `experiments/get`).
Anything that is not plain sqlite or plain http(s) is left to `registry.mlflow`: `open_lookup` returns None.
"""

from __future__ import annotations

import base64
import json
import math
import os
import sqlite3
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, Final, Protocol

from modelrel.errors import Unavailable
from modelrel.registry.datasets import Logged, described
from modelrel.values import Dataset

_ODD_AUTH: Final = (
    "MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_AWS_SIGV4", "MLFLOW_TRACKING_CLIENT_CERT_PATH", "MLFLOW_WORKSPACE",
    "MLFLOW_TRACKING_SERVER_CERT_PATH", "MLFLOW_TRACKING_INSECURE_TLS", "MLFLOW_ENABLE_WORKSPACES",
)  # fmt: skip
_TRUST: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_SECONDS: Final = 15.0
_API: Final = "/api/2.0/mlflow/"


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionInfo:
    """A registered version as the registry knows it now."""

    name: str
    version: str
    run_id: str = ""
    source: str = ""
    stage: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """What the training run logged; empty where there is none (any more)."""

    experiment: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    git_commit: str = ""
    datasets: tuple[Dataset, ...] = ()

    @classmethod
    def of(
        cls,
        experiment: str,
        metrics: dict[str, float],
        params: dict[str, str],
        tags: dict[str, str],
        datasets: tuple[Dataset, ...],
    ) -> RunInfo:
        """Return what a run logged; of its tags, those are left out in which MLflow keeps its own history."""
        kept = {key: value for key, value in tags.items() if not key.startswith("mlflow.log-model")}
        commit = tags.get("mlflow.source.git.commit", "")
        return cls(
            experiment=experiment, metrics=metrics, params=params, tags=kept, git_commit=commit, datasets=datasets
        )


class Lookup(Protocol):
    """Read-only questions to a registry; every answer may be None: there is no such thing."""

    def names(self) -> list[str]:
        """Return the names of all registered models (at most some hundred)."""

    def version(self, name: str, version: str) -> VersionInfo | None:
        """Return one version."""

    def alias(self, name: str, alias: str) -> str | None:
        """Return the version number that an alias points at."""

    def aliases(self, name: str) -> dict[str, str]:
        """Return alias -> version number of a model."""

    def latest(self, name: str, stage: str = "") -> str | None:
        """Return the highest version number, in a stage where one is named."""


def hide_credentials(uri: str) -> str:
    """Return a registry URI without user and password, fit for records and messages."""
    parts = urllib.parse.urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def open_lookup(uri: str) -> SqliteLookup | RestLookup | None:
    """Return a reader for `uri`, or None where only mlflow itself knows how to read it.

    Raises `Unavailable` where the registry is not there.
    """
    if uri.startswith("sqlite:///"):
        path = Path(urllib.parse.unquote(uri.removeprefix("sqlite:///").partition("?")[0]))
        if not path.is_file():
            raise Unavailable(
                f"the registry {uri} does not exist",
                "Name yours with --registry, or set MLFLOW_TRACKING_URI or MLFLOW_REGISTRY_URI.",
            )
        return SqliteLookup(uri, path) if SqliteLookup.readable(uri, path) else None
    odd = [*_ODD_AUTH, *(_TRUST if uri.startswith("https://") else ())]
    left = any(os.environ.get(name) for name in odd) or Path("~/.mlflow/credentials").expanduser().exists()
    if uri.startswith(("http://", "https://")) and not left:
        return RestLookup(uri)
    return None


_TABLES: Final = frozenset(
    {
        "registered_models", "model_versions", "registered_model_aliases", "model_version_tags", "runs", "experiments",
        "latest_metrics", "params", "tags", "inputs", "input_tags", "datasets",
    }
)  # fmt: skip


_INPUTS: Final = """
select datasets.name, digest, dataset_source_type, dataset_source, coalesce(input_tags.value, '')
from inputs join datasets on source_id = dataset_uuid
left join input_tags on input_tags.input_uuid = inputs.input_uuid and input_tags.name = 'mlflow.data.context'
where source_type = 'DATASET' and destination_type = 'RUN' and destination_id = ?
"""


class SqliteLookup:
    """A registry in a sqlite file, opened read-only for each question."""

    def __init__(self, uri: str, path: Path) -> None:
        """Keep where the file is; nothing is opened yet."""
        self._uri, self._path = uri, path

    @classmethod
    def readable(cls, uri: str, path: Path) -> bool:
        """Return whether the tables are the ones that this class knows, all in one workspace."""
        lookup = cls(uri, path)
        tables = {row[0] for row in lookup._rows("select name from sqlite_master where type = 'table'")}
        if _TABLES - tables:
            return False
        columns = {row[1] for row in lookup._rows("pragma table_info(registered_models)")}
        if "workspace" not in columns:
            return True
        return len(lookup._rows("select distinct workspace from registered_models")) <= 1

    def _rows(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        location = f"file:{urllib.parse.quote(str(self._path.resolve()))}?mode=ro"
        try:
            with closing(sqlite3.connect(location, uri=True, timeout=_SECONDS)) as connection:
                return connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise Unavailable(
                f"the registry {self._uri} cannot be read: {error}",
                "Check that the file is an MLflow database that you may read.",
            ) from error

    def names(self) -> list[str]:
        """Return the names of all registered models."""
        return [row[0] for row in self._rows("select name from registered_models order by name limit 500")]

    def version(self, name: str, version: str) -> VersionInfo | None:
        """Return one version."""
        query = (
            "select run_id, coalesce(storage_location, source), current_stage from model_versions"
            " where name = ? and version = ? and current_stage <> 'Deleted_Internal'"
        )
        found = self._rows(query, name, version)
        if not found:
            return None
        run_id, source, stage = found[0]
        tags = self._rows("select key, value from model_version_tags where name = ? and version = ?", name, version)
        return VersionInfo(
            name=name,
            version=version,
            run_id=run_id or "",
            source=source or "",
            stage=stage or "",
            tags=dict(tags),
        )

    def alias(self, name: str, alias: str) -> str | None:
        """Return the version number that an alias points at."""
        return self.aliases(name).get(alias)

    def aliases(self, name: str) -> dict[str, str]:
        """Return alias -> version number of a model."""
        found = self._rows("select alias, version from registered_model_aliases where name = ?", name)
        return {alias: str(version) for alias, version in found}

    def latest(self, name: str, stage: str = "") -> str | None:
        """Return the highest version number, in a stage where one is named."""
        query = "select max(version) from model_versions where name = ? and current_stage <> 'Deleted_Internal'"
        found = self._rows(f"{query} and current_stage = ?", name, stage) if stage else self._rows(query, name)
        return None if found[0][0] is None else str(found[0][0])

    def location(self, name: str, version: str) -> str | None:
        """Return where the files of a version lie, as a URI."""
        found = self.version(name, version)
        return found.source if found else None

    def logged(self, model_id: str) -> str | None:
        """Return where the files of a logged model (`m-...`, MLflow 3) lie, as a URI."""
        if not self._rows("select 1 from sqlite_master where type = 'table' and name = 'logged_models'"):
            return None
        query = "select artifact_location from logged_models where model_id = ? and lifecycle_stage <> 'deleted'"
        found = self._rows(query, model_id)
        return str(found[0][0]) if found else None

    def run(self, run_id: str) -> RunInfo:
        """Return what a run logged; an empty one where the run is gone."""
        query = (
            "select experiments.name from runs left join experiments using (experiment_id) where runs.run_uuid = ?",
            "select key, case when is_nan then null else value end from latest_metrics where run_uuid = ?",
            "select key, value from params where run_uuid = ?",
            "select key, coalesce(value, '') from tags where run_uuid = ?",
            _INPUTS,
        )
        experiment, metrics, params, tags, inputs = (self._rows(one, run_id) for one in query)
        if not experiment:
            return RunInfo()
        return RunInfo.of(
            experiment[0][0] or "",
            {key: math.nan if value is None else float(value) for key, value in metrics},
            dict(params),
            dict(tags),
            tuple(described(Logged(*logged), context, self._uri) for *logged, context in inputs),
        )


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows a redirect, and takes the credentials along to the same host only."""

    def redirect_request(self, req: urllib.request.Request, *answer: Any) -> urllib.request.Request | None:
        """Return the request to where a redirect leads, which is the last of what the answer says."""
        found = super().redirect_request(req, *answer)
        if found is not None and found.host.partition(":")[0] != req.host.partition(":")[0]:
            found.remove_header("Authorization")
        return found


class RestLookup:
    """A registry behind an MLflow server, asked by its REST API (basic or bearer authentication)."""

    def __init__(self, uri: str) -> None:
        """Keep the address; nothing is sent yet."""
        self._shown = hide_credentials(uri)
        parts = urllib.parse.urlsplit(uri)
        self._base = self._shown.rstrip("/")
        user = parts.username or os.environ.get("MLFLOW_TRACKING_USERNAME")
        password = parts.password or os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
        token = os.environ.get("MLFLOW_TRACKING_TOKEN")
        self._headers = {"Accept": "application/json"}
        if user:
            pair = f"{urllib.parse.unquote(user)}:{urllib.parse.unquote(password)}"
            self._headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        elif token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._opener = urllib.request.build_opener(_SameHost)

    def open(self, where: str, **query: str) -> HTTPResponse:
        """Return the answer to GET `where` on the server; raises what urllib raises."""
        url = f"{self._base}{urllib.parse.quote(where)}{'?' if query else ''}{urllib.parse.urlencode(query)}"
        request = urllib.request.Request(url, headers=self._headers)  # noqa: S310  # http(s) by open_lookup
        answer: HTTPResponse = self._opener.open(request, timeout=_SECONDS)
        return answer

    def _get(self, path: str, **query: str) -> dict[str, Any] | None:
        try:
            with self.open(_API + path, **query) as answer:
                content: dict[str, Any] = json.load(answer)
                return content
        except urllib.error.HTTPError as error:
            self._refusal(error)
            return None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            reason = getattr(reason, "strerror", None) or reason
            raise Unavailable(
                f"the registry {self._shown} does not answer: {reason}",
                "Check that the server runs and that --registry (or MLFLOW_TRACKING_URI) names it.",
            ) from error

    def _refusal(self, error: urllib.error.HTTPError) -> None:
        """Return where the answer means "there is no such thing"; raise `Unavailable` for any other."""
        try:
            code = json.load(error).get("error_code", "")
        except (OSError, ValueError, AttributeError):
            code = ""
        if code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"}:
            return
        if error.code in (401, 403):
            raise Unavailable(
                f"the registry {self._shown} refuses us: {error.code} {error.reason}",
                "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN.",
            ) from error
        raise Unavailable(
            f"the registry {self._shown} answered {error.code} {error.reason}",
            "Check that --registry (or MLFLOW_TRACKING_URI) names an MLflow server, and its log.",
        ) from error

    def names(self) -> list[str]:
        """Return the names of all registered models."""
        found = self._get("registered-models/search", max_results="500") or {}
        return [model["name"] for model in found.get("registered_models", [])]

    def version(self, name: str, version: str) -> VersionInfo | None:
        """Return one version."""
        found = self._get("model-versions/get", name=name, version=version)
        if found is None:
            return None
        entry = found["model_version"]
        return VersionInfo(
            name=name,
            version=str(entry["version"]),
            run_id=entry.get("run_id", ""),
            source=entry.get("source", ""),
            stage=entry.get("current_stage", ""),
            tags={tag["key"]: tag["value"] for tag in entry.get("tags", [])},
        )

    def alias(self, name: str, alias: str) -> str | None:
        """Return the version number that an alias points at."""
        return self.aliases(name).get(alias)

    def aliases(self, name: str) -> dict[str, str]:
        """Return alias -> version number of a model."""
        found = self._get("registered-models/get", name=name) or {}
        entries = found.get("registered_model", {}).get("aliases", [])
        return {entry["alias"]: str(entry["version"]) for entry in entries}

    def latest(self, name: str, stage: str = "") -> str | None:
        """Return the highest version number, in a stage where one is named."""
        quoted = "'" + name.replace("'", "''") + "'"
        found = self._get(
            "model-versions/search",
            filter=f"name={quoted}",
            order_by="version_number DESC",
            max_results="1000",
        )
        entries = (found or {}).get("model_versions", [])
        return next(
            (str(entry["version"]) for entry in entries if not stage or entry.get("current_stage") == stage),
            None,
        )

    def location(self, name: str, version: str) -> str | None:
        """Return where the files of a version lie, as a URI."""
        found = self._get("model-versions/get-download-uri", name=name, version=version)
        return str(found["artifact_uri"]) if found else None

    def logged(self, model_id: str) -> str | None:
        """Return where the files of a logged model (`m-...`, MLflow 3) lie, as a URI."""
        found = self._get(f"logged-models/{model_id}")
        return str(found["model"]["info"]["artifact_uri"]) if found else None

    def run(self, run_id: str) -> RunInfo:
        """Return what a run logged; an empty one where the run is gone."""
        answered = self._get("runs/get", run_id=run_id)
        if answered is None:
            return RunInfo()
        run = answered["run"]
        data = run.get("data", {})
        experiment = self._get("experiments/get", experiment_id=run["info"]["experiment_id"])
        return RunInfo.of(
            experiment["experiment"]["name"] if experiment else "",
            {one["key"]: float(one["value"]) for one in data.get("metrics", [])},
            {one["key"]: one.get("value", "") for one in data.get("params", [])},
            {one["key"]: one.get("value", "") for one in data.get("tags", [])},
            tuple(
                described(
                    Logged(*(entry["dataset"].get(name, "") for name in Logged._fields)),
                    next((tag["value"] for tag in entry.get("tags", []) if tag["key"] == "mlflow.data.context"), ""),
                    self._shown,
                )
                for entry in run.get("inputs", {}).get("dataset_inputs", [])
            ),
        )

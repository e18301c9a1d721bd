"""Reading who holds what in a registry without importing mlflow (which takes seconds): sqlite and REST.

Sources: the tables of `mlflow.store.model_registry.dbmodels.models`; MLflow REST API 2.0
(`registered-models/alias`, `registered-models/get`, `model-versions/get`, `model-versions/search`).
Anything that is not plain sqlite or plain http(s) is left to `registry.mlflow`: `open_lookup` returns None.
"""

from __future__ import annotations

import base64
import json
import os
import sqlite3
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from modelrel.errors import Unavailable

_ODD_AUTH: Final = (
    "MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_AWS_SIGV4", "MLFLOW_TRACKING_CLIENT_CERT_PATH", "MLFLOW_WORKSPACE",
    "MLFLOW_TRACKING_SERVER_CERT_PATH", "MLFLOW_TRACKING_INSECURE_TLS", "MLFLOW_ENABLE_WORKSPACES",
)  # fmt: skip
_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionInfo:
    """A registered version as the registry knows it now."""

    name: str
    version: str
    run_id: str = ""
    source: str = ""
    stage: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


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


def open_lookup(uri: str) -> Lookup | None:
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
    if uri.startswith(("http://", "https://")) and not any(os.environ.get(name) for name in _ODD_AUTH):
        return RestLookup(uri)
    return None


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
        if not {"registered_models", "model_versions", "registered_model_aliases", "model_version_tags"} <= tables:
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

    def _get(self, path: str, **query: str) -> dict[str, Any] | None:
        url = f"{self._base}/api/2.0/mlflow/{path}?{urllib.parse.urlencode(query)}"
        request = urllib.request.Request(url, headers=self._headers)  # noqa: S310  # http(s) by open_lookup
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
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

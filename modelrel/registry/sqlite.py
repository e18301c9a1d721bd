"""A registry in a sqlite file, read without importing mlflow (which takes seconds).

Sources: the tables of `mlflow.store.model_registry.dbmodels.models` and `mlflow.store.tracking.dbmodels.models`.
"""

from __future__ import annotations

import math
import sqlite3
import urllib.parse
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from modelrel.errors import Unavailable
from modelrel.registry.datasets import Logged, described
from modelrel.registry.lookup import ModelInfo, RunInfo, VersionInfo
from modelrel.registry.patience import Patience, Stumbled

_SECONDS: Final = 2.0  # of waiting for who writes, for each try

_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

_TABLES: Final = frozenset(
    {
        "registered_models", "registered_model_tags", "registered_model_aliases", "model_versions",
        "model_version_tags", "runs", "experiments", "latest_metrics", "params", "tags", "inputs", "input_tags",
        "datasets",
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

    def __init__(self, uri: str, path: Path, patience: Patience | None = None) -> None:
        """Keep where the file is; nothing is opened yet."""
        self._uri, self._path = uri, path
        self._patience = patience or Patience()

    def readable(self) -> bool:
        """Return whether the tables are the ones that this class knows, all in one workspace."""
        tables = {row[0] for row in self._rows("select name from sqlite_master where type = 'table'")}
        if _TABLES - tables:
            return False
        columns = {row[1] for row in self._rows("pragma table_info(registered_models)")}
        if "workspace" not in columns:
            return True
        return len(self._rows("select distinct workspace from registered_models")) <= 1

    def _rows(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        location = f"file:{urllib.parse.quote(str(self._path.resolve()))}?mode=ro"

        def once() -> list[tuple[Any, ...]]:
            try:
                with closing(sqlite3.connect(location, uri=True, timeout=_SECONDS)) as connection:
                    return connection.execute(query, values).fetchall()
            except sqlite3.OperationalError as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _BUSY:
                    raise
                raise Stumbled(str(error)) from error

        try:
            return self._patience.read(once)
        except Stumbled as error:
            raise Unavailable(
                f"the registry {self._uri} does not answer: {error.reason}",
                "Another program writes to it and does not end; an MLflow server lets many write.",
            ) from error
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
            "select run_id, coalesce(storage_location, source), current_stage, description from model_versions"
            " where name = ? and version = ? and current_stage <> 'Deleted_Internal'"
        )
        found = self._rows(query, name, version)
        if not found:
            return None
        run_id, source, stage, description = found[0]
        tags = self._rows("select key, value from model_version_tags where name = ? and version = ?", name, version)
        return VersionInfo(
            name=name,
            version=version,
            run_id=run_id or "",
            source=source or "",
            stage=stage or "",
            tags=dict(tags),
            description=description or "",
        )

    def model(self, name: str) -> ModelInfo | None:
        """Return a model with its aliases and tags."""
        found = self._rows("select coalesce(description, '') from registered_models where name = ?", name)
        if not found:
            return None
        aliases = self._rows("select alias, version from registered_model_aliases where name = ?", name)
        tags = self._rows("select key, coalesce(value, '') from registered_model_tags where name = ?", name)
        return ModelInfo(
            name=name,
            aliases={alias: str(version) for alias, version in aliases},
            tags=dict(tags),
            description=found[0][0],
        )

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

    def measured(self, model_id: str) -> dict[str, float]:
        """Return the metrics of a logged model, each as last logged."""
        if not self._rows("select 1 from sqlite_master where type = 'table' and name = 'logged_model_metrics'"):
            return {}
        query = (
            "select metric_name, metric_value from logged_model_metrics where model_id = ?"
            " order by metric_step, metric_timestamp_ms"
        )
        return {key: math.nan if value is None else float(value) for key, value in self._rows(query, model_id)}

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

"""What a registry can be asked, and what it tells; `registry.sqlite`, `registry.rest` and `registry.mlflow` answer."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from modelrel.values import Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionInfo:
    """A registered version as the registry knows it now, and what people wrote of it."""

    name: str
    version: str
    run_id: str = ""
    source: str = ""
    stage: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """A registered model as the registry knows it now: what its aliases point at, its tags, what people wrote of it."""

    name: str
    aliases: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    description: str = ""


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

    def model(self, name: str) -> ModelInfo | None:
        """Return a model with its aliases and tags."""

    def latest(self, name: str, stage: str = "") -> str | None:
        """Return the highest version number, in a stage where one is named."""

    def run(self, run_id: str) -> RunInfo:
        """Return what a run logged; an empty one where the run is gone."""

    def measured(self, model_id: str) -> dict[str, float]:
        """Return the metrics of a logged model (MLflow 3), each as last logged."""


def quoted(name: str) -> str:
    """Return a name as filters of MLflow's searches take it.

    >>> quoted("it's")
    "'it''s'"
    """
    return "'" + name.replace("'", "''") + "'"


def hide_credentials(uri: str) -> str:
    """Return a registry URI without user and password, fit for records and messages."""
    parts = urllib.parse.urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

"""The registry room: where model versions live and where a promotion is written.

`Registry` asks the quick readers first (`sqlite`, `rest`, `artifacts`: no mlflow import), MLflow itself for the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from modelrel.errors import Invalid, did_you_mean
from modelrel.registry import artifacts
from modelrel.registry.lookup import Lookup, ModelInfo, RunInfo, VersionInfo, hide_credentials
from modelrel.registry.patience import Patience
from modelrel.registry.quick import open_lookup
from modelrel.registry.reference import Reference
from modelrel.registry.rest import RestLookup
from modelrel.registry.sqlite import SqliteLookup
from modelrel.registry.writing import RestWriter, Writer

if TYPE_CHECKING:
    from modelrel.registry.mlflow import Mlflow

__all__ = ["ModelInfo", "Registry", "RunInfo", "VersionInfo"]


class Registry:
    """A model registry by its URI (`sqlite:///mlflow.db`, `http://host:5000`, whatever MLflow takes)."""

    def __init__(self, uri: str, say: Callable[[str], None] = lambda _: None) -> None:
        """Keep the address; nothing is opened before the first question. `say` hears when one is asked again."""
        self.uri = uri
        self._patience = Patience(say)
        self.shown = hide_credentials(uri)

    @cached_property
    def _quick(self) -> SqliteLookup | RestLookup | None:
        return open_lookup(self.uri, self._patience)

    @cached_property
    def _lookup(self) -> Lookup:
        return self._quick or self.mlflow

    @cached_property
    def mlflow(self) -> Mlflow:
        """MLflow itself (the import takes seconds)."""
        from modelrel.registry.mlflow import Mlflow

        _ = self._quick  # a missing sqlite file is an error here: MLflow would make an empty one
        return Mlflow(self.uri, self._patience)

    @cached_property
    def writer(self) -> Writer:
        """What changes the registry: by REST where it is a plain server, else by MLflow itself."""
        return RestWriter(self._quick) if isinstance(self._quick, RestLookup) else self.mlflow

    def resolve(self, reference: Reference) -> VersionInfo:
        """Return the one version that a name, number, alias or stage means now.

        Raises `Invalid` where there is no such model, version, alias or stage, naming the nearest that is.
        """
        name = reference.name
        number: str | None = reference.value
        if reference.kind == "alias":
            number = self.aliases(name).get(reference.value)
        elif reference.kind in {"latest", "stage"}:
            number = self._lookup.latest(name, reference.value)
        found = self._lookup.version(name, number) if number else None
        if found is None:
            raise self._unknown(reference)
        return found

    def _unknown(self, reference: Reference) -> Invalid:
        name = reference.name
        names = self._lookup.names()
        if name not in names:
            hint = did_you_mean(name, names).strip() or self._known(names)
            return Invalid(f"the registry {self.shown} has no model {name!r}", hint)
        newest = self._lookup.latest(name)
        if newest is None:
            return Invalid(f"the model {name} has no versions", "Register a version first.")
        if reference.kind == "alias":
            aliases = sorted(self.aliases(name))
            known = f"It has: {', '.join(aliases)}." if aliases else f"It has none; {name}/{newest} is the latest."
            return Invalid(f"the model {name} has no alias {reference.value!r}", known)
        if reference.kind == "stage":
            return Invalid(
                f"no version of {name} is in the stage {reference.value}",
                f"{name}/{newest} is the latest version.",
            )
        return Invalid(f"the model {name} has no version {reference.value}", f"The latest is {name}/{newest}.")

    def _known(self, names: list[str]) -> str:
        if not names:
            return "It has none at all: check --registry."
        return f"It has: {', '.join(names[:8])}{', …' if len(names) > 8 else ''}."

    def names(self) -> list[str]:
        """Return the names of all registered models."""
        return self._lookup.names()

    def holder(self, name: str, *, alias: str = "", stage: str = "") -> str:
        """Return the version that holds an alias (or the highest in a stage) now, or "" where none does."""
        found = self.aliases(name).get(alias) if alias else self._lookup.latest(name, stage)
        return found or ""

    def model(self, name: str) -> ModelInfo | None:
        """Return a model with its aliases and tags as they are now, or None."""
        return self._lookup.model(name)

    def known_model(self, name: str) -> ModelInfo:
        """Return a model; raises `Invalid` where there is none, naming the nearest that is."""
        found = self.model(name)
        if found is None:
            raise self._unknown(Reference(kind="latest", name=name, value="", text=name))
        return found

    def aliases(self, name: str) -> dict[str, str]:
        """Return alias -> version number of a model."""
        found = self._lookup.model(name)
        return dict(found.aliases) if found else {}

    def version(self, name: str, version: str) -> VersionInfo | None:
        """Return one version as it is now, or None."""
        return self._lookup.version(name, version)

    def run(self, run_id: str) -> RunInfo:
        """Return what a run logged; an empty one where there is none."""
        if not run_id:
            return RunInfo()
        return self._lookup.run(run_id)

    def download(self, uri: str, into: Path, note: Callable[[str], None]) -> None:
        """Download the files of a model into the empty folder `into` (see `artifacts.fetched`, `Mlflow.download`)."""
        if self._quick is None or not artifacts.fetched(self._quick, uri, into, note):
            self.mlflow.download(uri, into, note)

    def file(self, uri: str, name: str) -> bytes:
        """Return one file of a model; raises `Unavailable` (or `Invalid`) where it cannot be had."""
        found = artifacts.one(self._quick, uri, name) if self._quick else None
        return self.mlflow.file(uri, name) if found is None else found

    def measured(self, model_id: str) -> dict[str, float]:
        """Return the metrics of a logged model (`m-...`, MLflow 3), each as last logged; none where there is none."""
        if not model_id:
            return {}
        return self._lookup.measured(model_id)

"""A registry behind an MLflow server, read by its REST API without importing mlflow (which takes seconds).

Source: MLflow REST API 2.0 (`registered-models/get`, `model-versions/get`, `model-versions/get-download-uri`,
`model-versions/search`, `logged-models/ID`, `runs/get`, `experiments/get`).
"""

from __future__ import annotations

import base64
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse, responses
from pathlib import Path
from typing import Any, Final, cast

from modelrel.errors import Unavailable
from modelrel.registry import connections
from modelrel.registry.datasets import Logged, described
from modelrel.registry.lookup import ModelInfo, RunInfo, VersionInfo, hide_credentials, quoted
from modelrel.registry.patience import PASSING, Patience, Stumbled

_API: Final = "/api/2.0/mlflow/"


class RestLookup:
    """A registry behind an MLflow server, asked by its REST API (basic or bearer authentication)."""

    def __init__(self, uri: str, patience: Patience | None = None) -> None:
        """Keep the address; nothing is sent yet."""
        self.shown = hide_credentials(uri)
        parts = urllib.parse.urlsplit(uri)
        self._base = self.shown.rstrip("/")
        user = parts.username or os.environ.get("MLFLOW_TRACKING_USERNAME")
        password = parts.password or os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
        token = os.environ.get("MLFLOW_TRACKING_TOKEN")
        self._headers = {"Accept": "application/json"}
        if user:
            pair = f"{urllib.parse.unquote(user)}:{urllib.parse.unquote(password)}"
            self._headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        elif token:
            self._headers["Authorization"] = f"Bearer {token}"
        self.patience = patience or Patience()
        self._opener = connections.opener()

    def open(self, where: str, **query: str) -> HTTPResponse:
        """Return the answer to GET `where` on the server; raises what urllib raises."""
        url = f"{self._base}{urllib.parse.quote(where)}{'?' if query else ''}{urllib.parse.urlencode(query)}"
        request = urllib.request.Request(url, headers=self._headers)  # noqa: S310  # http(s) by open_lookup
        answer: HTTPResponse = self._opener.open(request, timeout=self.patience.timeout)
        return answer

    def ask(self, where: str, **query: str) -> tuple[int, Any]:
        """Return status and JSON content (None where it is none) of GET `where`, asked again where that may help.

        Raises `Unavailable` where the registry does not answer.
        """

        def once() -> tuple[int, Any]:
            with connections.stumbling():
                try:
                    answer = self.open(where, **query)
                except urllib.error.HTTPError as refusal:
                    if refusal.code in PASSING:
                        raise
                    body = cast(HTTPResponse, refusal.fp)
                    return refusal.code, connections.content(body, self.patience.timeout)
                with answer:
                    return answer.status, connections.content(answer, self.patience.timeout)

        with self.told():
            return self.patience.read(once)

    def fetch(self, where: str, target: Path, size: int) -> None:
        """Write the file at `where`, of `size` bytes, to `target`.

        Raises `Unavailable` where it does not arrive whole, `urllib.error.HTTPError` where it is refused.
        """

        def once() -> None:
            with connections.stumbling(), self.open(where) as answer, target.open("wb") as stream:
                for piece in connections.pieces(answer, self.patience.timeout):
                    stream.write(piece)
                if stream.tell() != size:
                    raise Stumbled(f"{stream.tell()} of {size} bytes came")

        with self.told(f"does not send {target.name} whole"):
            self.patience.read(once)

    def read(self, where: str) -> bytes:
        """Return the bytes of the small file at `where`; raises as `fetch`."""

        def once() -> bytes:
            with connections.stumbling(), self.open(where) as answer:
                return b"".join(connections.pieces(answer, self.patience.timeout))

        with self.told():
            return self.patience.read(once)

    def url(self, path: str) -> str:
        """Return the address of a REST call (`registered-models/alias`)."""
        return f"{self._base}{_API}{path}"

    def send(self, method: str, path: str, body: Mapping[str, Any]) -> HTTPResponse:
        """Return the answer to a call that changes something (once, whatever happens); raises what urllib raises."""
        headers = {**self._headers, "Content-Type": "application/json"}
        content = json.dumps(body).encode()
        request = urllib.request.Request(self.url(path), content, headers, method=method)  # noqa: S310  # as above
        answer: HTTPResponse = self._opener.open(request, timeout=self.patience.timeout)
        return answer

    @contextmanager
    def told(self, what: str = "does not answer") -> Iterator[None]:
        """Turn the last of the tries that failed into an error of ours."""
        try:
            yield
        except urllib.error.HTTPError:
            raise
        except (Stumbled, urllib.error.URLError, HTTPException) as error:
            if isinstance(error, Stumbled) and error.status:
                raise self._answered(error.reason) from error
            reason = getattr(error, "reason", error)
            raise Unavailable(
                f"the registry {self.shown} {what}: {getattr(reason, 'strerror', None) or reason}",
                "Check that the server runs and that --registry (or MLFLOW_TRACKING_URI) names it.",
            ) from error

    def _get(self, path: str, key: str, **query: str) -> Any:
        """Return what the answer holds under `key`, or None where there is no such thing."""
        status, content = self.ask(_API + path, **query)
        code = content.get("error_code", "") if isinstance(content, dict) else ""
        if status == 200 and isinstance(content, dict):
            return content.get(key)
        if code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"}:
            return None
        reason = f"{status} {responses.get(status, '')}".strip()
        if status in (401, 403):
            raise Unavailable(
                f"the registry {self.shown} refuses us: {reason}",
                "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN.",
            )
        raise self._answered(reason if status != 200 else "what MLflow does not")

    def _answered(self, what: str) -> Unavailable:
        return Unavailable(
            f"the registry {self.shown} answered {what}",
            "Check that --registry (or MLFLOW_TRACKING_URI) names an MLflow server, and its log.",
        )

    def names(self) -> list[str]:
        """Return the names of all registered models."""
        found = self._get("registered-models/search", "registered_models", max_results="500")
        return [model["name"] for model in found or []]

    def version(self, name: str, version: str) -> VersionInfo | None:
        """Return one version."""
        entry = self._get("model-versions/get", "model_version", name=name, version=version)
        if entry is None:
            return None
        return VersionInfo(
            name=name,
            version=str(entry["version"]),
            run_id=entry.get("run_id", ""),
            source=entry.get("source", ""),
            stage=entry.get("current_stage", ""),
            tags={tag["key"]: tag["value"] for tag in entry.get("tags", [])},
            description=entry.get("description", ""),
        )

    def model(self, name: str) -> ModelInfo | None:
        """Return a model with its aliases and tags."""
        entry = self._get("registered-models/get", "registered_model", name=name)
        if entry is None:
            return None
        return ModelInfo(
            name=name,
            aliases={one["alias"]: str(one["version"]) for one in entry.get("aliases", [])},
            tags={tag["key"]: tag.get("value", "") for tag in entry.get("tags", [])},
            description=entry.get("description", ""),
        )

    def latest(self, name: str, stage: str = "") -> str | None:
        """Return the highest version number, in a stage where one is named."""
        found = self._get(
            "model-versions/search",
            "model_versions",
            filter=f"name={quoted(name)}",
            order_by="version_number DESC",
            max_results="1000",
        )
        return next(
            (str(entry["version"]) for entry in found or [] if not stage or entry.get("current_stage") == stage),
            None,
        )

    def location(self, name: str, version: str) -> str | None:
        """Return where the files of a version lie, as a URI."""
        found = self._get("model-versions/get-download-uri", "artifact_uri", name=name, version=version)
        return str(found) if found else None

    def logged(self, model_id: str) -> str | None:
        """Return where the files of a logged model (`m-...`, MLflow 3) lie, as a URI."""
        found = self._get(f"logged-models/{model_id}", "model")
        return str(found["info"]["artifact_uri"]) if found else None

    def measured(self, model_id: str) -> dict[str, float]:
        """Return the metrics of a logged model, each as last logged."""
        found = self._get(f"logged-models/{model_id}", "model")
        metrics = found.get("data", {}).get("metrics", []) if found else []
        last = sorted(metrics, key=lambda one: (int(one.get("step", 0)), int(one.get("timestamp", 0))))
        return {one["key"]: float(one["value"]) for one in last}

    def run(self, run_id: str) -> RunInfo:
        """Return what a run logged; an empty one where the run is gone."""
        run = self._get("runs/get", "run", run_id=run_id)
        if run is None:
            return RunInfo()
        data = run.get("data", {})
        experiment = self._get("experiments/get", "experiment", experiment_id=run["info"]["experiment_id"])
        return RunInfo.of(
            experiment["name"] if experiment else "",
            {one["key"]: float(one["value"]) for one in data.get("metrics", [])},
            {one["key"]: one.get("value", "") for one in data.get("params", [])},
            {one["key"]: one.get("value", "") for one in data.get("tags", [])},
            tuple(
                described(
                    Logged(*(entry["dataset"].get(name, "") for name in Logged._fields)),
                    next((tag["value"] for tag in entry.get("tags", []) if tag["key"] == "mlflow.data.context"), ""),
                    self.shown,
                )
                for entry in run.get("inputs", {}).get("dataset_inputs", [])
            ),
        )

"""What can be changed in a registry, and how that is said to an MLflow server without importing mlflow.

Source: MLflow REST API 2.0 (`registered-models/alias`, `registered-models/set-tag`, `registered-models/delete-tag`,
`model-versions/set-tag`, `model-versions/transition-stage`). No request is sent twice: one that was not answered may
have been carried out, and only who asked can tell what that means.
"""

from __future__ import annotations

import json
import urllib.error
from http.client import HTTPException
from typing import Any, Final, Protocol

from modelrel.errors import Invalid, ModelrelError, Unavailable
from modelrel.registry.rest import RestLookup

_WRONG: Final = frozenset(
    {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE"}
)


class Writer(Protocol):
    """Changes of a registry; each raises `Invalid` where it refuses, `Unavailable` where it may or may not be done."""

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point an alias at a version."""

    def delete_alias(self, name: str, alias: str) -> None:
        """Take an alias away."""

    def set_stage(self, name: str, version: str, stage: str) -> None:
        """Move a version to a classic stage; what was in Staging or Production there is archived."""

    def set_model_tag(self, name: str, key: str, value: str) -> None:
        """Write a tag on the model itself."""

    def delete_model_tag(self, name: str, key: str) -> None:
        """Take a tag of the model away, where it is there."""

    def set_tags(self, name: str, version: str, tags: dict[str, str]) -> None:
        """Write tags on a version."""


def no_stages(shown: str) -> Invalid:
    """Return the error of a registry that knows classic stages no more."""
    return Invalid(
        f"the registry {shown} has no classic stages (any more): MLflow replaced them by aliases",
        "Promote to an alias instead: --to champion.",
    )


class RestWriter:
    """Changes a registry behind an MLflow server, by its REST API."""

    def __init__(self, server: RestLookup) -> None:
        """Write where `server` reads."""
        self._server = server

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point an alias at a version."""
        self._send("POST", "registered-models/alias", {"name": name, "alias": alias, "version": version})

    def delete_alias(self, name: str, alias: str) -> None:
        """Take an alias away."""
        self._send("DELETE", "registered-models/alias", {"name": name, "alias": alias})

    def set_stage(self, name: str, version: str, stage: str) -> None:
        """Move a version to a classic stage; what was in Staging or Production there is archived."""
        body = {
            "name": name, "version": version, "stage": stage,
            "archive_existing_versions": stage in {"Staging", "Production"},
        }  # fmt: skip
        self._send("POST", "model-versions/transition-stage", body)

    def set_model_tag(self, name: str, key: str, value: str) -> None:
        """Write a tag on the model itself."""
        self._send("POST", "registered-models/set-tag", {"name": name, "key": key, "value": value})

    def delete_model_tag(self, name: str, key: str) -> None:
        """Take a tag of the model away, where it is there."""
        self._send("DELETE", "registered-models/delete-tag", {"name": name, "key": key})

    def set_tags(self, name: str, version: str, tags: dict[str, str]) -> None:
        """Write tags on a version."""
        for key, value in tags.items():
            self._send("POST", "model-versions/set-tag", {"name": name, "version": version, "key": key, "value": value})

    def _send(self, method: str, path: str, body: dict[str, Any]) -> None:
        shown = self._server.shown
        try:
            with self._server.send(method, path, body) as answer:
                if answer.url.split("?")[0] != self._server.url(path):
                    raise Unavailable(
                        f"the registry {shown} sends changes on to {answer.url}, where they get lost",
                        "Name that address itself with --registry.",
                    )
                json.load(answer)
        except urllib.error.HTTPError as error:
            raise self._refusal(path, body, error) from error
        except (OSError, ValueError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise Unavailable(
                f"{path} of {body['name']}: the registry {shown} did not answer: {reason}",
                "Whether it was done is not known; run the same command again.",
            ) from error

    def _refusal(self, path: str, body: dict[str, Any], error: urllib.error.HTTPError) -> ModelrelError:
        try:
            said = json.load(error)
            code, message = said.get("error_code", ""), str(said.get("message", "")).strip().partition("\n")[0]
        except (OSError, ValueError, AttributeError, HTTPException):
            code, message = "", ""
        shown = self._server.shown
        if code in _WRONG:
            return Invalid(f"{path} of {body['name']}: the registry {shown} says: {message}", "Check the name.")
        if path.endswith("transition-stage") and error.code in (404, 405, 410, 501):
            return no_stages(shown)
        if error.code in (401, 403):
            return Unavailable(
                f"the registry {shown} lets us not change {body['name']}: {error.code} {error.reason}",
                "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, of who may.",
            )
        return Unavailable(
            f"{path} of {body['name']}: the registry {shown} answered {error.code} {error.reason} {message}".rstrip(),
            "Look at the registry's log.",
        )

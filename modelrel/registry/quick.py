"""Which registries can be read without importing mlflow: plain sqlite, and plain http(s)."""

from __future__ import annotations

import os
import urllib.parse
from pathlib import Path
from typing import Final

from modelrel.errors import Unavailable
from modelrel.registry.patience import Patience
from modelrel.registry.rest import RestLookup
from modelrel.registry.sqlite import SqliteLookup

_ODD_AUTH: Final = (
    "MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_AWS_SIGV4", "MLFLOW_TRACKING_CLIENT_CERT_PATH", "MLFLOW_WORKSPACE",
    "MLFLOW_TRACKING_SERVER_CERT_PATH", "MLFLOW_TRACKING_INSECURE_TLS", "MLFLOW_ENABLE_WORKSPACES",
)  # fmt: skip
_TRUST: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def open_lookup(uri: str, patience: Patience | None = None) -> SqliteLookup | RestLookup | None:
    """Return a reader for `uri`, or None where only mlflow itself knows how to read it.

    Raises `Unavailable` where the registry is not there.
    """
    if uri.startswith("sqlite:///"):
        path = Path(urllib.parse.unquote(uri.removeprefix("sqlite:///").partition("?")[0]))
        if not path.is_file():
            raise Unavailable(
                f"the registry {uri} does not exist",
                "Name one that is there with --registry (or --into), MLFLOW_TRACKING_URI or "
                f"MLFLOW_REGISTRY_URI. MLflow makes a new one: mlflow server --backend-store-uri {uri}",
            )
        found = SqliteLookup(uri, path, patience)
        return found if found.readable() else None
    odd = [*_ODD_AUTH, *(_TRUST if uri.startswith("https://") else ())]
    left = any(os.environ.get(name) for name in odd) or Path("~/.mlflow/credentials").expanduser().exists()
    if uri.startswith(("http://", "https://")) and not left:
        return RestLookup(uri, patience)
    return None

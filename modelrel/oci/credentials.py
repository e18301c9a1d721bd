"""Who we are to a registry: what `docker login` or `podman login` left behind, and the programs that keep it.

Sources: docker/cli, docs/reference/commandline/login.md (config.json) and docker-credential-helpers (the protocol);
containers-auth.json(5). Nothing of it is ever shown, logged or written.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from modelrel.errors import Unavailable
from modelrel.oci.names import Name

_HUB: Final = "docker.io"
_HUB_KEYS: Final = ("https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io")
_HELPER: Final = re.compile(r"[A-Za-z0-9._-]+")
_SECONDS: Final = 60
_TOKEN: Final = "<token>"  # noqa: S105  # the user name that marks an identity token


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A user and a password, or an identity token (OAuth2's refresh token); all empty for nobody in particular."""

    user: str = ""
    password: str = field(default="", repr=False)
    identity: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of an `Authorization: Basic` header, "" where there is no user."""
        if not self.user:
            return ""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def find(name: Name) -> Credentials:
    """Return what is known for the registry of a name: in the files that docker and podman keep, first found.

    Raises `Unavailable` where such a file cannot be read, or names a helper that is not there or fails.
    """
    for path in _files():
        try:
            content = json.loads(path.read_bytes())
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise Unavailable(
                f"{path} cannot be read as JSON", "Log in again: docker login, or podman login."
            ) from error
        if isinstance(content, dict) and (found := _in_file(content, name, path)):
            return found
    return Credentials()


def _files() -> Iterator[Path]:
    """Yield where credentials may be; the variables are those of docker and podman."""
    if chosen := os.environ.get("REGISTRY_AUTH_FILE"):
        yield Path(chosen)
    yield Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(runtime) / "containers" / "auth.json"
    yield Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "containers" / "auth.json"


def _in_file(content: Mapping[str, Any], name: Name, path: Path) -> Credentials | None:
    helpers, hosts = content.get("credHelpers"), _keys(name)
    if isinstance(helpers, dict):
        for host in hosts:
            if isinstance(helpers.get(host), str):
                return _helped(helpers[host], host, path)
    store = content.get("credsStore")
    if isinstance(store, str) and store:
        for host in hosts[:1] if name.host != _HUB else _HUB_KEYS[:1]:
            if found := _helped(store, host, path):
                return found
    auths = content.get("auths")
    if not isinstance(auths, dict):
        return None
    # podman keeps them by namespace, too: the longest that fits wins; docker wrote URLs once
    stripped = {re.sub(r"^https?://|/(?:v[12]/?)?$", "", key): value for key, value in auths.items()}
    entries = {**stripped, **auths}
    parts = name.repository.split("/")
    spelled = ["/".join(parts[:count]) for count in range(len(parts), 1, -1)]
    for key in (*spelled, *hosts):
        if isinstance(entries.get(key), dict) and (found := _entry(entries[key], path)):
            return found
    return None


def _keys(name: Name) -> tuple[str, ...]:
    return _HUB_KEYS if name.host == _HUB else (name.host, f"https://{name.host}")


def _entry(entry: Mapping[str, Any], path: Path) -> Credentials | None:
    user, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    if entry.get("auth"):
        try:
            user, _, password = base64.b64decode(str(entry["auth"])).decode().partition(":")
        except ValueError as error:
            raise Unavailable(f"{path} holds a damaged entry", "Log in again: docker login.") from error
    identity = str(entry.get("identitytoken") or "")
    found = Credentials(user=user, password=password.rstrip("\0"), identity=identity)
    return found if user or identity else None


def _helped(helper: str, host: str, path: Path) -> Credentials | None:
    """Ask a credential helper; None where it knows nobody for the host."""
    if not _HELPER.fullmatch(helper):
        raise Unavailable(f"{path} names a credential helper {helper!r}, which is no name of a program", "Correct it.")
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run([program, "get"], input=host.encode(), capture_output=True, check=False, timeout=_SECONDS)
    except FileNotFoundError as error:
        raise Unavailable(
            f"{path} leaves credentials to {program}, which is not installed", "Install it, or log in without it."
        ) from error
    except (subprocess.TimeoutExpired, OSError) as error:
        raise Unavailable(f"{program} gave no credentials for {host}", "Run it by hand to see why.") from error
    if done.returncode and b"not found" in done.stdout + done.stderr:
        return None
    try:
        answer = json.loads(done.stdout)
        user, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError) as error:
        raise Unavailable(
            f"{program} gave no credentials for {host} (exit code {done.returncode})", "Run it by hand to see why."
        ) from error
    return Credentials(identity=secret) if user == _TOKEN else Credentials(user=user, password=secret)

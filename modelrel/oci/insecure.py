"""Which registries may be spoken to over http: those of this machine, and those that docker or podman were told so."""

from __future__ import annotations

import ipaddress
import json
import os
import tomllib
from pathlib import Path
from urllib.parse import urlsplit


def here(host: str) -> bool:
    """Return whether a host (with or without port) is this machine.

    >>> here("localhost:5000"), here("127.0.0.2"), here("[::1]:80"), here("localhost.example")
    (True, True, True, False)
    """
    bare = urlsplit(f"//{host}").hostname or ""
    try:
        return bare == "localhost" or ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return False


def allowed(host: str) -> bool:
    """Return whether http will do for a host.

    Sources: dockerd, `insecure-registries` of daemon.json; containers-registries.conf(5), `insecure` of version 2.
    """
    return here(host) or host in _docker() or host in _podman()


def _docker() -> set[str]:
    try:
        listed = json.loads(Path("/etc/docker/daemon.json").read_bytes())["insecure-registries"]
        return {one for one in listed if isinstance(one, str)}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _podman() -> set[str]:
    chosen = os.environ.get("CONTAINERS_REGISTRIES_CONF")
    own = Path.home() / ".config" / "containers" / "registries.conf"
    for path in [Path(chosen)] if chosen else [own, Path("/etc/containers/registries.conf")]:
        try:
            entries = tomllib.loads(path.read_text(encoding="utf-8")).get("registry", [])
        except (OSError, ValueError):
            continue
        insecure = [one for one in entries if isinstance(one, dict) and one.get("insecure") is True]
        return {str(one.get("location") or one.get("prefix") or "").partition("/")[0] for one in insecure} - {""}
    return set()

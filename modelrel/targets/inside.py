"""What an engine tells of a container: whether it runs, what it said, where it is reached, its memory."""

from __future__ import annotations

from typing import Any, Final

from modelrel.errors import Unavailable

PORT: Final = 8080
"""Where a server listens inside."""


def exit_code(container: Any) -> int | None:
    """Return the exit code of a container, None while it runs; raises `Unavailable` where it could not run at all."""
    container.reload()
    state = container.attrs["State"]
    if state["Status"] not in ("exited", "dead"):
        return None
    if "exec format error" in log(container):
        raise Unavailable(
            "the image is for another processor than the engine's",
            "Smoke it on such a machine, or set up emulation (qemu-user-static).",
        )
    return int(state["ExitCode"])


def published(container: Any, host: str) -> tuple[tuple[str, int], ...]:
    """Return the addresses of the published port; none where the engine did not publish it.

    The container's own address comes second: it is what works where modelrel runs in a container beside it.
    """
    container.reload()
    network = container.attrs["NetworkSettings"]
    bound = (network.get("Ports") or {}).get(f"{PORT}/tcp") or ()
    published = tuple((host, int(one["HostPort"])) for one in bound[:1])
    return (*published, (network["IPAddress"], PORT)) if published and network.get("IPAddress") else published


def memory(stats: Any) -> int:
    """Return the resident bytes of a container, from its cgroup (version 1 or 2)."""
    detail = stats.get("memory_stats", {}).get("stats", {})
    first = int(detail.get("total_rss", 0)) + int(detail.get("total_mapped_file", 0))
    return first or int(detail.get("anon", 0)) + int(detail.get("file_mapped", 0))


def log(container: Any) -> str:
    """Return its last lines."""
    content: bytes = container.logs(tail=20)
    return content.decode(errors="replace")

"""What a run of the tests takes away with it: a folder of its own for temporary files, and the images that it built.

Libraries leave temporary files behind (AutoGraph's sources, MLflow's locks, browsers' sockets), most of all in
processes that are killed, as tests kill some; and an image that is removed leaves the layers it was built from.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def removed() -> Iterator[None]:
    """Let this process and those it starts keep temporary files in one folder, and remove that, and images, in the end.

    Pytest's own folders stay where they were: those of failed tests are for people to look at.
    """
    usual = tempfile.gettempdir()
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", usual)
    lock = os.open(usual, os.O_RDONLY)  # the folder itself, for a file would be one more that is left
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        before = images()
        place = Path(tempfile.mkdtemp(prefix="modelrel-run-"))  # short: paths of sockets have 107 bytes
        place.chmod(0o711)  # a test starts the server as another user
        os.environ["TMPDIR"] = tempfile.tempdir = str(place)
        try:
            yield
        finally:
            os.environ["TMPDIR"] = tempfile.tempdir = usual
            shutil.rmtree(place, ignore_errors=True)
            with suppress(BlockingIOError):  # another run may stand on the same layers; the last one removes them
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                forget(before)
    finally:
        os.close(lock)


def images() -> dict[str, str]:
    """Return each image of the engine, layers that builds left too, with its parent (or ""); none without an engine."""
    if not os.environ.get("MODELREL_TEST_BASE_IMAGE"):
        return {}
    import docker
    from requests.exceptions import RequestException

    with suppress(docker.errors.DockerException, RequestException):
        client = docker.from_env()
        try:
            return {one["Id"]: one["ParentId"] for one in client.api.images(all=True)}
        finally:
            client.close()
    return {}


def forget(before: dict[str, str]) -> None:
    """Remove the images that were built since."""
    built = since(before, images())
    if not built:
        return
    import docker

    client = docker.from_env()
    try:
        for name in built:
            with suppress(docker.errors.APIError):  # a container may run on it
                client.images.remove(name, force=True, noprune=True)
    finally:
        client.close()


def since(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Return the images that were not there before and stand on one that was, each ahead of those it stands on."""
    depths: dict[str, int] = {}
    for name in now.keys() - before.keys():
        depth, below = 0, name
        while now.get(below):
            depth, below = depth + 1, now[below]
        if below in before:
            depths[name] = depth
    return sorted(depths, key=lambda name: (-depths[name], name))

"""A container engine, through the Docker SDK: builds a context, runs an image as a strict platform would."""

from __future__ import annotations

import contextlib
import os
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from modelrel import archive
from modelrel.delivered import Image
from modelrel.errors import Invalid, Refused, Unavailable
from modelrel.targets import inside
from modelrel.targets.delivery import Note, Response, Running, Send
from modelrel.targets.process import Program, Started, ended, free_port, http_sender

_LABEL: Final = "io.modelrel.smoke"
_CONNECT_S: Final = 30
_BUILD_S: Final = 1800
_HINT: Final = "Start one, or name it in DOCKER_HOST; without one, package stops after the build context."

STRICT: Final[dict[str, Any]] = {
    "read_only": True,
    "tmpfs": {"/tmp": "size=64m"},  # noqa: S108  # a path inside the container
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "user": "12345:0",
}
"""How strict platforms run an image: no writable root, no capabilities, a user they choose (OpenShift: group 0)."""


class Engine:
    """A connection to a container engine; use it as a context manager."""

    def __init__(self, client: Any, host: str) -> None:
        """Keep a connected client, and the host name under which published ports are reached."""
        self._client = client
        self._host = host

    @classmethod
    def connect(cls) -> Self:
        """Connect to the engine that DOCKER_HOST, the current Docker context, or the default socket names.

        Raises `Unavailable` where none answers.
        """
        import docker
        from requests.exceptions import RequestException

        try:
            client = docker.from_env(timeout=_BUILD_S, environment=_settings())
            client.api.timeout = _CONNECT_S
            client.ping()
            client.api.timeout = _BUILD_S
        except (docker.errors.DockerException, RequestException, ValueError) as error:
            raise Unavailable("no container engine answers here", _HINT) from error
        # http+docker://localhost stands for a Unix socket; anything else names the machine.
        return cls(client, urlsplit(client.api.base_url).hostname or "localhost")

    def __enter__(self) -> Self:
        """Return the engine."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self._client.close()

    @property
    def client(self) -> Any:
        """The Docker SDK's client."""
        return self._client

    def holds(self, image: Image) -> bool:
        """Return whether a built image still is in the engine."""
        import docker

        try:
            self._client.images.get(image.id)
        except docker.errors.ImageNotFound:
            return False
        return True

    def have_base(self, base: str, platform: str, python: str, note: Note) -> str:
        """Make sure that the base image is in the engine, pulling it where it is not; return its digest.

        Raises `Unavailable` where it cannot be had, `Invalid` where it states another Python than `python`.
        """
        found = self._find(base, platform)
        if found is None:
            note(f"pulling {base}")
            self._pull(base, platform, note)
            found = self._find(base, platform)
        if found is None:
            raise Unavailable(
                f"the base image {base} is not made for {platform}", "Choose one with --base-image, or --platform."
            )
        # The official images say which Python they hold; wheels for another one would fail at the first import.
        stated = dict(line.partition("=")[::2] for line in found.attrs["Config"].get("Env") or ())
        version = stated.get("PYTHON_VERSION", python)
        if version.split(".")[:2] != python.split(".")[:2]:
            raise Invalid(
                f"the base image {base} holds Python {version}, the wheels are for {python}",
                f"Package with --python {'.'.join(version.split('.')[:2])}, or with another --base-image.",
            )
        return str(found.id)

    def _find(self, name: str, platform: str) -> Any:
        import docker

        try:
            image = self._client.images.get(name)
        except docker.errors.ImageNotFound:
            return None
        return image if image.attrs.get("Architecture") == platform.partition("/")[2] else None

    def _pull(self, base: str, platform: str, note: Note) -> None:
        import docker
        from requests.exceptions import RequestException

        try:
            for event in self._client.api.pull(base, platform=platform, stream=True, decode=True):
                _check(event)
                if event.get("status", "").startswith(("Digest", "Status")):
                    note(event["status"])
        except (docker.errors.APIError, RequestException) as error:
            raise Unavailable(
                f"the base image {base} is not in the engine and cannot be pulled: {_reason(error)}",
                "Name one that the engine has, or can pull, with --base-image.",
            ) from error

    def build(self, context: Path, tags: tuple[str, ...], base: str, platform: str, note: Note) -> Image:
        """Build a context and tag the image.

        Raises `Refused` with the step that failed. Times, owners and modes in the image do not depend on this
        machine; only `Created` is the engine's.
        """
        import docker
        from requests.exceptions import RequestException

        step, identity = "", ""
        with tempfile.TemporaryFile() as packed:
            _pack(context, packed)
            try:
                for event in self._client.api.build(
                    fileobj=packed, custom_context=True, tag=tags[0], platform=platform,
                    network_mode="none", rm=True, forcerm=True, decode=True,
                ):  # fmt: skip
                    line = str(event.get("stream", "")).strip()
                    if line.startswith("Step "):
                        step = line
                        note(line if len(line) < 100 else f"{line[:97]}...")
                    identity = event.get("aux", {}).get("ID", identity)
                    _check(event)
                image = self._client.images.get(identity or tags[0])
                for tag in tags[1:]:
                    image.tag(tag)
                below = self._client.images.get(base).attrs["Size"]
            except (docker.errors.APIError, RequestException) as error:
                at = step.partition(" : ")[2] or "the first step"
                raise Refused(
                    f"the image build failed at {at}: {_reason(error)}",
                    f"Build it by hand to see more: docker build {context}",
                ) from error
        return Image(tags=tags, id=image.id, size=image.attrs["Size"], added=image.attrs["Size"] - below, base=base)

    @contextmanager
    def run(self, image: Image, note: Note, settings: Mapping[str, Any] | None = None) -> Iterator[Running]:
        """Run an image under `STRICT`, and remove the container when the block ends, however it ends.

        `settings` are those of the SDK that take the place of ours.
        """
        if not self.holds(image):
            raise Unavailable(
                f"the image {image.tags[0]} is not in the engine any more", "Build it again: modelrel package --force."
            )
        asked = {**STRICT, **(settings or {})}
        root = "read-only" if asked["read_only"] else "writable"
        note(f"starting {image.tags[0]} ({root} root, user {asked['user']}, no capabilities)")
        with self._containers() as begin:
            begun = time.perf_counter()
            container, addresses = self._serve(image, partial(begin, **(settings or {})))
            with http_sender(addresses) as send:
                yield Running(
                    runner="image",
                    send=_guarded(send, container),
                    started=begun,
                    memory_bytes=lambda: inside.memory(container.stats(stream=False)),
                    log=lambda: inside.log(container),
                )

    @contextmanager
    def run_program(self, image: str, program: Program, folders: Mapping[str, Path]) -> Iterator[Started]:
        """Run a program in an image under `STRICT`, on this machine's network; remove the container in the end.

        `folders` are those of this machine that it sees, read-only, by where it sees them; it runs in the first.
        Raises `Unavailable` where the engine is on another machine, or does not see the folders.
        """
        from docker.types import Mount

        if not self._here:
            raise Unavailable("the container engine is on another machine", "Use one on this machine.")
        place = PurePosixPath(next(iter(folders)))
        settings: dict[str, Any] = {
            "entrypoint": program.words[:1],
            "command": program.words[1:],
            "environment": program.environment(place),
            "working_dir": str(place),
            "network_mode": "host",
            # a folder that the engine does not see is an error for a mount; a volume would be made, empty
            "mounts": [Mount(at, str(folder), type="bind", read_only=True) for at, folder in folders.items()],
            # SELinux would forbid our folders to the container
            "security_opt": [*STRICT["security_opt"], "label=disable"],
        }
        with self._begun(image, settings) as inside:
            yield inside

    @contextmanager
    def run_function(self, image: Image, variables: Mapping[str, str]) -> Iterator[Started]:
        """Run an image's own program under `STRICT`, on this machine's network; remove the container in the end.

        Raises `Unavailable` where the engine is on another machine.
        """
        if not self._here:
            raise Unavailable("the container engine is on another machine", "Use one on this machine.")
        with self._begun(image.id, {"environment": dict(variables), "network_mode": "host"}) as inside:
            yield inside

    @contextmanager
    def _begun(self, image: str, settings: Mapping[str, Any]) -> Iterator[Started]:
        with self._containers() as begin:
            begun = time.perf_counter()
            container = begin(image, **settings)
            yield Started(
                runner="engine",
                at=begun,
                exit_code=lambda: inside.exit_code(container),
                memory_bytes=lambda: inside.memory(container.stats(stream=False)),
                log=lambda: inside.log(container),
            )

    @contextmanager
    def _containers(self) -> Iterator[Callable[..., Any]]:
        """Give a function that starts a container under `STRICT`; remove what it started when the block ends."""
        import docker
        from requests.exceptions import RequestException

        containers = []

        def begin(image: str, **settings: Any) -> Any:
            labels = {_LABEL: f"{os.uname().nodename}:{os.getpid()}"}
            # the user's proxies are not the platform's, and would stand between a function and our Runtime API
            ours = {**STRICT, "labels": labels, "use_config_proxy": False}
            containers.append(self._client.containers.create(image, **{**ours, **settings}))
            containers[-1].start()
            return containers[-1]

        try:
            self._clear_away()
            yield begin
        except (docker.errors.APIError, RequestException) as error:
            hint = "See the engine's own log."
            raise Unavailable(f"the engine cannot run the image: {_reason(error)}", hint) from error
        finally:
            for container in containers:
                with contextlib.suppress(docker.errors.APIError):
                    container.remove(force=True, v=True)

    def _clear_away(self) -> None:
        """Remove the containers of smoke tests on this machine that were killed."""
        for container in self._client.containers.list(all=True, filters={"label": _LABEL}):
            host, _, pid = container.labels[_LABEL].rpartition(":")
            if host == os.uname().nodename and not _alive(pid):
                container.remove(force=True, v=True)

    def _serve(self, image: Image, begin: partial[Any]) -> tuple[Any, tuple[tuple[str, int], ...]]:
        """Start with a published port; where the engine has no network to publish from, on the host's network."""
        import docker

        address = "127.0.0.1" if self._here else ""
        with contextlib.suppress(docker.errors.APIError):
            container = begin(image.id, ports={f"{inside.PORT}/tcp": (address, None)})
            addresses = inside.published(container, self._host)
            if addresses:
                return container, addresses
            container.remove(force=True, v=True)
        port = free_port()
        environment = {**begin.keywords.get("environment", {}), "PORT": str(port)}
        return begin(image.id, network_mode="host", environment=environment), ((self._host, port),)

    @property
    def _here(self) -> bool:
        return self._host in ("localhost", "127.0.0.1")


def _settings() -> dict[str, str]:
    """Return the environment, with DOCKER_HOST from the current Docker context where it is not set."""
    from docker.context import ContextAPI

    settings = dict(os.environ)
    if not settings.get("DOCKER_HOST"):
        with contextlib.suppress(Exception):  # a broken Docker configuration is as good as none
            context = ContextAPI.get_current_context()
            if context is not None and context.name != "default" and context.Host:
                settings["DOCKER_HOST"] = context.Host
    return settings


def _guarded(send: Send, container: Any) -> Send:
    """Return `send`, with a failed connection to a container that has ended turned into an error."""

    def guard(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Response:
        try:
            return send(method, path, headers, body)
        except ConnectionError:
            code = inside.exit_code(container)
            if code is None:
                raise
            raise ended(f"exit code {code}", inside.log(container)) from None

    return guard


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        return True
    except (ProcessLookupError, ValueError):
        return False
    return True


def _check(event: Mapping[str, Any]) -> None:
    """Raise what the engine reports in the middle of a stream as the SDK raises its other errors."""
    import docker

    if "error" in event:
        raise docker.errors.APIError(event["error"])


def _pack(context: Path, stream: Any) -> None:
    """Write a context as a tar that is the same on every machine: sorted, root's, with plain modes and no times."""
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in archive.walk(context):
            entry = tarfile.TarInfo(path.relative_to(context).as_posix())
            entry.size = path.stat().st_size
            entry.mode = 0o644
            with path.open("rb") as content:
                tar.addfile(entry, content)
    stream.seek(0)


def _reason(error: Exception) -> str:
    text = getattr(error, "explanation", None) or str(error)
    return " ".join(str(text).split())[:300].rstrip(".")

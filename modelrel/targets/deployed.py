"""What all deploy files share: the image that they name, the names they give, and how that image is started here.

The image is started as the written files say (variables, arguments, user, root folder, memory), not as we meant them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import yaml

from modelrel import archive, records
from modelrel.delivered import Check, Image, Package
from modelrel.errors import Invalid, Refused, Unavailable
from modelrel.oci import names
from modelrel.targets import container, docker, oci, payload
from modelrel.targets.delivery import Draft, Note, Response, Running, Send
from modelrel.targets.engine import Engine
from modelrel.targets.questions import Golden, Request
from modelrel.values import PackageOptions, ParityReport

_KINDS: Final = {"oci": oci, "docker": docker}
IMAGES: Final = tuple(_KINDS)
"""The targets whose image can be deployed, the preferred one first."""

FORMATS: Final = docker.FORMATS
OPTIONS: Final = frozenset({"image"})
TOOLS: Final = ("modelrel", "jinja2", "pyyaml")
RECORD: Final = "image.json"
ANY: Final = "any"

PORT: Final = 8080
USER: Final = 65532
LIVE: Final = "/v2/health/live"
READY: Final = "/v2/health/ready"
"""What our images do: the port they listen on, the user they run as, the routes that tell how they are."""

PREFIX: Final = "modelrel.io/"
"""Our prefix for labels and annotations of clusters."""


class Text(str):
    """A text that a template writes with quotes: `{{ text.quoted }}`."""

    __slots__ = ()

    @property
    def quoted(self) -> str:
        """The text in double quotes: one line that YAML and JSON read alike, whatever is in it."""
        # JSON's pair of escapes for a character beyond 16 bits would be two characters to YAML
        plain = str(self).encode("utf-8", "replace").decode()
        return '"' + "".join(char if ord(char) > 0xFFFF else json.dumps(char)[1:-1] for char in plain) + '"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A label, an annotation, a tag."""

    key: Text
    value: Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a platform waits for a container: it asks every `period` seconds, at most `most_failures` times."""

    startup_seconds: int
    period: int
    most_failures: int = 3600

    @property
    def startup_failures(self) -> int:
        """How often the probe may fail."""
        return min(-(-self.startup_seconds // self.period), self.most_failures)


def facts(content: Mapping[str, str]) -> tuple[Fact, ...]:
    """Return what is known, as templates take it."""
    return tuple(Fact(key=Text(key), value=Text(value)) for key, value in content.items() if value)


def name(text: str, limit: int) -> str:
    """Return `text` as clusters and clouds take a name: lower-case letters, digits, single dashes, a letter first.

    Where characters are lost on the way, eight digits of its hash make up for them. Case, and which sign is between two
    words, do not tell two names apart.

    >>> name("Churn_model", 40), name("7 días", 40)
    ('churn-model', 'm-7-d-as-f21b7e01')
    """
    slug = payload.slug(text)
    short = slug if slug[0].isalpha() else f"m-{slug}"
    if short == slug and len(short) <= limit and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._-]*", text):
        return short
    return f"{short[: limit - 9].strip('-')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def label(text: str) -> str:
    """Return `text` as the value of a label: at most 63 letters, digits, `-`, `_` and `.`, the ends no signs."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)[:63].strip("-_.")


def described(parity: ParityReport) -> Mapping[str, str]:
    """Return what the files tell of the model, by our names."""
    source = parity.source
    return {
        "model": source.label,
        "flavor": source.flavor,
        "format": parity.converted.format,
        "run-id": source.run_id,
        "source-sha256": source.digest,
        "model-sha256": parity.converted.file.sha256,
        "parity-rows": str(parity.rows),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """The image that deploy files name, what is recorded of it, and what is left to do with it."""

    reference: str
    record: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @property
    def registered(self) -> bool:
        """Whether the name says where the image is: `churn:7` does not."""
        return "/" in self.reference

    @property
    def host(self) -> str:
        """The registry that a platform asks for it."""
        return names.parse(self.reference).host


def named(parity: ParityReport, options: PackageOptions, image: Package | None) -> Named:
    """Return the image to deploy: that of `--image`, else the packaged one under its last name with a registry.

    That is the one it is pushed by, where it was packaged with `--push`; the digest of its manifest stands for the tag
    where it is known. Raises `Invalid` where there is no image.
    """
    if options.image:
        names.parse(options.image)
        return Named(reference=options.image, record={"reference": options.image})
    if image is None:
        raise Invalid(
            "there is no image to deploy",
            f"Package one too (--target {IMAGES[0]}), or name yours with --image REGISTRY/NAME:TAG.",
        )
    built = image.image
    tags = built.tags if built else container.tags(parity, options)
    tag = next((tag for tag in reversed(tags) if "/" in tag), tags[0])
    found = names.parse(tag)
    digest = built.manifest if built else ""
    reference = f"{tag.partition('@')[0].removesuffix(f':{found.tag}')}@{digest}" if digest else tag
    record = {"reference": reference, "target": image.target, "package": image.digest, "platform": image.platform}
    return Named(reference=reference, record=record, notes=tuple(_left(image, tag, digest)))


def _left(image: Package, tag: str, digest: str) -> Iterator[str]:
    """Yield what is to be done with an image before a platform can pull it."""
    if image.image is None:
        yield f"the image is not built yet; build it with: docker build -t {tag} {image.folder / image.artifact}"
    if "/" not in tag:
        yield f"no registry is named in {tag}: package the image with --push REGISTRY/NAME:TAG, which puts it there too"
    elif not digest:
        yield f"the platform pulls {tag}, whose digest is known once it is pushed"
    if image.platform == "linux/arm64":
        yield "the image is for linux/arm64: it needs machines with such processors"


def write(into: Path, record: Mapping[str, str]) -> None:
    """Record beside the files which image they name; made sure before that what was rendered can be read.

    Raises `Invalid` for a file that is not valid YAML or JSON, as a user's own template may leave one.
    """
    for path in archive.walk(into):
        if path.suffix in (".yaml", ".yml", ".json"):
            documents(path)
    archive.write(into / RECORD, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())


def documents(path: Path) -> list[Any]:
    """Return the documents in a YAML or JSON file; raises `Invalid` where it is neither."""
    text = path.read_text(encoding="utf-8")
    try:
        return [json.loads(text)] if path.suffix == ".json" else [one for one in yaml.safe_load_all(text) if one]
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise Invalid(
            f"{path.name} is not valid {path.suffix[1:].upper()}: {reason}", "Correct the template that it is from."
        ) from error


def dig(content: Any, place: str, file: str) -> Any:
    """Return what is at `place` (names and indices, with dots); raises `Refused` where nothing is."""
    for key in place.split("."):
        try:
            content = content[int(key) if isinstance(content, list) else key]
        except (KeyError, IndexError, TypeError, ValueError):
            raise Refused(f"{file} has no {place}", "Its template leaves out what the platform needs.") from None
    return content


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """What the written files tell a platform to run, and the paths that it asks, by what they are for.

    `user` "" leaves the user to the platform; `memory_bytes` 0 sets no limit.
    """

    image: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    read_only: bool = True
    writable: tuple[str, ...] = ("/tmp",)  # noqa: S108  # a path inside the container
    memory_bytes: int = 0
    probes: Mapping[str, str] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """The same for a container engine."""
        found: dict[str, Any] = {
            "environment": dict(self.env),
            "read_only": self.read_only,
            "tmpfs": dict.fromkeys(self.writable, "size=64m"),
        }
        found |= {"command": list(self.args)} if self.args else {}
        found |= {"user": self.user} if self.user else {}
        return found | ({"mem_limit": self.memory_bytes} if self.memory_bytes else {})


Asked = Callable[[Send, Golden], Iterator[Check]]
"""Asks a running server what only its platform would; raises `Refused`."""


@contextmanager
def started(package: Package, told: Container, asked: Asked, note: Note) -> Iterator[Running]:
    """Start the image that the files name as they say; where it is only a build context, that as a process.

    Raises `Refused` where the files name another image than was packaged, `Unavailable` where it is not here.
    """
    record = json.loads((_folder(package) / RECORD).read_bytes())
    if told.image != record["reference"]:
        raise Refused(
            f"the files name the image {told.image}, packaged was {record['reference']}",
            "Name it with --image, so that it is the one that is tested.",
        )
    with _running(package, record, told, note) as running:

        def examined() -> Iterator[Check]:
            yield from running.examined()
            yield from _probed(running.send, told.probes)
            yield from asked(running.send, Golden.of(package.parity))

        yield replace(running, examined=examined)


@contextmanager
def _running(package: Package, record: Mapping[str, str], told: Container, note: Note) -> Iterator[Running]:
    if "target" in record:
        with _KINDS[record["target"]].launch(_packaged(package, record), note, told.settings) as running:
            yield running
        return
    with Engine.connect() as engine, engine.run(_pulled(engine, record["reference"]), note, told.settings) as running:
        yield running


def _pulled(engine: Engine, name: str) -> Image:
    """Return the image of a name that the user gave, pulling it where it is not in the engine."""
    import docker as sdk
    from requests.exceptions import RequestException

    images = engine.client.images
    try:
        try:
            found = images.get(name)
        except sdk.errors.ImageNotFound:
            engine.client.api.pull(name)
            found = images.get(name)
    except (sdk.errors.APIError, RequestException) as error:
        reason = " ".join(str(getattr(error, "explanation", None) or error).split())[:300].rstrip(".")
        raise Unavailable(
            f"the image {name} is not in the engine and cannot be pulled: {reason}",
            "Log in to its registry, or pull it yourself: docker pull.",
        ) from error
    return Image(tags=(name,), id=found.id, size=found.attrs["Size"], added=0, base="")


def _packaged(package: Package, record: Mapping[str, str]) -> Package:
    """Return the packaged image that the files are about."""
    parity = package.parity
    path = package.folder / parity.converted.format / record["target"] / "Package.json"
    found = records.read(Package, path, parity=parity)
    if found is None or found.digest != record["package"]:
        raise Refused(
            f"the files are about another image than the target {record['target']} holds now",
            f"Package both again: modelrel release --target {record['target']} --target {package.target}.",
        )
    return found


def _folder(package: Package) -> Path:
    return archive.within(package.folder, package.artifact).parent


def file(package: Package, path: str) -> Path:
    """Return where a file of a delivery is."""
    return archive.within(_folder(package), path)


def _probed(send: Send, probes: Mapping[str, str]) -> Iterator[Check]:
    for kind, path in probes.items():
        status = ask(send, Request("GET", path, {}, b"")).status
        if status != 200:
            raise Refused(
                f"the {kind} probe, GET {path}, is answered with {status}, not 200", "No traffic would reach the model."
            )
        yield Check(name=f"{kind} probe, GET {path}", detail="200")


def ask(send: Send, request: Request) -> Response:
    """Return the answer to a request; raises `Refused` where the server does not give one."""
    try:
        return send(*request)
    except ConnectionError as error:
        raise Refused(f"the packaged server stopped answering {request.path}: {error}") from error


def invoked(send: Send, golden: Golden, request: Request) -> Check:
    """Return what came of the golden rows, sent by a platform's own route; raises `Refused` for a wrong answer."""
    error = golden.judge_invocation(ask(send, request), request.path)
    return Check(name=f"golden rows by {request.path}", detail=f"{golden.rows} rows, largest error {error:.3g}")


def memory(parity: ParityReport) -> str:
    """Return the memory that a pod gets unless told otherwise: for Python, the runtime, and the model five times.

    A loaded model takes two to four times its file: its bytes while it is read, its weights, what it computes with. One
    that is served as it is has a process of its own beside the server, with all its libraries.
    """
    libraries = 1024 if parity.converted.format == "python" else 384
    wanted = libraries * 2**20 + 5 * parity.converted.file.size
    return f"{max(512, -(-wanted // 2**27) * 128)}Mi"


def draft(into: Path, artifact: str, notes: tuple[str, ...]) -> Draft:
    """Return the draft of a folder of deploy files."""
    size = sum(path.stat().st_size for path in archive.walk(into))
    return Draft(artifact=artifact, python=ANY, platform=ANY, size=size, parts={"files": size}, notes=notes)

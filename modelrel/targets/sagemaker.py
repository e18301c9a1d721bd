"""Amazon SageMaker: the requests that make a model and an endpoint of the packaged image, and the commands for them.

Sources: SageMaker API reference (CreateModel, CreateEndpointConfig, CreateEndpoint); developer guide, "Use your own
inference code with hosting services".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import replace as changed
from typing import Any, Final

from modelrel import render
from modelrel.delivered import Check, Package
from modelrel.errors import Refused
from modelrel.oci import media
from modelrel.targets import deployed, loaded, payload
from modelrel.targets.delivery import Draft, Note, Places, Running, Send, always
from modelrel.targets.deployed import Container, Fact, Named, Text
from modelrel.targets.questions import Golden
from modelrel.targets.wanted import Wanted
from modelrel.values import PackageOptions, ParityReport, digest

TOOLS: Final = deployed.TOOLS
FORMATS: Final = deployed.FORMATS
OPTIONS: Final = deployed.OPTIONS
IMAGES: Final = deployed.IMAGES
VALUES: Final[Mapping[str, str]] = {
    "name": "name of the endpoint (the model's)",
    "role": "ARN of the role that SageMaker takes on ($ROLE_ARN when it is deployed)",
    "region": "AWS region (that of the image's registry, else of the command line)",
    "instance_type": "kind of the machines (ml.m5.large)",
    "instances": "how many of them (1)",
    "serverless": "MB of memory of a serverless endpoint, instead of machines (none)",
    "concurrency": "the most requests at once of a serverless endpoint (10)",
    "startup_seconds": "until the container must answer (300)",
    "canary": "percent of the requests for this version; the rest go to stable (0: all)",
    "stable": "SageMaker model that has the rest of a canary's requests",
}
stands = always  # the files are all there is; the image is another target's

_MODEL: Final = "create-model.json"
_CONFIG: Final = "create-endpoint-config.json"
_ECR: Final = re.compile(r"[0-9]{12}\.dkr\.ecr(?:-fips)?\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?")
_NAME: Final = r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}"
_ARN: Final = r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[a-zA-Z_0-9+=,.@/-]{1,512}"
_SERVERLESS: Final = (1024, 2048, 3072, 4096, 5120, 6144)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSpec:
    """What the templates are about; they know it as `endpoint`.

    `model` and `config` are names that nothing else has: they end with a digest of what they stand for.
    """

    name: Text
    model: Text
    config: Text
    image: Text
    role: Text
    region: Text
    instance_type: Text
    instances: int
    serverless: int
    concurrency: int
    startup_seconds: int
    canary: int
    stable: Text
    tags: tuple[Fact, ...]

    @property
    def rest(self) -> int:
        """The weight of the model that is there."""
        return 100 - self.canary

    @property
    def weight(self) -> int:
        """The weight of this model."""
        return self.canary or 100

    @property
    def isolated(self) -> str:
        """Whether the container has no network, as JSON: it needs none; serverless endpoints cannot be without."""
        return "false" if self.serverless else "true"


def options(given: PackageOptions) -> PackageOptions:
    """Return the options; raises `Invalid` for a setting that is none."""
    _settings(Wanted("sagemaker", given.values))
    return changed(given, python=deployed.ANY, platform=deployed.ANY)


def _settings(wanted: Wanted) -> dict[str, Any]:
    """Return the settings that say by themselves what goes into the files."""
    canary = wanted.percent("canary")
    stable = wanted.text("stable", "", _NAME, "churn-6-0a1b2c3d")
    serverless = wanted.whole("serverless", 0, 0, _SERVERLESS[-1])
    if serverless and serverless not in _SERVERLESS:
        raise wanted.refuse("serverless", "not a size that SageMaker has", f"Take one of {_SERVERLESS}.")
    if canary and not stable:
        raise wanted.refuse("canary", "without the model that has the rest", "Name it: --set stable=MODEL.")
    if serverless and canary:
        raise wanted.refuse("canary", "which serverless endpoints cannot do", "Leave out canary, or serverless.")
    wanted.text("name", "", _NAME, "churn")
    return {
        "role": Text(wanted.text("role", "", _ARN, "arn:aws:iam::123456789012:role/sagemaker")),
        "region": wanted.text("region", "", r"[a-z]{2}(-[a-z]+)+-[0-9]", "eu-west-1"),
        "instance_type": Text(wanted.text("instance_type", "ml.m5.large", r"ml\.[a-z0-9-]+\.[a-z0-9]+", "ml.m5.large")),
        "instances": wanted.whole("instances", 1, 1, 1000),
        "serverless": serverless,
        "concurrency": wanted.whole("concurrency", 10, 1, 200),
        "startup_seconds": wanted.whole("startup_seconds", 300, 60, 3600),
        "canary": canary,
        "stable": Text(stable),
    }


def spec(parity: ParityReport, options: PackageOptions, image: Named) -> EndpointSpec:
    """Return what the templates are about."""
    wanted = Wanted("sagemaker", options.values)
    settings = _settings(wanted)
    registry = _ECR.fullmatch(image.host)
    if registry and settings["region"] not in ("", registry[1]):
        raise wanted.refuse("region", f"the image is in {registry[1]}", "SageMaker pulls from its own region.")
    settings["region"] = Text(settings["region"] or (registry[1] if registry else ""))
    short = deployed.name(parity.source.name, 32)
    version = re.sub(r"[^A-Za-z0-9]+", "-", payload.version_slug(parity)).strip("-")[:16].strip("-")
    tags = {deployed.PREFIX + key: value for key, value in deployed.described(parity).items()}
    return EndpointSpec(
        name=Text(wanted.values.get("name") or short),
        model=Text(f"{short}-{version}-{digest([image.reference, settings['role']])[:8]}"),
        config=Text(f"{short}-{version}-{digest([image.reference, settings])[:8]}"),
        image=Text(image.reference),
        tags=deployed.facts({key: re.sub(r"[^\w .:/=+@-]", "-", value)[:256] for key, value in tags.items()}),
        **settings,
    )


def variables(parity: ParityReport, options: PackageOptions, licenses: str = "") -> Mapping[str, object]:
    """Return what the templates know: `endpoint` and `parity`."""
    del licenses
    return {"endpoint": spec(parity, options, deployed.named(parity, options, None)), "parity": parity}


def assemble(parity: ParityReport, options: PackageOptions, places: Places, note: Note) -> Draft:
    """Write the requests and the commands, and which image they name.

    Raises `Refused` for an image that is for several platforms: SageMaker takes no index of images.
    """
    del note
    kind = _kind(places.image)
    if kind in media.INDEXES:
        raise Refused(
            "the image is an index of several, which SageMaker does not take",
            "Package it for one platform: --platform linux/amd64 --manifest docker.",
        )
    image = deployed.named(parity, options, places.image)
    found = spec(parity, options, image)
    render.render("sagemaker", places.into, {"endpoint": found, "parity": parity}, options.templates)
    deployed.write(places.into, image.record)
    notes = [*image.notes]
    if kind == media.OCI_MANIFEST:
        notes.append(
            "SageMaker documents Docker manifests alone, and the image has OCI's: package with --manifest docker"
        )
    if image.registered and not _ECR.fullmatch(image.host):
        notes.append(f"SageMaker pulls from Amazon ECR only, and {image.reference} is elsewhere: push it there")
    notes.append(f"deploy it with: {'' if found.role else 'ROLE_ARN=arn:... '}sh {places.previous / 'deploy.sh'}")
    return deployed.draft(places.into, _MODEL, tuple(notes))


def _kind(image: Package | None) -> str:
    """Return the media type of a packaged image that modelrel wrote itself, "" of any other."""
    if image is None or image.image is None or not image.image.at:
        return ""
    with loaded.opened(image) as layout:
        return layout.index.media_type


@contextmanager
def launch(package: Package, note: Note) -> Iterator[Running]:
    """Start the image as SageMaker starts the container of the written CreateModel: with the word `serve`, as root."""
    document = deployed.documents(deployed.file(package, _MODEL))
    primary = deployed.dig(document, "0.PrimaryContainer", _MODEL)
    container = Container(
        image=str(deployed.dig(primary, "Image", _MODEL)),
        args=("serve",),
        env={str(key): str(value) for key, value in (primary.get("Environment") or {}).items()},
        user="0:0",
        read_only=False,
        probes={"health": "/ping"},
    )
    with deployed.started(package, container, _asked, note) as running:
        yield running


def _asked(send: Send, golden: Golden) -> Iterator[Check]:
    """Ask as the platform does, with the headers that it adds."""
    request = golden.invocation()
    headers = {**request.headers, "X-Amzn-SageMaker-Custom-Attributes": "trace=1", "Accept": "application/json"}
    yield deployed.invoked(send, golden, request._replace(headers=headers))

"""Vertex AI: the requests that upload the packaged image as a model and deploy it, and the commands for them.

Sources: Vertex AI API v1 (UploadModelRequest, CreateEndpointRequest, DeployModelRequest); "Custom container
requirements for prediction".
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
from modelrel.targets import deployed, payload
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
    "name": "ID of the endpoint (the model's name)",
    "project": "Google Cloud project ($PROJECT when it is deployed)",
    "region": "location (us-central1)",
    "machine_type": "kind of the machines (n1-standard-2)",
    "replicas": "the least machines (1)",
    "max_replicas": "the most machines (as many as the least)",
    "startup_seconds": "until the model must be ready (300)",
    "service_account": "e-mail address of the service account (the project's default)",
    "canary": "percent of the requests for this version; the rest go to stable (0: all)",
    "stable": "ID of the deployed model that has the rest of a canary's requests",
}
stands = always  # the files are all there is; the image is another target's

_UPLOAD: Final = "upload.json"
_PREDICT: Final = "/predict"
_PERIOD_S: Final = 5
_REGISTRY: Final = re.compile(r"([a-z0-9-]+-docker\.pkg\.dev|([a-z]+\.)?gcr\.io)")
_PLACEHOLDER: Final = "PROJECT_ID"
_GIVEN: Final = {"AIP_MODE": "PREDICTION", "AIP_MODE_VERSION": "1.0.0", "AIP_FRAMEWORK": "CUSTOM_CONTAINER"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec(deployed.Patience):
    """What the templates are about; they know it as `model`.

    `id` is a name that nothing else has: it ends with a digest of what it stands for.
    """

    id: Text
    title: Text
    description: Text
    image: Text
    labels: tuple[Fact, ...]
    port: int
    health: Text
    predict: Text
    endpoint: Text
    project: Text
    region: Text
    machine_type: Text
    replicas: int
    max_replicas: int
    period: int = _PERIOD_S
    service_account: Text
    canary: int
    stable: Text

    @property
    def resource(self) -> Text:
        """The whole name of the model."""
        return Text(f"projects/{self.project or _PLACEHOLDER}/locations/{self.region}/models/{self.id}")

    @property
    def rest(self) -> int:
        """The share of the model that is there."""
        return 100 - self.canary

    @property
    def share(self) -> int:
        """The share of this model."""
        return self.canary or 100


def options(given: PackageOptions) -> PackageOptions:
    """Return the options; raises `Invalid` for a setting that is none."""
    _settings(Wanted("vertex", given.values))
    return changed(given, python=deployed.ANY, platform=deployed.ANY)


def _settings(wanted: Wanted) -> dict[str, Any]:
    """Return the settings that say by themselves what goes into the files."""
    canary = wanted.percent("canary")
    stable = wanted.text("stable", "", r"[0-9]{1,20}", "4811238765432109876")
    if canary and not stable:
        raise wanted.refuse("canary", "without the deployed model that has the rest", "Name it: --set stable=ID.")
    replicas = wanted.whole("replicas", 1, 1, 1000)
    most = wanted.whole("max_replicas", replicas, 1, 1000)
    if most < replicas:
        raise wanted.refuse("max_replicas", f"less than the {replicas} replicas", "Give at least as many.")
    account = r"[a-z0-9-]{1,64}@[a-z0-9.-]{1,200}"
    wanted.text("name", "", r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", "churn")
    found = {
        "project": wanted.text("project", "", r"([a-z0-9.-]{1,60}:)?[a-z][a-z0-9-]{4,28}[a-z0-9]", "churn-prod"),
        "region": wanted.text("region", "us-central1", r"[a-z]+(-[a-z]+)+[0-9]{1,2}", "europe-west4"),
        "machine_type": wanted.text("machine_type", "n1-standard-2", r"[a-z][a-z0-9]*(-[a-z0-9]+)+", "n1-standard-2"),
        "service_account": wanted.text("service_account", "", account, "serving@churn-prod.iam.gserviceaccount.com"),
        "stable": stable,
    }
    startup = wanted.whole("startup_seconds", 300, 1, 3600)
    numbers = {"replicas": replicas, "max_replicas": most, "startup_seconds": startup, "canary": canary}
    return {key: Text(value) for key, value in found.items()} | numbers


def spec(parity: ParityReport, options: PackageOptions, image: Named) -> ModelSpec:
    """Return what the templates are about."""
    wanted = Wanted("vertex", options.values)
    source = parity.source
    short = deployed.name(source.name, 40)
    version = payload.slug(payload.version_slug(parity))[:13].strip("-")
    labels = {"model": short, "version": version, "managed-by": "modelrel", "run-id": payload.slug(source.run_id)[:63]}
    told = ", ".join(f"{key} {value}" for key, value in deployed.described(parity).items() if value)
    return ModelSpec(
        id=Text(f"{short}-{version}-{digest([image.reference])[:8]}"),
        title=Text(source.label[:128]),
        description=Text(told),
        image=Text(image.reference),
        labels=deployed.facts(labels),
        port=deployed.PORT,
        health=Text(deployed.READY),
        predict=Text(_PREDICT),
        endpoint=Text(wanted.values.get("name") or short),
        **_settings(wanted),
    )


def variables(parity: ParityReport, options: PackageOptions, licenses: str = "") -> Mapping[str, object]:
    """Return what the templates know: `model` and `parity`."""
    del licenses
    return {"model": spec(parity, options, deployed.named(parity, options, None)), "parity": parity}


def assemble(parity: ParityReport, options: PackageOptions, places: Places, note: Note) -> Draft:
    """Write the requests and the commands, and which image they name."""
    del note
    image = deployed.named(parity, options, places.image)
    found = spec(parity, options, image)
    render.render("vertex", places.into, {"model": found, "parity": parity}, options.templates)
    deployed.write(places.into, image.record)
    notes = [*image.notes]
    if image.registered and not _REGISTRY.fullmatch(image.host):
        notes.append(f"Vertex AI pulls from Artifact Registry, and {image.reference} is elsewhere: push it there")
    notes.append(f"deploy it with: {'' if found.project else 'PROJECT=... '}sh {places.previous / 'deploy.sh'}")
    return deployed.draft(places.into, _UPLOAD, tuple(notes))


@contextmanager
def launch(package: Package, note: Note) -> Iterator[Running]:
    """Start the image as Vertex AI starts that of the written model: with the variables that say port and routes."""
    document = deployed.documents(deployed.file(package, _UPLOAD))
    told = deployed.dig(document, "0.model.containerSpec", _UPLOAD)
    health, predict = (str(deployed.dig(told, key, _UPLOAD)) for key in ("healthRoute", "predictRoute"))
    port = deployed.dig(told, "ports.0.containerPort", _UPLOAD)
    own = {str(one["name"]): str(one["value"]) for one in told.get("env") or ()}
    routes = {"AIP_HTTP_PORT": str(port), "AIP_HEALTH_ROUTE": health, "AIP_PREDICT_ROUTE": predict}
    startup = told.get("startupProbe", {}).get("httpGet", {}).get("path")
    container = Container(
        image=str(deployed.dig(told, "imageUri", _UPLOAD)),
        args=tuple(map(str, told.get("args") or ())),
        env={**own, **_GIVEN, **routes},
        probes={"health": health} | ({"startup": str(startup)} if startup else {}),
    )

    def asked(send: Send, golden: Golden) -> Iterator[Check]:
        yield deployed.invoked(send, golden, golden.instances(predict))

    with deployed.started(package, container, asked, note) as running:
        yield running

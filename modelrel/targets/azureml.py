"""Azure Machine Learning: a managed online endpoint and its deployment of the packaged image, and the commands.

Sources: Azure CLI (ml extension, v2) YAML schemas managedOnlineEndpoint and managedOnlineDeployment; "Use a custom
container to deploy a model to an online endpoint".
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
from modelrel.values import PackageOptions, ParityReport

TOOLS: Final = deployed.TOOLS
FORMATS: Final = deployed.FORMATS
OPTIONS: Final = deployed.OPTIONS
IMAGES: Final = deployed.IMAGES
VALUES: Final[Mapping[str, str]] = {
    "name": "name of the endpoint, alone in its region (the model's)",
    "deployment": "name of the deployment (version-VERSION)",
    "resource_group": "resource group (the command line's default)",
    "workspace": "workspace (the command line's default)",
    "auth": "who may ask: key, aml_token or aad_token (key)",
    "instance_type": "kind of the machines (Standard_DS2_v2)",
    "instances": "how many of them (1)",
    "timeout": "seconds for one request, up to 180 (60)",
    "startup_seconds": "until the model must be ready (300)",
    "canary": "percent of the requests for this version; the rest go to stable (0: all)",
    "stable": "deployment that has the rest of a canary's requests",
}
stands = always  # the files are all there is; the image is another target's

_DEPLOYMENT: Final = "deployment.yaml"
_SCORE: Final = "/invocations"
_PERIOD_S: Final = 10
_MOST_FAILURES: Final = 30
# "Azure Machine Learning limits": endpoints and deployments
_NAME: Final = r"[A-Za-z][A-Za-z0-9-]{1,30}[A-Za-z0-9]"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineSpec(deployed.Patience):
    """What the templates are about; they know it as `online`."""

    endpoint: Text
    deployment: Text
    image: Text
    title: Text
    tags: tuple[Fact, ...]
    port: int
    live: Text
    ready: Text
    score: Text
    auth: str
    resource_group: Text
    workspace: Text
    instance_type: Text
    instances: int
    timeout: int
    period: int = _PERIOD_S
    most_failures: int = _MOST_FAILURES
    canary: int
    stable: Text

    @property
    def timeout_ms(self) -> int:
        """Milliseconds for one request."""
        return self.timeout * 1000

    @property
    def traffic(self) -> str:
        """Who gets how much, as the command line takes it."""
        mine = f"{self.deployment}={self.canary or 100}"
        return f"{self.stable}={100 - self.canary} {mine}" if self.canary else mine


def options(given: PackageOptions) -> PackageOptions:
    """Return the options; raises `Invalid` for a setting that is none."""
    _settings(Wanted("azureml", given.values))
    return changed(given, python=deployed.ANY, platform=deployed.ANY)


def _settings(wanted: Wanted) -> dict[str, Any]:
    """Return the settings that say by themselves what goes into the files."""
    canary = wanted.percent("canary")
    stable = wanted.text("stable", "", _NAME, "version-6")
    if canary and not stable:
        raise wanted.refuse("canary", "without the deployment that has the rest", "Name it: --set stable=DEPLOYMENT.")
    if canary and stable == wanted.values.get("deployment"):
        raise wanted.refuse("stable", "the deployment that is made", "Name the one that is there.")
    for name in ("name", "deployment"):
        wanted.text(name, "", _NAME, "churn-prod")
    return {
        "resource_group": Text(wanted.text("resource_group", "", r"[\w().-]{0,89}[\w()-]", "ml-prod")),
        "workspace": Text(wanted.text("workspace", "", r"[a-zA-Z0-9][\w-]{2,32}", "churn")),
        "auth": wanted.choice("auth", "key", "aml_token", "aad_token"),
        "instance_type": Text(
            wanted.text("instance_type", "Standard_DS2_v2", r"[A-Za-z]+_\w{2,60}", "Standard_DS2_v2")
        ),
        "instances": wanted.whole("instances", 1, 1, 1000),
        "timeout": wanted.whole("timeout", 60, 1, 180),
        "startup_seconds": wanted.whole("startup_seconds", 300, 1, 3600),
        "canary": canary,
        "stable": Text(stable),
    }


def spec(parity: ParityReport, options: PackageOptions, image: Named) -> OnlineSpec:
    """Return what the templates are about."""
    wanted = Wanted("azureml", options.values)
    short = deployed.name(parity.source.name, 32)
    version = deployed.name(f"version-{payload.version_slug(parity)}", 32)
    return OnlineSpec(
        # a name has three letters at least
        endpoint=Text(wanted.values.get("name") or (short if len(short) > 2 else f"{short}-model")),
        deployment=Text(wanted.values.get("deployment") or version),
        image=Text(image.reference),
        title=Text(parity.source.label),
        tags=deployed.facts({f"modelrel.{key}": value[:256] for key, value in deployed.described(parity).items()}),
        port=deployed.PORT,
        live=Text(deployed.LIVE),
        ready=Text(deployed.READY),
        score=Text(_SCORE),
        **_settings(wanted),
    )


def variables(parity: ParityReport, options: PackageOptions, licenses: str = "") -> Mapping[str, object]:
    """Return what the templates know: `online` and `parity`."""
    del licenses
    return {"online": spec(parity, options, deployed.named(parity, options, None)), "parity": parity}


def assemble(parity: ParityReport, options: PackageOptions, places: Places, note: Note) -> Draft:
    """Write endpoint, deployment and commands, and which image they name."""
    del note
    image = deployed.named(parity, options, places.image)
    found = spec(parity, options, image)
    render.render("azureml", places.into, {"online": found, "parity": parity}, options.templates)
    deployed.write(places.into, image.record)
    notes = [*image.notes]
    if image.registered and not re.fullmatch(r"[a-z0-9-]+\.azurecr\.(io|cn|us)", image.host):
        notes.append(
            f"the workspace pulls from its own Azure Container Registry, or what is public; {image.reference} must be"
        )
    notes.append(f"deploy it with: sh {places.previous / 'deploy.sh'}")
    return deployed.draft(places.into, _DEPLOYMENT, tuple(notes))


@contextmanager
def launch(package: Package, note: Note) -> Iterator[Running]:
    """Start the image as the environment of the written deployment says."""
    document = deployed.documents(deployed.file(package, _DEPLOYMENT))
    environment = deployed.dig(document, "0.environment", _DEPLOYMENT)
    routes = {
        kind: str(deployed.dig(environment, f"inference_config.{kind}_route.path", _DEPLOYMENT))
        for kind in ("liveness", "readiness", "scoring")
    }
    own = deployed.dig(document, "0", _DEPLOYMENT).get("environment_variables") or {}
    container = Container(
        image=str(deployed.dig(environment, "image", _DEPLOYMENT)),
        env={str(key): str(value) for key, value in own.items()},
        probes={kind: routes[kind] for kind in ("liveness", "readiness")},
    )

    def asked(send: Send, golden: Golden) -> Iterator[Check]:
        yield deployed.invoked(send, golden, golden.invocation()._replace(path=routes["scoring"]))

    with deployed.started(package, container, asked, note) as running:
        yield running

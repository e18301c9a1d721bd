"""KServe: an InferenceService whose predictor is the packaged image, with a canary's share of the traffic.

Sources: KServe, serving.kserve.io/v1beta1 (custom predictor); Knative Serving, what it lets through of a pod.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import replace as changed
from typing import Any, Final

from modelrel import render
from modelrel.delivered import Check, Package
from modelrel.errors import Refused
from modelrel.targets import deployed, kubernetes, payload
from modelrel.targets.delivery import Draft, Note, Places, Running, Send, always
from modelrel.targets.deployed import Fact, Text
from modelrel.targets.questions import Golden, Request
from modelrel.targets.wanted import Wanted
from modelrel.values import PackageOptions, ParityReport

TOOLS: Final = deployed.TOOLS
FORMATS: Final = deployed.FORMATS
OPTIONS: Final = deployed.OPTIONS
IMAGES: Final = deployed.IMAGES
VALUES: Final[Mapping[str, str]] = {
    "name": "name of the InferenceService (the model's)",
    "namespace": "namespace (that of whoever applies it)",
    "mode": "Standard, or Knative (as the cluster is set up; a canary: Knative)",
    "replicas": "the least pods; 0, none without requests, needs Knative (1)",
    "max_replicas": "the most pods (3, or replicas)",
    "cpu": "processors that a pod asks for (500m)",
    "memory": "memory of a pod (as the model needs)",
    "storage": "room in /tmp, in memory (64Mi)",
    "user": "number of the user, or none: the cluster's choice, as OpenShift wants (65532)",
    "startup_seconds": "until the model must be ready (120)",
    "timeout": "seconds for one request (60)",
    "canary": "percent of the requests for this version; the rest stay with the one before (0: all)",
    "pull_secret": "Secret to pull the image with (none)",
    "service_account": "service account of the pods (default)",
}
stands = always  # the file is all there is; the image is another target's

_SERVICE: Final = "inferenceservice.yaml"
_CONTAINER: Final = "kserve-container"


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceSpec:
    """What the template is about; it knows it as `service`."""

    name: Text
    namespace: Text
    image: Text
    labels: tuple[Fact, ...]
    annotations: tuple[Fact, ...]
    container: str
    port: int
    user: int
    live: Text
    ready: Text
    replicas: int
    max_replicas: int
    cpu: Text
    memory: Text
    storage: Text
    startup_seconds: int
    timeout: int
    canary: int
    pull_secret: Text
    service_account: Text


def options(given: PackageOptions) -> PackageOptions:
    """Return the options; raises `Invalid` for a setting that is none."""
    _settings(Wanted("kserve", given.values))
    return changed(given, python=deployed.ANY, platform=deployed.ANY)


def _settings(wanted: Wanted) -> dict[str, Any]:
    """Return the settings that say by themselves what goes into the file."""
    mode = wanted.choice("mode", "", "Standard", "Knative")
    canary = wanted.percent("canary")
    if canary and mode == "Standard":
        raise wanted.refuse("canary", "which KServe does in the mode Knative only", "Add --set mode=Knative.")
    replicas = wanted.whole("replicas", 1, 0, 1000)
    if not replicas and mode == "Standard":
        raise wanted.refuse("replicas", "which KServe does in the mode Knative only", "Add --set mode=Knative.")
    most = wanted.whole("max_replicas", max(3, replicas), 1, 1000)
    if most < replicas:
        raise wanted.refuse("max_replicas", f"less than the {replicas} replicas", "Give at least as many.")
    user = wanted.values.get("user")
    wanted.text("name", "", r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", "churn")
    wanted.quantity("memory", "1Gi")
    return {
        "namespace": Text(wanted.label("namespace")),
        "mode": mode,
        "canary": canary,
        "replicas": replicas,
        "max_replicas": most,
        "cpu": Text(wanted.quantity("cpu", "500m")),
        "storage": Text(wanted.quantity("storage", "64Mi")),
        "user": 0 if user == "none" else wanted.whole("user", deployed.USER, 1, 2**31 - 1),
        "startup_seconds": wanted.whole("startup_seconds", 120, 1, 3600),
        "timeout": wanted.whole("timeout", 60, 1, 3600),
        "pull_secret": Text(wanted.subdomain("pull_secret", like="registry")),
        "service_account": Text(wanted.subdomain("service_account", like="models")),
    }


def spec(parity: ParityReport, options: PackageOptions, reference: str) -> InferenceSpec:
    """Return what the template is about."""
    wanted = Wanted("kserve", options.values)
    settings = _settings(wanted)
    mode = settings.pop("mode")
    # the name starts that of a host, which ends with "-predictor-" and the namespace
    name = wanted.values.get("name") or deployed.name(parity.source.name, 40)
    version = deployed.label(payload.version_slug(parity))
    labels = {
        "app.kubernetes.io/name": name,
        "app.kubernetes.io/version": version,
        "app.kubernetes.io/managed-by": "modelrel",
    }
    annotations = {deployed.PREFIX + key: value for key, value in deployed.described(parity).items()}
    annotations |= {"serving.kserve.io/deploymentMode": mode} if mode else {}
    return InferenceSpec(
        name=Text(name),
        image=Text(reference),
        labels=deployed.facts(labels),
        annotations=deployed.facts(annotations),
        container=_CONTAINER,
        port=deployed.PORT,
        live=Text(deployed.LIVE),
        ready=Text(deployed.READY),
        memory=Text(wanted.quantity("memory", deployed.memory(parity))),
        **settings,
    )


def variables(parity: ParityReport, options: PackageOptions, licenses: str = "") -> Mapping[str, object]:
    """Return what the template knows: `service` and `parity`."""
    del licenses
    return {"service": spec(parity, options, deployed.named(parity, options, None).reference), "parity": parity}


def assemble(parity: ParityReport, options: PackageOptions, places: Places, note: Note) -> Draft:
    """Write the InferenceService, and which image it names."""
    del note
    image = deployed.named(parity, options, places.image)
    found = spec(parity, options, image.reference)
    render.render("kserve", places.into, {"service": found, "parity": parity}, options.templates)
    deployed.write(places.into, image.record)
    notes = (*image.notes, f"deploy it with: kubectl apply -f {places.previous / _SERVICE}")
    return deployed.draft(places.into, _SERVICE, notes)


@contextmanager
def launch(package: Package, note: Note) -> Iterator[Running]:
    """Start the image as the predictor of the written InferenceService says."""
    document = deployed.documents(deployed.file(package, _SERVICE))
    pod = deployed.dig(document, "0.spec.predictor", _SERVICE)
    container = kubernetes.container_of(pod, _SERVICE)
    if pod["containers"][0].get("name") != _CONTAINER:
        raise Refused(
            f"the container in {_SERVICE} is not called {_CONTAINER}", "KServe takes a predictor by that name alone."
        )
    with deployed.started(package, container, _asked, note) as running:
        yield running


def _asked(send: Send, golden: Golden) -> Iterator[Check]:
    """Ask whether this model is ready, as the client of KServe does before it sends anything."""
    path = f"{golden.path.removesuffix('/infer')}/ready"
    status = deployed.ask(send, Request("GET", path, {}, b"")).status
    if status != 200:
        raise Refused(f"GET {path} is answered with {status}, not 200", "KServe's client would wait for it.")
    yield Check(name=f"GET {path}", detail="200")

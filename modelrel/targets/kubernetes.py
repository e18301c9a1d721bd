"""Kubernetes: Deployment and Service (and what goes with them) for the packaged image, as a kustomization.

Sources: Kubernetes API reference; Pod Security Standards (restricted); Gateway API v1 (HTTPRoute).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import replace as changed
from typing import Any, Final

from modelrel import render
from modelrel.delivered import Check, Package
from modelrel.targets import deployed, payload
from modelrel.targets.delivery import Draft, Note, Places, Running, Send, always
from modelrel.targets.deployed import Container, Fact, Text
from modelrel.targets.questions import Golden
from modelrel.targets.wanted import Wanted, amount
from modelrel.values import PackageOptions, ParityReport

TOOLS: Final = deployed.TOOLS
FORMATS: Final = deployed.FORMATS
OPTIONS: Final = deployed.OPTIONS
IMAGES: Final = deployed.IMAGES
VALUES: Final[Mapping[str, str]] = {
    "name": "name of the objects (the model's)",
    "namespace": "namespace (that of whoever applies them)",
    "replicas": "pods, the least where they are scaled (2)",
    "max_replicas": "the most pods: adds an autoscaler (none)",
    "cpu": "processors that a pod asks for (500m)",
    "memory": "memory of a pod (as the model needs)",
    "storage": "room in /tmp, in memory (64Mi)",
    "user": "number of the user, or none: the cluster's choice, as OpenShift wants (65532)",
    "startup_seconds": "until the model must be ready (120)",
    "grace": "seconds for running requests after a stop (25)",
    "canary": "percent of the requests; beside the pods that are there (0: takes the place of those)",
    "gateway": "Gateway that sends the requests, by exact weights (none)",
    "host": "host name of the Gateway's route (any)",
    "pull_secret": "Secret to pull the image with (none)",
    "service_account": "service account of the pods (default)",
}
stands = always  # the files are all there is; the image is another target's

_DEPLOYMENT: Final = "deployment.yaml"
_PERIOD_S: Final = 2
_SPARE_S: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentSpec(deployed.Patience):
    """What the templates are about; they know it as `deployment`.

    `service` is the name that clients use, of both tracks; `name` that of the Deployment of this track.
    """

    service: Text
    name: Text
    namespace: Text
    image: Text
    labels: tuple[Fact, ...]
    selector: tuple[Fact, ...]
    annotations: tuple[Fact, ...]
    port: int
    user: int
    live: Text
    ready: Text
    replicas: int
    max_replicas: int
    cpu: Text
    memory: Text
    storage: Text
    period: int = _PERIOD_S
    grace: int
    track: str
    weight: int
    gateway: Text
    host: Text
    pull_secret: Text
    service_account: Text
    title: Text

    @property
    def everybody(self) -> tuple[Fact, ...]:
        """The labels that the pods of both tracks have."""
        return tuple(fact for fact in self.selector if fact.key != f"{deployed.PREFIX}track")

    @property
    def drain(self) -> int:
        """Seconds that a pod goes on as before when it is to stop: until nobody sends it requests any more."""
        return 5

    @property
    def termination(self) -> int:
        """Seconds until a pod that is to stop is killed."""
        return self.drain + self.grace + _SPARE_S

    @property
    def rest(self) -> int:
        """The weight of the other track."""
        return 100 - self.weight


def options(given: PackageOptions) -> PackageOptions:
    """Return the options; raises `Invalid` for a setting that is none."""
    wanted = Wanted("kubernetes", given.values)
    _settings(wanted)
    return changed(given, python=deployed.ANY, platform=deployed.ANY)


def _settings(wanted: Wanted) -> dict[str, Any]:
    """Return the settings that say by themselves what goes into the files."""
    canary = wanted.percent("canary")
    replicas = wanted.whole("replicas", 2, 1, 1000)
    most = wanted.whole("max_replicas", 0, 0, 1000)
    if most and most < replicas:
        raise wanted.refuse("max_replicas", f"less than the {replicas} replicas", "Leave it out to have no autoscaler.")
    if most and canary:
        raise wanted.refuse("max_replicas", "for a canary, whose pods are a part of all", "Leave it out for a canary.")
    if wanted.values.get("host") and not wanted.values.get("gateway"):
        raise wanted.refuse("host", "without a gateway that has it", "Name the Gateway: --set gateway=NAME.")
    user = wanted.values.get("user")
    found: dict[str, Any] = {
        "namespace": wanted.label("namespace"),
        "cpu": wanted.quantity("cpu", "500m"),
        "storage": wanted.quantity("storage", "64Mi"),
        "gateway": wanted.subdomain("gateway", like="public"),
        "host": wanted.text("host", "", r"(\*\.)?(?=.{1,253}\Z)[a-z0-9-]+(\.[a-z0-9-]+)*", "churn.example.org"),
        "pull_secret": wanted.subdomain("pull_secret", like="registry"),
        "service_account": wanted.subdomain("service_account", like="models"),
    }
    numbers: dict[str, Any] = {
        "user": 0 if user == "none" else wanted.whole("user", deployed.USER, 1, 2**31 - 1),
        "startup_seconds": wanted.whole("startup_seconds", 120, 1, 3600),
        "grace": wanted.whole("grace", 25, 1, 3600),
        "replicas": max(1, round(replicas * canary / (100 - canary))) if canary else replicas,
        "max_replicas": most,
        "track": "canary" if canary else "stable",
        "weight": canary or 100,
    }
    wanted.label("name", like="churn")
    wanted.quantity("memory", "1Gi")
    return {key: Text(value) for key, value in found.items()} | numbers


def spec(parity: ParityReport, options: PackageOptions, reference: str) -> DeploymentSpec:
    """Return what the templates are about."""
    wanted = Wanted("kubernetes", options.values)
    settings = _settings(wanted)
    name = wanted.label("name") or deployed.name(parity.source.name, 48)
    selector = {"app.kubernetes.io/name": name, f"{deployed.PREFIX}track": settings["track"]}
    version = deployed.label(payload.version_slug(parity))
    labels = {**selector, "app.kubernetes.io/version": version, "app.kubernetes.io/managed-by": "modelrel"}
    annotations = {deployed.PREFIX + key: value for key, value in deployed.described(parity).items()}
    return DeploymentSpec(
        service=Text(name),
        name=Text(name if settings["track"] == "stable" else f"{name}-canary"),
        image=Text(reference),
        labels=deployed.facts(labels),
        selector=deployed.facts(selector),
        annotations=deployed.facts(annotations),
        port=deployed.PORT,
        live=Text(deployed.LIVE),
        ready=Text(deployed.READY),
        memory=Text(wanted.quantity("memory", deployed.memory(parity))),
        title=Text(parity.source.label),
        **settings,
    )


def variables(parity: ParityReport, options: PackageOptions, licenses: str = "") -> Mapping[str, object]:
    """Return what the templates know: `deployment` and `parity`."""
    del licenses
    return {"deployment": spec(parity, options, deployed.named(parity, options, None).reference), "parity": parity}


def assemble(parity: ParityReport, options: PackageOptions, places: Places, note: Note) -> Draft:
    """Write the files, and which image they name."""
    del note
    image = deployed.named(parity, options, places.image)
    found = spec(parity, options, image.reference)
    render.render("kubernetes", places.into, {"deployment": found, "parity": parity}, options.templates)
    deployed.write(places.into, image.record)
    notes = [*image.notes, f"deploy it with: kubectl apply -k {places.previous}"]
    if found.track == "canary" and not found.gateway:
        wish = Wanted("kubernetes", options.values).whole("replicas", 2, 1, 1000)
        share = round(100 * found.replicas / (found.replicas + wish))
        notes.append(
            f"the canary is {found.replicas} pod(s) beside {wish}, so it gets about {share}% of the requests; "
            "with --set gateway=NAME the weights are exact"
        )
    return deployed.draft(places.into, "kustomization.yaml", tuple(notes))


@contextmanager
def launch(package: Package, note: Note) -> Iterator[Running]:
    """Start the image as the container of the written Deployment says."""
    found = [
        one
        for one in deployed.documents(deployed.file(package, _DEPLOYMENT))
        if isinstance(one, dict) and one.get("kind") == "Deployment"
    ]
    pod = deployed.dig(found, "0.spec.template.spec", _DEPLOYMENT)
    with deployed.started(package, container_of(pod, _DEPLOYMENT), _asked, note) as running:
        yield running


def _asked(send: Send, golden: Golden) -> Iterator[Check]:
    """Ask nothing more: what a cluster sends are the protocols that every smoke test asks."""
    del send, golden
    yield from ()


def container_of(pod: Any, file: str) -> Container:
    """Return what the first container of a pod is to run; raises `Refused` where it lacks what decides that."""
    first = deployed.dig(pod, "containers.0", file)
    security = {**(pod.get("securityContext") or {}), **(first.get("securityContext") or {})}
    empty = {one["name"]: one["emptyDir"] or {} for one in pod.get("volumes") or () if "emptyDir" in one}
    mounts = [one for one in first.get("volumeMounts") or () if one.get("name") in empty]
    kinds = ("startup", "readiness", "liveness")
    limit = (first.get("resources") or {}).get("limits", {}).get("memory", "0")
    user = security.get("runAsUser")
    return Container(
        image=str(deployed.dig(first, "image", file)),
        args=tuple(map(str, first.get("args") or ())),
        env={one["name"]: str(one["value"]) for one in first.get("env") or () if "value" in one},
        user=f"{user}:{security.get('runAsGroup', 0)}" if user is not None else "",
        read_only=bool(security.get("readOnlyRootFilesystem")),
        writable=tuple(str(one["mountPath"]) for one in mounts),
        memory_bytes=max(int(amount(str(limit))), 0),
        probes={kind: first[f"{kind}Probe"]["httpGet"]["path"] for kind in kinds if f"{kind}Probe" in first},
    )

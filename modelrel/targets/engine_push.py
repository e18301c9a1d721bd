"""An image that an engine built, pushed by that engine, with the logins of this machine."""

from __future__ import annotations

from typing import Any, NamedTuple

from modelrel.delivered import Image
from modelrel.errors import Unavailable
from modelrel.oci.names import Name
from modelrel.targets.delivery import Note
from modelrel.targets.engine import Engine


class Counts(NamedTuple):
    """What the engine said: the digest of the manifest, layers sent, mounted and there already, bytes sent."""

    digest: str
    sent: int
    mounted: int
    there: int
    wire: int


def push(engine: Engine, image: Image, place: Name, note: Note) -> Counts:
    """Tag an image and push it; raises `Unavailable` where it is not there any more, or the registry refuses it."""
    import docker
    from requests.exceptions import RequestException

    note(f"the engine pushes {place}")
    layers: dict[str, str] = {}
    wire: dict[str, int] = {}
    digest = ""
    try:
        engine.client.images.get(image.id).tag(place.repository, place.tag)
        for event in engine.client.api.push(place.repository, tag=place.tag, stream=True, decode=True):
            if "error" in event:
                raise docker.errors.APIError(event["error"])
            _count(event, layers, wire)
            digest = str((event.get("aux") or {}).get("Digest", digest))
    except docker.errors.ImageNotFound as error:
        raise Unavailable(
            f"the image {image.id[:19]} is not in the engine any more", "Build it again: modelrel package --force."
        ) from error
    except (docker.errors.DockerException, RequestException) as error:
        reason = " ".join(str(getattr(error, "explanation", None) or error).split())[:300]
        raise Unavailable(
            f"the engine cannot push {place}: {reason}", f"Is this machine logged in? docker login {place.host}"
        ) from error
    said = list(layers.values())
    sent, mounted = said.count("Pushed"), sum(one.startswith("Mounted") for one in said)
    return Counts(digest, sent, mounted, said.count("Layer already exists"), sum(wire.values()))


def _count(event: dict[str, Any], layers: dict[str, str], wire: dict[str, int]) -> None:
    layer, status = event.get("id"), str(event.get("status", ""))
    if not layer:
        return
    if status in ("Pushed", "Layer already exists") or status.startswith("Mounted"):
        layers[layer] = status
    current = (event.get("progressDetail") or {}).get("current")
    if status == "Pushing" and isinstance(current, int):
        wire[layer] = max(wire.get(layer, 0), current)

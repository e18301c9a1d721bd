"""Events that MLflow posts to a webhook: is one genuine and fresh, and what does it say.

Format and signature are those of MLflow 3 (`mlflow/webhooks/delivery.py`), which follows Standard Webhooks: the header
`X-MLflow-Signature` is `v1,` and the base64 of HMAC-SHA256 over `DELIVERY-ID.TIMESTAMP.BODY`, the bytes as they came.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from modelrel.errors import Invalid, Refused

HEADERS: Final = ("X-MLflow-Signature", "X-MLflow-Timestamp", "X-MLflow-Delivery-Id")
"""The headers that the signature takes; their case does not matter."""

LIMIT: Final = 1 << 20
"""Bytes of a body; MLflow's own are a few hundred, and as long as a description may be (100,000)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What happened, as `ENTITY.ACTION`, to what; `version` and `alias` are "" where the event has none."""

    kind: str
    name: str
    version: str = ""
    alias: str = ""
    delivery: str = ""


def checked(body: bytes, headers: Mapping[str, str], secret: str, now: float, tolerance: float) -> Event:
    """Return a genuine event; `now` is Unix time in seconds, and so is the age (and lead) that `tolerance` allows.

    Raises `Refused` where the signature is missing or of another secret or body, or the timestamp is too far from now;
    `Invalid` for a signed body that is no event.
    """
    lowered = {name.lower(): value.strip() for name, value in headers.items()}
    missing = [name for name in HEADERS if not lowered.get(name.lower())]
    if missing:
        raise Refused(
            f"the event is not signed: it has no {', no '.join(missing)}",
            "Give the webhook a secret in MLflow, and pass on all three headers.",
        )
    signature, timestamp, delivery = (lowered[name.lower()] for name in HEADERS)
    signed = f"{delivery}.{timestamp}.".encode() + body
    wanted = base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest())
    # several signatures may stand there, separated by spaces, while a secret is being replaced
    given = [one.removeprefix("v1,").encode() for one in signature.split() if one.startswith("v1,")]
    if not [one for one in given if hmac.compare_digest(one, wanted)]:
        raise Refused(
            f"the signature of delivery {delivery!r} is not that of this body by this secret",
            "Pass the body on as it came, byte for byte; check that the secret is that of the webhook.",
        )
    age = now - int(timestamp) if timestamp.isdecimal() and len(timestamp) < 16 else float("inf")
    if not abs(age) <= tolerance:
        when = f"{abs(age):.0f} s {'ago' if age > 0 else 'ahead of now'}"
        raise Refused(
            f"delivery {delivery!r} was signed {when}, and {tolerance:g} s are let through",
            "It may be a replay; where clocks differ or the queue is slow, give --tolerance SECONDS.",
        )
    return _event(body, delivery)


def _event(body: bytes, delivery: str) -> Event:
    try:
        content: Any = json.loads(body)
    except ValueError as error:
        raise Invalid("the body is not JSON, so it is no event of a registry", "Pass on what MLflow posts.") from error
    data = content.get("data") if isinstance(content, dict) else None
    texts = [str(content.get(key) or "") for key in ("entity", "action")] if isinstance(data, dict) else [""]
    if not isinstance(data, dict) or not all(texts):
        raise Invalid("the body has no entity, action and data, so it is no event of a registry",
                      "Pass on what MLflow posts.")  # fmt: skip
    found = {key: data.get(key, "") for key in ("name", "version", "alias")}
    wrong = [key for key, value in found.items() if not isinstance(value, str)]
    if wrong:
        raise Invalid(f"the event's {wrong[0]} is {found[wrong[0]]!r}, not a text", "Pass on what MLflow posts.")
    return Event(kind=".".join(texts), delivery=delivery, **found)

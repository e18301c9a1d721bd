"""A model's history in its registry: one tag of the registered model an entry, added and never changed.

The tags of the model, not of a version, hold it: they survive a deleted version, and come with the aliases in one
answer. Databases behind MLflow may end such a value at 5,000 characters (`registered_model_tags.value`).
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from modelrel.promoted import Entry
from modelrel.registry.lookup import ModelInfo

PREFIX: Final = "modelrel.history."
"""What the key of an entry's tag begins with; the entry's id follows."""

AUDIT: Final = "modelrel.promotion."
"""Prefix of the audit tag on a version; the alias or stage follows, the value is JSON."""

_OPTIONAL: Final = frozenset({"message", "modelrel", "evidence", "rules"})
_LONGEST: Final = 5000
_TIME: Final = "%Y%m%dT%H%M%S.%fZ"
_ID: Final = r"\d{8}T\d{6}\.\d{6}Z-[0-9a-f]{8}"
_ENTRY: Final = TypeAdapter(Entry)


def new_id(now: datetime | None = None, after: str = "") -> str:
    """Return the id of a new entry: sorts by time, is unique without asking anyone, and sorts behind the id `after`.

    Clocks differ from machine to machine; the entries of one alias stand in the order in which it was moved.
    """
    moment = (now or datetime.now(UTC)).astimezone(UTC)
    if after:
        last = datetime.strptime(after.partition("-")[0], _TIME).replace(tzinfo=UTC)
        moment = max(moment, last + timedelta(microseconds=1))
    return f"{moment.strftime(_TIME)}-{secrets.token_hex(4)}"


def entries(model: ModelInfo) -> tuple[Entry, ...]:
    """Return what modelrel wrote of the moves of a model, the oldest first; tags that are no entry are passed over."""
    found = []
    for key, text in model.tags.items():
        if not key.startswith(PREFIX):
            continue
        identity = key.removeprefix(PREFIX)
        if re.fullmatch(_ID, identity) and (entry := parsed(text, identity)):
            found.append(entry)
    return tuple(sorted(found, key=lambda entry: entry.id))


def moves(model: ModelInfo, kind: str, to: str) -> list[Entry]:
    """Return the entries in which an alias (or stage) moved, the oldest first."""
    return [one for one in entries(model) if (one.kind, one.to) == (kind, to) and one.event != "refused"]


def parsed(text: str, identity: str) -> Entry | None:
    """Return the entry in the text of a tag, None where it is none."""
    try:
        entry: Entry = _ENTRY.validate_python({**json.loads(text), "id": identity})
    except (ValueError, TypeError, ValidationError):
        return None  # somebody else's tag
    return entry


def tag(entry: Entry) -> tuple[str, str]:
    """Return key and value of an entry's tag; a message that does not fit is cut."""
    return PREFIX + entry.id, text_of(entry, _LONGEST)


def text_of(entry: Entry, longest: int) -> str:
    """Return an entry as JSON of at most `longest` characters (as far as cutting its message helps), without its id."""
    plain: dict[str, Any] = _ENTRY.dump_python(entry, mode="json", exclude={"id"})
    text = _text(plain)
    if len(text) > longest:
        kept = max(0, len(entry.message) - (len(text) - longest) - 1)
        text = _text({**plain, "message": entry.message[:kept] + "…"})
    return text


def audit(entry: Entry, details: Mapping[str, Any]) -> dict[str, str]:
    """Return the tag of the version that moved: what of its last move to this alias a look at the version tells."""
    said = {
        "at": entry.at,
        "by": entry.by,
        "entry": entry.id,
        "event": entry.event,
        "from": entry.previous,
        "kind": entry.kind,
        "modelrel": entry.modelrel,
        "artifacts": {name: {"sha256": sha256} for name, sha256 in entry.evidence.items()},
    }
    return {AUDIT + entry.to: json.dumps({**said, **details}, sort_keys=True)}


def _text(plain: dict[str, Any]) -> str:
    kept = {key: value for key, value in plain.items() if value or key not in _OPTIONAL}
    return json.dumps(kept, sort_keys=True, ensure_ascii=False)

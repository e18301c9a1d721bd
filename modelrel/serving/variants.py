"""Which of several variants computes a request: by chance, or always the same one for the same client.

A client stays by weighted rendezvous hashing (Wang and Ravishankar, "Using name-based mappings to increase hit rates";
with weights: Schindelhauer and Schomaker, "Weighted distributed hash tables"). For each variant, the first 8 bytes of
BLAKE2b of "NAME/VERSION", a zero byte and the client's value are a number u between 0 and 1; the variant with the
smallest -ln(u) / weight wins. So it depends on nothing else; the order of the variants does not matter; each variant
gets its share of all values; and where the weight of one changes, values move to it or from it, and between no others.
"""

from __future__ import annotations

import random
from hashlib import blake2b
from math import log
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .calls import Call
    from .model import Model
    from .tensors import Array
    from .traffic import Sticky

    Variants = tuple[tuple[Model, float], ...]


class Chooser:
    """Chooses variants for requests."""

    def __init__(self, sticky: Sticky | None, chance: random.Random | None = None) -> None:
        """Keep what clients are known by, and what decides where nothing is known of a client."""
        self._sticky = sticky
        self._chance = chance or random.Random()  # noqa: S311 - nobody gains by guessing it

    def choose(self, variants: Variants, call: Call) -> Model:
        """Return the model that computes a call."""
        value = None if self._sticky is None else _value(self._sticky, call)
        if value is not None:
            return kept(variants, value)
        point = self._chance.random() * sum(weight for _, weight in variants)
        for model, weight in variants:
            point -= weight
            if point < 0:
                return model
        return variants[-1][0]


def kept(variants: Variants, value: bytes) -> Model:
    """Return the model for a client that is known by a value."""
    return min(variants, key=lambda variant: _distance(variant[0], value) / variant[1])[0]


def _distance(model: Model, value: bytes) -> float:
    """Return -ln of a number between 0 and 1 (neither is possible) that the model and the value alone decide."""
    known = f"{model.name}/{model.version}\0".encode("utf-8", "surrogatepass")
    mixed = int.from_bytes(blake2b(known + value, digest_size=8).digest(), "big")
    return -log((mixed + 0.5) / 2**64)


def _value(sticky: Sticky, call: Call) -> bytes | None:
    """Return what a client is known by; None where the request does not have it."""
    if sticky.is_header:
        header = call.headers.get(sticky.name)
        return header.encode("latin-1", "replace") if header else None
    field = call.feeds.get(sticky.name)
    return None if field is None else _first_row(field)


def _first_row(field: Array) -> bytes | None:
    """Return the first row of an input as bytes: a single value as its text, so that 7 is what a header says as 7."""
    row = field[:1] if field.ndim else field
    if row.size != 1:
        return repr(row.tolist()).encode("utf-8", "surrogatepass") if row.size else None
    value = row.item()
    if value != value or value == "":  # noqa: PLR0124 (NaN is how a column that was left out is filled)
        return None
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")

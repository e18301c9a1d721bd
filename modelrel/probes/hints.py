"""What a converter found out about a model's features, for the rows that are made for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Hint:
    """What a converter found out about one feature.

    `thresholds`: where its trees split. `categories`: the values its encoder knows. `low`, `high`: where its
    values lie. `exclusive`: values that may not be made up (a text that stands for "missing", say). `knots`: where
    its curves bend or its bins end. `missing`: numbers that stand for "missing". `vocabulary`: words it counts.
    """

    thresholds: tuple[float, ...] = ()
    categories: tuple[Any, ...] = ()
    low: float | None = None
    high: float | None = None
    exclusive: tuple[Any, ...] = ()
    knots: tuple[float, ...] = ()
    missing: tuple[float, ...] = ()
    vocabulary: tuple[str, ...] = ()


def hints(content: Mapping[str, Any], count: int) -> list[Hint]:
    """Return the hints of `hints.json` as one per feature; an unknown or short list leaves features without."""
    found = [
        Hint(
            thresholds=tuple(said.get("thresholds", ())),
            categories=tuple(said.get("categories", ())),
            low=said.get("low"),
            high=said.get("high"),
            exclusive=tuple(said.get("exclusive", ())),
            knots=tuple(said.get("knots", ())),
            missing=tuple(said.get("missing", ())),
            vocabulary=tuple(said.get("vocabulary", ())),
        )
        for said in content.get("features", ())
    ]
    return found if len(found) == count else [Hint()] * count

"""How the time for asking is spent: a share of every kind of rows first, then round by round until all is asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from modelrel import tensors
from modelrel.measured import Coverage
from modelrel.probes.generated import Group

FIRST: Final = 100
"""Rows of each kind that are asked whatever the time; the next round may ask four times as many, and so on."""

_GROWTH: Final = 4
_MOST_ROWS: Final = 20_000
_SLICE: Final = 4
"""One call may take this part of the time that is left."""

_MOST_CELLS: Final = 40_000_000
"""What is held in memory at most, in values of the inputs: 320 MB of float64."""

Ask = Callable[[list[Group]], frozenset[str]]
"""Asks about rows; returns the `Group.key`s on whose rows the original only raises."""


@dataclass(slots=True)
class Queue:
    """All rows of one source, in groups made when they are needed; `of` counts what `Group.items` counts."""

    source: str
    of: int
    groups: Iterator[Group]
    unit: str = "rows"
    asked: int = field(default=0)

    def taken(self, rows: int) -> list[Group]:
        """Return the next groups, of `rows` rows together or a few more; none where all were taken."""
        found: list[Group] = []
        while sum(tensors.rows(group.rows) for group in found) < rows:
            group = next(self.groups, None)
            if group is None:
                break
            found.append(group)
        self.asked += sum(group.items for group in found)
        return found


def queues(groups: Sequence[Group]) -> list[Queue]:
    """Return groups as one queue for each source, in the order of their first group."""
    by: dict[str, list[Group]] = {}
    for group in groups:
        by.setdefault(group.source, []).append(group)
    return [Queue(source, sum(group.items for group in listed), iter(listed)) for source, listed in by.items()]


def spend(
    queues: Sequence[Queue], ask: Ask, seconds: float, clock: Callable[[], float] = time.perf_counter
) -> tuple[Coverage, ...]:
    """Ask `FIRST` rows of every queue, whatever the time, then more of each in turn until `seconds` are over.

    What is asked is the same each time where the time suffices. Returns what was asked of what there is.
    """
    end = clock() + seconds
    left = [one for one in queues if one.of]
    cells, size, first = 0, FIRST, True
    dead: frozenset[str] = frozenset()
    per_row = 0.0
    while left and (first or (clock() < end and cells < _MOST_CELLS)):
        for one in tuple(left):
            rest = end - clock()
            if not first and (rest <= 0 or cells >= _MOST_CELLS):
                break
            rows = size if first or not per_row else int(min(size, max(rest / _SLICE / per_row, FIRST)))
            groups = one.taken(rows)
            if not groups:
                left.remove(one)
            asked = [group for group in groups if not group.key or group.key not in dead]
            if not asked:
                continue
            before = clock()
            dead |= ask(asked)
            per_row = (clock() - before) / sum(tensors.rows(group.rows) for group in asked)
            cells += sum(array.size for group in asked for array in group.rows.values())
        first, size = False, min(size * _GROWTH, _MOST_ROWS)
    return tuple(Coverage(source=one.source, asked=one.asked, of=one.of, unit=one.unit) for one in queues if one.of)


def with_left_out(covered: Sequence[Coverage], said: Mapping[str, str]) -> tuple[Coverage, ...]:
    """Return the coverage with a sentence, by source, about what no time would be enough for ("": nothing)."""
    asked = {one.source for one in covered}
    none = (Coverage(source=source, asked=0, of=0, left_out=text) for source, text in said.items()
            if text and source not in asked)  # fmt: skip
    return (*(replace(one, left_out=said.get(one.source, "")) for one in covered), *none)

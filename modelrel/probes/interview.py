"""What the original answered: rows are asked in several calls, and stand together afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from modelrel import tensors
from modelrel.measured import Coverage
from modelrel.probes.generated import Group
from modelrel.tensors import Array, Tensors
from modelrel.values import ConvertedModel

_TIMED_RUNS: Final = 1
_NEAREST: Final = 50
_MISSING: Final = "missing"
_LAST_BITS: Final = 4 * float(np.finfo(np.float64).eps)
_KNOTS: Final = "calibration knots"
_USUAL: Final = frozenset({"example", "data", "training data", "permuted", "jittered", "ranged"})
_BETWEEN: Final = 1000
"""Rows between which inner knots are looked for: so many of those sources."""
_LEAST_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Answered:
    """Rows that the original answered: inputs, where each comes from, outputs, and what was left out."""

    inputs: Tensors
    origin: tuple[str, ...]
    outputs: Tensors
    us_per_row: float
    findings: tuple[str, ...]

    def tied(self) -> Array:
        """Return, (N,) bool, on which rows the two highest probabilities are equal; none without probabilities."""
        return np.asarray(_gap(self.outputs, len(self.origin)) == 0, np.bool_)

    def undecided(self, copy: Tensors) -> Array:
        """Return, (N,) bool, on which rows rounding alone chose the original's label.

        That is where its two best probabilities are a few last bits of float64 apart, and only for a `copy` that gives
        them in float32, which cannot follow how the original rounds.
        """
        mine, others = self.outputs.get("probabilities"), copy.get("probabilities")
        kinds = [one.dtype.name for one in (mine, others) if one is not None]
        narrow = kinds == ["float64", "float32"]
        gap = _gap(self.outputs, len(self.origin))
        return np.asarray((gap > 0) & (gap <= _LAST_BITS) & narrow, np.bool_)


class Interview:
    """Asks one model, call by call, and keeps its answers."""

    def __init__(self, call: Callable[..., Any], converted: ConvertedModel) -> None:
        """Begin without answers; `call` asks the process that has loaded the original (`Worker.call`)."""
        self._call = call
        self._converted = converted
        self._inputs: list[Tensors] = []
        self._outputs: list[Tensors] = []
        self._origin: list[str] = []
        self._dropped: Counter[str] = Counter()
        self._said: dict[str, str] = {}
        self._us = 0.0
        self.able: list[int] = []
        """Features in which the original takes a gap."""

    def ask(self, groups: list[Group]) -> frozenset[str]:
        """Ask about rows; returns the keys of those groups on all of whose rows the original raised.

        Raises `Refused` where it raises on every row of the first call.
        """
        signature = self._converted.signature
        # The worker refuses where nothing is answered: a row that was answered before goes with all later calls.
        before = [tensors.take(self._inputs[0], np.array([0]))] if self._inputs else []
        asked = tensors.held(tensors.stack([*before, *(group.rows for group in groups)]), self._converted.inputs)
        owner = [number for number, group in enumerate(groups) for _ in range(tensors.rows(group.rows))]
        repeat = 0 if before else _TIMED_RUNS
        reply = self._call("predict", asked, signature=asdict(signature), repeat=repeat)
        kept = np.array(reply.value["kept"], np.int64)
        if not before:
            self._us = float(reply.value["seconds"]) / len(kept) * 1e6
        fresh = np.flatnonzero(kept >= len(before))
        owners = [owner[int(row) - len(before)] for row in kept[fresh]]
        if owners:
            self._inputs.append(tensors.take(asked, kept[fresh]))
            self._outputs.append(tensors.take(reply.arrays, fresh))
            self._origin += [groups[number].source for number in owners]
        return self._noted(groups, Counter(owners), "; ".join(reply.value["raised"]))

    def _noted(self, groups: list[Group], answered: Counter[int], said: str) -> frozenset[str]:
        """Note which rows were left out, and which features take a gap."""
        dead: set[str] = set()
        for number, group in enumerate(groups):
            lost = tensors.rows(group.rows) - answered[number]
            if lost:
                self._dropped[group.source] += lost
                self._said.setdefault(group.source, said)
            if not answered[number] and group.key:
                dead.add(group.key)
            if answered[number] and group.source == _MISSING and len(group.features) == 1:
                self.able.append(group.features[0])
        return frozenset(dead)

    def _order(self) -> None:
        """Put answers about the same kind of rows side by side.

        How many rows of a kind go into one call depends on how quick the original is; the evidence must not.
        """
        ends = np.cumsum([tensors.rows(one) for one in self._inputs]).tolist()
        calls = list(zip([0, *ends], ends, self._inputs, self._outputs, strict=False))
        rank: dict[str, int] = {}
        for begin, *_ in calls:
            rank.setdefault(self._origin[begin], len(rank))
        calls.sort(key=lambda one: rank[self._origin[one[0]]])
        self._origin = [source for begin, end, *_ in calls for source in self._origin[begin:end]]
        self._inputs, self._outputs = [one[2] for one in calls], [one[3] for one in calls]

    def near_ties(self) -> dict[str, Array] | None:
        """Return the rows whose two highest probabilities are nearest to each other; None without probabilities."""
        self._order()
        outputs = tensors.stack(self._outputs)
        gap = _gap(outputs, len(self._origin))
        close = np.argsort(gap, kind="stable")[:_NEAREST]
        close = close[np.isfinite(gap[close])]
        return tensors.take(tensors.stack(self._inputs), close) if len(close) else None

    def inner_knots(self, seconds: float) -> tuple[Coverage, ...]:
        """Ask rows at the scores where calibration curves inside the original bend; looked for between asked rows."""
        signature = asdict(self._converted.signature)
        if not self._call("knots", signature=signature).value["of"]:
            return ()
        self._order()
        usual = np.flatnonzero([source in _USUAL for source in self._origin])
        some = usual[np.unique(np.linspace(0, len(usual) - 1, min(len(usual), _BETWEEN)).astype(int))]
        rows = tensors.take(tensors.stack(self._inputs), some)
        # A part of the time at least, for the budget is likely spent on splits by now.
        found = self._call("knots", rows, signature=signature, seconds=max(seconds, _LEAST_S))
        reached, missed, left = (int(found.value[name]) for name in ("reached", "missed", "left"))
        if reached:
            self.ask([Group(_KNOTS, found.arrays)])
        parts = [f"{missed:,} more are scores that no row between those asked has"] if missed else []
        if steep := int(found.value["steep"]):
            parts.append(f"{steep:,} more are so steep that the last bits of a score decide, which no copy has")
        said = "; ".join(parts)
        if raised := found.value["raised"]:
            said = f"the original raised while they were looked for ({raised[:200]})"
        return (Coverage(source=_KNOTS, asked=reached, of=reached + left, unit="knots", left_out=said),)

    def answered(self) -> Answered:
        """Return everything that was answered so far."""
        self._order()
        findings = tuple(
            f"the original raises on {count} of the {source} rows, which are left out ({self._said[source][:200]})"
            for source, count in self._dropped.items()
        )
        return Answered(
            tensors.stack(self._inputs), tuple(self._origin), tensors.stack(self._outputs), self._us, findings
        )


def _gap(outputs: Tensors, count: int) -> Array:
    """Return, (N,) float64, how far the two highest probabilities are apart; infinity where there are none."""
    found = outputs.get("probabilities")
    if found is None or found.ndim != 2 or found.shape[1] < 2:
        return np.full(count, np.inf)
    top = np.sort(found.astype(np.float64), axis=1)[:, -2:]
    gap = top[:, 1] - top[:, 0]
    return np.where(np.isnan(gap), np.inf, gap)

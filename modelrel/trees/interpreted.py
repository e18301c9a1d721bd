"""Ensembles run in NumPy alone: the second opinion on who is wrong, the reader, the writer or the runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from modelrel.trees.ensemble import ZERO_BOUND, Choice, Ensemble, Entry
from modelrel.trees.forest import Bools, Floats, Forest, Ints, Mode


def answers(ensemble: Ensemble, rows: Any) -> tuple[Any | None, Any]:
    """Return labels (N,), or None, and numbers (N,) or (N, k) for rows (N, features) as they come in."""
    with np.errstate(all="ignore"):
        raw = scores(ensemble, entered(ensemble.entry, rows))
        value = linked(ensemble, raw)
        if ensemble.answers_single:
            value = value.astype(np.float32)
        seen = np.concatenate([1 - value, value], axis=1) if ensemble.pair else value
    label = None
    if ensemble.choice is not None:
        looked = raw if ensemble.choice.of == "raw" else seen if ensemble.choice.rule == "largest" else value
        known: Any = np.array(ensemble.choice.classes, object)
        label = known[_chosen(ensemble.choice, looked)]
    return label, seen


def entered(entry: Entry, rows: Any) -> Floats:
    """Return rows (N, features) as the trees see them: float64."""
    if entry.codes:
        columns = [_codes(column, entry.codes.get(number)) for number, column in enumerate(np.asarray(rows).T)]
        return np.stack(columns, axis=1)
    x = np.array(rows, np.float64)
    if entry.single:
        x = x.astype(np.float32).astype(np.float64)
    x[x == entry.missing] = np.nan
    if entry.zeros is not None:
        small = np.abs(x) <= ZERO_BOUND
        x = np.where(small, np.where(entry.zeros, np.nan, 0.0), x)
    for number in entry.floor:
        whole = np.floor(x[:, number])
        x[:, number] = np.where((whole < 0) | (whole >= 2**24), -1.0, whole)
    for number in entry.cut:
        x[:, number] = np.trunc(x[:, number])
    return x


def _codes(column: Any, known: Any) -> Floats:
    if known is None:
        return np.asarray(column, np.float64)
    places = {value: number for number, value in enumerate(known)}
    return np.array([places.get(value, -1) for value in column.tolist()], np.float64)


def reached(forest: Forest, x: Floats) -> Ints:
    """Return the number of the leaf that each row ends in, in each tree, over all trees: (N, T)."""
    place = np.tile(forest.roots, (len(x), 1))
    sets = dict(zip(np.flatnonzero(forest.mode == Mode.MEMBER).tolist(), forest.members, strict=True))
    row, tree = np.nonzero(forest.mode[place] != Mode.LEAF)
    while len(row):
        at = place[row, tree]
        value = x[row, forest.feature[at]]
        holds = np.where(np.isnan(value), forest.missing[at], _holds(forest, at, value, sets))
        place[row, tree] = forest.child[at] + ~holds
        going = forest.mode[place[row, tree]] != Mode.LEAF
        row, tree = row[going], tree[going]
    return forest.child[place]


def _holds(forest: Forest, at: Ints, value: Floats, sets: dict[int, Floats]) -> Bools:
    mode, threshold = forest.mode[at], forest.threshold[at]
    found: Bools = np.where(mode == Mode.LT, value < threshold, value <= threshold)
    for number in np.unique(at[mode == Mode.MEMBER]).tolist():
        here = at == number
        found[here] = np.isin(value[here], sets[number])
    return found


def scores(ensemble: Ensemble, x: Floats) -> Floats:
    """Return the raw scores of rows as the trees see them, the trees added in their order: (N, scores)."""
    total = np.zeros((len(x), len(ensemble.base)))
    if ensemble.forest is not None:
        said = values(ensemble.forest, x)
        for tree in range(said.shape[1]):
            target = slice(None) if ensemble.targets is None else [ensemble.targets[tree]]
            total[:, target] += said[:, tree]
    raw: Floats = total / ensemble.divisor * ensemble.scale + ensemble.base
    if ensemble.weights is not None:
        raw += np.nan_to_num(x, nan=0.0, posinf=np.inf, neginf=-np.inf) @ ensemble.weights
    return raw


def values(forest: Forest, x: Floats) -> Floats:
    """Return what each tree says of each row, linear leaves computed: float64 (N, T, width)."""
    leaf = reached(forest, x)
    plain: Floats = forest.leaves[leaf]
    if forest.linear is None:
        return plain
    feature = forest.linear.feature[leaf]
    seen = np.where(feature >= 0, x[np.arange(len(x))[:, None, None], np.maximum(feature, 0)], 0.0)
    found = forest.linear.constant[leaf] + (seen * forest.linear.coefficient[leaf]).sum(axis=2)
    return np.where(np.isnan(seen).any(axis=2), plain[:, :, 0], found)[:, :, None]


def linked(ensemble: Ensemble, raw: Any) -> Floats:
    """Return what the link makes of raw scores: (N, scores), or (N, 1)."""
    if ensemble.link == "largest":
        raw = raw.astype(np.float32) if ensemble.answers_single else raw
        return np.asarray(raw.argmax(axis=1)[:, None], np.float64)
    if ensemble.link == "softmax":
        powers = np.exp(raw - raw.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))
    return np.asarray(_ELEMENTWISE[ensemble.link](raw, ensemble))


_ELEMENTWISE: Final[dict[str, Callable[[Any, Ensemble], Any]]] = {
    "identity": lambda raw, _: raw,
    "exp": lambda raw, _: np.exp(raw),
    "sigmoid": lambda raw, said: 1 / (1 + np.exp(-said.slope * raw)),
    "log1p_exp": lambda raw, _: np.log1p(np.exp(raw)),
    "signed_square": lambda raw, _: np.sign(raw) * raw * raw,
    "isolation": lambda raw, said: -(2.0**-raw) - said.offset,
}


def _chosen(choice: Choice, looked: Any) -> Ints:
    if choice.rule == "largest":
        return np.asarray(looked.argmax(axis=1))
    limit = looked.dtype.type(choice.limit)
    compared = {"above": np.greater, "at_least": np.greater_equal, "below": np.less}[choice.rule]
    return np.asarray(compared(looked[:, 0], limit), np.int64)

"""Rows that a person would think of: near real ones, at split thresholds, with gaps, with words never seen.

A model's inputs are looked at as *features*: one per column, or one per element of a tensor's second dimension.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from modelrel import tensors
from modelrel.probes import special
from modelrel.probes.hints import Hint, hints
from modelrel.tensors import NUMPY, Array, Tensors
from modelrel.values import Signature, TensorSpec

WORDS: Final = ("never seen", "", " ", "É", "naïve Straße", "北京", "a" * 200, "0", "nan", "None", "two  words", "x\ty")
_BLOCK: Final = 100
"""Rows that are made together."""
_EVEN: Final = 1000
_THRESHOLD_ROWS: Final = 2000
_REPEATS: Final = 32
_FRACTIONS: Final = (0.02, 0.3)


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of one kind, named by where they come from.

    `splits` is the number of splits they are at (0: not made for splits). Where the original only raises on
    the rows of a `key`, no more rows with that key are asked.
    """

    source: str
    rows: Tensors
    features: tuple[int, ...] = field(default=())
    splits: int = 0
    key: str = ""

    @property
    def items(self) -> int:
        """What coverage counts: splits, or rows where there are none."""
        return self.splits or tensors.rows(self.rows)


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature: which input it belongs to, its position there, and values that are usual for it."""

    spec: TensorSpec
    position: int
    pool: Array
    hint: Hint

    @property
    def kind(self) -> str:
        """NumPy's kind of its dtype: f, i, u, b or O (text)."""
        return NUMPY[self.spec.datatype].kind


def width(signature: Signature) -> int:
    """Return the number of features (0 where a tensor has more than two dimensions or an open second one)."""
    if signature.kind == "columns":
        return len(signature.inputs)
    shape = signature.inputs[0].shape
    if len(signature.inputs) != 1 or len(shape) > 2:
        return 0
    return 1 if len(shape) == 1 else max(shape[1], 0)


class Maker:
    """Makes rows for one model; the same seed makes the same rows."""

    def __init__(self, signature: Signature, real: Tensors | None, content: Mapping[str, Any], seed: int) -> None:
        """Look at the signature, at real rows where there are some, and at the converter's hints."""
        self._signature = signature
        self._real = real
        self._random = np.random.default_rng(seed)
        count = width(signature)
        found = hints(content, count)
        self.features = [self._feature(index, found[index]) for index in range(count)]

    def usual(self, count: int) -> list[Group]:
        """Return `count` rows or a few more: permuted, jittered, and drawn over each feature's range."""
        if not self.features:
            return [Group("jittered", self._shaken_tensors(count))]
        part = -(-count // 3)
        return [
            Group("permuted", self._rows([self._drawn(feature, part) for feature in self.features])),
            Group("jittered", self._jittered(part)),
            Group("ranged", self._rows([self._ranged(feature, part) for feature in self.features])),
        ]

    def splits(self) -> list[tuple[int, float]]:
        """Return feature and threshold of each split on a number: an even share of all first, the rest after it."""
        pairs = [
            (index, threshold) for index, feature in enumerate(self.features) for threshold in feature.hint.thresholds
            if feature.kind in "fiu"
        ]  # fmt: skip
        even = np.unique(np.linspace(0, len(pairs) - 1, min(len(pairs), _EVEN)).astype(int)).tolist()
        rest = np.setdiff1d(np.arange(len(pairs)), even)
        mixed = np.random.default_rng(0)
        # One seed for all: which splits come first does not depend on what was made before.
        return [pairs[number] for number in (*mixed.permutation(even), *mixed.permutation(rest))]

    def thresholds(self) -> Iterator[Group]:
        """Return rows at, just below and just above each split threshold, in the input's dtype, some at a time."""
        pairs = self.splits()
        # One route may end alike on both sides of a split: few thresholds are asked with many other rows.
        each = 6 if any(feature.spec.datatype == "FP64" for feature in self.features) else 3
        repeats = int(np.clip(_THRESHOLD_ROWS // (each * max(len(pairs), 1)), 1, _REPEATS))
        size = max(_BLOCK // (each * repeats), 1)
        for at in range(0, len(pairs), size):
            some = pairs[at : at + size]
            near = [
                (index, value)
                for index, threshold in some
                for value in special.around(threshold, NUMPY[self.features[index].spec.datatype])
            ]
            yield Group("thresholds", self._with(near * repeats), splits=len(some))

    def special(self) -> list[Group]:
        """Return, for each number, rows with zeros and denormals, and with what stands for "missing" and near it."""
        zeros = [
            (index, value) for index, feature in enumerate(self.features) if feature.kind in "fiu"
            for value in special.small(feature.pool.dtype)
        ]  # fmt: skip
        gaps = [
            (index, value) for index, feature in enumerate(self.features) if feature.kind in "fiu"
            for number in (feature.hint.missing or special.CODES)
            for value in special.around(number, feature.pool.dtype)
        ]  # fmt: skip
        return [
            *self._pieces("missing value", gaps * (8 if len(gaps) < _THRESHOLD_ROWS else 1)),
            *self._pieces("zeros", zeros),
        ]

    def extremes(self) -> list[Group]:
        """Return rows with one infinity, largest number or huge whole number; the first of each kind come first."""
        first: dict[str, Group] = {}
        rest: list[Group] = []
        for index, feature in enumerate(self.features):
            # Arithmetic overflows in its own way; comparing has one right answer for the largest numbers too.
            if feature.kind not in "fiu" or (feature.kind == "f" and not feature.hint.thresholds):
                continue
            for name, value in special.extremes(feature.pool.dtype).items():
                key = f"{feature.spec.datatype} {name}"
                group = Group("extremes", self._with([(index, value)]), (index,), key=key)
                if key in first:
                    rest.append(group)
                else:
                    first[key] = group
        return [*first.values(), *rest]

    def knots(self) -> list[Group]:
        """Return rows at knots of curves and at edges of bins, and at the floats beside them."""
        chosen = [
            (index, value) for index, feature in enumerate(self.features) if feature.kind in "fiu"
            for knot in feature.hint.knots for value in special.around(knot, feature.pool.dtype)
        ]  # fmt: skip
        return self._pieces("knots", chosen)

    def texts(self) -> list[Group]:
        """Return texts made of the words that each text feature's vectorizer counts."""
        return self._pieces(
            "text",
            [
                (index, value) for index, feature in enumerate(self.features)
                if feature.kind == "O" and feature.hint.vocabulary for value in special.texts(feature.hint.vocabulary)
            ],
        )  # fmt: skip

    def crossed(self, near: Tensors, count: int) -> list[Group]:
        """Return `count` rows that take each feature from one of the rows `near` a tie: they likely tie as well."""
        if not self.features or not count:
            return []
        flat = [
            near[feature.spec.name].reshape(tensors.rows(near), -1)[:, feature.position] for feature in self.features
        ]
        base = self._random.integers(0, tensors.rows(near), count)
        columns = [column[base].copy() for column in flat]
        for row in range(count):
            index = int(self._random.integers(len(columns)))
            columns[index][row] = self._random.choice(self.features[index].pool)
        return [Group("ties", self._rows(columns))]

    def _pieces(self, source: str, chosen: Sequence[tuple[int, Any]]) -> list[Group]:
        """Return one row for each (feature, value), in groups of at most `_BLOCK` rows."""
        return [Group(source, self._with(chosen[at : at + _BLOCK])) for at in range(0, len(chosen), _BLOCK)]

    def _with(self, chosen: Sequence[tuple[int, Any]]) -> dict[str, Array]:
        """Return one usual row for each (feature, value), with that value."""
        columns = [self._drawn(feature, len(chosen)) for feature in self.features]
        for row, (index, value) in enumerate(chosen):
            columns[index][row] = value
        return self._rows(columns)

    def missing(self) -> list[Group]:
        """Return, for each feature that can hold a gap, one row with a gap there."""
        able = [index for index, feature in enumerate(self.features) if feature.kind in "fO"]
        return [Group("missing", self._set({index: [_gap(self.features[index])]}, 1), (index,)) for index in able]

    def unseen(self) -> list[Group]:
        """Return, for each text feature and each feature with categories, rows with values nobody trained on."""
        groups = []
        for index, feature in enumerate(self.features):
            values = _strangers(feature)
            if values:
                groups.append(Group("unseen", self._set({index: values}, len(values)), (index,)))
        return groups

    def gaps(self, able: Sequence[int], count: int) -> list[Group]:
        """Return `count` rows with gaps in the features that take them: some here and there, then in all."""
        if not able or not count:
            return []
        columns = [self._drawn(feature, count) for feature in self.features]
        for index in able:
            share = np.repeat(_FRACTIONS, -(-count // len(_FRACTIONS)))[:count]
            columns[index][self._random.random(count) < share] = _gap(self.features[index])
            columns[index][-1] = _gap(self.features[index])
        return [Group("missing", self._rows(columns), tuple(able))]

    def _feature(self, index: int, hint: Hint) -> Feature:
        columns = self._signature.kind == "columns"
        spec = self._signature.inputs[index if columns else 0]
        position = 0 if columns else index
        pool = self._pool(spec, position, hint)
        return Feature(spec, position, pool, hint)

    def _pool(self, spec: TensorSpec, position: int, hint: Hint) -> Array:
        """Return values that are usual for a feature: real ones, known categories, numbers among its thresholds."""
        dtype = NUMPY[spec.datatype]
        found: list[Any] = []
        if self._real is not None:
            real = self._real[spec.name]
            found += real.reshape(len(real), -1)[:, position].tolist()
        found += [value for value in hint.categories if dtype.kind != "O" or isinstance(value, str)]
        found = [value for value in found if value is not None and not (isinstance(value, float) and math.isnan(value))]
        if dtype.kind == "O":
            return tensors.text(found or list(WORDS[:1]), (len(found) or 1,))
        if dtype.kind == "b":
            return np.array([False, True])
        if hint.low is not None and hint.high is not None and not hint.categories:
            found += np.linspace(hint.low, hint.high, 16).tolist()
        if hint.thresholds:
            found += np.quantile(hint.thresholds, np.linspace(0, 1, 16)).tolist()
        if not found:
            found = self._random.normal(0, 1, 32).tolist() if dtype.kind == "f" else list(range(32))
        return _into(np.array(found, np.float64), dtype)

    def _drawn(self, feature: Feature, count: int) -> Array:
        return self._random.choice(feature.pool, count)

    def _ranged(self, feature: Feature, count: int) -> Array:
        """Return numbers spread over the feature's range and somewhat beyond; categories stay as they are."""
        if feature.kind not in "fiu" or feature.hint.categories:
            return self._drawn(feature, count)
        low, high, spread = _extent(feature.pool)
        wide = self._random.uniform(low - 0.3 * spread, high + 0.3 * spread, count)
        far = self._random.random(count) < 0.02
        wide[far] *= 100
        wide[self._random.random(count) < 0.02] = 0
        return _into(wide, feature.pool.dtype)

    def _jittered(self, count: int) -> dict[str, Array]:
        """Return real rows (usual ones where there are none), with noise of a tenth of each feature's spread."""
        if self._real is None:
            columns = [self._drawn(feature, count) for feature in self.features]
        else:
            picked = self._random.integers(0, tensors.rows(self._real), count)
            real = tensors.take(self._real, picked)
            columns = [
                real[feature.spec.name].reshape(count, -1)[:, feature.position].copy() for feature in self.features
            ]
        for index, feature in enumerate(self.features):
            if feature.kind in "fiu" and not feature.hint.categories:
                noise = self._random.normal(0, 0.1 * _extent(feature.pool)[2], count)
                columns[index] = _into(columns[index].astype(np.float64) + noise, feature.pool.dtype)
        return self._rows(columns)

    def _set(self, values: Mapping[int, Sequence[Any]], count: int) -> dict[str, Array]:
        columns = [self._drawn(feature, count) for feature in self.features]
        for index, chosen in values.items():
            columns[index][:] = chosen
        return self._rows(columns)

    def _rows(self, columns: Sequence[Array]) -> dict[str, Array]:
        """Return features as the signature's inputs."""
        if self._signature.kind == "columns":
            return {
                spec.name: column.reshape(-1, 1) for spec, column in zip(self._signature.inputs, columns, strict=True)
            }
        spec = self._signature.inputs[0]
        joined = np.stack(list(columns), axis=1)
        return {spec.name: joined if len(spec.shape) == 2 else joined[:, 0]}

    def _shaken_tensors(self, count: int) -> dict[str, Array]:
        """Return tensors of any shape: real ones with noise, or noise alone."""
        found = {}
        for spec in self._signature.inputs:
            dtype, shape = NUMPY[spec.datatype], tuple(1 if size < 0 else size for size in spec.shape[1:])
            if dtype.kind == "O":
                found[spec.name] = tensors.text(
                    self._random.choice(np.array(WORDS, object), count * int(np.prod(shape))).tolist(), (count, *shape)
                )
                continue
            base = np.zeros((count, *shape)) if self._real is None else self._picked(spec.name, count)
            spread = 1.0 if self._real is None else float(np.std(self._real[spec.name])) or 1.0
            noise = self._random.normal(0, spread, base.shape) * self._random.choice([0.01, 0.1, 1.0])
            found[spec.name] = _into(base + noise, dtype)
            if self._real is not None and dtype.kind in "iu":  # mostly codes: beyond the known ones many a model raises
                low, high, _ = _extent(self._real[spec.name])
                found[spec.name][count // 10 :] = np.clip(found[spec.name][count // 10 :], int(low), int(high))
        return found

    def _picked(self, name: str, count: int) -> Array:
        assert self._real is not None
        real = self._real[name]
        return np.asarray(real[self._random.integers(0, len(real), count)], np.float64)


def _gap(feature: Feature) -> Any:
    return None if feature.kind == "O" else np.nan


def _extent(pool: Array) -> tuple[float, float, float]:
    low, high = float(pool.min()), float(pool.max())
    return low, high, (high - low) or max(abs(high), 1.0)


def _into(values: Array, dtype: np.dtype[Any]) -> Array:
    """Return float64 values in `dtype`: rounded and kept inside the range for whole numbers."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        with np.errstate(invalid="ignore"):
            clean = np.nan_to_num(np.rint(values))
        # float64 holds no 2**63 - 1: the largest number below it does.
        return np.asarray(np.clip(clean, limits.min, min(limits.max, 2**62)), dtype)
    with np.errstate(over="ignore"):
        return np.asarray(values, dtype)


def _strangers(feature: Feature) -> list[Any]:
    """Return values that the feature's encoder cannot know, and near misses of those that it knows."""
    known = [value for value in feature.hint.categories if value is not None]
    avoid = set(feature.hint.exclusive)
    if feature.kind == "O":
        texts = [value for value in (known or feature.pool.tolist()) if isinstance(value, str)][:5]
        near = [
            form for value in texts for form in (value.upper(), value.lower(), f" {value}", f"{value} ", value[:-1])
        ]
        return [value for value in dict.fromkeys([*WORDS, *near]) if value not in avoid]
    if not known or feature.kind not in "fiu":
        return []
    numbers = [float(value) for value in known if isinstance(value, int | float)]
    if not numbers:
        return []
    beyond = [max(numbers) + 1, max(numbers) + 1000, min(numbers) - 1, -1.0]
    between = [numbers[0] + 0.5, numbers[-1] - 0.25] if feature.kind == "f" else []
    return list(_into(np.array(beyond + between), feature.pool.dtype).tolist())

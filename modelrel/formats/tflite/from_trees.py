"""Models of trees -> TensorFlow operators that TFLite has: all trees go down one level at a time.

Comparisons are in float32, with thresholds rounded so that every number of float32 takes the leaf that it takes in the
original. Sums are in whole numbers of 64 bits (fixed point), which TFLite adds exactly: a tie stays a tie.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from modelrel.errors import Refused
from modelrel.formats.tflite import interface
from modelrel.trees import ZERO_BOUND, Choice, Ensemble, Forest, Mode, at_most
from modelrel.values import TensorSpec

_BITS: Final = 61  # of a sum in fixed point


def function(ensemble: Ensemble, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> interface.Make:
    """Return what builds the model with TensorFlow.

    Raises `Refused` for categories of text.
    """
    if any(isinstance(value, str) for known in ensemble.entry.codes.values() for value in known):
        raise Refused(
            "the model knows categories of text, which TFLite's operators do not read",
            "Convert it to onnx, or encode the categories as numbers before the model.",
        )

    def answered(tf: Any, given: Mapping[str, Any]) -> dict[str, Any]:
        columns = [tf.cast(tensor, tf.float32) for tensor in given.values()]
        columns = [tf.reshape(one, [-1, 1]) if len(one.shape) == 1 else one for one in columns]
        x = tf.concat(columns, axis=1) if len(columns) > 1 else columns[0]
        return dict(zip((spec.name for spec in outputs), _Graph(tf, ensemble).answered(x), strict=True))

    return interface.built(answered, inputs, outputs)


def leaves(tf: Any, x: Any, forest: Forest) -> Any:
    """Return the number of the leaf that each row ends in in each tree, over all trees: int32 (N, T)."""
    leaf = forest.mode == Mode.LEAF
    places = np.arange(len(leaf))
    # A leaf leads to itself: its "second child" is itself, and no number is at most NaN.
    second = np.where(leaf, places, forest.child + 1).astype(np.int32)
    threshold = np.where(forest.mode <= Mode.LT, at_most(forest.threshold, forest.mode), np.float32(np.nan))
    at = tf.tile(forest.roots.astype(np.int32)[None, :], [tf.shape(x)[0], 1])
    for _ in range(forest.depth):
        value = tf.gather(x, tf.gather(forest.feature.astype(np.int32), at), batch_dims=1)
        holds = value <= tf.gather(threshold, at)
        if forest.members:
            holds = tf.logical_or(holds, _member(tf, forest, at, value))
        if (forest.missing & ~leaf).any():
            gap = tf.logical_and(tf.math.is_nan(value), tf.gather(forest.missing & ~leaf, at))
            holds = tf.logical_or(holds, gap)
        at = tf.gather(second, at) - tf.cast(holds, tf.int32)
    return tf.gather(np.where(leaf, forest.child, 0).astype(np.int32), at)


def _member(tf: Any, forest: Forest, at: Any, value: Any) -> Any:
    """Return whether the value is in the set of the split, False where the split has none."""
    picks = forest.mode == Mode.MEMBER
    width = int(max((one.max(initial=0) for one in forest.members), default=0)) + 2
    # Row 0 is the empty set, and the last column is what is no category.
    table = np.zeros((len(forest.members) + 1, width), np.bool_)
    for row, one in zip(table[1:], forest.members, strict=True):
        row[one.astype(np.int64)] = True
    number = np.zeros(len(picks), np.int32)
    number[picks] = np.arange(1, len(forest.members) + 1)
    known = tf.logical_and(value >= 0, value < np.float32(width - 1))
    known = tf.logical_and(known, tf.floor(value) == value)
    code = tf.cast(tf.where(known, value, np.float32(width - 1)), tf.int32)
    return tf.gather(table.ravel(), tf.gather(number, at) * width + code)


class _Graph:
    """The operators of one ensemble."""

    def __init__(self, tf: Any, ensemble: Ensemble) -> None:
        self._tf, self._said = tf, ensemble

    def answered(self, x: Any) -> list[Any]:
        """Return the label, where it classifies, and the numbers, of rows (N, features) in float32."""
        tf, said = self._tf, self._said
        raw, fixed, unit = self._scores(self._entered(x))
        value = self._linked(raw)
        numbers = tf.concat([1.0 - value, value], axis=1) if said.pair else value
        if said.choice is None:
            return [numbers]
        known = said.choice.classes
        index = self._chosen(said.choice, fixed if fixed is not None else raw, value, unit)
        return [tf.gather(tf.constant(list(known)), index), numbers]

    def _entered(self, x: Any) -> Any:
        """Return the rows as the trees see them."""
        tf, entry = self._tf, self._said.entry
        if entry.codes:
            columns = [
                self._place(x[:, number : number + 1], entry.codes.get(number)) for number in range(self._said.features)
            ]
            return tf.concat(columns, axis=1)
        if not math.isnan(entry.missing):
            x = tf.where(x == np.float32(entry.missing), np.float32(np.nan), x)
        if entry.zeros is not None:
            instead = np.where(entry.zeros, np.nan, 0.0).astype(np.float32)[None, :]
            x = tf.where(tf.abs(x) <= np.float32(ZERO_BOUND), instead + tf.zeros_like(x), x)
        if entry.floor:
            whole = tf.floor(x)
            none = tf.logical_or(whole < 0, whole >= np.float32(2**24))
            whole = tf.where(none, np.float32(-1), whole)
            x = tf.where(self._mask(entry.floor), whole, x)
        if entry.cut:
            x = tf.where(self._mask(entry.cut), tf.sign(x) * tf.floor(tf.abs(x)), x)
        return x

    def _mask(self, features: Sequence[int]) -> Any:
        return np.isin(np.arange(self._said.features), features)[None, :]

    def _place(self, column: Any, known: Sequence[Any] | None) -> Any:
        """Return the place of each value of a column among the known ones, -1 where it is not there."""
        if known is None:
            return column
        tf = self._tf
        numbers = np.array([np.nan if value is None else float(value) for value in known])
        if not np.array_equal(numbers.astype(np.float32), numbers, equal_nan=True):
            raise Refused(
                "the model knows categories that float32 does not hold, and TFLite's operators compare in float32",
                "Convert it to onnx, or encode the categories as small whole numbers.",
            )
        same = tf.cast(column == numbers.astype(np.float32)[None, :], tf.float32)
        places = np.arange(1, len(numbers) + 1, dtype=np.float32)[None, :]
        return tf.reduce_sum(same * places, axis=1, keepdims=True) - 1.0

    def _scores(self, x: Any) -> tuple[Any, Any, float]:
        """Return the raw scores (N, scores) in float32, and in fixed point where they are, whose unit is the third."""
        tf, said = self._tf, self._said
        factor = said.scale / said.divisor
        base = said.base[None, :].astype(np.float64)
        if said.forest is None or said.forest.linear is not None:
            raw = base.astype(np.float32) + tf.zeros_like(x[:, :1]) * 0.0
            if said.forest is None and said.weights is not None:
                filled = tf.where(tf.math.is_nan(x), np.float32(0), x)
                raw = tf.matmul(filled, said.weights.astype(np.float32)) + base.astype(np.float32)
            elif said.forest is None:
                raw = tf.tile(tf.constant(base, tf.float32), [tf.shape(x)[0], 1])
            else:
                raw = self._linear(x, said.forest) * np.float32(factor) + base.astype(np.float32)
            return raw, None, 0.0
        table, unit = self._table(said.forest, base / factor)
        total = self._summed(tf.gather(table, leaves(tf, x, said.forest)))
        total += np.rint(base / factor / unit).astype(np.int64)
        return tf.cast(total, tf.float32) * np.float32(unit * factor), total, unit * factor

    def _table(self, forest: Forest, base: Any) -> tuple[Any, float]:
        """Return what each leaf says, (leaves, width), as multiples of a unit."""
        table = forest.leaves
        if not np.isfinite(table).all():
            raise Refused("a leaf of the model is not a finite number", "Train the model again.")
        most = float(np.abs(table).max() * len(forest.roots) + np.abs(base).max())
        unit = 2.0 ** (math.ceil(math.log2(most)) - _BITS) if most > 0 else 1.0
        return np.rint(table / unit).astype(np.int64), unit

    def _summed(self, found: Any) -> Any:
        """Add what trees say, (N, T, width), in the columns of their targets: (N, scores)."""
        tf, targets, count = self._tf, self._said.targets, len(self._said.base)
        if targets is None or count == 1:
            return tf.reduce_sum(found, axis=1)
        columns = [
            tf.reduce_sum(tf.gather(found, np.flatnonzero(targets == column).astype(np.int32), axis=1), axis=1)
            for column in range(count)
        ]
        return tf.concat(columns, axis=1)

    def _linear(self, x: Any, forest: Forest) -> Any:
        """Return the sums of trees with linear leaves, (N, scores)."""
        tf, linear, said = self._tf, forest.linear, self._said
        assert linear is not None
        assert said.targets is not None
        leaf = leaves(tf, x, forest)
        plain = tf.gather(forest.leaves[:, 0].astype(np.float32), leaf)
        found = tf.gather(linear.constant.astype(np.float32), leaf)
        gap = tf.zeros_like(found) > 0
        for column in range(linear.feature.shape[1]):
            feature = linear.feature[:, column]
            seen = tf.gather(x, tf.gather(np.maximum(feature, 0).astype(np.int32), leaf), batch_dims=1)
            used = tf.gather(feature >= 0, leaf)
            gap = tf.logical_or(gap, tf.logical_and(used, tf.math.is_nan(seen)))
            times = tf.gather(linear.coefficient[:, column].astype(np.float32), leaf)
            found += tf.where(used, seen, np.float32(0)) * times
        values = tf.where(gap, plain, found)
        into = np.zeros((len(forest.roots), len(said.base)), np.float32)
        into[np.arange(len(into)), said.targets] = 1
        return tf.matmul(values, into)

    def _linked(self, raw: Any) -> Any:
        """Return what the link makes of the raw scores."""
        tf, said = self._tf, self._said
        links: dict[str, Callable[[], Any]] = {
            "identity": lambda: raw,
            "exp": lambda: tf.exp(raw),
            "sigmoid": lambda: tf.sigmoid(raw * np.float32(said.slope) if said.slope != 1 else raw),
            "softmax": lambda: tf.nn.softmax(raw, axis=1),
            "log1p_exp": lambda: tf.maximum(raw, 0.0) - tf.math.log(tf.sigmoid(tf.abs(raw))),
            "signed_square": lambda: tf.sign(raw) * raw * raw,
            "largest": lambda: tf.cast(tf.argmax(raw, axis=1), tf.float32)[:, None],
            "isolation": lambda: -tf.exp(raw * np.float32(-math.log(2))) - np.float32(said.offset),
        }
        return links[said.link]()

    def _chosen(self, choice: Choice, scores: Any, value: Any, unit: float) -> Any:
        """Return the number of the class: int64 (N,). `scores` are in multiples of `unit` where it is not 0."""
        tf, said = self._tf, self._said
        if choice.rule == "largest" and scores.shape[1] > 1:
            # The links of several scores keep their order. The operator that finds the largest knows no whole numbers.
            short = tf.reduce_max(scores, axis=1, keepdims=True) - scores
            return tf.argmax(-tf.cast(short, tf.float32), axis=1)
        limit, compare = choice.limit, choice.rule
        if choice.rule == "largest":
            limit, compare = 0.0, "above"  # of p and 1 - p
        elif choice.of == "value" and said.link == "isolation":
            limit = -math.log2(-said.offset) if said.offset < 0 else math.inf
        elif choice.of == "value":
            scores, unit = value, 0.0
        scores = scores[:, 0]
        end = np.int64(round(limit / unit)) if unit and math.isfinite(limit) else np.float32(limit)
        if unit and not math.isfinite(limit):
            scores = tf.cast(scores, tf.float32)
        found = {"above": tf.greater, "at_least": tf.greater_equal, "below": tf.less}[compare](scores, end)
        return tf.cast(found, tf.int64)

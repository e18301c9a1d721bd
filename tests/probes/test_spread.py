"""Spread: how errors lie is counted by size, with the rows that are farthest off."""

from __future__ import annotations

import numpy as np

from modelrel import records
from modelrel.measured import Tolerance
from modelrel.probes.comparison import compared
from modelrel.probes.interview import Answered
from modelrel.tensors import Array


def answered(original: Array) -> Answered:
    count = len(original)
    inputs = {"x": np.arange(count, dtype=np.float64).reshape(-1, 1)}
    return Answered(inputs=inputs, outputs={"y": original}, origin=("ranged",) * count, us_per_row=1.0, findings=())


def test_errors_are_counted_by_half_powers_of_ten() -> None:
    original = np.ones((5, 2))
    copy = original.copy()
    copy[:, 1] += [0.0, 1.2e-7, 2e-7, 4e-7, 2e-3]
    (spread,) = (compared("y", answered(original), {"y": copy}, Tolerance()).spread,)
    assert spread is not None
    assert spread.exact == 1
    assert dict(spread.halves) == {-14: 2, -13: 1, -6: 1}
    assert [(far.row, far.column) for far in spread.far] == [(4, 1), (3, 1), (2, 1), (1, 1)]
    assert (spread.far[0].original, spread.far[0].copy, spread.far[0].given) == ("1.0", "1.002", "x 4")
    assert len(spread.pairs) == 10


def test_a_missing_number_where_there_should_be_one_is_the_farthest_and_can_be_recorded() -> None:
    original = np.array([[1.0], [2.0], [np.nan]])
    copy = np.array([[1.0 + 1e-6], [np.nan], [np.nan]])
    parity = compared("y", answered(original), {"y": copy}, Tolerance())
    assert parity.spread is not None
    assert [far.row for far in parity.spread.far] == [1, 0]
    assert parity.spread.exact == 1
    assert np.isfinite(parity.spread.far[0].error)
    assert np.isfinite(parity.spread.pairs).all()
    records.plain(parity.spread)


def test_labels_have_none() -> None:
    labels = np.array(["a", "b"], object)
    assert compared("y", answered(labels), {"y": labels}, Tolerance()).spread is None

"""Generated rows: those that find the faults which random ones do not."""

from __future__ import annotations

import numpy as np

from modelrel import tensors
from modelrel.probes.generated import Maker
from modelrel.values import Signature, TensorSpec

FRAME = Signature(
    kind="columns",
    inputs=(
        TensorSpec(name="size", datatype="FP32", shape=(-1, 1)),
        TensorSpec(name="plan", datatype="BYTES", shape=(-1, 1)),
        TensorSpec(name="age", datatype="INT64", shape=(-1, 1)),
    ),
)
HINTS = {"features": [{"thresholds": [0.1, 2.5]}, {"categories": ["pro", "basic"]}, {"thresholds": [39.5]}]}
IMAGE = Signature(kind="tensor", inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 3, 4)),))


def test_a_threshold_is_asked_at_just_below_and_just_above_in_the_dtype_of_the_input() -> None:
    asked = tensors.stack([group.rows for group in Maker(FRAME, None, HINTS, 0).thresholds()])
    sizes = asked["size"][:, 0]
    at = np.float32(0.1)
    assert sizes.dtype == np.float32
    assert {np.nextafter(at, np.float32(-1)), at, np.nextafter(at, np.float32(1))} <= set(sizes)
    assert {38, 39, 40} <= set(asked["age"][:, 0].tolist())


def test_texts_nobody_trained_on_and_near_misses_are_asked() -> None:
    group = Maker(FRAME, None, HINTS, 0).unseen()[0]
    asked = set(group.rows["plan"][:, 0])
    assert {"", " ", "PRO", "pro ", "北京"} <= asked


def test_a_text_that_stands_for_missing_is_not_made_up() -> None:
    hints = {"features": [{}, {"categories": ["pro"], "exclusive": [""]}, {}]}
    assert "" not in set(Maker(FRAME, None, hints, 0).unseen()[0].rows["plan"][:, 0])


def test_each_column_that_can_hold_a_gap_gets_one() -> None:
    groups = Maker(FRAME, None, HINTS, 0).missing()
    assert [group.features for group in groups] == [(0,), (1,)]
    assert np.isnan(groups[0].rows["size"][0, 0])
    assert groups[1].rows["plan"][0, 0] is None


def test_the_same_seed_makes_the_same_rows() -> None:
    first, second, other = (tensors.stack([g.rows for g in Maker(FRAME, None, HINTS, n).usual(90)]) for n in (3, 3, 4))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert not np.array_equal(first["size"], other["size"])


def test_at_least_as_many_rows_are_made_as_asked_for() -> None:
    for signature in (FRAME, IMAGE):
        groups = Maker(signature, None, {}, 0).usual(1000)
        assert sum(tensors.rows(group.rows) for group in groups) >= 1000


def test_tensors_of_more_dimensions_are_shaken() -> None:
    real = {"x": np.ones((2, 3, 4), np.float32)}
    found = Maker(IMAGE, real, {}, 0).usual(10)[0].rows["x"]
    assert (found.shape, found.dtype) == ((10, 3, 4), np.float32)

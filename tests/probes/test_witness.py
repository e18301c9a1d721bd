"""A second runtime is heard on every row: it agrees, it is quoted where it does not, or its absence is told."""

from __future__ import annotations

import numpy as np

from modelrel.probes import witness
from modelrel.probes.interview import Answered
from modelrel.values import Tolerance

ROWS = {"x": np.array([[1.0], [2.0], [3.0]])}
SAID = {"label": np.array([0, 1, 1]), "probabilities": np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7]])}
ANSWERED = Answered(ROWS, ("example", "thresholds", "missing"), SAID, 0.0, ())


def test_one_that_agrees_is_a_finding() -> None:
    said, agreed = witness.heard("numpy", lambda rows: dict(SAID), ANSWERED, Tolerance())
    assert agreed
    assert "answers all 3 rows like the original, its numbers within 0 " in said[0]


def test_one_that_differs_is_quoted_with_its_row() -> None:
    def other(rows: object) -> dict[str, np.ndarray]:
        return {"label": np.array([0, 0, 1]), "probabilities": SAID["probabilities"]}

    (said,), agreed = witness.heard("numpy", other, ANSWERED, Tolerance())
    assert not agreed
    assert "gives another label on 1 of 3 rows; row 1 (thresholds)" in said
    assert said.endswith("the original answers 1, it 0")


def test_one_that_gives_another_shape_is_wrong() -> None:
    _, agreed = witness.heard("numpy", lambda rows: {"label": np.array([[0], [1], [1]])}, ANSWERED, Tolerance())
    assert not agreed


def test_one_that_is_not_installed_is_told_of() -> None:
    assert witness.heard("scorer", None, ANSWERED, Tolerance()) == (
        ("one runtime alone was asked: scorer is not installed",), True,
    )  # fmt: skip


def test_a_format_without_one_has_nothing_to_tell() -> None:
    assert witness.heard("", None, ANSWERED, Tolerance()) == ((), True)

"""Who is wrong: two others are asked on the rows that differ."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestRegressor

from modelrel import trees
from modelrel.probes.opinion import blamed

NONE = np.zeros(0, np.int64)
ROWS = np.random.default_rng(0).normal(size=(300, 3))


@pytest.fixture(scope="module")
def ensemble() -> trees.Ensemble:
    model = RandomForestRegressor(10, random_state=0).fit(ROWS, ROWS[:, 0])
    found = trees.read(model)
    assert found is not None
    return found


def answering(ensemble: trees.Ensemble) -> Any:
    return lambda rows: {"prediction": trees.answers(ensemble, rows["x"])[1]}


def wrong(ensemble: trees.Ensemble) -> trees.Ensemble:
    """Return it read with every other leaf's sign turned."""
    assert ensemble.forest is not None
    leaves = ensemble.forest.leaves.copy()
    leaves[::2] *= -1
    return replace(ensemble, forest=replace(ensemble.forest, leaves=leaves))


@pytest.mark.parametrize(
    ("copy", "runtime", "read", "said"),
    [
        ("wrong", "right", "right", "the runtime is wrong on prediction: an independent one runs this copy"),
        ("wrong", "wrong", "right", "the copy is written wrongly: the trees as they are read answer like the original"),
        ("wrong", "wrong", "wrong", "its trees are read wrongly: as they are read they answer like the copy"),
        ("wrong", None, "wrong", "its trees are read wrongly"),
        ("wrong", None, "right", "the copy is written wrongly"),
        ("wrong", "wrong", None, "an independent runtime of the copy answers like the copy"),
    ],
)
def test_it_is_said_with_whom_the_others_side(
    ensemble: trees.Ensemble, copy: str, runtime: str | None, read: str | None, said: str
) -> None:
    right, other = answering(ensemble), answering(wrong(ensemble))
    sides: dict[str | None, Any] = {"right": right, "wrong": other, None: None}
    rows = {"x": ROWS}
    answers = right(rows), sides[copy](rows)
    assert said in blamed("prediction", rows, answers, (sides[runtime], sides[read]), NONE)


def test_nobody_is_blamed_where_the_others_do_not_answer(ensemble: trees.Ensemble) -> None:
    def fails(_rows: Any) -> Any:
        raise NotImplementedError

    rows = {"x": ROWS}
    answers = answering(ensemble)(rows), answering(wrong(ensemble))(rows)
    assert not blamed("prediction", rows, answers, (fails, None), NONE)
    assert not blamed("prediction", rows, (answers[0], answers[0]), (fails, answering(ensemble)), NONE)

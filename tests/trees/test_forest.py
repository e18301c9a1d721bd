"""Trees as arrays: siblings side by side, nothing that no split leads to."""

from __future__ import annotations

import numpy as np
import pytest
import xgboost
from sklearn.ensemble import BaggingRegressor, RandomForestClassifier, RandomForestRegressor

from modelrel import trees
from modelrel.trees import Mode
from modelrel.trees.forest import Nodes, planted

ROWS = np.random.default_rng(0).normal(size=(400, 4)).astype(np.float32)


def test_siblings_stand_side_by_side_and_leaves_keep_their_order() -> None:
    model = RandomForestRegressor(5, max_depth=4, random_state=0).fit(ROWS, ROWS[:, 0])
    found = trees.forest(model)
    assert found is not None
    leaf = found.mode == Mode.LEAF
    below = np.sort(np.concatenate([found.child[~leaf], found.child[~leaf] + 1, found.roots]))
    assert np.array_equal(below, np.arange(len(leaf)))  # each node but a root is the child of one split
    assert np.array_equal(np.sort(found.child[leaf]), np.arange(len(found.leaves)))
    kept = np.concatenate([one.tree_.value[one.tree_.children_left < 0, 0, 0] for one in model.estimators_])
    assert np.array_equal(found.leaves[:, 0], kept)
    assert found.sizes.tolist() == [one.tree_.node_count for one in model.estimators_]
    assert found.leaf_sizes.tolist() == [one.tree_.n_leaves for one in model.estimators_]


def test_leaves_that_pruning_left_behind_are_dropped() -> None:
    data = xgboost.DMatrix(ROWS, ROWS[:, 0])
    model = xgboost.train({"gamma": 5, "tree_method": "exact"}, data, 4)
    found = trees.forest(model)
    assert found is not None
    kept = model.trees_to_dataframe().groupby("Tree").size().tolist()
    assert found.sizes.tolist() == kept
    raw = bytes(model.save_raw("json")).decode()
    assert '"num_deleted":"0"' not in raw  # every tree was pruned
    answers = trees.answers(trees.read(model), ROWS)[1].ravel()
    assert np.allclose(answers, model.predict(data), rtol=1e-5, atol=1e-6)


def test_the_sets_of_categories_follow_their_splits() -> None:
    # The root's second child stands before its first one here, as some libraries number them.
    nodes = Nodes(
        sizes=np.array([5]),
        leaf=np.array([False, False, True, True, True]),
        first=np.array([2, 3, 0, 0, 0]),
        second=np.array([1, 4, 0, 0, 0]),
        feature=np.array([0, 1, 0, 0, 0]),
        threshold=np.zeros(5),
        mode=np.array([Mode.MEMBER] * 5, np.uint8),
    )
    found = planted(nodes, np.array([10.0, 20.0, 30.0]), [np.array([1.0]), np.array([2.0, 3.0])])
    rows = np.array([[1, 0], [0, 2], [0, 3], [0, 4], [1, 2]], float)
    assert found.leaves[trees.reached(found, rows)[:, 0], 0].tolist() == [10, 20, 20, 30, 10]


def test_members_of_a_bag_see_their_own_columns() -> None:
    model = BaggingRegressor(max_features=0.5, n_estimators=7, random_state=0).fit(ROWS, ROWS[:, 0])
    found = trees.forest(model)
    assert found is not None
    mean = found.leaves[trees.reached(found, ROWS.astype(float)), 0].mean(axis=1)
    assert np.allclose(mean, model.predict(ROWS))


def test_thresholds_are_those_of_the_splits_sorted() -> None:
    model = RandomForestClassifier(3, max_depth=3, random_state=0).fit(ROWS, ROWS[:, 1] > 0)
    found = trees.forest(model)
    assert found is not None
    for feature, values in enumerate(trees.thresholds(found, 4)):
        expected = {
            float(value)
            for one in model.estimators_
            for value in one.tree_.threshold[(one.tree_.feature == feature) & (one.tree_.children_left >= 0)]
        }
        assert values == sorted(expected)


@pytest.mark.parametrize("missing", [-999.0, 0.1])
def test_a_number_that_stands_for_missing_is_compared_in_float32(missing: float) -> None:
    rows = ROWS.copy()
    rows[::3, 0] = missing
    model = xgboost.XGBRegressor(n_estimators=5, missing=missing).fit(rows, ROWS[:, 1] + (rows[:, 0] == missing))
    ensemble = trees.read(model)
    assert ensemble is not None
    assert np.allclose(trees.answers(ensemble, rows)[1].ravel(), model.predict(rows), rtol=1e-5, atol=1e-6)

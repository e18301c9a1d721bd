"""Random ensembles of each library: interpreter, every writer and the original take the same leaves."""

from __future__ import annotations

import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import catboost
import lightgbm
import numpy as np
import onnxruntime
import xgboost
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from onnx import TensorProto, helper
from sklearn import ensemble, tree

from modelrel import trees
from modelrel.formats.onnx.graph import DOMAIN_ML, Nodes
from modelrel.formats.onnx.opsets import ML, ML_TREES, NEWEST
from modelrel.formats.onnx.tree_operators import levels, v3, v5
from tests.models import compared

LIBRARIES = ("sklearn", "hist", "xgboost", "lightgbm", "catboost")
WRITERS: dict[str, Any] = {
    "v5": v5.numbered,
    "v5 in float32": partial(v5.numbered, single=True),
    "v3": v3.numbered,
    "core": levels.numbered,
}
OPERATORS = ("v5", "v3", "core")
_LARGEST = float(np.finfo(np.float32).max)  # what goes beyond is refused by scikit-learn's trees


def trained(library: str, seed: int) -> tuple[Any, Any]:
    """Return a fitted model and its rows: columns of numbers, of gaps, and (the last one) of categories."""
    random = np.random.default_rng([seed, LIBRARIES.index(library)])
    dtype = random.choice(["float32", "float64"])
    data = np.c_[random.normal(0, 1, (150, 3)), random.integers(0, random.integers(3, 50), 150)].astype(dtype)
    data[:, 1] = np.round(data[:, 1], 1)
    if seed % 3:
        data[random.random(data.shape) < 0.15] = np.nan
    filled = np.nan_to_num(data)
    score = filled[:, 0] + filled[:, 1] * filled[:, 2] + (filled[:, 3] % 3 == 1) + random.normal(0, 0.3, 150)
    kind = ("numbers", "two", "three")[seed % 5 % 3]
    cuts = {"two": [0.5], "three": [0, 1]}.get(kind)
    target = np.abs(score) + 0.1 if cuts is None else np.searchsorted(cuts, score)
    model = _MODELS[library](random, kind)
    if library == "catboost":  # it learns to take gaps only where it has seen some
        data[0] = np.nan
    return model.fit(data, target, sample_weight=random.uniform(0.2, 2, 150)), data


def _sklearn(random: Any, kind: str) -> Any:
    number = int(random.integers(6))
    named = ["DecisionTree", "RandomForest", "ExtraTrees", "DecisionTree", "ExtraTree", "RandomForest"][number]
    room = tree if hasattr(tree, f"{named}Classifier") else ensemble
    options: dict[str, Any] = {"max_depth": int(random.integers(1, 8)), "random_state": 0}
    if room is ensemble:
        options["n_estimators"] = int(random.integers(2, 9))
    return getattr(room, named + ("Regressor" if kind == "numbers" else "Classifier"))(**options)


def _hist(random: Any, kind: str) -> Any:
    options: dict[str, Any] = {
        "max_iter": int(random.integers(1, 12)),
        "min_samples_leaf": int(random.integers(1, 10)),
        "max_leaf_nodes": int(random.integers(2, 20)),
        "max_bins": int(random.choice([60, 255])),
        "categorical_features": [3] if random.random() < 0.7 else None,
    }
    if kind == "numbers":
        return ensemble.HistGradientBoostingRegressor(
            loss=str(random.choice(["squared_error", "poisson", "gamma", "absolute_error"])), **options
        )
    return ensemble.HistGradientBoostingClassifier(**options)


def _xgboost(random: Any, kind: str) -> Any:
    options: dict[str, Any] = {
        "n_estimators": int(random.integers(1, 8)),
        "max_depth": int(random.integers(1, 7)),
        "num_parallel_tree": int(random.integers(1, 3)),
        "subsample": 0.8,
        "booster": str(random.choice(["gbtree", "dart"])),
        "n_jobs": 1,
    }
    if kind == "three" and random.random() < 0.5:  # which XGBoost does not train on categories
        options |= {"multi_strategy": "multi_output_tree", "num_parallel_tree": 1, "booster": "gbtree"}
    elif random.random() < 0.7:
        options |= {"feature_types": ["q", "q", "q", "c"], "enable_categorical": True}
        options["max_cat_to_onehot"] = int(random.choice([1, 100]))
    if kind == "numbers":
        named = ["reg:squarederror", "count:poisson", "reg:gamma", "reg:tweedie", "reg:absoluteerror"]
        return xgboost.XGBRegressor(objective=str(random.choice(named)), **options)
    return xgboost.XGBClassifier(**options)


class _Categorical:
    """LightGBM's own training, which takes the categorical column's number beside the rows."""

    def __init__(self, options: dict[str, Any], rounds: int) -> None:
        self.options, self.rounds = options, rounds

    def fit(self, data: Any, target: Any, sample_weight: Any) -> Any:
        rows = lightgbm.Dataset(data, target, weight=sample_weight, categorical_feature=[3])
        return lightgbm.train(self.options, rows, self.rounds)


def _lightgbm(random: Any, kind: str) -> Any:
    named = {
        "numbers": ["regression", "poisson", "tweedie", "huber"],
        "two": ["binary", "cross_entropy"],
        "three": ["multiclass", "multiclassova"],
    }
    options = {
        "objective": str(random.choice(named[kind])),
        "num_class": 3 if kind == "three" else 1,
        "boosting": str(random.choice(["gbdt", "dart", "rf"])),
        "bagging_fraction": 0.7,
        "bagging_freq": 1,
        "min_data_in_leaf": int(random.integers(2, 12)),
        "min_data_per_group": 2,
        "max_cat_to_onehot": int(random.choice([1, 100])),
        "num_leaves": int(random.integers(2, 20)),
        "num_threads": 1,
        "verbose": -1,
        "zero_as_missing": bool(random.random() < 0.3),
    }
    if options["boosting"] == "gbdt" and kind == "numbers" and not options["zero_as_missing"]:
        options["linear_tree"] = bool(random.random() < 0.4)
    return _Categorical(options, int(random.integers(1, 9)))


def _catboost(random: Any, kind: str) -> Any:
    options: dict[str, Any] = {
        "iterations": int(random.integers(1, 9)),
        "depth": int(random.integers(1, 7)),
        "grow_policy": str(random.choice(["SymmetricTree", "Lossguide", "Depthwise"])),
        "nan_mode": str(random.choice(["Min", "Max"])),
        "thread_count": 1,
        "random_seed": 0,
        "verbose": 0,
        "allow_writing_files": False,
    }
    if kind == "numbers":
        named = ["RMSE", "MAE", "Poisson", "Quantile:alpha=0.3", "Tweedie:variance_power=1.5"]
        return catboost.CatBoostRegressor(loss_function=str(random.choice(named)), **options)
    named = ["Logloss", "CrossEntropy"] if kind == "two" else ["MultiClass", "MultiClassOneVsAll"]
    return catboost.CatBoostClassifier(loss_function=str(random.choice(named)), **options)


_MODELS = {"sklearn": _sklearn, "hist": _hist, "xgboost": _xgboost, "lightgbm": _lightgbm, "catboost": _catboost}


def asked(found: Any, data: Any) -> Any:
    """Return real rows with each threshold and its neighbours, gaps, and categories nobody trained on put in."""
    random = np.random.default_rng(0)
    values = [(column, value) for column in range(4) for value in (np.nan, 0.0, -0.0, -1.0, 1.5, 49.0, 77.0, -0.5)]
    splits = np.flatnonzero(found.mode != trees.Mode.LEAF)
    for feature, threshold in zip(found.feature[splits], found.threshold[splits], strict=True):
        middle = data.dtype.type(threshold)
        with np.errstate(over="ignore"):  # CatBoost splits gaps off at the largest float
            near = [np.nextafter(middle, data.dtype.type(way)) for way in (-np.inf, np.inf)]
        values += [(int(feature), value) for value in (middle, *near) if np.isfinite(value)]
    values = [(column, value) for column, value in values if not abs(value) > _LARGEST]
    rows = data[random.integers(0, len(data), len(values))].copy()
    for row, (column, value) in enumerate(values):
        rows[row, column] = value
    return rows


def _leaves(model: Any, library: str, rows: Any) -> Any:
    """Return the original's leaves, (rows, trees): what it gives for them where it does not number them."""
    if library == "sklearn":
        singles = [single.tree_ for single in getattr(model, "estimators_", [model])]
        ends = np.stack([single.apply(rows.astype(np.float32)) for single in singles], axis=1)
        return np.stack(
            [np.cumsum(single.children_left < 0)[end] - 1 for single, end in zip(singles, ends.T, strict=True)], axis=1
        )
    if library == "hist":
        seen = model._preprocess_X(rows, reset=False)
        sets, places = model._bin_mapper.make_known_categories_bitsets()
        return np.stack(
            [single.predict(seen, sets, places, 1) for round_ in model._predictors for single in round_], axis=1
        )
    if library == "xgboost":
        booster = model.get_booster()
        ends = booster.predict(xgboost.DMatrix(rows), pred_leaf=True).reshape(len(rows), -1).astype(int)
        said = json.loads(bytes(booster.save_raw("json")))["learner"]["gradient_booster"]
        kept = (said.get("gbtree") or said)["model"]["trees"]
        numbers = [np.cumsum(np.array(single["left_children"]) < 0) - 1 for single in kept]
        return np.stack([number[end] for number, end in zip(numbers, ends.T, strict=True)], axis=1)
    if library == "catboost":
        return model.calc_leaf_indexes(rows).astype(int)
    return model.predict(rows, pred_leaf=True).reshape(len(rows), -1)


def _run(found: Any, seen: Any, operators: str) -> Any:
    """Return the leaves' numbers over all trees as ONNX Runtime finds them, (rows, trees)."""
    nodes = Nodes()
    result = WRITERS[operators](nodes, "X", found)
    graph = helper.make_graph(
        nodes.nodes,
        "leaves",
        [helper.make_tensor_value_info("X", TensorProto.DOUBLE, [None, 4])],
        [helper.make_tensor_value_info(result, TensorProto.INT64, None)],
        initializer=nodes.constants,
    )
    ml = ML if operators == "v3" else ML_TREES
    opsets = [helper.make_opsetid("", NEWEST), helper.make_opsetid(DOMAIN_ML, ml)]
    content = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {"X": seen})[0]


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(library=some.sampled_from(LIBRARIES), seed=some.integers(0, 2**32 - 1))
def test_interpreter_writers_and_original_take_the_same_leaves(library: str, seed: int) -> None:
    model, data = trained(library, seed)
    ensemble = trees.read(model)
    assert ensemble is not None
    found: Any = ensemble.forest
    rows = asked(found, data)
    seen = trees.entered(ensemble.entry, rows)
    ends = trees.reached(found, seen)
    given_ = ends - (np.cumsum(found.leaf_sizes) - found.leaf_sizes)
    if library == "hist":
        given_ = found.leaves[ends, 0]
    original = _leaves(model, library, rows)
    # CatBoost numbers the leaves of trees that are not symmetric in an order of its own.
    if library == "catboost":
        given_, original = _same_names(given_), _same_names(original)
    assert (given_ == original).all()
    for operators in WRITERS:
        if "float32" in operators and not ensemble.entry.single:
            continue
        assert (_run(found, seen, operators) == ends).all(), operators
    label, numbers = trees.answers(ensemble, rows)
    expected = _answers(model, library, rows)
    assert np.allclose(np.squeeze(numbers), np.squeeze(expected[-1]), rtol=1e-5 if library == "xgboost" else 1e-12)
    if len(expected) > 1:
        assert (label == expected[0]).all()


def _answers(model: Any, library: str, rows: Any) -> list[Any]:
    """Return what the original answers: its labels, where it has some, and its numbers."""
    if not hasattr(model, "predict_proba"):
        return [model.predict(rows)]
    return [np.ravel(model.predict(rows)), model.predict_proba(rows)]


def _same_names(ends: Any) -> Any:
    """Number each tree's leaves in the order in which rows meet them."""
    columns = []
    for column in ends.T:
        _, first, place = np.unique(column, return_index=True, return_inverse=True)
        columns.append(np.argsort(np.argsort(first))[place])
    return np.stack(columns, axis=1)


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(library=some.sampled_from(LIBRARIES), seed=some.integers(0, 2**32 - 1), operators=some.sampled_from(OPERATORS))
def test_the_copy_gives_the_answers_of_the_original(library: str, seed: int, operators: Any) -> None:
    model, data = trained(library, seed)
    flavor: Any = "sklearn" if library == "hist" else library
    with tempfile.TemporaryDirectory() as folder:
        found = compared(model, data, Path(folder), flavor, count=90, operators=operators)
    assert (found.labels, found.numbers < (1e-6 if library == "xgboost" else 1e-13)) == (0, True)

"""The known-bad table: what converters to ONNX and onnxruntime are known to get wrong, whatever the probes say."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal

from modelrel.errors import Refused
from modelrel.formats.faults import Fault
from modelrel.formats.onnx.known_faults import TOKENS, parts

_TREES: Final = {
    "DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeClassifier", "ExtraTreeRegressor",
    "ExtraTreesClassifier", "ExtraTreesRegressor", "RandomForestClassifier", "RandomForestRegressor",
}  # fmt: skip


def _any(*names: str) -> Callable[[Any], bool]:
    """Return whether a model holds an estimator of one of these classes."""
    return lambda model: any(type(part).__name__ in names for part in parts(model))


def _codes(model: Any) -> bool:
    return any(getattr(part, "is_categorical_", None) is not None for part in parts(model))


def _gaps(model: Any) -> bool:
    """Whether a tree sends missing values left somewhere (trained with some or not)."""
    found: Iterator[Any] = (getattr(part, "tree_", None) for part in parts(model) if type(part).__name__ in _TREES)
    return any(bool(tree.missing_go_to_left.any()) for tree in found if hasattr(tree, "missing_go_to_left"))


def _weighted(model: Any) -> bool:
    return any(
        type(part).__name__.startswith(("KNeighbors", "RadiusNeighbors"))
        and getattr(part, "weights", "uniform") != "uniform"
        for part in parts(model)
    )


def _scaled(model: Any) -> bool:
    """Whether trees stand behind a scaler, which rounds their inputs in float32."""
    kinds = [type(step).__name__ for _, step in getattr(model, "steps", ())]
    scaler = next((index for index, kind in enumerate(kinds) if kind.endswith("Scaler")), len(kinds))
    return any(kind in _TREES or "GradientBoosting" in kind for kind in kinds[scaler + 1 :])


def _several(model: Any) -> bool:
    """Whether an XGBoost model has several targets, by its own configuration."""
    for part in parts(model):
        booster = part.get_booster() if hasattr(part, "get_booster") else part
        if type(booster).__module__.partition(".")[0] == "xgboost":
            said = json.loads(booster.save_config())["learner"]["learner_model_param"]
            if int(said.get("num_target", 1)) > 1:
                return True
    return False


def _lightgbm(holds: Callable[[str], bool]) -> Callable[[Any], bool]:
    """Return whether a LightGBM model's own text has something."""

    def concerns(model: Any) -> bool:
        boosters = [getattr(part, "booster_", part) for part in parts(model)]
        mine = [one for one in boosters if type(one).__module__.partition(".")[0] == "lightgbm"]
        return any(holds(one.model_to_string()) for one in mine)

    return concerns


def _has(*words: str) -> Callable[[Any], bool]:
    return _lightgbm(lambda text: any(word in text for word in words))


def _catboost(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Return whether a CatBoost model itself (its own export knows no pipelines) has something."""
    return lambda model: type(model).__module__.partition(".")[0] == "catboost" and holds(model)


def _loss(*names: str) -> Callable[[Any], bool]:
    return _catboost(lambda model: str(model.get_all_params().get("loss_function")).partition(":")[0] in names)


def _threshold(model: Any) -> bool:
    return hasattr(model, "predict_proba") and model.get_probability_threshold() not in (None, 0.5)


def _nodes(graph: Any, kind: str) -> Iterator[Mapping[str, Any]]:
    """Yield the attributes of the graph's nodes of one kind."""
    for node in graph.node:
        if node.op_type == kind:
            yield {entry.name: entry for entry in node.attribute}


def _positive(graph: Any) -> bool:
    return any(
        said["post_transform"].s == b"LOGISTIC"
        and set(said["class_ids"].ints) <= {0, 1}
        and len(set(said["class_ids"].ints)) == 1
        and min(said["class_weights"].floats, default=-1.0) >= 0
        for said in _nodes(graph, "TreeEnsembleClassifier")
        if {"post_transform", "class_ids", "class_weights"} <= set(said)
    )


def _double(graph: Any) -> bool:
    """Whether a TreeEnsemble holds its thresholds in float64 (element type 11)."""
    return any(said["nodes_splits"].t.data_type == 11 for said in _nodes(graph, "TreeEnsemble"))


def _tokens(graph: Any) -> bool:
    exact = {TOKENS.encode(), f"({TOKENS})".encode()}
    return any(said["tokenexp"].s not in exact for said in _nodes(graph, "Tokenizer") if "tokenexp" in said)


def _skl2onnx(
    name: str, concerns: Callable[[Any], bool], condition: str, wrong: str, source: str = "measured"
) -> Fault:
    return Fault(
        name=name, library="skl2onnx", versions="<=1.20.0", over="model", condition=condition, concerns=concerns,
        wrong=wrong, action="warn", instead="Let modelrel convert it.", source=source, producer="skl2onnx",
    )  # fmt: skip


def _onnxmltools(name: str, concerns: Callable[[Any], bool], condition: str, wrong: str) -> Fault:
    return Fault(
        name=name, library="onnxmltools", versions="<=1.16.0", over="model", condition=condition, concerns=concerns,
        wrong=wrong, action="warn", instead="Let modelrel convert it.", producer="OnnxMLTools",
    )  # fmt: skip


def _catboosts(name: str, concerns: Callable[[Any], bool], condition: str, wrong: str) -> Fault:
    return Fault(
        name=name, library="catboost", versions="<=1.2.10", over="model", condition=condition, concerns=concerns,
        wrong=wrong, action="warn", instead="Let modelrel convert it.", producer="CatBoost",
    )  # fmt: skip


_SKLEARN: Final = "https://github.com/onnx/sklearn-onnx"

TABLE: Final[tuple[Fault, ...]] = (
    _skl2onnx(
        "hist_float32", _any("HistGradientBoostingClassifier", "HistGradientBoostingRegressor"),
        "histogram gradient boosting", "float64 thresholds are rounded to float32 to either side",
        f"{_SKLEARN}/pull/1227",
    ),
    _skl2onnx(
        "hist_categories", _codes, "histogram gradient boosting with categories",
        "categories are compared as numbers", f"{_SKLEARN}/issues/1051",
    ),
    _skl2onnx(
        "tree_missing", _gaps, "trees and forests asked about missing values",
        "a missing value always goes right", f"{_SKLEARN}/issues/1253",
    ),
    _skl2onnx(
        "scaled_forest", _scaled, "trees behind a scaler", "the scaled value is rounded across thresholds in float32",
    ),
    _skl2onnx(
        "neighbours_distance", _weighted, "neighbours weighted by distance",
        "a row that equals a training row gets other weights",
    ),
    _onnxmltools("xgboost_outputs", _several, "XGBoost with several outputs", "all trees add to the first output"),
    _onnxmltools("lightgbm_rf", _has("\naverage_output"), "LightGBM boosting=rf", "the trees are not averaged rightly"),
    _onnxmltools("lightgbm_linear", _has("\nis_linear=1"), "LightGBM linear_tree", "the leaves' lines are dropped"),
    _onnxmltools(
        "lightgbm_zero", _has("[zero_as_missing: 1]"), "LightGBM zero_as_missing", "a zero is compared as a number",
    ),
    _onnxmltools(
        "lightgbm_ova", _has("objective=multiclassova"), "LightGBM multiclassova", "softmax stands for the sigmoids",
    ),
    _onnxmltools(
        "lightgbm_fractions",
        _lightgbm(lambda text: any(int(n) for line in text.splitlines() if line.startswith("num_cat=")
                                   for n in line[8:].split())),
        "LightGBM with categorical splits", "a code that is no whole number is not cut to one",
    ),
    _catboosts("catboost_poisson", _loss("Poisson", "Tweedie"), "CatBoost's own export of Poisson and Tweedie",
               "the exponent is left out"),
    _catboosts("catboost_ova", _loss("MultiClassOneVsAll"), "CatBoost's own export of MultiClassOneVsAll",
               "softmax stands for the sigmoids"),
    _catboosts("catboost_threshold", _catboost(_threshold), "CatBoost's own export of a probability threshold",
               "labels are cut at a probability of 0.5"),
    _catboosts("catboost_outputs", _loss("MultiRMSE", "MultiQuantile", "RMSEWithUncertainty"),
               "CatBoost's own export of several numbers",
               "they are written as a classifier of no classes, which onnxruntime does not load"),
    Fault(
        name="xgboost_positive", library="onnxruntime", versions=">=1.0", over="graph",
        condition="TreeEnsembleClassifier with LOGISTIC, one weighted class and no weight below 0",
        concerns=_positive, wrong="labels are cut at a raw score of 0.5 instead of a probability of 0.5",
        action="warn", instead="Let modelrel convert it.",
        source="https://github.com/microsoft/onnxruntime/issues/27533",
    ),
    Fault(
        name="double_trees", library="onnxruntime", versions="<1.27", over="graph",
        condition="TreeEnsemble with float64 thresholds", concerns=_double, wrong="answers are other than the model's",
        action="refuse", instead="pip install 'onnxruntime>=1.27'",
    ),
    Fault(
        name="words", library="onnxruntime", versions=">=1.0", over="graph",
        condition="Tokenizer with an expression that approximates scikit-learn's", concerns=_tokens,
        wrong="accents, apostrophes and one-letter words are cut otherwise", action="warn",
        instead="Let modelrel convert it.",
    ),
)  # fmt: skip
"""Every entry has a test of its name that sees the fault: where the test fails, the library is right again."""


def warnings(
    over: Literal["model", "graph"], subject: Any, versions: Mapping[str, str], producer: str = ""
) -> tuple[str, ...]:
    """Return a sentence for each known fault of a native model (or of a graph), by the versions at hand.

    Raises `Refused` for the first one that is not to be released. A fault of a converter concerns the files that
    it wrote (`producer`) alone.
    """
    from packaging.specifiers import SpecifierSet

    said = []
    for fault in TABLE:
        version = versions.get(fault.library, "")
        if fault.over != over or not version or fault.producer not in ("", producer):
            continue
        if not SpecifierSet(fault.versions, prereleases=True).contains(version) or not fault.concerns(subject):
            continue
        if fault.action == "refuse":
            raise Refused(f"the copy has a {fault.sentence.rpartition('. ')[0]}", fault.instead)
        said.append(fault.sentence)
    return tuple(said)

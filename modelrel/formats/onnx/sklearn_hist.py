"""scikit-learn's histogram gradient boosting for skl2onnx: float64 thresholds, gaps and categories as it has them.

skl2onnx 1.20 writes float32 thresholds, does not read the categories, and fails with protobuf 7.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
from onnx import TensorProto

from modelrel.errors import Refused
from modelrel.formats.onnx import links, sklearn_trees, trees
from modelrel.formats.onnx.graph import DOMAIN_ML, Nodes
from modelrel.formats.onnx.trees import Mode, Tree

_DOUBLE: Final = int(TensorProto.DOUBLE)
_LINKS: Final = {"IdentityLink": "", "LogLink": "Exp"}
_EXACT_INTEGERS: Final = 2**53  # float64 holds every whole number below


def register() -> None:
    """Make skl2onnx convert histogram gradient boosting with this module (in this process)."""
    from skl2onnx import update_registered_converter
    from sklearn import ensemble

    update_registered_converter(
        ensemble.HistGradientBoostingClassifier,
        "ModelrelHistGradientBoostingClassifier",
        _shaped,
        _classifier,
        overwrite=True,
        options=sklearn_trees.OPTIONS,
    )
    update_registered_converter(
        ensemble.HistGradientBoostingRegressor,
        "ModelrelHistGradientBoostingRegressor",
        _shaped,
        _regressor,
        overwrite=True,
    )


def _shaped(operator: Any) -> None:
    """Declare the outputs; skl2onnx's own functions refuse several inputs, which columns of text and numbers are."""
    from skl2onnx.common.data_types import DoubleTensorType, Int64TensorType, StringTensorType

    native = operator.raw_operator
    count = operator.inputs[0].get_first_dimension()
    operator.outputs[-1].set_type(DoubleTensorType([count, len(getattr(native, "classes_", "1"))]))
    if len(operator.outputs) > 1:
        text = native.classes_.dtype.kind in "OUS"
        operator.outputs[0].set_type((StringTensorType if text else Int64TensorType)([count]))


def forest(native: Any) -> list[Tree]:
    """Return the trees, round by round and class by class, over the features in the order of the inputs.

    A feature of categories holds a category's place among `categories`, and anything below 0 where it is none.
    Raises `Refused` for categories that have no exact copy.
    """
    known = categories(native)
    order = _order(native)
    sizes = {index: len(listed) for index, listed in known.items()}
    return [_tree(single, order, sizes) for round_ in native._predictors for single in round_]  # noqa: SLF001


def categories(native: Any) -> dict[int, list[Any]]:
    """Return feature -> its categories as they come in, in the order of their codes, a missing one left out."""
    picked = getattr(native, "is_categorical_", None)
    if picked is None or not np.any(picked):
        return {}
    if getattr(native, "_preprocessor", None) is None:
        raise Refused(
            f"{type(native).__name__} has categories as scikit-learn kept them before 1.4, which has no proven copy",
            "Train it with scikit-learn 1.4 or newer.",
        )
    encoder = native._preprocessor.named_transformers_["encoder"]  # noqa: SLF001 - there is no public one
    known = [_listed(found) for found in encoder.categories_]
    return dict(zip(np.flatnonzero(picked).tolist(), known, strict=True))


def _listed(found: Any) -> list[Any]:
    listed: list[Any] = np.asarray(found).tolist()
    if listed and isinstance(listed[-1], float) and np.isnan(listed[-1]):
        listed.pop()  # NaN comes last
    texts = [isinstance(value, str) for value in listed if value is not None]
    if any(texts) and ("" in listed or not all(texts)):
        raise Refused(
            "histogram gradient boosting knows a category that is an empty text, which ONNX cannot tell from a gap",
            "Replace it by a word before training.",
        )
    numbers = [value for value in listed if isinstance(value, int | float)]
    if any(abs(value) >= _EXACT_INTEGERS for value in numbers):
        raise Refused(
            "histogram gradient boosting knows a category beyond 2**53, where float64 merges whole numbers",
            "Encode the categories as small numbers before training.",
        )
    return listed


def _is_text(listed: list[Any]) -> bool:
    return any(isinstance(value, str) for value in listed)


def _order(native: Any) -> Any:
    """Return the input's feature of each feature of the trees: those with categories come first there."""
    picked = getattr(native, "is_categorical_", None)
    if picked is None or not np.any(picked):
        return np.arange(native.n_features_in_)
    return np.concatenate([np.flatnonzero(picked), np.flatnonzero(~np.asarray(picked))])


def _tree(single: Any, order: Any, sizes: dict[int, int]) -> Tree:
    said = single.nodes
    leaf = said["is_leaf"].astype(bool)
    tree = trees.from_nodes(leaf, (said["left"], said["right"]), said["feature_idx"], said["num_threshold"], Mode.LEQ)
    splits = said[~leaf]
    gap_left, picks = splits["missing_go_to_left"].astype(bool), splits["is_categorical"].astype(bool)
    feature = order[tree.feature].astype(np.int64)
    members = []
    for number in np.flatnonzero(picks):
        known = np.arange(sizes[int(feature[number])], dtype=np.float64)
        left = np.isin(known, _bits(single.raw_left_cat_bitsets[splits["bitset_idx"][number]]))
        # What is not known goes where a gap goes, so the set is that of the other side.
        members.append(known[left != gap_left[number]])
    swapped = picks & gap_left
    return replace(
        tree,
        feature=feature,
        threshold=np.where(picks, 0.0, tree.threshold),
        mode=np.where(picks, Mode.MEMBER, Mode.LEQ).astype(np.uint8),
        missing=(gap_left & ~picks).astype(np.int64),
        true=np.where(swapped, tree.false, tree.true),
        false=np.where(swapped, tree.true, tree.false),
        leaves=said["value"][leaf].astype(np.float64),
        members=tuple(members),
    )


def _bits(words: Any) -> Any:
    """Return the numbers of the set bits of words of 32 bits, the lowest first."""
    return np.flatnonzero(np.unpackbits(np.asarray(words).astype("<u4").view(np.uint8), bitorder="little"))


def _entered(nodes: Nodes, operator: Any) -> str:
    """Return all features as float64 side by side, categories as their places (-1: not known, or missing)."""
    from skl2onnx.common.data_types import StringTensorType

    native = operator.raw_operator
    known = categories(native)
    if len(operator.inputs) == 1 and not known:
        return nodes.cast(operator.inputs[0].full_name, _DOUBLE)
    columns: list[str] = []
    for variable in operator.inputs:
        text = isinstance(variable.type, StringTensorType)
        width = native.n_features_in_ if len(operator.inputs) == 1 else int(variable.type.shape[1])
        for index in range(width):
            listed = known.get(len(columns))
            if text != _is_text(listed or []):
                raise Refused(
                    f"feature {len(columns)} of {type(native).__name__} was trained on "
                    f"{'numbers' if text else 'text'}, and comes as {'text' if text else 'numbers'}",
                    "Log the model with the signature of the columns that it was trained on.",
                )
            one = nodes.add("Gather", variable.full_name, nodes.constant([index], np.int64), axis=1)
            if not text:
                one = nodes.cast(one, _DOUBLE)
            columns.append(one if listed is None else _place(nodes, one, listed))
    return nodes.add("Concat", *columns, axis=1) if len(columns) > 1 else columns[0]


def _place(nodes: Nodes, one: str, listed: list[Any]) -> str:
    """Return the place of each value of a column in `listed`, -1 where it is not there: float64 (N, 1)."""
    if _is_text(listed):
        keys = ["" if value is None else value for value in listed]  # "" stands for a missing text in the copy
        places = {"values_int64s": list(range(len(keys))), "default_int64": -1}
        return nodes.cast(nodes.add("LabelEncoder", one, domain=DOMAIN_ML, keys_strings=keys, **places), _DOUBLE)
    numbers = np.array([np.nan if value is None else float(value) for value in listed], np.float64)
    same = nodes.cast(nodes.add("Equal", one, nodes.constant(numbers.reshape(1, -1))), _DOUBLE)
    counted = nodes.add("MatMul", same, nodes.constant(np.arange(1.0, len(numbers) + 1).reshape(-1, 1)))
    return nodes.add("Sub", counted, nodes.constant(1.0))


def _raw(nodes: Nodes, operator: Any) -> str:
    """Return the baseline plus the sums of the trees: float64, (N, classes or 1)."""
    native = operator.raw_operator
    x = _entered(nodes, operator)
    found = forest(native)
    width = int(native.n_trees_per_iteration_)
    base = np.asarray(native._baseline_prediction, np.float64).reshape(1, -1)  # noqa: SLF001 - there is no public one
    return nodes.add("Add", trees.summed(nodes, x, found, np.arange(len(found)) % width, width), nodes.constant(base))


def _classifier(scope: Any, operator: Any, container: Any) -> None:
    native = operator.raw_operator
    nodes = Nodes(scope.get_unique_operator_name("modelrel"))
    raw = _raw(nodes, operator)
    if len(native.classes_) > 2:
        index, probabilities = links.largest(nodes, raw), nodes.add("Softmax", raw, axis=1)
    else:
        index = links.above(nodes, raw, nodes.constant(0.0))
        probabilities = links.both(nodes, links.sigmoid(nodes, raw))
    label, _ = links.labels(nodes, index, sklearn_trees.known_classes(native))
    sklearn_trees.finish(nodes, container, operator, (label, probabilities))


def _regressor(scope: Any, operator: Any, container: Any) -> None:
    native = operator.raw_operator
    link = type(native._loss.link).__name__  # noqa: SLF001 - there is no public one
    if link not in _LINKS:
        raise Refused(
            f"{type(native).__name__} with loss={native.loss!r} has no proven copy",
            "Train it with one of scikit-learn's own losses.",
        )
    nodes = Nodes(scope.get_unique_operator_name("modelrel"))
    raw = _raw(nodes, operator)
    value = nodes.add(_LINKS[link], raw) if _LINKS[link] else raw
    sklearn_trees.finish(nodes, container, operator, (value,))

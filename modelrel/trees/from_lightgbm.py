"""LightGBM, read from its text model: thresholds in float64, its own zero, its ways of a gap, linear leaves."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np

from modelrel.errors import Refused
from modelrel.trees.ensemble import ZERO_BOUND, Choice, Ensemble, Entry
from modelrel.trees.forest import Bools, Floats, Forest, Ints, Linear, Mode, Nodes, planted
from modelrel.values import Scalar

# decision_type of the text format (LightGBM: include/LightGBM/tree.h)
_CATEGORICAL, _DEFAULT_LEFT = 1, 2
_NONE, _ZERO = 0, 1

_IDENTITY: Final = frozenset({
    "regression", "regression_l1", "huber", "fair", "quantile", "mape", "lambdarank", "rank_xendcg", "",
})  # fmt: skip
_EXP: Final = frozenset({"poisson", "gamma", "tweedie"})

Section = Mapping[str, str]


def read(native: Any) -> Ensemble:
    """Return a Booster or a model of the scikit-learn API.

    Raises `Refused` for pandas categories, for 0 as missing in some trees only, and objectives that are not known.
    """
    booster = getattr(native, "booster_", native)
    if booster.pandas_categorical:
        raise Refused(
            "the LightGBM model was trained on pandas categories, which no MLflow signature can carry",
            "Train it on integer codes with categorical_feature=[...], or encode them in a scikit-learn Pipeline.",
        )
    header, sections = _parsed(booster)
    said = _Said(sections)
    found = said.forest()
    features, width = int(header["max_feature_idx"]) + 1, int(header["num_tree_per_iteration"])
    classes = tuple(np.asarray(native.classes_).tolist()) if hasattr(native, "predict_proba") else ()
    return Ensemble(
        features=features,
        forest=found,
        targets=np.arange(len(sections), dtype=np.int64) % width,
        base=np.zeros(width),
        entry=_entry(said, found, features),
        divisor=float(len(sections) // width) if "average_output" in header else 1.0,
        known=_known(header),
        **_answers(header.get("objective", ""), classes),
    )


def forest(native: Any) -> Forest:
    """Return the trees that predict uses."""
    return _Said(_parsed(getattr(native, "booster_", native))[1]).forest()


def _parsed(booster: Any) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Return the header of a text model and its trees, as key -> value."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.txt"
        booster.save_model(path)  # model_to_string writes a large one twice
        text = path.read_text(encoding="utf-8")
    top, *rest = text.split("end of trees", 1)[0].split("\nTree=")
    return _pairs(top), [_pairs(section) for section in rest]


def _pairs(section: str) -> dict[str, str]:
    return dict(line.partition("=")[::2] for line in section.splitlines())


class _Said:
    """The trees of the text format, each field read for all of them at once."""

    def __init__(self, sections: list[dict[str, str]]) -> None:
        self.sections = sections
        self.feature = self.ints("split_feature")
        kind = self.ints("decision_type")
        self.categorical = (kind & _CATEGORICAL) > 0
        self.default_left = (kind & _DEFAULT_LEFT) > 0
        self.missing_type = (kind >> 2) & 3
        self.threshold = self.floats("threshold")

    def _joined(self, name: str) -> str:
        return " ".join([section.get(name, "") for section in self.sections])

    def ints(self, name: str) -> Ints:
        found: Ints = np.fromstring(self._joined(name), np.int64, sep=" ")
        return found

    def floats(self, name: str) -> Floats:
        # Python's float() reads all 17 digits; NumPy's parser of text is not used, as it is not correctly rounded.
        return np.array(list(map(float, self._joined(name).split())), np.float64)

    def forest(self) -> Forest:
        """Return the trees; the text numbers splits from 0 and leaf k as ~k, which are put one after the other."""
        leaves = np.array([int(section["num_leaves"]) for section in self.sections], np.int64)
        splits = leaves - 1
        sizes = leaves + splits
        starts = np.cumsum(sizes) - sizes
        leaf = np.ones(int(sizes.sum()), np.bool_)
        at = np.repeat(starts - (np.cumsum(splits) - splits), splits) + np.arange(int(splits.sum()))
        leaf[at] = False
        last = np.repeat(splits, splits)

        def child(name: str) -> Ints:
            said = self.ints(name)
            places: Ints = spread(np.where(said < 0, ~said + last, said), 0)
            return places

        def spread(values: Any, empty: Any) -> Any:
            found = np.full(len(leaf), empty)
            found[at] = values
            return found

        # Without a missing type LightGBM reads NaN as 0; with one, NaN has its own way. A category NaN goes right.
        left = np.where(self.missing_type == _NONE, self.threshold >= 0, self.default_left) & ~self.categorical
        nodes = Nodes(
            sizes=sizes,
            leaf=leaf,
            first=child("left_child"),
            second=child("right_child"),
            feature=spread(self.feature, 0),
            threshold=spread(np.where(self.categorical, 0.0, self.threshold), 0.0),
            missing=spread(left, empty=False),
            mode=spread(np.where(self.categorical, Mode.MEMBER, Mode.LEQ).astype(np.uint8), np.uint8(0)),
        )
        found = planted(nodes, self.floats("leaf_value"), self._members(splits))
        if all(section.get("is_linear", "0") == "0" for section in self.sections):
            return found
        return replace(found, linear=self._linear(leaves))

    def _members(self, splits: Ints) -> list[Floats]:
        """Return the categories that go left, for each categorical split, from words of 32 bits."""
        found = []
        ends = np.cumsum(splits)
        for section, start, end in zip(self.sections, ends - splits, ends, strict=True):
            sets = self.threshold[start:end][self.categorical[start:end]].astype(int)
            if not len(sets):
                continue
            bounds = [int(word) for word in section["cat_boundaries"].split()]
            words = np.array([int(word) for word in section["cat_threshold"].split()], "<u4")
            for number in sets.tolist():
                low, high = list(pairwise(bounds))[number]
                bits = np.unpackbits(words[low:high].view(np.uint8), bitorder="little")
                found.append(np.flatnonzero(bits).astype(np.float64))
        return found

    def _linear(self, leaves: Ints) -> Linear:
        """Return the linear functions of all leaves, whose features the text lists one leaf after another."""
        linear = np.repeat([section.get("is_linear", "0") != "0" for section in self.sections], leaves)
        sizes = np.zeros(len(linear), np.int64)
        sizes[linear] = self.ints("num_features")
        used = np.arange(sizes.max(initial=0)) < sizes[:, None]
        feature, coefficient = np.full(used.shape, -1, np.int64), np.zeros(used.shape)
        feature[used] = self.ints("leaf_features")
        coefficient[used] = self.floats("leaf_coeff")
        constant = self.floats("leaf_value")
        constant[linear] = self.floats("leaf_const")
        return Linear(constant=constant, feature=feature, coefficient=coefficient)

    def zeros(self, features: int) -> Bools:
        """Return which features take 0 for missing (zero_as_missing)."""
        taken = np.zeros((2, features), np.bool_)
        zero = self.missing_type == _ZERO
        taken[0][self.feature[~self.categorical & ~zero]] = True
        taken[1][self.feature[~self.categorical & zero]] = True
        both = taken.all(axis=0)
        if both.any():
            raise Refused(
                f"feature {int(np.argmax(both))} of the LightGBM model takes 0 for missing in some trees only",
                "Train all rounds with the same zero_as_missing.",
            )
        return np.asarray(taken[1])


def _entry(said: _Said, found: Forest, features: int) -> Entry:
    """Return the row as LightGBM sees it: nothing but 0 around 0, categories cut to integers.

    Its predictor drops what is not beyond that bound from the row, which makes it 0, or missing.
    """
    zeros = said.zeros(features)
    near = bool((np.abs(said.threshold[~said.categorical]) <= ZERO_BOUND).any())
    needed = zeros.any() or found.linear is not None or near
    # static_cast<int> cuts towards zero: -0.5 is category 0, and -1 is none.
    cut = tuple(np.unique(said.feature[said.categorical]).tolist())
    return Entry(zeros=zeros if needed else None, cut=cut)


def _answers(objective: str, classes: tuple[Scalar, ...]) -> dict[str, Any]:
    """Return the link and the choice of an objective; raises `Refused` for one that is not known."""
    name, *words = objective.split() or [""]
    said = dict(word.split(":", 1) for word in words if ":" in word)
    choice = Choice(classes=classes) if classes else None
    if name in ("binary", "cross_entropy"):
        return {
            "link": "sigmoid",
            "slope": float(said.get("sigmoid", 1)),
            "pair": bool(classes),
            "choice": choice,
        }
    if name == "multiclass":
        return {"link": "softmax", "choice": choice}
    if name == "multiclassova":
        return {"link": "sigmoid", "slope": float(said.get("sigmoid", 1)), "choice": choice}
    if not classes and name == "cross_entropy_lambda":
        return {"link": "log1p_exp"}
    if not classes and name in _EXP:
        return {"link": "exp"}
    if not classes and name in _IDENTITY:
        return {"link": "signed_square" if "sqrt" in words else "identity"}
    raise Refused(
        f"the LightGBM objective {name or 'of its own'!r} has no proven copy",
        f"Known: binary, multiclass, multiclassova, {', '.join(sorted(filter(None, _IDENTITY | _EXP)))}.",
    )


def _known(header: Section) -> dict[int, dict[str, object]]:
    """Return what it noted about each feature in training: the range, or the categories."""
    found: dict[int, dict[str, object]] = {}
    for feature, info in enumerate(header.get("feature_infos", "").split()):
        if info.startswith("["):
            low, _, high = info.strip("[]").partition(":")
            found[feature] = {"low": float(low), "high": float(high)}
        elif info != "none":
            found[feature] = {"categories": sorted(int(code) for code in info.split(":"))}
    return found

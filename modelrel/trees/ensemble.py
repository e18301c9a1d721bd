"""From a row to an answer: what a model does before its trees, with their sums, and after them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

from modelrel.errors import Refused
from modelrel.trees.forest import Bools, Floats, Forest, Ints, thresholds
from modelrel.values import Scalar

LinkName = Literal[
    "identity", "exp", "sigmoid", "softmax", "log1p_exp", "signed_square", "largest", "isolation"
]  # fmt: skip
"""What turns raw scores into answers.

`log1p_exp` is log(1 + exp(raw)); `signed_square` sign(raw) * raw²; `largest` the number of the largest score;
`isolation` -(2 ** -raw) - offset, the decision of an isolation forest (Liu et al., 2008).
"""

ZERO_BOUND: Final = float(np.float32(1e-35))
"""What LightGBM holds for zero: kZeroThreshold in its include/LightGBM/meta.h, a float there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """How the trees see a row; the steps are taken in the order of the fields.

    `single`: every number is rounded to float32. `missing`: this number stands for a gap (NaN: only NaN does).
    `zeros`: numbers within ZERO_BOUND become 0, and NaN for features where it is True. `floor`: features whose
    numbers are cut down to a whole one, -1 below 0 and from 2**24 on; `cut`: features whose numbers are cut towards 0.
    `codes`: feature -> values of its categories in the order of their codes, -1 for any other (`missing` of a text is
    None).
    """

    single: bool = False
    missing: float = math.nan
    zeros: Bools | None = None
    floor: tuple[int, ...] = ()
    cut: tuple[int, ...] = ()
    codes: Mapping[int, list[Scalar | None]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """How a classifier picks one of `classes` by number.

    `largest`: the first of the largest numbers. The others compare one number with `limit`, and give 1 or 0. They
    look at the raw scores, or at the `value` that the link made of them.
    """

    classes: tuple[Scalar, ...]
    rule: Literal["largest", "above", "at_least", "below"] = "largest"
    of: Literal["raw", "value"] = "value"
    limit: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble:
    """A model made of trees: raw = (sum of trees / divisor) * scale + base (+ x @ weights), answer = link(raw).

    Tree t adds to the raw score `targets[t]`; None: its leaves are vectors, one number for each score. `base` is
    (scores,). `weights` (features, scores) are those of XGBoost's gblinear, where a gap adds nothing. `slope`
    multiplies what goes into a sigmoid. `pair`: a probability p is given as (1 - p, p). `answers_single`: the
    library computes in float32 from the link on. `known` tells what the library noted about a feature.
    """

    features: int
    forest: Forest | None
    targets: Ints | None
    base: Floats
    entry: Entry = field(default_factory=Entry)
    divisor: float = 1.0
    scale: float = 1.0
    weights: Floats | None = None
    link: LinkName = "identity"
    slope: float = 1.0
    offset: float = 0.0
    pair: bool = False
    answers_single: bool = False
    choice: Choice | None = None
    known: Mapping[int, Mapping[str, object]] = field(default_factory=dict)
    pandas_categories: bool = False

    def refuse_pandas_categories(self) -> None:
        """Raise `Refused` where XGBoost was trained on pandas categories, whose names it keeps beside their codes."""
        if self.pandas_categories:
            raise Refused(
                "the XGBoost model was trained on pandas categories, which no MLflow signature can carry",
                "Train it on integer codes with feature_types=['c', ...], or encode them in a scikit-learn Pipeline.",
            )


def hints(ensemble: Ensemble) -> list[dict[str, object]]:
    """Return what an ensemble tells about each feature: thresholds, categories, and the range seen in training."""
    if ensemble.forest is None:
        return []
    found: list[dict[str, object]] = [
        {"thresholds": values} for values in thresholds(ensemble.forest, ensemble.features)
    ]
    for feature, known in ensemble.known.items():
        found[feature] |= known
    return found

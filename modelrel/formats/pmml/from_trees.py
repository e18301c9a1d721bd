"""Models of trees -> PMML: trees whose numbers are summed, for a last model that makes the answer of the sums.

Every threshold is one on float64 numbers. Where the original rounds a number to float32 first, it is the largest
float64 that rounds to a number of the left side, so that no scorer needs float32.

A split is two children, of which the first one that holds is taken; the second one always holds. A comparison with a
gap never holds (missingValueStrategy "none"), so the side that takes a gap stands second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final
from xml.etree.ElementTree import Element

import numpy as np

from modelrel.errors import Refused
from modelrel.formats.pmml import last
from modelrel.formats.pmml.document import Column, Document, schema
from modelrel.formats.pmml.elements import Expression, apply, element, number
from modelrel.formats.pmml.sets import among, compared, rounded_at_most, spans, spelled_among
from modelrel.trees import ZERO_BOUND, Ensemble, Mode

_MOST_NODES: Final = 200_000
_NONE: Final = {"missingValueStrategy": "none", "splitCharacteristic": "multiSplit"}
_Node = tuple[Mapping[str, str], list[Element]]
"""Attributes and children of a node."""


def model(document: Document, columns: Sequence[Column], ensemble: Ensemble, names: Sequence[str]) -> last.Made:
    """Return the model of an ensemble whose features are these columns, and its outputs of these names.

    Raises `Refused` for linear leaves, and for a forest that is too large for a text format.
    """
    forest = ensemble.forest
    if forest is not None and forest.linear is not None:
        raise Refused("the LightGBM model has linear trees, which PMML has no place for", "Convert it to onnx.")
    if forest is not None and len(forest.mode) > _MOST_NODES:
        raise Refused(
            f"the model has {len(forest.mode):,} nodes, and scorers take minutes to read a PMML file of more than "
            f"{_MOST_NODES:,}",
            "Convert it to onnx, or train fewer or smaller trees.",
        )
    columns = _entered(document, columns, ensemble)
    if forest is None:
        scored = _without_trees(document, columns, ensemble)
    else:
        averaged = ensemble.targets is None and _shares(ensemble)
        if averaged and ensemble.choice:
            document.labelled(ensemble.choice.classes)
        write = _averaged if averaged else _summed
        scored = write(document, _Grove(document, ensemble, columns), ensemble)
        ensemble = replace(ensemble, divisor=1.0) if averaged else ensemble
    return last.finished(document, scored, ensemble, names)


def _entered(document: Document, columns: Sequence[Column], ensemble: Ensemble) -> list[Column]:
    """Return the features with numbers that stand for a gap, and what LightGBM holds for zero, replaced."""
    entry, found = ensemble.entry, list(columns)
    if len(found) != ensemble.features:
        raise Refused(
            f"the model takes {ensemble.features} features, and its signature gives {len(found)}",
            "Log the model with the signature of the columns that it was trained on.",
        )
    for place, column in enumerate(found):
        if column.text != any(isinstance(value, str) for value in entry.codes.get(place, ())):
            raise Refused(
                f"feature {place} of the model was trained on {'numbers' if column.text else 'text'}, and comes as "
                f"{'text' if column.text else 'numbers'}",
                "Log the model with the signature of the columns that it was trained on.",
            )
    _whole_splits(ensemble)
    if not math.isnan(entry.missing):
        low, high = _single_bounds(entry.missing)
        for place, column in enumerate(found):
            outside = apply("or", apply("lessThan", column.field, low), apply("greaterThan", column.field, high))
            said = apply("if", apply("isNotMissing", column.field), apply("if", outside, column.field))
            found[place] = document.derive(f"present({column.field})", said, column)
    if entry.zeros is not None:
        for place, column in enumerate(found):
            size = apply("max", column.field, apply("-", 0.0, column.field))
            instead = () if entry.zeros[place] else (0.0,)
            said = apply("if", apply("greaterThan", size, ZERO_BOUND), column.field, *instead)
            present = apply("if", apply("isNotMissing", column.field), said)
            found[place] = document.derive(f"nonzero({column.field})", present, column)
    return found


def _whole_splits(ensemble: Ensemble) -> None:
    """Raise `Refused` where a feature that is cut to whole numbers for its categories is compared as a number too."""
    forest, cut = ensemble.forest, {*ensemble.entry.floor, *ensemble.entry.cut}
    both = cut.intersection(forest.feature[forest.mode <= Mode.LT].tolist()) if forest is not None else set()
    if both:
        raise Refused(
            f"feature {min(both)} of the model is split by categories in some trees, and as a number in others",
            "Train all its trees with the same categorical features.",
        )


def _single_bounds(value: float) -> tuple[float, float]:
    """Return the least and the largest float64 that round to a float32 number."""
    below, at = rounded_at_most(np.array([value, value]), np.array([Mode.LT, Mode.LEQ], np.uint8)).tolist()
    return float(np.nextafter(below, np.inf)), at


def _without_trees(document: Document, columns: Sequence[Column], ensemble: Ensemble) -> last.Scored:
    """Return XGBoost's gblinear, or a model that stopped before its first tree."""
    weights = ensemble.weights
    if weights is None:
        return last.Scored((), [0.0 for _ in ensemble.base])
    filled = [
        document.derive(
            f"filled({column.field})", apply("if", apply("isMissing", column.field), 0.0, column.field), column
        )
        for column in columns
    ]
    found: list[last.Segment] = []
    fields: list[Expression] = []
    for score in range(len(ensemble.base)):
        field = document.name(f"sum {score}")
        fields.append(field)
        found.append(last.line(document, filled, (weights[:, score], 0.0), field))
    return last.Scored(found, fields)


def _summed(document: Document, grove: _Grove, ensemble: Ensemble) -> last.Scored:
    """Return a model that sums trees for each score."""
    assert ensemble.forest is not None
    forest, targets, width = ensemble.forest, ensemble.targets, len(ensemble.base)
    trees = range(len(forest.roots))
    found: list[last.Segment] = []
    fields: list[Expression] = []
    for score in range(width):
        own = [tree for tree in trees if targets is None or targets[tree] == score]
        column = score if targets is None else 0
        if not own:
            fields.append(0.0)
            continue
        field = document.name(f"sum {score}")
        leaves: list[_Node] = [({"score": number(value)}, []) for value in forest.leaves[:, column].tolist()]
        members = [grove.tree(tree, {"functionName": "regression"}, "", leaves.__getitem__) for tree in own]
        found.append(last.gathered(document, members, "sum", {field: ""}))
        fields.append(field)
    return last.Scored(found, fields)


def _shares(ensemble: Ensemble) -> bool:
    """Whether the scores are the mean of the leaves' shares of each class."""
    if ensemble.forest is None or ensemble.choice is None:
        return False
    forest = ensemble.forest
    mean = ensemble.divisor == len(forest.roots) and ensemble.scale == 1 and not ensemble.base.any()
    return bool(mean and forest.leaves.shape[1] == len(ensemble.base) > 1 and (forest.leaves >= 0).all())


def _averaged(document: Document, grove: _Grove, ensemble: Ensemble) -> last.Scored:
    assert ensemble.forest is not None
    """Return a model that averages the shares of all classes at once."""
    texts = document.labels
    leaves: list[_Node] = []
    for row in ensemble.forest.leaves.tolist():
        shares = [number(share) for share in row]
        inside = [
            element("ScoreDistribution", value=text, recordCount=share, probability=share)
            for text, share in zip(texts, shares, strict=True)
        ]
        leaves.append(({"score": texts[int(np.argmax(row))]}, inside))
    kind = {"functionName": "classification"}
    members = [
        grove.tree(tree, kind, document.target, leaves.__getitem__) for tree in range(len(ensemble.forest.roots))
    ]
    fields = {document.name(f"mean {text}"): text for text in texts}
    return last.Scored([last.gathered(document, members, "average", fields)], list(fields))


class _Grove:
    """Writes the trees of one ensemble, whose features are these columns."""

    def __init__(self, document: Document, ensemble: Ensemble, columns: Sequence[Column]) -> None:
        assert ensemble.forest is not None
        self._document, self._entry, self._columns = document, ensemble.entry, columns
        self._forest = forest = ensemble.forest
        limit = forest.threshold.astype(np.float64)
        strict = np.where(forest.mode == Mode.LT, np.nextafter(limit, -np.inf), limit)
        self._limit = rounded_at_most(limit, forest.mode) if ensemble.entry.single else strict
        self._sets = dict(zip(np.flatnonzero(forest.mode == Mode.MEMBER).tolist(), forest.members, strict=True))

    def tree(self, tree: int, kind: Mapping[str, str], target: str, leaf: Callable[[int], _Node]) -> last.Segment:
        """Return one TreeModel, whose nodes at leaves are as `leaf` says."""
        forest = self._forest
        sources: set[str] = set()
        top = element("Node", element("True"))
        open_ = [(top, int(forest.roots[tree]))]
        while open_:
            node, at = open_.pop()
            child = int(forest.child[at])
            if forest.mode[at] == Mode.LEAF:
                attributes, inside = leaf(child)
                node.attrib.update(attributes)
                node.extend(inside)
                continue
            sources |= self._columns[forest.feature[at]].sources
            asked, swapped = self._split(at)
            for predicate, place in ((asked, child + swapped), (element("True"), child + 1 - swapped)):
                node.append(element("Node", predicate))
                open_.append((node[-1], place))
        return last.Segment(
            element("TreeModel", schema(self._document, sources, target), top, **kind, **_NONE), frozenset(sources)
        )

    def _split(self, at: int) -> tuple[Element, bool]:
        """Return what decides between the children, and whether it is for the second one: a gap goes to the first."""
        feature, gap = int(self._forest.feature[at]), bool(self._forest.missing[at])
        column = self._columns[feature]
        if at not in self._sets:
            return compared(column.field, float(self._limit[at]), above=gap), gap
        members, known = self._sets[at], self._entry.codes.get(feature)
        if known is None:
            cut = feature in self._entry.cut
            return among(column.field, spans(members, single=self._entry.single, cut=cut), inside=not gap), gap
        chosen = [known[int(place)] for place in members.tolist()]
        gap = column.fill in chosen  # None where nothing stands for a gap
        if column.text:
            words = [str(word) for word in chosen if word is not None]
            return spelled_among(column.field, words, inside=not gap), gap
        numbers = [float(value) for value in chosen if value is not None]
        return among(column.field, [(value, True, value, True) for value in numbers], inside=not gap), gap

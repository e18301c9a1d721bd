"""The last model of a document, which makes the answer of scores: link, label, and the outputs of the release."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from xml.etree.ElementTree import Element

import numpy as np

from modelrel.formats.pmml.document import Column, Document, derived, output, predicted, schema
from modelrel.formats.pmml.elements import Expression, apply, chained, element, number
from modelrel.formats.pmml.sets import rounded_at_most
from modelrel.trees import Choice, Ensemble, Mode


@dataclass(frozen=True, slots=True)
class Segment:
    """One model, and the inputs that it reads."""

    model: Element
    sources: frozenset[str]


@dataclass(frozen=True, slots=True)
class Made:
    """The one model of a document, and for each output of the release the fields that hold it."""

    model: Element
    outputs: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Scored:
    """Models, and what each score is: a field that comes out of them, or one of the document, or a number.

    `sources` are the inputs behind fields of the document. `shown` are fields to show instead of the scores.
    """

    segments: Sequence[Segment]
    scores: Sequence[Expression]
    sources: frozenset[str] = frozenset()
    shown: Sequence[str] = ()


Keep = Callable[[str, Expression], str]
"""Adds a field of this name (or one like it) to the last model, and returns its name."""

_INNER: Final = {"isFinalResult": "false"}


def sources(columns: Iterable[Column]) -> frozenset[str]:
    """Return the inputs that columns are computed from."""
    return frozenset[str]().union(*(column.sources for column in columns))


def line(
    document: Document, columns: Sequence[Column], table: tuple[Any, float], field: str, *, inner: bool = True
) -> Segment:
    """Return a model that gives a linear function of columns - weights and intercept - as a field of this name."""
    weights, intercept = table
    terms = [
        element("NumericPredictor", name=column.field, coefficient=number(weight))
        for column, weight in zip(columns, np.asarray(weights, np.float64).tolist(), strict=True)
    ]
    read = sources(columns)
    model = element(
        "RegressionModel",
        schema(document, read),
        element("Output", predicted(field, **(_INNER if inner else {}))),
        element("RegressionTable", *terms, intercept=number(intercept)),
        functionName="regression",
    )
    return Segment(model, read)


def gathered(document: Document, members: Sequence[Segment], method: str, outputs: Mapping[str, str]) -> Segment:
    """Return a model that gathers others: their sum as the one field of `outputs`, or the mean share of each class.

    `outputs` are field -> label of the class.
    """
    read = frozenset[str]().union(*(member.sources for member in members))
    classes = method == "average"
    said = [
        element(
            "OutputField",
            name=field,
            optype="continuous",
            dataType="double",
            feature="probability",
            value=text,
            **_INNER,
        )
        if classes
        else predicted(field, **_INNER)
        for field, text in outputs.items()
    ]
    segments = [
        element("Segment", element("True"), member.model, id=str(number_)) for number_, member in enumerate(members, 1)
    ]
    model = element(
        "MiningModel",
        schema(document, read, document.target if classes else ""),
        element("Output", *said),
        element("Segmentation", *segments, multipleModelMethod=method),
        functionName="classification" if classes else "regression",
    )
    return Segment(model, read)


def finished(document: Document, scored: Scored, ensemble: Ensemble, names: Sequence[str]) -> Made:
    """Return the chain of the models and a last one that makes the answers of the ensemble of their scores."""
    segments, scores = scored.segments, scored.scores
    local: list[Element] = []

    def keep(wanted: str, said: Expression) -> str:
        name = document.name(wanted)
        local.append(derived(name, said))
        return name

    raw = [
        keep(f"raw {place}", _scaled(score, ensemble, float(base)))
        for place, (score, base) in enumerate(zip(scores, ensemble.base, strict=True))
    ]
    value = _linked(ensemble, raw, keep)
    seen = [keep("rest", apply("-", 1.0, value[0])), *value] if ensemble.pair else value
    fields = {score for score in scores if isinstance(score, str)} if segments else scored.sources
    choice = ensemble.choice
    if choice is None:
        final, outputs = numbers(document, seen, local, fields, names[0])
    else:
        looked = raw if choice.of == "raw" else seen if choice.rule == "largest" else value
        nodes = _chosen(document, choice, looked, keep, single=ensemble.answers_single)
        final, outputs = labelled(
            document, nodes, local, fields, {names[0]: [], **dict.fromkeys(names[1:], scored.shown or seen)}
        )
    return chain(document, [*segments, final], outputs)


def chain(document: Document, segments: Sequence[Segment], outputs: Mapping[str, Sequence[str]]) -> Made:
    """Return models as one, in which each one reads the fields of those before; the last one gives the answer."""
    if len(segments) == 1:
        return Made(segments[0].model, outputs)
    read = frozenset[str]().union(*(segment.sources for segment in segments))
    target = document.target
    parts = [
        element("Segment", element("True"), segment.model, id=str(place)) for place, segment in enumerate(segments, 1)
    ]
    model = element(
        "MiningModel",
        schema(document, read, target),
        element("Segmentation", *parts, multipleModelMethod="modelChain"),
        functionName="classification" if target else "regression",
    )
    return Made(model, outputs)


def _scaled(score: Expression, ensemble: Ensemble, base: float) -> Expression:
    if ensemble.divisor != 1:
        score = apply("/", score, ensemble.divisor)
    if ensemble.scale != 1:
        score = apply("*", score, ensemble.scale)
    return apply("+", score, base) if base else score


def _linked(ensemble: Ensemble, raw: list[str], keep: Keep) -> list[str]:
    """Return the fields with what the link makes of the raw scores."""
    link = ensemble.link
    if link == "softmax":
        most = keep("most", apply("max", *raw)) if len(raw) > 1 else raw[0]
        powers = [keep(f"power {place}", apply("exp", apply("-", one, most))) for place, one in enumerate(raw)]
        total = keep("total", chained("+", powers))
        return [keep(f"share {place}", apply("/", power, total)) for place, power in enumerate(powers)]
    if link == "largest":
        return [keep("largest", first_largest(raw, keep))]
    if link == "identity":
        return raw
    return [keep(f"value {place}", _elementwise(ensemble, one)) for place, one in enumerate(raw)]


def _elementwise(ensemble: Ensemble, raw: str) -> Expression:
    minus = apply("-", 0.0, raw)
    if ensemble.link == "exp":
        return apply("exp", raw)
    if ensemble.link == "sigmoid":
        return apply("/", 1.0, apply("+", 1.0, apply("exp", apply("*", -ensemble.slope, raw))))
    if ensemble.link == "log1p_exp":
        # log(1 + exp(raw)), which does not overflow this way
        small = apply("exp", apply("-", 0.0, apply("max", raw, minus)))
        return apply("+", apply("max", raw, 0.0), apply("ln", apply("+", 1.0, small)))
    if ensemble.link == "signed_square":
        return apply("*", raw, apply("max", raw, minus))
    assert ensemble.link == "isolation"
    return apply("-", apply("-", 0.0, apply("pow", 2.0, minus)), ensemble.offset)


def first_largest(fields: Sequence[str], keep: Keep) -> Expression:
    """Return the number of the first of the largest fields."""
    if len(fields) == 1:
        return apply("*", 0.0, fields[0])
    most = keep("highest", apply("max", *fields))
    found: Expression = float(len(fields) - 1)
    for place in reversed(range(len(fields) - 1)):
        found = apply("if", apply("greaterOrEqual", fields[place], most), float(place), found)
    return found


def _chosen(document: Document, choice: Choice, looked: Sequence[str], keep: Keep, *, single: bool) -> list[Element]:
    """Return the nodes that pick the label, the first one that holds."""
    texts = document.labelled(choice.classes)

    def node(text: str, field: str, operator: str, limit: float) -> Element:
        asked = element("SimplePredicate", field=field, operator=operator, value=number(limit))
        return element("Node", asked, score=text)

    if choice.rule == "largest":
        index = keep("index", first_largest(looked, keep))
        nodes = [node(text, index, "equal", place) for place, text in enumerate(texts[:-1])]
        return [*nodes, element("Node", element("True"), score=texts[-1])]
    limit = choice.limit
    if single and choice.of == "value" and choice.rule == "above":
        # The number is compared after it is rounded to float32.
        limit = float(rounded_at_most(np.array([limit]), np.array([Mode.LEQ], np.uint8))[0])
    operator = {"above": "greaterThan", "at_least": "greaterOrEqual", "below": "lessThan"}[choice.rule]
    return [node(texts[1], looked[0], operator, limit), element("Node", element("True"), score=texts[0])]


def numbers(
    document: Document, seen: Sequence[str], local: Sequence[Element], read: Iterable[str], name: str
) -> tuple[Segment, dict[str, list[str]]]:
    """Return a model whose answers are the fields `seen`, as the output `name`; it reads the fields `read`."""
    fields = [document.name(name if len(seen) == 1 else f"{name} {place}") for place in range(len(seen))]
    if len(seen) == 1:
        said = [predicted(fields[0])]
    else:
        said = [output(field, one) for field, one in zip(fields, seen, strict=True)]
    table = element("RegressionTable", element("NumericPredictor", name=seen[0], coefficient="1.0"), intercept="0.0")
    model = element(
        "RegressionModel", schema(document, read), element("Output", *said), *_local(local), table,
        functionName="regression",
    )  # fmt: skip
    return Segment(model, document.inputs_among(read)), {name: fields}


def labelled(
    document: Document, nodes: Sequence[Element], local: Sequence[Element], read: Iterable[str],
    shown: Mapping[str, Sequence[str]],
) -> tuple[Segment, dict[str, list[str]]]:  # fmt: skip
    """Return a model whose label is that of the first node that holds.

    `shown` are the outputs, the label's first: each has the fields that it shows, the label none.
    """
    label, *others = shown
    names = {label: [document.name(label)]}
    said = [predicted(names[label][0], document.kind)]
    for name in others:
        fields = list(shown[name])
        marks = document.labels if len(fields) == len(document.labels) > 1 else [str(n) for n in range(len(fields))]
        names[name] = [document.name(name if len(fields) == 1 else f"{name}({mark})") for mark in marks]
        said += [output(field, one) for field, one in zip(names[name], fields, strict=True)]
    model = element(
        "TreeModel", schema(document, read, document.target), element("Output", *said), *_local(local),
        element("Node", element("True"), *nodes),
        functionName="classification", missingValueStrategy="none", splitCharacteristic="multiSplit",
    )  # fmt: skip
    return Segment(model, document.inputs_among(read)), names


def _local(local: Sequence[Element]) -> list[Element]:
    return [element("LocalTransformations", *local)] if local else []

"""Texts of scikit-learn models: what the adapter in front of the graph does, and the graph that begins behind it.

skl2onnx sees the vectorizers (and, for a format without text, the encoders of words) as operators of a domain of
ours. They are cut out afterwards: what they would give becomes inputs of the graph, and what they do is said in
`adapter.json`, for `modelrel.serving.adapters.text`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import onnx

from modelrel.errors import Refused
from modelrel.formats.onnx import known_faults, sparse
from modelrel.formats.onnx.graph import ELEMENT
from modelrel.formats.onnx.hints import positions
from modelrel.formats.onnx.sklearn_tail.declared import CODES, DOMAIN_TEXT, Part, declare
from modelrel.formats.onnx.sklearn_vectorizers import WEIGHTS, counted, counts, width_of
from modelrel.formats.order import Order
from modelrel.values import TensorSpec

NOTE: Final = "texts become numbers in front of the graph, by adapter.json"
_NUMBER: Final = "modelrel_text_"
_ENCODERS: Final = ("OneHotEncoder", "OrdinalEncoder", "TargetEncoder")
_CELLS_AT_ONCE: Final = 2**23
"""Numbers of a matrix (64 MB of float64) that the graph is to make at a time."""


@dataclass(frozen=True)
class Source:
    """A column of the input: number of the input, place in it, and the word that a missing one becomes."""

    number: int
    place: int = 0
    missing: str = ""


@dataclass
class Texts:
    """What reads text in one model: parts of the adapter, in the order of their numbers."""

    order: Order
    parts: list[dict[str, Any]] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)

    def add(self, part: dict[str, Any], source: Source) -> int:
        """Note a part that reads a column; return its number."""
        self.parts.append(part | {"place": source.place})
        self.sources.append(source.number)
        return len(self.parts) - 1

    def words(self, source: Source) -> bool:
        """Whether a column is text."""
        return self.order.signature.inputs[source.number].datatype == "BYTES"


def mark(native: Any, order: Order) -> Texts:
    """Number the vectorizers in a model (a copy, which is changed), and say what each does.

    Raises `Refused` for one with another's code in it, or that does not read a column of the input.
    """
    texts = Texts(order)
    specs = order.signature.inputs
    if order.signature.kind == "columns":
        columns = [Source(number) for number in range(len(specs))]
    else:
        columns = [Source(0, place) for place in range(specs[0].shape[1] if len(specs[0].shape) > 1 else 1)]
    _walk(native, columns, texts)
    for part in known_faults.parts(native):
        if counts(part) and not hasattr(part, _NUMBER):
            raise _lost(part)
    return texts


def _lost(native: Any) -> Refused:
    return Refused(
        f"{type(native).__name__} reads what another step makes, or is inside an estimator of several",
        "Put it into a Pipeline or a ColumnTransformer, where it reads a column of text of the input.",
    )


def _walk(step: Any, columns: Sequence[Source] | None, texts: Texts) -> None:
    """Follow columns of the input to what reads them; None: they are lost."""
    if hasattr(step, "steps"):
        step.steps = _folded(step.steps)
        for _, inner in step.steps:
            if inner is None or isinstance(inner, str):
                continue
            _walk(inner, columns, texts)
            columns = _after(inner, columns)
    elif hasattr(step, "transformers_") and columns is not None:
        names = [spec.name for spec in texts.order.signature.inputs]
        for _, inner, picked in step.transformers_:
            if not isinstance(inner, str):
                _walk(inner, [columns[at] for at in positions(picked, names, len(columns))], texts)
    elif hasattr(step, "transformer_list"):
        for _, inner in step.transformer_list:
            if not isinstance(inner, str):
                _walk(inner, columns, texts)
    elif columns is not None:
        _note(step, columns, texts)


def _note(step: Any, columns: Sequence[Source], texts: Texts) -> None:
    """Note what an estimator makes of texts, if it is one that does."""
    if counts(step) and len(columns) == 1:
        if texts.order.opset and texts.order.opset < 16:
            raise Refused(f"{type(step).__name__} needs opset 16, to add numbers up", "Choose --opset 16 or newer.")
        setattr(step, _NUMBER, texts.add(counted(step), columns[0]))
    elif texts.order.numbers and type(step).__name__ in _ENCODERS:
        coded = {place: source for place, source in enumerate(columns) if texts.words(source)}
        known = {place: [str(word) for word in step.categories_[place].tolist()] for place in coded}
        parts = {
            place: texts.add({"do": "code", "categories": known[place], "missing": source.missing}, source)
            for place, source in coded.items()
        }
        setattr(step, CODES, parts)


def _after(step: Any, columns: Sequence[Source] | None) -> list[Source] | None:
    """Return the columns behind a step that keeps them apart and changes only what is missing."""
    if columns is None or type(step).__name__ != "SimpleImputer" or step.statistics_.dtype != object:
        return None
    filled = step.statistics_.tolist()
    if len(filled) != len(columns) or not all(isinstance(word, str) for word in filled):
        return None
    return [replace(source, missing=word) for source, word in zip(columns, filled, strict=True)]


def _folded(steps: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Let a vectorizer weigh by the TfidfTransformer behind it, which then is no step of its own."""
    found: list[tuple[str, Any]] = []
    for name, inner in steps:
        before = found[-1][1] if found else None
        if type(inner).__name__ == "TfidfTransformer" and counts(before):
            setattr(before, WEIGHTS, [*getattr(before, WEIGHTS, ()), inner])
            continue
        found.append((name, inner))
    return found


def register() -> None:
    """Make skl2onnx convert vectorizers with this module (in this process)."""
    from sklearn.feature_extraction import text

    for kind in (text.CountVectorizer, text.TfidfVectorizer, text.HashingVectorizer):
        declare(kind, _matrix, columns=True)


def _matrix(part: Part) -> str:
    """Write the rows of the matrix that a vectorizer gives, (N, width): zeros, and its cells added."""
    nodes, number = part.nodes, getattr(part.native, _NUMBER, None)
    if number is None:
        raise _lost(part.native)
    read = part.columns[0][0]
    columns, values = (nodes.add(name, read, domain=DOMAIN_TEXT, number=number) for name in ("Columns", "Values"))
    rows = nodes.add("Shape", values, start=0, end=1)
    shape = nodes.add("Concat", rows, nodes.constant([width_of(part.native)], np.int64), axis=0)
    zeros = nodes.add("ConstantOfShape", shape, value=onnx.numpy_helper.from_array(np.zeros(1)))
    return nodes.add("ScatterElements", zeros, columns, values, axis=1, reduction="add")


@dataclass(frozen=True)
class Cut:
    """A graph without texts: what goes in, in the order of its inputs, and what makes that of the served inputs."""

    model: onnx.ModelProto
    inputs: tuple[TensorSpec, ...]
    adapter: dict[str, Any]


def cut(model: onnx.ModelProto, texts: Texts, *, merged: bool) -> Cut:
    """Make inputs of the graph of what the operators of our domain give; the inputs that only they read are gone."""
    graph = model.graph
    numbers = {node.output[0]: int(_said(node, "number")) for node in graph.node if node.domain == DOMAIN_TEXT}
    cells = {
        node.output[0]: (node.input[1], node.input[2], int(texts.parts[numbers[node.input[1]]]["width"]))
        for node in graph.node if node.op_type == "ScatterElements" and node.input[1] in numbers
    }  # fmt: skip
    sparse.multiplied(graph, cells)
    ours = [node for node in graph.node if node.domain == DOMAIN_TEXT]
    ends = {value.name for value in graph.output}
    others = sparse.needed([node for node in graph.node if node.domain != DOMAIN_TEXT], set(ends))
    used = {name for node in others for name in node.input} | ends
    ours = [node for node in ours if node.output[0] in used]
    specs = texts.order.signature.inputs
    kept = [value for value in graph.input if value.name in used]
    taken = [specs[number] for number, value in enumerate(graph.input) if value.name in used and not merged]
    if merged and kept:
        raise Refused("text and numbers come in one array, which is more than one thing", "Log the model with columns.")
    names = {spec.name for spec in taken}
    inputs, made = list(kept), []
    for node in sorted(ours, key=lambda node: (_said(node, "number"), node.op_type)):
        spec = _given(node, names)
        made.append(spec)
        names.add(spec.name)
        inputs.append(onnx.helper.make_tensor_value_info(node.output[0], ELEMENT[spec.datatype], [None, None]))
    del graph.node[:], graph.input[:]
    graph.node.extend(others)
    graph.input.extend(inputs)
    opsets = [entry for entry in model.opset_import if entry.domain != DOMAIN_TEXT]
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    left = sorted({int(_said(node, "number")) for node in ours})
    return Cut(model, (*taken, *made), _adapter(texts, left, taken, made))


def _said(node: onnx.NodeProto, name: str) -> Any:
    return next(onnx.helper.get_attribute_value(one) for one in node.attribute if one.name == name)


def _given(node: onnx.NodeProto, names: set[str]) -> TensorSpec:
    """Return the input that stands for one operator's output."""
    name = f"text_{_said(node, 'number')}_{node.op_type.lower()}"
    while name in names:
        name += "_"
    wide = 1 if node.op_type == "Codes" else -1
    return TensorSpec(name=name, datatype="FP64" if node.op_type == "Values" else "INT64", shape=(-1, wide))


def _adapter(
    texts: Texts, numbers: Sequence[int], taken: Sequence[TensorSpec], made: Sequence[TensorSpec]
) -> dict[str, Any]:
    specs = texts.order.signature.inputs
    read = sorted({texts.sources[number] for number in numbers})
    takes = [specs[number].name for number in read]
    kept = [place for place, name in enumerate(takes) if name in {spec.name for spec in taken}]
    widest = max((texts.parts[number].get("width", 1) for number in numbers), default=1)
    parts = [texts.parts[number] | {"of": read.index(texts.sources[number])} for number in numbers]
    gives = [*(spec.name for spec in made), *(takes[place] for place in kept)]
    return {
        "schema": 1,
        "rows": int(np.clip(_CELLS_AT_ONCE // widest, 1, 512)),
        "steps": [{"kind": "text", "takes": takes, "gives": gives, "parts": parts, "kept": kept}],
        "gives": [
            {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)} for spec in (*taken, *made)
        ],
    }

"""One PMML document in the making: its fields, each name used once, and its outputs as the release has them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from xml.etree.ElementTree import Element

from modelrel import __version__
from modelrel.errors import Refused
from modelrel.formats.order import Order
from modelrel.formats.pmml.elements import NAMESPACE, Expression, element, expression, serialized
from modelrel.serving.runtimes import pmml_scorer
from modelrel.values import Scalar, TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A feature on its way through the model: the field that holds it, and whether it is text.

    `sources` are the inputs that it is computed from, which each model that reads it must list: a derived field is
    not listed. `single`: the original holds it in float32 there, where the copy computes in float64. `fill`: the word
    that stands for a missing text.
    """

    field: str
    sources: frozenset[str]
    text: bool = False
    single: bool = False
    fill: str | None = None


@dataclass(slots=True)
class Document:
    """The fields of a document; models are added by the writers."""

    columns: list[Column] = field(default_factory=list)
    target: str = ""
    kind: str = ""
    labels: list[str] = field(default_factory=list)
    inputs: list[dict[str, object]] = field(default_factory=list)
    given: list[Element] = field(default_factory=list)
    derived: list[Element] = field(default_factory=list)
    names: set[str] = field(default_factory=set)

    def name(self, wanted: str) -> str:
        """Return a name that no other field has."""
        found, count = wanted, 1
        while found in self.names:
            count += 1
            found = f"{wanted} {count}"
        self.names.add(found)
        return found

    def inputs_among(self, fields: Iterable[str]) -> frozenset[str]:
        """Return those of the fields that are inputs."""
        return frozenset(column.field for column in self.columns) & frozenset(fields)

    def derive(self, wanted: str, said: Expression, *columns: Column) -> Column:
        """Add a field of a number, computed from columns, and return it."""
        name = self.name(wanted)
        self.derived.append(derived(name, said))
        sources = frozenset[str]().union(*(column.sources for column in columns))
        return Column(field=name, sources=sources, single=any(column.single for column in columns))

    def labelled(self, classes: Sequence[Scalar]) -> list[str]:
        """Add the field of the label, once, and return how each class is written; raises as `spelled` does."""
        if not self.target:
            self.target = self.name("class")
            self.kind, self.labels = spelled(classes)
            values = [element("Value", value=text) for text in self.labels]
            known = element("DataField", *values, name=self.target, optype="categorical", dataType=self.kind)
            self.given.append(known)
        return self.labels


def derived(name: str, said: Expression) -> Element:
    """Return a DerivedField of a number."""
    return element("DerivedField", expression(said), name=name, optype="continuous", dataType="double")


def begun(order: Order) -> Document:
    """Return a document with the order's inputs as fields: text as text, everything else as double.

    Raises `Refused` for inputs whose width is not known, and names that XML cannot hold.
    """
    document = Document()
    for spec in order.signature.inputs:
        names = [document.name(spec.name)] if order.signature.kind == "columns" else _wide(document, spec)
        text = spec.datatype == "BYTES"
        single = spec.datatype in ("FP32", "FP16")
        document.columns += [Column(field=name, sources=frozenset([name]), text=text, single=single) for name in names]
        kind = (
            {"optype": "categorical", "dataType": "string"} if text else {"optype": "continuous", "dataType": "double"}
        )
        document.given += [element("DataField", name=name, **kind) for name in names]
        document.inputs.append({**asdict(spec), "fields": names})
    return document


def _wide(document: Document, spec: TensorSpec) -> list[str]:
    if len(spec.shape) > 2 or any(size < 0 for size in spec.shape[1:]):
        raise Refused(
            f"the input {spec.name} has the shape {list(spec.shape)}, and PMML names each number of a row",
            "Log the model with a signature of columns, or of a tensor of a known width.",
        )
    return [document.name(f"{spec.name}_{place}") for place in range(spec.shape[1] if len(spec.shape) == 2 else 1)]


def spelled(classes: Sequence[Scalar]) -> tuple[str, list[str]]:
    """Return PMML's data type for labels, and how each is written.

    Raises `Refused` for labels that are not told apart when they are written.
    """
    if all(isinstance(known, str) for known in classes):
        kind, texts = "string", [str(known) for known in classes]
        if any(text != text.strip() or not text for text in texts):
            raise Refused(
                "a class of the model is an empty text, or begins or ends with a space, which PMML readers cut off",
                "Rename the class before training.",
            )
        return kind, texts
    if all(float(known) == int(known) for known in classes):
        # True and False are 1 and 0, as in every copy whose labels are numbers.
        return "integer", [str(int(known)) for known in classes]
    raise Refused("the classes of the model are no texts and no whole numbers", "Train it on such labels.")


def schema(document: Document, sources: Iterable[str], target: str = "") -> Element:
    """Return the MiningSchema of a model that reads these inputs; gaps and new categories come as they are."""
    read = set(sources) or {document.columns[0].field}  # a schema without any field is not valid
    fields = [column.field for column in document.columns if column.field in read]
    fields += sorted(read - set(fields))
    found = [element("MiningField", name=target, usageType="target")] if target else []
    return element(
        "MiningSchema",
        *found,
        *(element("MiningField", name=name, invalidValueTreatment="asIs") for name in fields),
    )


def output(name: str, said: str, **more: str) -> Element:
    """Return an OutputField with a number: of the field `said`."""
    return element(
        "OutputField",
        expression(said),
        name=name,
        optype="continuous",
        dataType="double",
        feature="transformedValue",
        **more,
    )


def predicted(name: str, kind: str = "double", **more: str) -> Element:
    """Return an OutputField with what a model predicts: a number, or a label of another `kind`."""
    optype = "continuous" if kind == "double" else "categorical"
    return element("OutputField", name=name, optype=optype, dataType=kind, feature="predictedValue", **more)


def written(
    document: Document, model: Element, outputs: Sequence[Mapping[str, object]], metadata: Mapping[str, str]
) -> bytes:
    """Return the file: the header with its origin and interface, the dictionary, the transformations, the model."""
    interface = {"inputs": document.inputs, "outputs": list(outputs)}
    application = element("Application", name="modelrel", version=__version__)
    head = header(interface, metadata, application, description="written by modelrel")
    dictionary = element("DataDictionary", *document.given, numberOfFields=str(len(document.given)))
    between = [element("TransformationDictionary", *document.derived)] if document.derived else []
    root = element("PMML", head, dictionary, *between, model, version="4.4", xmlns=NAMESPACE)
    return serialized(root)


def header(
    interface: Mapping[str, object], metadata: Mapping[str, str], *applications: Element, **more: str
) -> Element:
    """Return a Header that says which fields make which tensor, where the file comes from, and what wrote it."""
    said = {pmml_scorer.INTERFACE: json.dumps(interface, sort_keys=True), **metadata}
    extensions = (element("Extension", name=name, value=text) for name, text in sorted(said.items()))
    return element("Header", *extensions, *applications, **more)


def interface(root: Element) -> dict[str, Any]:
    """Return what the file says of its tensors; raises `Refused` where it says nothing."""
    try:
        return pmml_scorer.interface(root)
    except pmml_scorer.BadFile as error:
        raise Refused(str(error), "Convert the model again.") from error

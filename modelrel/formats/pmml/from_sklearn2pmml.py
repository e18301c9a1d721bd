"""Copies that sklearn2pmml writes where the user asks for it, turned into files as modelrel writes them.

sklearn2pmml (AGPL-3.0) runs in a process of its own, which starts Java. Of what it writes only known elements are
taken; the names of the outputs and what the file says of itself are added, and the time of day is left out.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final
from xml.etree.ElementTree import Element

from modelrel import extras
from modelrel.errors import Refused
from modelrel.formats.order import Order
from modelrel.formats.pmml import document, elements, scorers
from modelrel.formats.pmml.document import Document
from modelrel.formats.pmml.elements import NAMESPACE, element
from modelrel.values import TensorSpec

NAME: Final = "sklearn2pmml"
_PROCESS: Final = Path(__file__).with_name("sklearn2pmml_process.py")
_TOO_NEW: Final = re.compile(
    r"Scikit-Learn version '([\w.]+)' is not supported.*?downgrade Scikit-Learn to version '([\w.]+)'", re.DOTALL
)
_SAID: Final = re.compile(r"^(?:[\w$]+\.)*[\w$]*(?:Exception|Error): (.+)$", re.MULTILINE)
_NOT_MODELS: Final = frozenset({"Header", "DataDictionary", "TransformationDictionary"})
_OUTPUTS: Final = {"label": 1, "probabilities": 2, "prediction": 1}
"""What such a copy can give -> its dimensions: PMML has a feature for each; it has none for scores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A file as modelrel has them: its bytes, the outputs it gives, and sentences about how it was made."""

    content: bytes
    outputs: tuple[TensorSpec, ...]
    notes: tuple[str, ...]


def written(native: object, order: Order, made: Document, outputs: Sequence[TensorSpec]) -> Written:
    """Return the copy of a scikit-learn model that sklearn2pmml writes, with the fields of `made`.

    Raises `Unavailable` without sklearn2pmml or Java, `Refused` for what sklearn2pmml does not convert, what it
    writes beyond the known elements, and classes or fields that are not the original's.
    """
    name = order.answers.estimator
    if order.flavor != "sklearn":
        raise Refused(
            f"{NAME} converts models of the flavor sklearn, and {name} is {order.flavor}", "Leave out --with."
        )
    given = [one for one in outputs if len(one.shape) == _OUTPUTS.get(one.name)]
    left = [one.name for one in outputs if one not in given]
    if order.answers.predict in left or not given:
        raise Refused(f"copies by {NAME} cannot give {', '.join(left)} of {name}", "Convert it to onnx.")
    target = made.name("class" if order.answers.classes else "target")
    content, note = _converted(native, name, [column.field for column in made.columns], target)
    try:
        root = elements.parsed(content)
    except Refused as stop:
        raise Refused(f"the {NAME} copy of {name} is not taken: {stop.message}", "Convert it to onnx.") from stop
    model = _model(root, name)
    _fields(root, made, target)
    said = _outputs(root, model, order, given)
    notes = (note, f"the copy does not give {', '.join(left)} of the original") if left else (note,)
    return Written(content=_finished(root, said, made, order), outputs=tuple(given), notes=notes)


def _converted(native: object, name: str, fields: Sequence[str], target: str) -> tuple[bytes, str]:
    """Return the file that sklearn2pmml writes, and what it was told; raises as `written` does."""
    if importlib.util.find_spec(NAME) is None:
        raise extras.missing(NAME)
    scorers.java(f"{NAME} needs")
    import joblib

    true = extras.version("scikit-learn")
    version = f"{NAME} {extras.version(NAME)} (AGPL-3.0)"
    note = f"written by {version}"
    with tempfile.TemporaryDirectory(prefix="modelrel-sklearn2pmml-") as folder:
        model, copy = Path(folder) / "model.joblib", Path(folder) / "model.pmml"
        joblib.dump(native, model)
        request = {"path": [one for one in sys.path if one], "model": str(model), "copy": str(copy)}
        request |= {"fields": list(fields), "target": target, "told": ""}
        failed = _run(request, folder)
        if failed and (gate := _TOO_NEW.search(failed)):
            known = gate[2]
            if known.split(".")[:2] != true.split(".")[:2]:
                raise Refused(
                    f"{version} knows scikit-learn up to {known}, and the model is of {true}",
                    f"Install a newer {NAME}, or convert it to onnx.",
                )
            # Releases of one minor version keep their pickles' form; `verify` decides whether the copy is right.
            note += f", which was told that scikit-learn {true} is {known}, the newest that it knows"
            failed = _run({**request, "told": known}, folder)
        if failed:
            raise Refused(f"{version} does not convert {name}: {_sentence(failed)}", "Convert it to onnx.")
        return copy.read_bytes(), note


def _run(request: Mapping[str, object], folder: str) -> str:
    """Run sklearn2pmml once, and return what it printed where it failed, else "".

    The process is in the worker's group, so that it ends with the worker when its time is over.
    """
    command = [sys.executable, "-I", str(_PROCESS), json.dumps(request)]
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    said = f"{done.stdout}\n{done.stderr}".strip()
    if done.returncode == 0 and Path(str(request["copy"])).is_file():
        return ""
    sys.stderr.write(f"{said}\n")  # the worker's stderr is what -v shows
    return said or f"it ended with exit code {done.returncode}"


def _sentence(said: str) -> str:
    """Return the first error that Java or Python names in what was printed."""
    found = _SAID.search(said)
    return " ".join((found[1] if found else said.splitlines()[-1]).split())[:300]


def _model(root: Element, name: str) -> Element:
    models = [one for one in root if one.tag not in _NOT_MODELS]
    if len(models) != 1 or root.find("DataDictionary") is None or any(root.iter("Extension")):
        raise Refused(
            f"the {NAME} copy of {name} has {len(models)} models, or extensions, which readers may read otherwise",
            "Convert it to onnx.",
        )
    return models[0]


def _fields(root: Element, made: Document, target: str) -> None:
    """Let the file name the original's columns and its label, and nothing else; it leaves out columns it does not read.

    Raises `Refused` for any other field.
    """
    dictionary = root.find("DataDictionary")
    assert dictionary is not None
    ours = {str(one.get("name")): one for one in made.given}
    named = [str(one.get("name")) for one in dictionary]
    if odd := [name for name in named if name not in ours and name != target]:
        raise Refused(f"the {NAME} copy reads the field {odd[0]!r}, which the model has not", "Convert it to onnx.")
    dictionary.extend(one for name, one in ours.items() if name not in named)
    dictionary.set("numberOfFields", str(len(dictionary)))
    made.target = target if target in named else ""


def _outputs(root: Element, model: Element, order: Order, outputs: Sequence[TensorSpec]) -> list[dict[str, object]]:
    """Add an OutputField for each number and label of the original; return which make which tensor."""
    taken = {str(one.get("name")) for tag in ("DataField", "DerivedField", "OutputField") for one in root.iter(tag)}
    made = Document(names=taken)
    kind, values = _classes(root, order)
    given: list[Element] = []
    said: list[dict[str, object]] = []
    for spec in outputs:
        if spec.name == "probabilities":
            fields = [made.name(f"probabilities({text})") for text, _ in values]
            given += [
                element("OutputField", name=field, optype="continuous", dataType="double", feature="probability",
                        value=text)
                for field, (text, _) in zip(fields, values, strict=True)
            ]  # fmt: skip
        else:
            fields = [made.name(spec.name)]
            given.append(document.predicted(fields[0], kind if spec.name == "label" else "double"))
        labels = {"labels": [list(pair) for pair in values]} if spec.name == "label" else {}
        said.append({**asdict(spec), **labels, "fields": fields})
    inside = model.find("Output")
    if inside is None:
        inside = element("Output")
        model.insert([one.tag for one in model].index("MiningSchema") + 1, inside)
    inside.extend(given)
    return said


def _classes(root: Element, order: Order) -> tuple[str, list[tuple[str, Any]]]:
    """Return the labels' data type in the file, and each class as the file writes it and as releases answer it.

    They are in the model's order. Raises `Refused` where the file's classes are others.
    """
    if not order.answers.classes:
        return "double", []
    kind, texts = document.spelled(order.answers.classes)
    field = next((one for one in root.iter("DataField") if one.find("Value") is not None and _labels(root, one)), None)
    found = [str(one.get("value")) for one in field.iter("Value")] if field is not None else []
    numbers = kind != "string"
    known = {_plain(text, numbers=numbers): text for text in found}
    if sorted(known) != sorted(texts) or field is None:
        raise Refused(
            f"the {NAME} copy has the classes {found}, and the model {texts}", "Rename the classes, or convert to onnx."
        )
    # Scorers answer booleans each in a way of their own, and texts as they are.
    said = "string" if field.get("dataType") == "boolean" else str(field.get("dataType"))
    return said, [(known[text], int(text) if numbers else text) for text in texts]


def _labels(root: Element, one: Element) -> bool:
    """Whether a DataField is what the model predicts."""
    targets = {field.get("name") for field in root.iter("MiningField") if field.get("usageType") == "target"}
    return one.get("name") in targets


def _plain(text: str, *, numbers: bool) -> str:
    """Return a class as modelrel spells it: 1.0 and true are 1 where classes are whole numbers."""
    if not numbers:
        return text
    try:
        value = float({"false": "0", "true": "1"}.get(text, text))
    except ValueError:
        return text
    return str(int(value)) if value.is_integer() else text


def _finished(root: Element, said: Sequence[Mapping[str, object]], made: Document, order: Order) -> bytes:
    """Return the file with modelrel's header beside the name of who wrote it, without the time of day."""
    writer = root.find("Header/Application")
    interface = {"inputs": made.inputs, "outputs": list(said)}
    header = document.header(interface, order.metadata, *([writer] if writer is not None else []))
    children = [header if one.tag == "Header" else one for one in root]
    return elements.serialized(element("PMML", *children, version="4.4", xmlns=NAMESPACE))

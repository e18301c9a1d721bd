"""PMML files: what is read of them, and the scorer PMML4S, in a Java process that ends with this one.

The worker process of a served PMML file imports this file by its name, and so does modelrel, to write such files and to
compare them: it needs the standard library and numpy, and py4j where Java is started.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser

import numpy as np

NAMESPACE: Final = "http://www.dmg.org/PMML-4_4"

INTERFACE: Final = "modelrel.interface"
"""The extension that says which fields make which tensor."""

FUNCTIONS: Final = frozenset({
    "+", "-", "*", "/", "and", "equal", "exp", "greaterOrEqual", "greaterThan", "if", "isMissing", "isNotMissing",
    "lessOrEqual", "lessThan", "ln", "max", "min", "or", "pow", "sqrt",
})  # fmt: skip

ELEMENTS: Final = frozenset({
    "Apply", "Cluster", "ClusteringField", "ClusteringModel", "ComparisonMeasure", "CompoundPredicate", "Constant",
    "DataDictionary", "DataField", "DerivedField", "Extension", "False", "FieldRef", "Header", "Array",
    "Application", "LocalTransformations", "MiningField", "MiningModel", "MiningSchema", "Node", "NormDiscrete",
    "NumericPredictor", "Output", "OutputField", "PMML", "RegressionModel", "RegressionTable", "ScoreDistribution",
    "Segment", "Segmentation", "SimplePredicate", "TransformationDictionary", "TreeModel", "True", "Value",
    "squaredEuclidean",
})  # fmt: skip

_FUNCTIONS_OF_OTHERS: Final = frozenset({
    "abs", "avg", "ceil", "cos", "expm1", "floor", "hypot", "isIn", "isInvalid", "isNotIn", "isNotValid", "isValid",
    "ln1p", "log10", "lowercase", "modulo", "not", "notEqual", "product", "rint", "round", "sin", "stdNormalCDF",
    "sum", "tan", "tanh", "threshold", "uppercase",
})  # fmt: skip
"""Those of PMML's built-in functions that other writers use too."""

_ELEMENTS_OF_OTHERS: Final = frozenset({
    "Coefficient", "Coefficients", "Con", "Discretize", "DiscretizeBin", "Interval", "LinearKernelType", "LinearNorm",
    "MissingValueWeights", "NeuralInput", "NeuralInputs", "NeuralLayer", "NeuralNetwork", "NeuralOutput",
    "NeuralOutputs", "Neuron", "NormContinuous", "PolynomialKernelType", "RadialBasisKernelType",
    "SigmoidKernelType", "SimpleSetPredicate", "SupportVector", "SupportVectorMachine", "SupportVectorMachineModel",
    "SupportVectors", "Target", "Targets", "TargetValue", "Timestamp", "VectorDictionary", "VectorFields",
    "VectorInstance", "CategoricalPredictor", "REAL-SparseArray", "Indices", "REAL-Entries", "euclidean",
})  # fmt: skip
"""Elements that sklearn2pmml writes and modelrel does not: numbers, and names of fields. None names a file or class."""

KINDS: Final = {
    **{f"{sign}INT{bits}": np.dtype(f"{sign.lower()}int{bits}") for sign in ("", "U") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
    "BOOL": np.dtype(bool), "BYTES": np.dtype(object),
}  # fmt: skip

OPTIONS: Final = ("-XX:+UseSerialGC", "-Xss64m", "-Djava.awt.headless=true", "-Djavax.xml.accessExternalDTD=")
"""What Java is started with."""

_AT_ONCE: Final = 500_000
"""Numbers that are handed to Java at once."""

Score = Callable[[list[str], list[list[Any]], list[str]], list[list[Any]]]
"""Names of fields, their columns, names of the answer's fields -> its columns. None is a missing value."""


class BadFile(ValueError):
    """The file is no PMML of the kind that modelrel writes; the message is half a sentence about it."""


def parsed(content: bytes) -> Element:
    """Return the root of a PMML file, its elements without the namespace.

    A document type is refused: with one a file could name other files, or grow without bounds. So is any element,
    function and attribute that is not known: scorers take the names of Java classes for functions. Raises `BadFile`.
    """

    class Plain(TreeBuilder):
        def start(self, tag: str, attrs: dict[str, str]) -> Element:
            space, _, name = tag.rpartition("}")
            if space != "{" + NAMESPACE or name not in ELEMENTS | _ELEMENTS_OF_OTHERS:
                raise _odd(f"the element {name}")
            if name == "Apply" and attrs.get("function") not in FUNCTIONS | _FUNCTIONS_OF_OTHERS:
                raise _odd(f"the function {attrs.get('function')!r}")
            if odd := [said for said in attrs if said.startswith(("{", "x-"))]:
                raise _odd(f"the attribute {odd[0]}")
            return super().start(name, attrs)

        def doctype(self, *_: object) -> None:
            raise _odd("a document type")

        def pi(self, *_: object) -> None:  # type: ignore[override]
            raise _odd("a processing instruction")

    parser = XMLParser(target=Plain())  # noqa: S314 - `Plain` refuses what makes it dangerous
    try:
        parser.feed(content)
        found: Element = parser.close()
    except BadFile:
        raise
    except (ParseError, ValueError) as error:
        raise BadFile(f"the file is not PMML: {error}") from error
    if found.tag != "PMML" or found.get("version") != "4.4":
        raise BadFile(f"the file is {found.tag} {found.get('version')}, and not PMML 4.4")
    return found


def _odd(what: str) -> BadFile:
    return BadFile(f"the PMML file has {what}, which modelrel does not read")


def interface(root: Element) -> dict[str, Any]:
    """Return what the file says of its tensors; raises `BadFile` where it says nothing."""
    for said in root.iter("Extension"):
        if said.get("name") == INTERFACE:
            found: dict[str, Any] = json.loads(said.get("value", ""))
            return found
    raise BadFile("the PMML file does not say which fields make which tensor")


def predicts(said: Mapping[str, Any], score: Score) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Return what computes all outputs of an interface for N rows, some after others. It raises what `score` raises."""
    fields = [field for output in said["outputs"] for field in output["fields"]]

    def predict(tensors: Mapping[str, Any]) -> dict[str, Any]:
        columns: dict[str, list[Any]] = {}
        total = len(next(iter(tensors.values())))
        for spec in said["inputs"]:
            array = tensors[spec["name"]].reshape(total, -1)
            columns |= {field: _listed(array[:, place]) for place, field in enumerate(spec["fields"])}
        found: dict[str, list[Any]] = {field: [] for field in fields}
        count = max(1, _AT_ONCE // len(columns))
        for at in range(0, total, count):
            some = [column[at : at + count] for column in columns.values()]
            for field, column in zip(fields, score(list(columns), some, fields), strict=True):
                found[field] += column
        return {output["name"]: _tensor(output, found) for output in said["outputs"]}

    return predict


def _listed(column: Any) -> list[Any]:
    """Return a column as text, or float64 numbers, None where there is none."""
    if column.dtype == object:
        return [None if value is None or value != value else str(value) for value in column.tolist()]  # noqa: PLR0124
    return [None if math.isnan(value) else value for value in column.astype(np.float64).tolist()]


def _tensor(output: Mapping[str, Any], found: Mapping[str, list[Any]]) -> Any:
    columns = [found[field] for field in output["fields"]]
    dtype = KINDS[output["datatype"]]
    if "labels" in output:
        known = dict(output["labels"])
        (column,) = columns
        if odd := [value for value in column if str(value) not in known]:
            raise ValueError(f"the copy answers the label {odd[0]!r}, which is none of the model's")
        array = np.empty(len(column), dtype)
        array[:] = [known[str(value)] for value in column]
    else:
        with np.errstate(over="ignore"):
            numbers = [[math.nan if value is None else value for value in column] for column in columns]
            array = np.array(numbers, np.float64).T.astype(dtype)
    return array.reshape(len(columns[0]), *output["shape"][1:])


def gateway(package: str, folders: Sequence[str], java: str) -> Any:
    """Start the Java process with the libraries that a Python package brings, and return py4j's gateway to it.

    It listens on a port of this machine alone, answers only who knows its secret, and ends with this process. Nothing
    that it prints reaches this process. Raises what py4j raises.
    """
    from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway

    found = importlib.util.find_spec(package)
    assert found is not None
    assert found.origin is not None
    top = Path(found.origin).parent
    jars = os.pathsep.join(str(top / folder / "*") for folder in folders)
    port, secret, process = launch_gateway(
        classpath=jars, javaopts=list(OPTIONS), java_path=java, die_on_exit=True, enable_auth=True, return_proc=True
    )
    return JavaGateway(gateway_parameters=GatewayParameters(port=port, auth_token=secret), java_process=process)


def pmml4s(started: Any, content: bytes) -> Score:
    """Return what asks PMML4S, in a started Java process. Raises what Java raises."""
    model = started.jvm.org.pmml4s.model.Model.fromString(content.decode())

    def alone(names: list[str], row: Sequence[Any], fields: list[str]) -> list[Any]:
        """Answer one row past JSON, which has no infinity."""
        given = started.jvm.java.util.HashMap()
        for name, value in zip(names, row, strict=True):
            given.put(name, value)
        answered = model.predict(given)
        return [answered.get(field) for field in fields]

    def score(names: list[str], columns: list[list[Any]], fields: list[str]) -> list[list[Any]]:
        # JSON's numbers are of any size, and what is beyond float64 is read as infinity.
        content = json.dumps({"columns": names, "data": list(zip(*columns, strict=True))}).replace("Infinity", "1e999")
        reply = json.loads(model.predict(content))
        places = [reply["columns"].index(field) for field in fields]
        found = [[row[place] for place in places] for row in reply["data"]]
        for number, row in enumerate(found):
            if None in row:
                found[number] = alone(names, [column[number] for column in columns], fields)
        return [list(column) for column in zip(*found, strict=True)]

    return score


def short(error: Exception) -> str:
    """Return what Java says went wrong, without its stack."""
    java = getattr(error, "java_exception", None)
    return " ".join(str(java.toString() if java is not None else error).split())[:300]


class Served:
    """A PMML file as a worker process serves it: ``path`` of the server's first message."""

    def __init__(self, asked: Mapping[str, Any]) -> None:
        """Read the file and start Java. Raises `BadFile`, and what Java raises."""
        content = Path(asked["path"]).read_bytes()
        said = interface(parsed(content))
        java = shutil.which("java")
        assert java is not None
        try:
            started = gateway("pypmml", ("jars",), java)
            score = pmml4s(started, content)
        except Exception as error:  # noqa: BLE001 (py4j's classes hold what ends with Java)
            raise RuntimeError(short(error)) from None
        self._predict = predicts(said, score)
        self._java: subprocess.Popen[bytes] = started.java_process

    def answer(
        self, outputs: Sequence[str], feeds: Mapping[str, Any], params: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Return the named outputs for rows. Raises ``RuntimeError`` with what Java raises.

        Where Java itself has ended, so does this process: the server starts both again.
        """
        del params
        try:
            found = self._predict(feeds)
        except Exception as error:  # noqa: BLE001 (as above)
            if not hasattr(error, "java_exception"):  # py4j has no word for it: Java may have ended a moment ago
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._java.wait(1)
                    os._exit(1)
            raise RuntimeError(short(error)) from None
        return {name: found[name] for name in outputs}

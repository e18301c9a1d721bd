"""The two scorers of PMML files: PMML4S (of pypmml) and JPMML-Evaluator, each in a Java process of its own.

A Java process ends with the process that started it. It listens on a port of this machine alone, and answers only who
knows its secret. Nothing that Java prints reaches this process.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import json
import math
import os
import pickle
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from modelrel import extras
from modelrel.errors import ModelrelError, Refused, Unavailable
from modelrel.formats.pmml import document, elements
from modelrel.tensors import NUMPY, Array, Predict, Tensors, rows

_AT_ONCE: Final = 500_000
"""Numbers that are handed to Java at once."""

_OPTIONS: Final = ("-XX:+UseSerialGC", "-Xss64m", "-Djava.awt.headless=true", "-Djavax.xml.accessExternalDTD=")

Score = Callable[[list[str], list[list[Any]], list[str]], list[list[Any]]]
"""Names of fields, their columns, names of the answer's fields -> its columns. None is a missing value."""


def pmml4s(path: Path) -> Predict:
    """Return the file as PMML4S runs it.

    Raises `Refused` where it does not read the file or fails on rows, `Unavailable` without pypmml or Java.
    """
    extras.load("pypmml")
    return _predicts(path, "PMML4S", _pmml4s)


def jpmml(path: Path) -> Predict | None:
    """Return the file as JPMML-Evaluator runs it, None where that is not installed; raises as `pmml4s` does."""
    if importlib.util.find_spec("jpmml_evaluator") is None:
        return None
    return _predicts(path, "JPMML-Evaluator", _jpmml)


def _predicts(path: Path, name: str, reader: Callable[[bytes], Score]) -> Predict:
    content = path.read_bytes()
    said = document.interface(elements.parsed(content))
    fields = [field for output in said["outputs"] for field in output["fields"]]
    with _translated(name, "does not load the converted model"):
        score = reader(content)

    def predict(tensors: Tensors) -> dict[str, Array]:
        columns: dict[str, list[Any]] = {}
        for spec in said["inputs"]:
            array = tensors[spec["name"]].reshape(rows(tensors), -1)
            columns |= {field: _listed(array[:, place]) for place, field in enumerate(spec["fields"])}
        found: dict[str, list[Any]] = {field: [] for field in fields}
        count = max(1, _AT_ONCE // len(columns))
        for at in range(0, rows(tensors), count):
            some = [column[at : at + count] for column in columns.values()]
            with _translated(name, "fails on the converted model"):
                answered = score(list(columns), some, fields)
            for field, column in zip(fields, answered, strict=True):
                found[field] += column
        return {output["name"]: _tensor(output, found) for output in said["outputs"]}

    return predict


def _listed(column: Array) -> list[Any]:
    """Return a column as text, or float64 numbers, None where there is none."""
    if column.dtype == object:
        return [None if value is None or value != value else str(value) for value in column.tolist()]  # noqa: PLR0124
    return [None if math.isnan(value) else value for value in column.astype(np.float64).tolist()]


def _tensor(output: dict[str, Any], found: dict[str, list[Any]]) -> Array:
    columns = [found[field] for field in output["fields"]]
    dtype = NUMPY[output["datatype"]]
    if "labels" in output:
        known = dict(output["labels"])
        (column,) = columns
        if odd := [value for value in column if str(value) not in known]:
            raise Refused(
                f"the copy answers the label {odd[0]!r}, which is none of the model's", "Choose another format."
            )
        array = np.empty(len(column), dtype)
        array[:] = [known[str(value)] for value in column]
    else:
        with np.errstate(over="ignore"):
            numbers = [[math.nan if value is None else value for value in column] for column in columns]
            array = np.array(numbers, np.float64).T.astype(dtype)
    return array.reshape(len(columns[0]), *output["shape"][1:])


def java(needs: str) -> str:
    """Return the path of Java; raises `Unavailable`, whose sentence `needs` begins ("X needs"), where there is none."""
    path = shutil.which("java")
    if not path:
        raise Unavailable(
            f"{needs} Java, and there is no java on the PATH",
            "Install it, on Debian: apt-get install default-jre-headless",
        )
    return path


@functools.cache
def _gateway(package: str, folders: tuple[str, ...]) -> Any:
    """Return the Java process with the libraries that a Python package brings, started on first use."""
    extras.load("py4j")
    from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway

    path = java("the scorers of PMML files need")
    found = importlib.util.find_spec(package)
    assert found is not None
    assert found.origin is not None
    top = Path(found.origin).parent
    jars = os.pathsep.join(str(top / folder / "*") for folder in folders)
    try:
        port, secret = launch_gateway(
            classpath=jars, javaopts=list(_OPTIONS), java_path=path, die_on_exit=True, enable_auth=True
        )
    except Exception as error:
        raise Unavailable(f"Java ({path}) does not start: {_short(error)}", "Install Java 17 or newer.") from error
    return JavaGateway(gateway_parameters=GatewayParameters(port=port, auth_token=secret))


def _pmml4s(content: bytes) -> Score:
    gateway = _gateway("pypmml", ("jars",))
    model = gateway.jvm.org.pmml4s.model.Model.fromString(content.decode())

    def alone(names: list[str], row: Sequence[Any], fields: list[str]) -> list[Any]:
        """Answer one row past JSON, which has no infinity."""
        given = gateway.jvm.java.util.HashMap()
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


class _Plain(pickle.Unpickler):
    """Reads lists, dictionaries, numbers and text, and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is no plain value")


def _jpmml(content: bytes) -> Score:
    gateway = _gateway("jpmml_evaluator", ("resources", "dependencies"))
    stream = gateway.jvm.java.io.ByteArrayInputStream(content)
    model = gateway.jvm.org.jpmml.evaluator.LoadingModelEvaluatorBuilder().load(stream).build()
    run = gateway.jvm.org.jpmml.evaluator.python.PythonEvaluatorUtil.evaluateAll

    def score(names: list[str], columns: list[list[Any]], fields: list[str]) -> list[list[Any]]:
        reply = run(model, pickle.dumps({"columns": names, "data": columns}, protocol=2), None, 1)
        found = _Plain(io.BytesIO(reply)).load()
        if errors := [error for error in found.get("errors") or () if error]:
            raise ValueError(errors[0])
        answered = dict(zip(found["columns"], found["data"], strict=True))
        return [list(answered[field]) for field in fields]

    return score


@contextmanager
def _translated(name: str, what: str) -> Iterator[None]:
    """Turn what a scorer raises into `Refused`."""
    try:
        yield
    except ModelrelError:
        raise
    except Exception as error:
        raise Refused(f"{name} {what}: {_short(error)}", "Convert it to onnx.") from error


def _short(error: Exception) -> str:
    """Return what Java says went wrong, without its stack."""
    java = getattr(error, "java_exception", None)
    return " ".join(str(java.toString() if java is not None else error).split())[:300]

"""The two scorers of PMML files: PMML4S (of pypmml) and JPMML-Evaluator, each in a Java process of its own.

A Java process ends with the process that started it. It listens on a port of this machine alone, and answers only who
knows its secret. Nothing that Java prints reaches this process.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import pickle
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelrel import extras
from modelrel.errors import ModelrelError, Refused, Unavailable
from modelrel.formats.pmml import document, elements
from modelrel.serving.runtimes import pmml_scorer
from modelrel.serving.runtimes.pmml_scorer import Score, predicts, short
from modelrel.tensors import Array, Predict, Tensors


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
    with _translated(name, "does not load the converted model"):
        answered = predicts(said, reader(content))

    def predict(tensors: Tensors) -> dict[str, Array]:
        with _translated(name, "fails on the converted model"):
            return answered(tensors)

    return predict


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
    path = java("the scorers of PMML files need")
    try:
        return pmml_scorer.gateway(package, folders, path)
    except Exception as error:
        raise Unavailable(f"Java ({path}) does not start: {short(error)}", "Install Java 17 or newer.") from error


def _pmml4s(content: bytes) -> Score:
    return pmml_scorer.pmml4s(_gateway("pypmml", ("jars",)), content)


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
        raise Refused(f"{name} {what}: {short(error)}", "Convert it to onnx.") from error

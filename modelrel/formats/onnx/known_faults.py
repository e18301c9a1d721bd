"""What the converters of scikit-learn models are known to get wrong: refused by name, with what to do instead."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from modelrel.errors import Refused

TOKENS: Final = "[a-zA-Z0-9]+"
_NO_COPY: Final = "Train another estimator (skl2onnx lists those it converts), or release the model in another format."


_NO_EXACT: Final = {
    "DictVectorizer": "takes dictionaries, which no signature describes",
    "DictionaryLearning": "solves an optimisation for each row, which has no exact copy in ONNX",
    "FeatureHasher": "hashes words with MurmurHash3, which ONNX does not have",
    "GaussianProcessClassifier": "needs the error function in float64, which onnxruntime does not have",
    "LatentDirichletAllocation": "iterates for each row until it converges, which has no exact copy in ONNX",
    "LocallyLinearEmbedding": "solves a system of equations for each row, which has no exact copy in ONNX",
    "MiniBatchDictionaryLearning": "solves an optimisation for each row, which has no exact copy in ONNX",
    "MiniBatchNMF": "iterates for each batch until it converges, which has no exact copy in ONNX",
    "MultiLabelBinarizer": "takes sets of labels, which no signature describes",
    "NMF": "iterates for each batch until it converges, which has no exact copy in ONNX",
    "PatchExtractor": "gives several rows for each row, which no release answers with",
    "SparseCoder": "solves an optimisation for each row, which has no exact copy in ONNX",
}
"""Estimators without an exact copy, and why."""


def refuse(native: Any) -> None:
    """Raise `Refused` where a part of the model has a converter that fails, or one that is silently wrong."""
    for part in parts(native):
        name = type(part).__name__
        if name in _NO_EXACT:
            raise Refused(f"{name} {_NO_EXACT[name]}", _NO_COPY)


def parts(native: Any) -> Iterator[Any]:
    """Yield an estimator and every fitted one inside it."""
    yield native
    inner = [step for _, step in getattr(native, "steps", ())]
    inner += [entry[1] for entry in getattr(native, "transformers_", ())]
    inner += [step for _, step in getattr(native, "transformer_list", ())]
    inner += [value for name in ("best_estimator_", "estimator_") if (value := getattr(native, name, None)) is not None]
    several = getattr(native, "estimators_", None)
    inner += list(several) if isinstance(several, list) else []
    for step in inner:
        if hasattr(step, "get_params"):
            yield from parts(step)


def no_converter(native: Any, said: str) -> Refused:
    """Return the error for an estimator that skl2onnx does not know, from the class that it names."""
    found = re.search(r"<class '([\w.]+)'>", said)
    name = found.group(1).rpartition(".")[2] if found else type(native).__name__
    where = next((f" inside {type(native).__name__} step {step!r}" for step in _steps(native, name)), "")
    return Refused(f"{name}{where} has no converter to ONNX", _NO_COPY)


def _steps(native: Any, name: str) -> Iterator[str]:
    for step, inner in getattr(native, "steps", ()):
        if any(type(part).__name__ == name for part in parts(inner)):
            yield step

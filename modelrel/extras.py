"""A missing optional library becomes an error that names the command that installs it."""

from __future__ import annotations

import importlib
import importlib.metadata
from functools import cache
from types import ModuleType
from typing import Final

from modelrel.errors import Unavailable

EXTRAS: Final = {
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "catboost": "catboost",
    "tensorflow": "tensorflow",
    "tf_keras": "tensorflow",
    "keras": "tensorflow",
    "ai_edge_litert": "tflite",
    "torch": "pytorch",
    "onnxscript": "pytorch",
    "transformers": "transformers",
    "tokenizers": "transformers",
    "PIL": "image",
    "pypmml": "pmml",
    "py4j": "pmml",
    "sklearn2pmml": "sklearn2pmml",
}
"""Module name -> the extra of modelrel that brings it."""


def load(module: str) -> ModuleType:
    """Import `module`.

    Raises `Unavailable`, with the pip command, where it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != module.partition(".")[0]:
            raise
        raise missing(module) from error


def missing(module: str) -> Unavailable:
    """Return the error for a library that is not installed."""
    top = module.partition(".")[0]
    command = f'pip install "modelrel[{EXTRAS[top]}]"' if top in EXTRAS else f"pip install {top}"
    return Unavailable(f"the library {top} is not installed here", f"Install it: {command}")


@cache
def version(distribution: str) -> str:
    """Return the installed version of a distribution, or "" where there is none (nothing is imported)."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def versions(*distributions: str) -> dict[str, str]:
    """Return name -> version of those distributions that are installed."""
    return {name: found for name in distributions if (found := version(name))}

"""The reference server: one released model behind the Open Inference Protocol and MLflow's scoring routes.

The folder stands alone. It imports nothing from the rest of the project and everything inside it by relative name, so
an image can carry it as the top-level package ``serving`` and start it with ``python -m serving DIR``.

``load_model`` and ``answer`` are the whole of the programming interface. They are fetched on first use, because the
health check of a container imports this package too and must not pay for numpy and a runtime.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .answers import Answer
    from .model import BrokenModel, Model, load_model
    from .routing import answer

__all__ = ["VERSION", "Answer", "BrokenModel", "Model", "answer", "load_model"]

VERSION = "0.1.0"
"""The version this server reports about itself at ``/v2`` and ``/version``."""

_HOMES = {
    "Answer": "answers",
    "BrokenModel": "model",
    "Model": "model",
    "answer": "routing",
    "load_model": "model",
}


def __getattr__(name: str) -> object:
    """Import the part of the interface that was asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)

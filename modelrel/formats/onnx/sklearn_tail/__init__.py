"""Converters for the estimators that skl2onnx lacks or gets wrong: core operators, in double precision."""

from __future__ import annotations

from modelrel.formats.onnx.sklearn_tail import distances, linear
from modelrel.formats.onnx.sklearn_tail.declared import STEP

__all__ = ["STEP", "register"]


def register() -> None:
    """Make skl2onnx convert these estimators with this package (in this process)."""
    for module in (linear, distances):
        module.register()

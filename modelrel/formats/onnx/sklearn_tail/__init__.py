"""Converters for the estimators that skl2onnx lacks or gets wrong: core operators, in double precision."""

from __future__ import annotations

from modelrel.formats.onnx.sklearn_tail import composed, counts, declared, distances, encoders, linear, neighbours
from modelrel.formats.onnx.sklearn_tail.declared import STEP

__all__ = ["STEP", "register"]


def register(*, single: bool) -> None:
    """Make skl2onnx convert these estimators with this package (in this process); `single`: from float32 rows."""
    declared.single(single)
    for module in (linear, distances, neighbours, encoders, counts, composed):
        module.register()

"""TFLite copies made smaller: what TensorFlow's converter is asked for, and what became of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from modelrel import tensors
from modelrel.errors import Refused
from modelrel.formats.order import Order
from modelrel.measured import Quantize, Units
from modelrel.tensors import Array, Tensors

_MOST_ROWS: Final = 500
_SAME: Final = 0.98
"""Of the exact copy's bytes: what is not below that was not made smaller, whatever it was written with."""


@dataclass(frozen=True, slots=True)
class Smaller:
    """A mode, and the rows by input that int8 is calibrated on.

    `float16` keeps weights in float16, and computes in float32; `dynamic` keeps them in int8, and rounds what meets
    them row by row; `int8` computes in int8, takes int8 and gives int8 (ai.google.dev, post-training quantization).
    """

    mode: Quantize = ""
    rows: Tensors = field(default_factory=dict)

    def ask(self, tf: Any, converter: Any, names: Sequence[str]) -> None:
        """Tell a `TFLiteConverter` of a function with these inputs, in this order."""
        if not self.mode:
            return
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if self.mode == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if self.mode == "int8":
            # what has no int8 form, such as the arithmetic of labels, stays as it is
            converter.target_spec.supported_ops = [
                tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS,
            ]  # fmt: skip
            converter.representative_dataset = lambda: self._each(names)
            converter.inference_input_type = converter.inference_output_type = tf.int8

    def _each(self, names: Sequence[str]) -> Iterator[list[Array]]:
        count = tensors.rows(self.rows)
        for row in np.unique(np.linspace(0, count - 1, min(count, _MOST_ROWS)).astype(int)):
            yield [np.ascontiguousarray(self.rows[name][row : row + 1]) for name in names]


EXACT: Final = Smaller()


def checked(path: Path, exact: int, order: Order) -> tuple[Units, ...]:
    """Return which tensors of the written file hold whole numbers for real ones.

    Raises `Refused` where the file is not smaller than the exact copy of `exact` bytes.
    """
    size = path.stat().st_size
    if size > exact * _SAME:
        raise Refused(
            f"nothing in the TFLite copy of {order.answers.estimator} can be made smaller by {order.quantize}: "
            f"it has {size:,} bytes then, and {exact:,} without (the converter leaves small weights as they are)",
            "Leave out --quantize.",
        )
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=str(path)).get_signature_runner("serving_default")
    return tuple(units({**runner.get_input_details(), **runner.get_output_details()}).values())


def units(details: Mapping[str, Mapping[str, Any]]) -> dict[str, Units]:
    """Return, of tensors as LiteRT describes them, those that hold whole numbers for real ones."""
    found = {}
    for name, said in details.items():
        scale, zero = said["quantization"]
        if scale:
            kind = tensors.datatype(np.dtype(said["dtype"]))
            found[name] = Units(name=name, datatype=kind, scale=float(scale), zero_point=int(zero))
    return found


def whole(array: Array, unit: Units) -> Array:
    """Return real numbers as the file takes them: the nearest whole number, within its datatype; NaN as 0."""
    dtype = tensors.NUMPY[unit.datatype]
    limits = np.iinfo(dtype)
    with np.errstate(over="ignore"):
        scaled = np.rint(np.nan_to_num(array.astype(np.float64), nan=0.0) / unit.scale) + unit.zero_point
    return np.asarray(np.clip(scaled, limits.min, limits.max), dtype)


def real(array: Array, unit: Units) -> Array:
    """Return the real numbers, float32, that whole ones stand for."""
    return ((array.astype(np.float64) - unit.zero_point) * unit.scale).astype(np.float32)


def plain(found: tuple[Units, ...]) -> list[dict[str, Any]]:
    """Return units as the description of a copy holds them."""
    return [asdict(one) for one in found]

"""What a format needs to know to write a copy: the interface it must have, and what to write into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelrel.tensors import Tensors
from modelrel.values import Answers, Operators, Signature, TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One conversion, as the worker hands it to a format.

    `shapes` holds what each output is on real rows; it is empty where no row was at hand. `metadata` is written
    into the file; `opset` 0 is the newest. `rows` are those real rows, at least one.
    """

    flavor: str
    signature: Signature
    answers: Answers
    opset: int = 0
    operators: Operators = "v5"
    metadata: Mapping[str, str] = field(default_factory=dict)
    shapes: Mapping[str, TensorSpec] = field(default_factory=dict)
    rows: Tensors = field(default_factory=dict)

"""What a format needs to know to write a copy: the interface it must have, and what to write into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from modelrel.errors import Refused
from modelrel.measured import Quantize
from modelrel.tensors import Tensors
from modelrel.values import Answers, Operators, Signature, TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One conversion, as the worker hands it to a format.

    `shapes` holds what each output is on real rows; it is empty where no row was at hand. `metadata` is written
    into the file; `opset` 0 is the newest. `rows` are those real rows, at least one; where `quantize` is int8, all that
    the copy is calibrated on. `folder` holds the model as it was logged. With `numbers` the graph is to take no text at
    all: words become codes in front of it. `tool` is what is to write the copy instead of modelrel, "" for modelrel.
    """

    flavor: str
    folder: Path = Path()
    signature: Signature
    answers: Answers
    opset: int = 0
    operators: Operators = "v5"
    metadata: Mapping[str, str] = field(default_factory=dict)
    shapes: Mapping[str, TensorSpec] = field(default_factory=dict)
    rows: Tensors = field(default_factory=dict)
    numbers: bool = False
    quantize: Quantize = ""
    tool: str = ""


def refuse_trees(order: Order, name: str) -> None:
    """Raise `Refused` where a copy of trees, in the format called `name`, is to be made smaller.

    Where a threshold is rounded, rows take another way, and where a leaf is, ties break another way.
    """
    if order.quantize:
        raise Refused(
            f"nothing in the {name} copy of {order.answers.estimator} can be made smaller by {order.quantize}: "
            "its numbers are thresholds and leaves of trees",
            "Leave out --quantize, or train fewer or shallower trees.",
        )


def refuse_copy(order: Order, name: str) -> NoReturn:
    """Raise `Refused` for a file handed in, in the format called `name`, whose files cannot be."""
    raise Refused(
        f"a {name} copy of {order.answers.estimator} that was converted elsewhere cannot be handed in",
        "Hand in an ONNX copy, or convert without --copy.",
    )


def refuse_texts(order: Order) -> None:
    """Raise `Refused` where the copy of a model of texts is to compute in int8: it is calibrated on numbers."""
    if order.quantize == "int8":
        raise Refused(
            f"{order.answers.estimator} takes texts, and int8 is calibrated on numbers",
            "Choose --quantize dynamic or float16, or none.",
        )

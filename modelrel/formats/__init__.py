"""One module per format, which is what a model is released as: how it is written, and how it is run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from modelrel.formats import onnx, pmml, python, tflite
from modelrel.formats.adapted import behind
from modelrel.formats.faults import Fault
from modelrel.formats.order import Order
from modelrel.tensors import Predict
from modelrel.values import SourceModel

__all__ = ["FORMATS", "Fault", "Format", "Order", "behind"]


class Format(Protocol):
    """What a module of this room offers."""

    @property
    def SUFFIX(self) -> str:  # noqa: N802 - a constant of the module
        """The ending of the file it writes."""
        ...

    @property
    def FLAVORS(self) -> frozenset[str]:  # noqa: N802 - a constant of the module
        """The flavors that it can be written from."""
        ...

    @property
    def TOOLS(self) -> tuple[str, ...]:  # noqa: N802 - a constant of the module
        """The distributions whose versions decide what is written."""
        ...

    @property
    def WRITERS(self) -> tuple[str, ...]:  # noqa: N802 - a constant of the module
        """The distributions that writing it takes, beside the model's own libraries."""
        ...

    @property
    def RUNTIMES(self) -> tuple[str, ...]:  # noqa: N802 - a constant of the module
        """The distributions whose versions decide what it answers."""
        ...

    @property
    def SECOND(self) -> str:  # noqa: N802 - a constant of the module
        """The distribution whose runtime (`reference`) must agree too where it is installed; "" where none must."""
        ...

    @property
    def KNOWN_BAD(self) -> tuple[Fault, ...]:  # noqa: N802 - a constant of the module
        """What the libraries around this format are known to get wrong."""
        ...

    def convert(self, native: object, order: Order, path: Path) -> Mapping[str, object]:
        """Write `native` to `path` (in the worker), and describe the copy as `steps.convert` reads it.

        Where the file takes others than the served inputs, the description has an `adapter`: what `adapter.json` holds
        (see `modelrel.serving.adapters`).

        Raises `Refused` for what has no exact copy.
        """
        ...

    def adopt(self, native: object, order: Order, given: Path, path: Path) -> Mapping[str, object]:
        """Write the copy `given`, which was converted elsewhere, to `path` (in the worker), and describe it.

        Raises `Refused` where it does not fit the original without a guess.
        """
        ...

    def check(self, path: Path) -> None:
        """Raise `Refused` where the file is not a valid one of its format (on the host)."""
        ...

    def suspicions(self, path: Path) -> tuple[str, ...]:
        """Return a sentence for each known fault of the copy, whatever was measured; raises `Refused` (on the host)."""
        ...

    def load(self, path: Path) -> Predict:
        """Return the copy, loaded as it is deployed (on the host)."""
        ...

    def reference(self, path: Path) -> Predict | None:
        """Return the copy run by an independent runtime, or None; it tells a wrong copy from a wrong runtime."""
        ...

    def metadata(self, source: SourceModel, tools: Mapping[str, str]) -> dict[str, str]:
        """Return what to write into the file about where it comes from."""
        ...


FORMATS: Final[dict[str, Format]] = {"onnx": onnx, "tflite": tflite, "pmml": pmml, "python": python}

"""All columns of a JSON request at once, sent as most clients send them: every one, in the model's order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import numpy as np

from .tensors import DTYPES, Array, json_type

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .model import Model


class _Sent(Protocol):
    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw
    parameters: Any


class Columns:
    """Reads the columns of a request together, which takes a third of the time of one after the other.

    It refuses nothing: whatever is not quite as it expects is left to who can say what is wrong with it.
    """

    def __init__(self, model: Model) -> None:
        self._specs = [(spec.name, spec.datatype) for spec in model.inputs]
        datatypes = dict.fromkeys(datatype for _, datatype in self._specs)
        self._plain = "FP16" not in datatypes
        self._decoders = [
            msgspec.json.Decoder(tuple[tuple(json_type(kind, depth) for _, kind in self._specs)])  # type: ignore[misc]
            for depth in (1, 2)
        ]
        self._groups = [
            (
                DTYPES[datatype],
                [at for at, (_, kind) in enumerate(self._specs) if kind == datatype],
                [name for name, kind in self._specs if kind == datatype],
            )
            for datatype in datatypes
        ]

    def read(self, inputs: Sequence[_Sent]) -> dict[str, Array] | None:
        """Return the arrays of the model's inputs, each of the shape [rows, 1]; None where it is not that simple."""
        if len(inputs) != len(self._specs) or not self._plain:
            return None
        shape = inputs[0].shape
        if not (shape and shape[0] and shape[1:] in ([], [1])):
            return None
        data = []
        for sent, (name, datatype) in zip(inputs, self._specs, strict=True):
            if sent.name != name or sent.datatype != datatype or sent.shape != shape or sent.parameters is not None:
                return None
            data.append(sent.data)
        # Each is a JSON value of its own, or empty, which makes the whole no JSON: nothing can slip into its neighbour.
        whole = b"[%b]" % b",".join(data)
        try:
            values = self._decoders[whole[2:3] == b"["].decode(whole)
            return self._arrays(values, shape[0])
        except (msgspec.DecodeError, ValueError, OverflowError, RecursionError):
            return None

    def _arrays(self, values: Sequence[list[Any]], rows: int) -> dict[str, Array] | None:
        feeds: dict[str, Array] = {}
        for dtype, places, names in self._groups:
            array = np.array(values if len(places) == len(values) else [values[at] for at in places], dtype)
            if array.shape[:2] != (len(places), rows) or array.size != len(places) * rows:
                return None
            feeds |= zip(names, array.reshape(len(places), rows, 1), strict=True)
        return feeds

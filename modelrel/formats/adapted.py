"""A copy with its adapter in front: it takes what is served, and the file behind it what its graph takes."""

from __future__ import annotations

from pathlib import Path

from modelrel.errors import Refused
from modelrel.serving import adapters
from modelrel.tensors import Array, Predict, Tensors, rows, stack, take


def behind(path: Path | None, predict: Predict) -> Predict:
    """Return `predict` behind the adapter in the file `path` (None: `predict` itself).

    Raises `Refused` for a file that is no adapter, and when called for rows that it cannot turn.
    """
    if path is None:
        return predict
    try:
        adapter = adapters.load(path)
    except adapters.BrokenAdapter as error:
        raise Refused(str(error), "Convert the model again: modelrel convert --force.") from error

    def served(tensors: Tensors) -> dict[str, Array]:
        pieces = [take(tensors, slice(at, at + adapter.rows)) for at in range(0, rows(tensors), adapter.rows)]
        try:
            return stack([predict(adapter(piece)) for piece in pieces])
        except adapters.BadInput as error:
            raise Refused(
                f"the adapter cannot turn a row into the model's input: {error}", "Check the rows of the test data."
            ) from error

    return served

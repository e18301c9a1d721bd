"""One module per flavor, which is MLflow's word for what a model was trained with: how it loads and predicts."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Protocol

from modelrel.flavors import (
    catboost,
    lightgbm,
    onnx,
    pyfunc,
    pytorch,
    sklearn,
    tensorflow,
    transformers,
    xgboost,
)
from modelrel.flavors.calibrated import Curve
from modelrel.tensors import Array, Tensors
from modelrel.values import Answers, Signature


class Flavor(Protocol):
    """What a module of this room offers. Everything runs inside the worker."""

    def load(self, folder: Path) -> object:
        """Return the model logged in `folder` (which holds MLmodel).

        Raises `Invalid` for a damaged file, `Unavailable` for a missing library.
        """
        ...

    def answers(self, native: object, folder: Path, /) -> Answers:
        """Return the outputs of a loaded model; raises `Refused` where it has none that can be released.

        They are empty where only an answer tells them.
        """
        ...

    def predict(self, native: object, tensors: Tensors, signature: Signature) -> dict[str, Array]:
        """Return every output of `answers` for N rows: arrays whose first dimension is N."""
        ...

    def curves(self, native: object, signature: Signature, /) -> list[Curve]:
        """Return the curves that bend at scores of a model inside; rows at these bends are looked for."""
        ...


FLAVORS: Final[dict[str, Flavor]] = {
    "sklearn": sklearn,
    "xgboost": xgboost,
    "lightgbm": lightgbm,
    "catboost": catboost,
    "onnx": onnx,
    "pyfunc": pyfunc,
    "pytorch": pytorch,
    "transformers": transformers,
    "tensorflow": tensorflow,
    "keras": tensorflow,
}

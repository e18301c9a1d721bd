"""What the converters of scikit-learn models are known to get wrong: refused by name, with what to do instead."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from modelrel.errors import Refused

_TOKENS: Final = "[a-zA-Z0-9]+"
_NO_COPY: Final = "Train another estimator (skl2onnx lists those it converts), or release the model in another format."


def refuse(native: Any) -> None:
    """Raise `Refused` where a part of the model has a converter that fails, or one that is silently wrong."""
    for part in parts(native):
        name = type(part).__name__
        if name in ("TfidfVectorizer", "CountVectorizer") and part.token_pattern != _TOKENS:
            # ONNX cuts words by an RE2 expression; scikit-learn's default needs look-around and Unicode classes.
            raise Refused(
                f"{name} with token_pattern={part.token_pattern!r} has no exact copy in ONNX",
                f"Train it with token_pattern={_TOKENS!r}, which cuts words alike in both.",
            )


def parts(native: Any) -> Iterator[Any]:
    """Yield an estimator and every fitted one inside it."""
    yield native
    inner = [step for _, step in getattr(native, "steps", ())]
    inner += [entry[1] for entry in getattr(native, "transformers_", ())]
    inner += [step for _, step in getattr(native, "transformer_list", ())]
    inner += [value for name in ("best_estimator_", "estimator_") if (value := getattr(native, name, None)) is not None]
    several = getattr(native, "estimators_", None)
    inner += list(several) if isinstance(several, list) else []
    for step in inner:
        if hasattr(step, "get_params"):
            yield from parts(step)


def no_converter(native: Any, said: str) -> Refused:
    """Return the error for an estimator that skl2onnx does not know, from the class that it names."""
    found = re.search(r"<class '([\w.]+)'>", said)
    name = found.group(1).rpartition(".")[2] if found else type(native).__name__
    where = next((f" inside {type(native).__name__} step {step!r}" for step in _steps(native, name)), "")
    return Refused(f"{name}{where} has no converter to ONNX", _NO_COPY)


def _steps(native: Any, name: str) -> Iterator[str]:
    for step, inner in getattr(native, "steps", ()):
        if any(type(part).__name__ == name for part in parts(inner)):
            yield step

"""What a Python model wraps: models found in it are tried, and the one that answers all rows as it does is taken.

That is only where to look: `verify` compares the copy with what the Python model itself answers.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from modelrel.errors import ModelrelError
from modelrel.flavors import catboost, lightgbm, mlmodel, onnx, sklearn, xgboost
from modelrel.flavors.calibrated import Curve
from modelrel.tensors import Array, Tensors
from modelrel.values import Answers, Signature

_ROOMS: Final[dict[str, Any]] = {
    "xgboost": xgboost,
    "lightgbm": lightgbm,
    "catboost": catboost,
    "sklearn": sklearn,
    "onnx": onnx,
}
"""Flavors whose models are looked for; a booster's scikit-learn class is one of both, and the booster's comes first."""

_PICKLES: Final = (".pkl", ".pickle", ".joblib")


class Inner:
    """The model inside: its flavor, itself, what it answers, and which of its outputs the wrapper gives."""

    def __init__(self, flavor: str, native: Any, answers: Answers, output: str, found: Mapping[str, Array]) -> None:
        """Keep it all; `found` are its answers to some rows, which tell what each output is."""
        self.flavor, self.native, self.answers, self.output = flavor, native, answers, output
        self._kinds = {name: (array.dtype, array.shape[1:]) for name, array in found.items()}

    def gaps(self, name: str, count: int) -> Array:
        """Return an output without answers: NaN, an empty text, or the lowest number."""
        dtype, shape = self._kinds[name]
        if dtype.kind == "f":
            return np.full((count, *shape), np.nan, dtype)
        if dtype.kind == "O":
            return np.full((count, *shape), "", object)
        return np.full((count, *shape), False if dtype.kind == "b" else np.iinfo(dtype).min, dtype)


def title(model: Any) -> str:
    """Return the class of the Python model in an `mlflow.pyfunc.PyFuncModel`, or of MLflow's own wrapper."""
    inner = _python_model(model)
    if inner is None:
        return str(model.metadata.flavors.get("python_function", {}).get("loader_module", type(model).__name__))
    function = getattr(getattr(inner, "func", None), "__name__", "")
    return f"the function {function}" if function else f"class {type(inner).__name__}"


def inside(
    model: Any, folder: Path, answered: Mapping[str, Array], asked: tuple[Tensors, Signature]
) -> tuple[Inner | None, str]:
    """Return the one model inside that answers the rows `asked` exactly as the wrapper did, or why there is none.

    Raises nothing for a model inside that raises: it is not the one.
    """
    if len(answered) != 1:
        return None, f"it answers {len(answered)} columns"
    (wanted,) = answered.values()
    seen: list[str] = []
    for places in (_attributes(model), _artifacts(model, folder)):
        fitting = []
        for where, flavor, native in places:
            seen.append(f"{flavor} {type(native).__name__} in {where}")
            inner = _fits(flavor, native, folder, wanted, asked)
            if inner is not None:
                fitting.append((where, inner))
        if len(fitting) > 1:
            return None, f"{' and '.join(where for where, _ in fitting)} both answer as it does"
        if fitting:
            return fitting[0][1], ""
    if not seen:
        return None, "no model of a known library is found in its attributes or artifacts"
    return None, f"it answers otherwise than {', '.join(seen)}"


def beside(inner: Inner, answered: Mapping[str, Array], tensors: Tensors, signature: Signature) -> dict[str, Array]:
    """Return the outputs of the model inside, with the wrapper's own answer in the place of the one that it gives.

    Where the wrapper answers and the model inside raises, the other outputs are gaps, which no copy has.
    """
    (own,) = answered.values()
    try:
        found = dict(_ROOMS[inner.flavor].predict(inner.native, tensors, signature))
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - a model may raise anything
        found = {name: inner.gaps(name, len(own)) for name in inner.answers.outputs}
    same = found[inner.output].size == own.size
    return found | {inner.output: own.reshape(found[inner.output].shape) if same else own}


def curves(inner: Inner, signature: Signature) -> list[Curve]:
    """Return the curves of the model inside."""
    found: list[Curve] = _ROOMS[inner.flavor].curves(inner.native, signature)
    return found


def _fits(
    flavor: str, native: Any, folder: Path, wanted: Array, asked: tuple[Tensors, Signature]
) -> Inner | None:  # fmt: skip
    room = _ROOMS[flavor]
    try:
        answers: Answers = room.answers(native, folder)
        found = room.predict(native, *asked)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - a model may raise anything
        return None
    same = [name for name in answers.outputs if _equal(found[name], wanted)]
    return Inner(flavor, native, answers, same[0], found) if same else None


def _equal(first: Array, second: Array) -> bool:
    """Whether two answers are equal, bit by bit, but for a column's (N, 1) instead of (N,)."""
    if first.dtype.kind != second.dtype.kind or first.size != second.size:
        return False
    return np.array_equal(
        first.reshape(len(first), -1), second.reshape(len(second), -1), equal_nan=first.dtype.kind == "f"
    )


def _python_model(model: Any) -> Any:
    return getattr(getattr(model, "_model_impl", None), "python_model", None)


def _attributes(model: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield models in the attributes of the Python model, or the one that MLflow's own wrapper holds; each once."""
    implementation = getattr(model, "_model_impl", None)
    inner = _python_model(model)
    raw = None if inner is not None else getattr(implementation, "get_raw_model", lambda: None)()
    held = [("itself", raw)] if raw is not None else [(f"its {name}", one) for name, one in _held(inner)]
    seen: set[int] = set()
    for where, native in held:
        if hasattr(native, "_model_impl"):  # loaded with mlflow.pyfunc
            yield from ((f"{where}, {place}", flavor, one) for place, flavor, one in _attributes(native))
        elif (flavor := _flavor(native)) and id(native) not in seen:
            seen.add(id(native))
            yield where, flavor, native


def _held(inner: Any) -> list[tuple[str, Any]]:
    return list(getattr(inner, "__dict__", {}).items())


def _flavor(native: Any) -> str:
    """Return the flavor of a fitted model by the libraries of its classes, "" for anything else."""
    libraries = {kind.__module__.partition(".")[0] for kind in type(native).__mro__}
    able = hasattr(native, "predict") or hasattr(native, "transform")
    return next((name for name in _ROOMS if name in libraries and able), "")


def _artifacts(model: Any, folder: Path) -> Iterator[tuple[str, str, Any]]:
    """Yield models in the artifacts: folders that MLflow wrote, pickles, ONNX files."""
    context = getattr(getattr(model, "_model_impl", None), "context", None)
    for name, path in (getattr(context, "artifacts", None) or {}).items():
        place = Path(path)
        try:
            yield from ((f"the artifact {name}", *one) for one in _opened(place, folder))
        except ModelrelError:
            continue  # what cannot be loaded is not what it wraps


def _opened(place: Path, folder: Path) -> Iterator[tuple[str, Any]]:
    if (place / "MLmodel").is_file():
        for flavor, room in _ROOMS.items():
            if f"\n  {flavor}:" in (place / "MLmodel").read_text(encoding="utf-8", errors="replace"):
                yield flavor, room.load(place)
                return
    elif place.suffix == ".onnx":
        yield "onnx", onnx.loaded(place, folder)
    elif place.suffix in _PICKLES:
        native = mlmodel.opened(lambda: _unpickled(place), place)
        if flavor := _flavor(native):
            yield flavor, native


def _unpickled(place: Path) -> Any:
    if place.suffix == ".joblib":
        import joblib

        return joblib.load(place)
    with place.open("rb") as stream:
        return pickle.load(stream)  # noqa: S301 - running it is what this process is for

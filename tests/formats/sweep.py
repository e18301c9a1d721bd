"""One estimator through the format's own door, in this process: equal, refused, or wrong."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from modelrel import tensors
from modelrel.errors import Refused
from modelrel.flavors import FLAVORS
from modelrel.formats import FORMATS, Order
from modelrel.formats.onnx import known_faults
from modelrel.measured import Tolerance
from modelrel.probes import rows
from modelrel.probes.generated import Maker
from modelrel.probes.interview import Answered
from modelrel.tensors import Array
from modelrel.values import TensorSpec
from tests.formats import estimators
from tests.models import adapter_of, runtimes, signature_of

_SECONDS: Final = 30


@dataclass(frozen=True)
class Outcome:
    """`kind` is equal, refused or wrong; `said` the reason, or how far the copy is off."""

    kind: str
    said: str
    rows: int = 0


class Overdue(Exception):
    """A conversion that does not end."""


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raise `Overdue` after so many seconds: skl2onnx never returns for some models."""

    def stop(*_: object) -> None:
        raise Overdue

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def swept(name: str, dtype: Any, folder: Path, to: str = "onnx") -> Outcome:
    """Fit, convert, load and compare one estimator on rows of `dtype`."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, data = estimators.fitted(name, dtype)
        return outcome(model, data, folder, to)


def outcome(model: Any, data: Any, folder: Path, to: str = "onnx") -> Outcome:
    """Convert, load and compare one fitted model."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with limited(_SECONDS):
                return _compared(model, data, folder, to)
        except Refused as stop:
            return Outcome("refused", stop.message)
        except Overdue:
            return Outcome("wrong", "conversion does not end")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no refusal
            return Outcome("wrong", f"{type(error).__name__}: {error}"[:300])


def _compared(model: Any, data: Any, folder: Path, to: str) -> Outcome:
    (folder / "MLmodel").write_text("flavors:\n  sklearn: {}\n  python_function: {}\n")
    room, format_ = FLAVORS["sklearn"], FORMATS[to]
    if isinstance(data, list):  # dictionaries: no signature, so nothing but the refusal can be asked for
        known_faults.refuse(model)
    signature = signature_of(data)
    real = rows.fitted(data[:40], signature, "test")
    found = room.predict(model, real, signature)
    order = Order(
        flavor="sklearn",
        signature=signature,
        answers=room.answers(model, folder),
        shapes=tensors.specs(found),
    )
    path = folder / f"model{format_.SUFFIX}"
    said: Any = format_.convert(model, order, path)
    format_.check(path)
    entered = tuple(TensorSpec(**spec) for spec in said["inputs"])
    real = tensors.held(real, entered)
    maker = Maker(replace(signature, inputs=entered), real, said["hints"], 0)
    groups = [*maker.usual(150), *maker.thresholds(), *maker.missing(), *maker.unseen()]
    asked, originals = _answered(model, signature, [real, *(group.rows for group in groups)])
    judged = [_judged(originals, run, asked) for run in runtimes(format_, path, adapter_of(said, folder))]
    return next((found for found in judged if found.kind != "equal"), judged[0])


def _answered(model: Any, signature: Any, groups: list[Any]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return the rows that the original answers, and its answers; row by row where a group makes it raise."""
    room = FLAVORS["sklearn"]
    inputs, outputs = [], []
    for group in groups:
        try:
            answers = [room.predict(model, group, signature)]
            kept = [group]
        except (ValueError, TypeError, IndexError, AttributeError):
            kept, answers = [], []
            for row in range(min(tensors.rows(group), 30)):
                single = tensors.take(group, slice(row, row + 1))
                try:
                    answers.append(room.predict(model, single, signature))
                except (ValueError, TypeError, IndexError, AttributeError):
                    continue
                kept.append(single)
        inputs += kept
        outputs += answers
    return tensors.stack(inputs), tensors.stack(outputs)


def _judged(originals: Any, copy: Any, asked: Any) -> Outcome:
    answers = copy(asked)
    rounded = Answered(asked, ("",) * tensors.rows(asked), originals, 0.0, ()).undecided(answers)
    tolerance = Tolerance()
    count = tensors.rows(asked)
    if set(answers) != set(originals):
        return Outcome("wrong", f"outputs {sorted(answers)}, not {sorted(originals)}")
    for name, array in answers.items():
        original = originals[name]
        if original.shape != array.shape or original.dtype.kind != array.dtype.kind:
            return Outcome("wrong", f"{name}: {array.dtype}{array.shape}, not {original.dtype}{original.shape}")
        if original.dtype.kind == "f":
            bad = tensors.excess(original, array, rtol=tolerance.rtol, atol=tolerance.atol) > 0
        else:
            bad = tensors.disagree(original, array) & ~rounded
        if bad.any():
            row = int(np.argmax(bad))
            shown = (
                {key: value[row].tolist() for key, value in asked.items()},
                original[row].tolist(),
                array[row].tolist(),
            )
            return Outcome("wrong", f"{name}: {int(bad.sum())} of {count} rows, first {shown}"[:400], count)
    single = copy(tensors.take(asked, slice(0, 1)))
    for name, array in single.items():
        if array.shape != answers[name][:1].shape:
            return Outcome("wrong", f"{name}: one row alone has another shape", count)
    return Outcome("equal", "", count)

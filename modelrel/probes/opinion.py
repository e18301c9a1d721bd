"""Who is wrong where original and copy differ: reader, writer or runtime of the copy, or the original's rounding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, Final

import numpy as np

from modelrel import tensors
from modelrel.errors import Refused
from modelrel.measured import Tolerance
from modelrel.probes.interview import Answered
from modelrel.tensors import Array, Predict, Tensors
from modelrel.values import ConvertedModel

ITSELF: Final = "the original itself"
_ROWS: Final = 8
_WIDE_ROWS: Final = 200
_LIMIT: Final = Tolerance()


def told(
    call: Callable[..., Any], converted: ConvertedModel, answered: Answered, answers: Tensors, reference: Predict | None
) -> tuple[str, ...]:
    """Return who is wrong about each output that differs, in sentences, where that can be told.

    `call` asks the process that holds the original (`Worker.call`), `answers` are the copy's, and `reference` an
    independent runtime of it.
    """
    signature = converted.signature

    def wide(rows: Tensors) -> dict[str, Array]:
        kinds = {"FP32": "FP64"}
        inputs = tuple(replace(spec, datatype=kinds.get(spec.datatype, spec.datatype)) for spec in signature.inputs)
        try:
            reply = call("predict", rows, signature=asdict(replace(signature, inputs=inputs)))
        except Refused:
            return {}
        return dict(reply.arrays) if len(reply.value["kept"]) == tensors.rows(rows) else {}

    def read(rows: Tensors) -> dict[str, Array]:
        return dict(call("interpret", rows, signature=asdict(signature)).arrays)

    others = reference, read
    both = (answered.outputs, answers)
    said: list[str] = []
    for name in [name for name in answers if name in answered.outputs]:
        own, sentence = rounded(name, answered.inputs, both, wide)
        said += [sentence, blamed(name, answered.inputs, both, others, own)]
    return tuple(sentence for sentence in said if sentence)


def rounded(name: str, given: Tensors, answers: tuple[Tensors, Tensors], wide: Predict) -> tuple[Array, str]:
    """Return on which rows the original itself rounds, (K,) indices, and a sentence about them ("": on none).

    `given` are the rows, `answers` those of the original and of the copy for them, `name` the output that differs,
    `wide` the original asked in float64. It rounds where it differs from its own float64 answer, and the copy does not.
    """
    none = np.zeros(0, np.int64)
    original, copy = answers[0][name], answers[1][name]
    rows = np.flatnonzero(_different(original, copy))[:_WIDE_ROWS]
    if not len(rows) or not any(array.dtype == np.float32 for array in given.values()):
        return none, ""
    exact = wide({key: _widened(array[rows]) for key, array in given.items()}).get(name)
    if exact is None or exact.shape != copy[rows].shape:
        return none, ""
    own = rows[~_different(exact, copy[rows])]
    if not len(own):
        return none, ""
    by = ""
    if original.dtype.kind == "f":
        kept = exact[np.isin(rows, own)]
        by = f" by up to {tensors.errors(kept, original[own])[0].max():.3g}"
    return own, (
        f"{ITSELF} differs from its own float64 answers{by} on {name} of {len(own):,} of the {len(rows):,} "
        "such rows looked at: it computes in float32, and the copy answers as it does in float64"
    )


def _widened(array: Array) -> Array:
    return array.astype(np.float64) if array.dtype == np.float32 else array


def blamed(
    name: str,
    given: Tensors,
    answers: tuple[Tensors, Tensors],
    others: tuple[Predict | None, Predict | None],
    explained: Array,
) -> str:
    """Return a sentence: with whom two others side on the rows that differ.

    `given` are the rows, `answers` those of the original and of the copy for them, `name` the output that differs.
    `others` are an independent runtime of the copy, and the model's trees as they are read, run in NumPy; the rows
    `explained` are left out. Returns "" where neither answers, or they agree with nobody.
    """
    original, copy = answers[0][name], answers[1][name]
    looked = np.flatnonzero(_different(original, copy))[:_WIDE_ROWS]
    rows = np.setdiff1d(looked, explained)[:_ROWS]
    if not len(rows):
        return ""  # explained, or a rounding error that is refused for a tolerance tighter than ours
    asked = tensors.take(given, rows)
    second, read = (_sided(name, other, asked, (original[rows], copy[rows])) for other in others)
    if second == "original":
        return f"the runtime is wrong on {name}: an independent one runs this copy and agrees with the original"
    independent = f"the conversion is wrong on {name}"
    if second == "copy":
        independent += ": an independent runtime of the copy answers like the copy"
    if read == "copy":
        return f"{independent}; its trees are read wrongly: as they are read they answer like the copy"
    if read == "original":
        return f"{independent}; the copy is written wrongly: the trees as they are read answer like the original"
    return independent if second == "copy" else ""


def _sided(name: str, other: Predict | None, given: Tensors, answers: tuple[Array, Array]) -> str:
    """Return with which of the two answers another one agrees on each row; "" for neither."""
    if other is None:
        return ""
    try:
        found = other(given)[name]
    except Exception:  # noqa: BLE001 - an evaluator that does not know an operator raises anything
        return ""
    if found.dtype.kind in "US":
        found = found.astype(object)
    if found.size != answers[0].size:
        return ""
    found = found.reshape(answers[0].shape)
    for side, answer in zip(("original", "copy"), answers, strict=True):
        if not _different(answer, found).any():
            return side
    return ""


def _different(first: Array, second: Array) -> Array:
    return tensors.differ(first, second, rtol=_LIMIT.rtol, atol=_LIMIT.atol)

"""Rows that int8 copies are calibrated on: the user's, else those that were logged with the model."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from modelrel import tensors
from modelrel.errors import Invalid, Refused
from modelrel.probes import rows, training
from modelrel.tensors import Array, Tensors
from modelrel.values import SourceModel

LEAST: Final = 100
"""Rows below which ranges are a guess."""

_MOST: Final = 500
"""Rows that are looked at: more hardly move a range, and take time."""


def found(source: SourceModel, data: Path | None, label: str) -> tuple[dict[str, Array], str]:
    """Return up to 500 rows, evenly picked, and a sentence that says which; rows with infinite numbers are left out.

    The user's file `data` is taken, without its column `label`; else the logged example and data sets. Raises `Refused`
    where there are fewer than 100, `Invalid` where the file does not fit.
    """
    assert source.signature is not None
    if data is not None:
        all_rows, where = rows.read(data, source.signature, label), data.name
    else:
        all_rows, where = _logged(source)
    count = tensors.rows(all_rows) if all_rows else 0
    all_rows = tensors.take(all_rows, _bounded(all_rows, count)) if count else all_rows
    count = tensors.rows(all_rows) if all_rows else 0
    if count < LEAST:
        raise Refused(
            f"int8 is calibrated on at least {LEAST} rows, and {where} of {source.label} holds {count}",
            "Give a file of usual rows: --data FILE (csv, parquet, json, npy or npz), some hundreds of them.",
        )
    picked = np.unique(np.linspace(0, count - 1, min(count, _MOST)).astype(int))
    return tensors.take(all_rows, picked), f"calibrated on {len(picked):,} rows of {where}"


def _logged(source: SourceModel) -> tuple[dict[str, Array], str]:
    parts: list[Tensors] = []
    try:
        example = rows.example(source)
    except Invalid:
        example = None  # `verify` says why
    if example is not None:
        parts.append(example)
    logged = training.logged(source).queue
    parts += [group.rows for group in logged.taken(logged.of)]
    names = [name for name, there in (("the input example", example is not None), ("the logged data", logged.of))
             if there]  # fmt: skip
    return (tensors.stack(parts) if parts else {}), " and ".join(names) or "what was logged"


def _bounded(given: dict[str, Array], count: int) -> Array:
    """Return which rows hold no infinite number, which would be a range of its own."""
    kept = np.ones(count, np.bool_)
    for array in given.values():
        if array.dtype.kind == "f":
            kept &= ~np.isinf(array.reshape(count, -1)).any(axis=1)
    return np.flatnonzero(kept)

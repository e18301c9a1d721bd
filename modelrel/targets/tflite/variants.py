"""Other copies of a model beside the one that is delivered: smaller ones, each proven by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from modelrel.errors import Invalid, did_you_mean
from modelrel.measured import Quantize
from modelrel.values import ParityReport

MODES: Final[dict[str, Quantize]] = {"float32": "none", "float16": "float16", "dynamic": "dynamic", "int8": "int8"}
"""Name of a variant, which is that of its folder -> how it is converted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A copy as the templates show it: its folder ("" for the model itself), its bytes, and what was measured."""

    name: str
    file: str
    size: int
    rows: int
    figures: str


def modes(text: str) -> dict[str, Quantize]:
    """Return the variants of a list, in the order of `MODES`.

    Raises `Invalid` for a name that is none.

    >>> modes("int8, float16")
    {'float16': 'float16', 'int8': 'int8'}
    """
    asked = [name.strip() for name in text.split(",") if name.strip()]
    for name in asked:
        if name not in MODES:
            hint = f"{did_you_mean(name, MODES)}Choose some of {', '.join(MODES)}."
            raise Invalid(f"there is no variant {name!r} of a TFLite file", hint)
    return {name: mode for name, mode in MODES.items() if name in asked}


def named(parity: ParityReport) -> str:
    """Return the name of the variant that a copy is."""
    return parity.converted.quantize or "float32"


def variant(parity: ParityReport, file: str, size: int) -> Variant:
    """Return how the templates show a copy."""
    return Variant(name=named(parity), file=file, size=size, rows=_rows(parity), figures="; ".join(figures(parity)))


def _rows(parity: ParityReport) -> int:
    return parity.loss.rows if parity.loss else parity.rows


def figures(parity: ParityReport) -> list[str]:
    """Return what was measured of a copy, in parts of a sentence."""
    loss = parity.loss
    if loss is None:
        return [f"{parity.disagreements} answers differ", f"largest error {parity.max_abs_error:.2g}"]
    agreed = [] if loss.agreement is None else [f"{loss.agreement:.2%} of the labels agree"]
    off = [
        f"{one.name} off by {one.mean_error:.2g} on average, {one.max_error:.2g} at most"
        + ("" if one.unit == 1 else " (in standard deviations)")
        for one in loss.outputs
    ]
    return agreed + off + [f"{one.name} {one.original:.4f} → {one.copy:.4f}" for one in loss.metrics]

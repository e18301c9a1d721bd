"""What is measured of a copy, and what it is held against."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Final, Literal, Optional

if sys.version_info < (3, 10):  # noqa: UP036 - the worker in an old model's environment
    from modelrel.older import dataclass
else:
    from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far numbers may be apart: `abs(copy - original) <= atol + rtol * abs(original)`."""

    rtol: float = 1e-4
    atol: float = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Far:
    """A row on which an output is far off: the number that is off the most, the `column`th of the output's.

    Both numbers have the digits of their datatype; `given` is what was asked, as text of bounded length.
    """

    row: int
    source: str
    error: float
    column: int
    original: str
    copy: str
    given: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How the errors of one output of numbers lie, for a picture of them.

    `exact` counts rows without an error, `halves` those with one: (h, count) has the errors from `10 ** (h / 2)` up to
    the next half power of ten. `pairs` are numbers of the original and of the copy, picked evenly over all rows, `far`
    the rows with the largest errors.
    """

    exact: int
    halves: tuple[tuple[int, int], ...] = ()
    pairs: tuple[tuple[float, float], ...] = ()
    far: tuple[Far, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputParity:
    """One output, compared over all rows. `worst_row` is the index of the row with the largest excess."""

    name: str
    datatype: str
    rows: int
    disagreements: int
    max_abs_error: float
    max_rel_error: float
    worst_row: int
    worst_source: str
    worst_input: Mapping[str, object]
    worst_original: object
    worst_copy: object
    spread: Optional[Spread] = None  # noqa: UP045 - `|` is no operator of types in Python 3.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How much of what could be asked was asked, of one source of rows; `unit` is what is counted: rows or splits.

    `left_out` says what cannot be asked whatever the time (it is not among `of`), and why.
    """

    source: str
    asked: int
    of: int
    unit: str = "rows"
    left_out: str = ""


Quantize = Literal["", "none", "float16", "dynamic", "int8"]
"""How a copy is made smaller; "" leaves the choice to the copy that is there, "none" is as exact as can be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossBudget:
    """What a smaller copy may lose on usual rows.

    `agreement` is the least share of rows with the original's label. `max_error` and `mean_error` are the most that
    the largest error of a row may be, of any and on average: of probabilities as they are, of other numbers in standard
    deviations of the original's answers. `drop` is the most that accuracy, F1 or R² may fall, where the right answers
    are known.
    """

    agreement: float
    max_error: float
    mean_error: float
    drop: float


BUDGETS: Final[Mapping[str, LossBudget]] = {
    "float16": LossBudget(agreement=0.999, max_error=0.02, mean_error=0.001, drop=0.001),
    "dynamic": LossBudget(agreement=0.99, max_error=0.2, mean_error=0.01, drop=0.01),
    "int8": LossBudget(agreement=0.99, max_error=0.5, mean_error=0.02, drop=0.01),
}
"""Mode -> what it may lose, unless the user says otherwise.

Rounding to float16 moves a weight by 2^-12 of it at most, to 8 bits by 1/254 of the largest in its column; int8 also
rounds every number between two layers to one of 256. `max_error` is wide where a row lies between two classes, whose
probabilities a small step turns over; `mean_error` is what a typical row pays.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputLoss:
    """How far one output of numbers is off, in `unit`s: 1 for probabilities, else a standard deviation.

    Up to 16 columns are each seen in their own; then `unit` is the largest of them.
    """

    name: str
    unit: float
    max_error: float
    mean_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """How good original and copy are, against the right answers of `rows` rows."""

    name: str
    original: float
    copy: float
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What a smaller copy loses, counted over the rows of `sources`; `agreement` is None without labels.

    `generated_agreement` is that of made-up usual rows, where those counted are real ones: it is held against nothing.
    `size` and `exact_size` are the bytes of the copy, and of the one that `quantize` did not touch.
    """

    mode: Quantize
    budget: LossBudget
    rows: int
    sources: Mapping[str, int]
    agreement: Optional[float]  # noqa: UP045 - `|` is no operator of types in Python 3.9
    generated_agreement: Optional[float]  # noqa: UP045
    outputs: tuple[OutputLoss, ...]
    metrics: tuple[Metric, ...]
    size: int
    exact_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """How a whole number of the file stands for a real one: `real = scale * (whole - zero_point)`."""

    name: str
    datatype: str
    scale: float
    zero_point: int

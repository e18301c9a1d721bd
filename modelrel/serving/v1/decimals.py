"""Floats as the fewest decimal digits that stand for them in the datatype of their tensor.

JSON has one kind of number, and its writer knows doubles: it would print the FP32 nearest to 0.1 as
0.10000000149011612. Here each value becomes the double nearest to its own fewest digits, so that the writer prints
those. Digits are enough if the decimal is nearer to the value than to its neighbours: then it reads back as the value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from ..tensors import Array

_FEW: Final = 100
"""Below this many values numpy's own printer, 0.7 microseconds a value, is quicker than four dozen steps on arrays."""

_POWERS: Final = 10.0 ** np.arange(23)
"""The powers of ten that are exact as doubles: with these, scaling and back is rounded once."""

_DIGITS: Final = (6, 7, 8)
"""A decimal of up to 6 digits comes back from an FP32 as it was, and 9 digits tell any two of them apart."""

_PLACES: Final = (_DIGITS[-1] - 1 - 22, _DIGITS[0] - 1 + 22)
"""The places of a first digit for which a scale is in ``_POWERS``; smaller values have lost digits of their 24 bits."""


def lists(array: Array) -> Any:
    """Return floats of any dtype as nested lists of doubles that print with the fewest digits for that dtype.

    Infinities and NaN stay what they are.
    """
    if array.dtype == np.float64:
        return array.tolist()
    if array.size >= _FEW and array.dtype == np.float32:
        return _at_once(array).tolist()
    if array.ndim == 2:  # one row of one number is the usual answer: numpy's way of it takes twice as long
        return [[float(str(value)) for value in row] for row in array]
    return _one_by_one(array).tolist()


def _one_by_one(array: Array) -> Array:
    return np.array([float(str(value)) for value in array.ravel()], np.float64).reshape(array.shape)


def _at_once(array: Array) -> Array:
    flat = array.ravel()
    found = flat.astype(np.float64)
    rest = np.flatnonzero(np.isfinite(flat) & (flat != 0))
    values = np.abs(flat[rest])
    exact = values.astype(np.float64)
    # Of an FP32 the logarithm is exact enough: the one next to a power of ten differs from it in the eighth digit.
    place = np.floor(np.log10(exact)).astype(np.int64)
    # Below a power of two the neighbour is nearer than above, and the nearest decimal need not be the one that will do.
    power = (values.view(np.uint32) & 0x7FFFFF == 0) & ((exact < 2.0**-6) | (exact > 2.0**19))  # the others are exact
    odd = (place < _PLACES[0]) | (place > _PLACES[1]) | power
    found[rest[odd]] = _one_by_one(flat[rest[odd]])
    rest, values, exact, place = (some[~odd] for some in (rest, values, exact, place))
    # Half the way to a neighbour is read as the value if its last bit is 0 (IEEE 754: ties to even).
    half = np.spacing(values).astype(np.float64) / 2 * np.where(values.view(np.uint32) & 1, 1 - 1e-9, 1)
    for digits in _DIGITS:
        shift = digits - 1 - place
        down, up = _POWERS[np.maximum(shift, 0)], _POWERS[np.maximum(-shift, 0)]
        decimal = np.rint(exact * down / up) / down * up
        right = np.abs(decimal - exact) <= half
        found[rest[right]] = np.copysign(decimal[right], flat[rest[right]])
        rest, exact, half, place = (some[~right] for some in (rest, exact, half, place))
    found[rest] = _one_by_one(flat[rest])
    return found.reshape(array.shape)

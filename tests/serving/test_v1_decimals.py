"""Floats print with the fewest digits for their dtype: against exact arithmetic, and against numpy's own printer."""

from __future__ import annotations

import json
from fractions import Fraction
from math import floor, log10

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrel.serving.v1 import decimals

MOST_DIGITS = {np.float16: 5, np.float32: 9, np.float64: 17}
BITS = {np.float16: np.uint16, np.float32: np.uint32, np.float64: np.uint64}


def bounds(value: np.floating) -> tuple[Fraction, Fraction, bool]:
    """Return between which two numbers everything is nearest to a positive float, and whether they are too."""
    kind = type(value)
    with np.errstate(over="ignore"):
        above, below = np.nextafter(value, kind(np.inf)), np.nextafter(value, kind(0))
    exact = Fraction(float(value))
    lower = (exact + Fraction(float(below))) / 2
    upper = (exact + Fraction(float(above))) / 2 if np.isfinite(above) else 2 * exact - lower
    return lower, upper, not value.view(BITS[kind]) & 1


def fewest(value: np.floating) -> int:
    """Return how few digits stand for a positive float: slow, and exact."""
    low, high, too = bounds(value)
    exact = Fraction(float(value))
    place = floor(log10(float(value)))
    for digits in range(1, MOST_DIGITS[type(value)] + 1):
        for at in (place - 1, place, place + 1):  # the logarithm may be one off
            unit = Fraction(10) ** (at - digits + 1)
            for count in (floor(exact / unit), floor(exact / unit) + 1):
                near = count * unit
                if count < 10**digits and (low < near < high or (too and near in (low, high))):
                    return digits
    raise AssertionError(value)


def digits_of(text: str) -> int:
    return len(text.lstrip("-").partition("e")[0].replace(".", "").strip("0"))


def printed(array: np.ndarray) -> list[str]:
    return msgspec.json.encode(decimals.lists(array)).decode().strip("[]").split(",")


def check(array: np.ndarray) -> None:
    for value, text in zip(array, printed(array), strict=True):
        assert array.dtype.type(Fraction(text)) == value or array.dtype.type(text) == value
        positive = np.abs(value)
        low, high, too = bounds(positive)
        near = abs(Fraction(text))
        assert low < near < high or (too and near in (low, high))
        assert digits_of(text) == fewest(positive)


def padded(array: np.ndarray) -> np.ndarray:
    """Return so many values that they are computed at once and not one by one."""
    return np.resize(array, max(len(array), 200))


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False).filter(bool), min_size=1, max_size=30))
def test_fp32_has_the_fewest_digits_one_by_one_and_at_once(values: list[float]) -> None:
    array = np.array(values, np.float32)
    check(array)
    assert printed(padded(array))[: len(array)] == printed(array)


def test_fp16_has_the_fewest_digits() -> None:
    bits = np.arange(1, 2**15, 11, dtype=np.uint16).view(np.float16)  # 11 is odd, so each last digit is among them
    check(bits[np.isfinite(bits)])


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, min_value=1e-200, max_value=1e200), min_size=1))
def test_fp64_has_the_fewest_digits(values: list[float]) -> None:
    check(np.array(values, np.float64))


@given(st.lists(st.tuples(st.integers(1, 10**7), st.integers(-12, 12)), min_size=1, max_size=30))
def test_decimals_of_few_digits_come_back_as_they_were(pairs: list[tuple[int, int]]) -> None:
    sent = [count * 10.0**place for count, place in pairs]
    array = np.array(sent, np.float32)
    check(array)
    assert printed(padded(array))[: len(array)] == printed(array)


def test_many_floats_of_all_sizes_print_as_numpy_prints_them() -> None:
    random = np.random.default_rng(0)
    bits = random.integers(0, 2**32, 60_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    powers = np.ldexp(np.float32(1), np.arange(-149, 128)).astype(np.float32)
    array = np.concatenate([bits[np.isfinite(bits)], random.random(20_000).astype(np.float32), powers, -powers])
    assert decimals.lists(array) == [float(str(value)) for value in array]


@pytest.mark.parametrize("count", [1, 200])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_zeros_infinities_and_nan_stay_what_they_are(dtype: type, count: int) -> None:
    array = np.resize(np.array([0.0, -0.0, np.inf, -np.inf, np.nan], dtype), 5 * count)
    assert str(decimals.lists(array)[:5]) == "[0.0, -0.0, inf, -inf, nan]"


@pytest.mark.parametrize("shape", [(3,), (2, 3), (1, 1), (2, 2, 3), (4, 5, 10), (0,), (0, 3)])
def test_the_shape_stays(shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) / 8
    assert decimals.lists(array) == array.tolist()


def test_whole_floats_have_their_point() -> None:
    assert json.dumps(printed(np.array([9000000, 1, 0.1, 3.4028235e38], np.float32))) == (
        '["9000000.0", "1.0", "0.1", "3.4028235e38"]'
    )

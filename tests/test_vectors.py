"""Vectors in kernels, compared with NumPy."""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from beton.codec.vectors import (
    COPIED,
    LANES,
    copy_bytes,
    is_zero,
    load,
    store,
    store_pixels,
    vector,
)
from beton.jit import kernel

INT32 = np.iinfo(np.int32)
NUMBERS = st.lists(st.integers(INT32.min, INT32.max), min_size=LANES, max_size=LANES)
Compute = Callable[[Any, Any, int, Any], None]


@kernel
def add(a: Any, b: Any, number: int, out: Any) -> None:
    store(out, 0, load(a, 0) + load(b, 0))
    store(out, LANES, load(a, 0) + number)
    store(out, 2 * LANES, number + load(b, 0))


@kernel
def sub(a: Any, b: Any, number: int, out: Any) -> None:
    store(out, 0, load(a, 0) - load(b, 0))
    store(out, LANES, load(a, 0) - number)
    store(out, 2 * LANES, number - load(b, 0))


@kernel
def mul(a: Any, b: Any, number: int, out: Any) -> None:
    store(out, 0, load(a, 0) * load(b, 0))
    store(out, LANES, load(a, 0) * number)
    store(out, 2 * LANES, number * load(b, 0))


@kernel
def or_(a: Any, b: Any, number: int, out: Any) -> None:
    store(out, 0, load(a, 0) | load(b, 0))
    store(out, LANES, load(a, 0) | number)
    store(out, 2 * LANES, number | load(b, 0))


@pytest.mark.parametrize("compute", [add, sub, mul, or_], ids=["+", "-", "*", "|"])
@given(a=NUMBERS, b=NUMBERS, number=st.integers(INT32.min, INT32.max))
@settings(deadline=None)
def test_operators_are_those_of_numpy(
    compute: Compute, a: list[int], b: list[int], number: int
) -> None:
    left, right = np.array(a, np.int32), np.array(b, np.int32)
    found = np.empty(3 * LANES, np.int32)
    compute(left, right, number, found)
    name: str = compute.__name__
    expected = getattr(operator, name)
    with np.errstate(over="ignore"):
        one = np.int32(number)
        parts = [expected(left, right), expected(left, one), expected(one, right)]
    assert np.array_equal(found, np.concatenate(parts))


@kernel
def shift(a: Any, bits: int, out: Any) -> None:
    store(out, 0, load(a, 0) << bits)
    store(out, LANES, load(a, 0) >> bits)


@given(NUMBERS, st.integers(0, 31))
@settings(deadline=None)
def test_shifts_keep_the_sign_to_the_right(a: list[int], bits: int) -> None:
    numbers = np.array(a, np.int32)
    found = np.empty(2 * LANES, np.int32)
    shift(numbers, bits, found)
    shifted = numbers << np.int32(bits), numbers >> np.int32(bits)
    assert np.array_equal(found, np.concatenate(shifted))


@kernel
def copy(a: Any, start: int, out: Any) -> None:
    store(out, 0, load(a, start))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32])
@pytest.mark.parametrize("start", [0, 1, 7])
def test_numbers_of_arrays_keep_their_values(dtype: type[np.generic], start: int) -> None:
    limits = np.iinfo(dtype)  # type: ignore[type-var]
    numbers = np.linspace(limits.min, limits.max, LANES + 7).astype(dtype)
    found = np.empty(LANES, np.int32)
    copy(numbers, start, found)
    assert np.array_equal(found, numbers[start : start + LANES])


@kernel
def one(a: Any, out: Any) -> None:
    store_pixels(out, 2, (load(a, 0),))


@kernel
def two(a: Any, out: Any) -> None:
    store_pixels(out, 2, (load(a, 0), load(a, 16)))


@kernel
def three(a: Any, out: Any) -> None:
    store_pixels(out, 2, (load(a, 0), load(a, 16), load(a, 32)))


@kernel
def four(a: Any, out: Any) -> None:
    store_pixels(out, 2, (load(a, 0), load(a, 16), load(a, 32), load(a, 48)))


@kernel
def eight(a: Any, out: Any) -> None:
    first = load(a, 0), load(a, 16), load(a, 32), load(a, 48)
    last = load(a, 64), load(a, 80), load(a, 96), load(a, 112)
    store_pixels(out, 2, first + last)


@pytest.mark.parametrize(
    ("write", "count"), [(one, 1), (two, 2), (three, 3), (four, 4), (eight, 8)]
)
@given(seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=20)
def test_pixels_are_limited_and_interleaved(
    write: Callable[[Any, Any], None], count: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    numbers = generator.integers(-300, 600, (count, LANES)).astype(np.int32)
    numbers[0, :2] = INT32.min, INT32.max
    out = np.full(count * LANES + 4, 99, np.uint8)
    write(numbers.ravel(), out)
    assert np.array_equal(out[2:-2], numbers.T.ravel().clip(0, 255))
    assert (out[[0, 1, -2, -1]] == 99).all()


@kernel
def all_zero(a: Any) -> bool:
    return is_zero(load(a, 0) | vector(0))


@pytest.mark.parametrize("place", [None, 0, 9, LANES - 1])
def test_one_number_is_enough_not_to_be_zero(place: int | None) -> None:
    numbers = np.zeros(LANES, np.int32)
    if place is not None:
        numbers[place] = INT32.min
    assert all_zero(numbers) == (place is None)


@kernel
def copied(source: Any, start: int, target: Any, to: int) -> int:
    return int(copy_bytes(source, start, target, to))


@given(st.binary(min_size=COPIED, max_size=COPIED), st.integers(0, 5), st.integers(0, 5))
@settings(deadline=None)
def test_bytes_are_copied_and_counted_to_the_first_255(data: bytes, start: int, to: int) -> None:
    source: NDArray[np.uint8] = np.frombuffer(bytes(start) + data, np.uint8)
    target = np.full(COPIED + 8, 7, np.uint8)
    assert copied(source, start, target, to) == (data + b"\xff").index(255)
    assert target[to : to + COPIED].tobytes() == data
    assert (np.delete(target, np.s_[to : to + COPIED]) == 7).all()

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beton import rng
from beton.order import Shard, _sort_random, batch_ids, count_batches, epoch_order


@given(st.integers(1, 300), st.integers(0, 2**40), st.integers(0, 1000))
def test_an_epoch_is_a_permutation(n: int, seed: int, epoch: int) -> None:
    order = epoch_order(n, seed, epoch)
    assert order.dtype == np.int64
    assert np.array_equal(np.sort(order), np.arange(n))


@given(st.integers(0, 5000), st.integers(0, 2**63 - 1), st.integers(0, 1000))
def test_an_order_is_that_of_the_sorted_keys(n: int, seed: int, epoch: int) -> None:
    """The reference is numpy's sort of the same keys."""
    keys = rng.bits(seed, epoch, np.arange(n), rng.ORDER)[:, 0]
    assert np.array_equal(epoch_order(n, seed, epoch), np.argsort(keys))


def test_an_order_of_a_million_is_that_of_the_sorted_keys() -> None:
    keys = rng.bits(1, 2, np.arange(1_000_003), rng.ORDER)[:, 0]
    assert np.array_equal(epoch_order(1_000_003, 1, 2), np.argsort(keys))


@given(st.lists(st.integers(0, 2**64 - 1), unique=True), st.integers(1, 12))
def test_keys_that_are_not_random_are_sorted_too(keys: list[int], bits: int) -> None:
    array, order = np.array(keys, np.uint64), np.empty(len(keys), np.int64)
    _sort_random(array, bits, order)
    assert np.array_equal(order, np.argsort(array))


def test_epochs_and_seeds_differ() -> None:
    orders = [tuple(epoch_order(50, seed, epoch)) for seed in range(4) for epoch in range(4)]
    assert len(set(orders)) == 16


def test_every_position_is_equally_likely() -> None:
    where = np.stack([epoch_order(8, 0, epoch) for epoch in range(4000)])
    counts = np.stack([np.bincount(where[:, k], minlength=8) for k in range(8)])
    assert np.abs(counts - 500).max() < 5 * 500**0.5


@given(st.integers(1, 100), st.integers(1, 6), st.sampled_from([1, 2, 4, 8]), st.booleans())
def test_ranks_share_each_global_batch(n: int, rows: int, count: int, drop_last: bool) -> None:
    size = rows * count
    order = epoch_order(n, 3, 1)
    batches = count_batches(n, size, drop_last)
    seen: list[int] = []
    for number in range(batches):
        whole = batch_ids(order, number, size, Shard())
        parts = [batch_ids(order, number, size, Shard(index, count)) for index in range(count)]
        assert all(len(part) == rows for part in parts)
        assert np.array_equal(np.concatenate(parts), whole)
        seen.extend(whole[whole >= 0])
    assert seen == list(order[: batches * size])
    assert drop_last or len(seen) == n


@pytest.mark.parametrize(("index", "count"), [(-1, 2), (2, 2), (0, 0)])
def test_rejects_a_shard_out_of_range(index: int, count: int) -> None:
    with pytest.raises(ValueError, match="shard"):
        Shard(index, count)

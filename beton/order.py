"""Which samples make up which batch: pure functions of sizes, seed and epoch.

A *global* batch is a slice of the epoch's order; each rank takes its own slice of that, so the
samples of a step do not depend on the number of ranks. Nothing here knows a process group.
"""

from dataclasses import dataclass

import numpy as np

from beton import rng
from beton.arrays import Ids


@dataclass(frozen=True)
class Shard:
    """Which part of every global batch a rank takes: part `index` of `count` equal ones."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(f"shard: got {self.index} of {self.count}, expected an index in range")


def epoch_order(n: int, seed: int, epoch: int) -> Ids:
    """Return a permutation of range(n), int64: a true global shuffle, by sorting n random keys.

    Numbers of our own, not numpy's generator, whose permutations may change between versions. The
    keys of two samples are never equal, since mixing is one-to-one; so any sort gives this order.
    """
    keys = rng.bits(seed, epoch, np.arange(n, dtype=np.int64), rng.ORDER)[:, 0]
    return np.argsort(keys).astype(np.int64, copy=False)


def count_batches(n: int, batch_size: int, drop_last: bool) -> int:
    """Return the number of global batches in an epoch of n samples."""
    return n // batch_size if drop_last else -(-n // batch_size)


def batch_ids(order: Ids, batch: int, batch_size: int, shard: Shard) -> Ids:
    """Return the shard's sample ids of a global batch: int64 (batch_size // shard.count,).

    A last batch that is not full is padded with -1.
    """
    size = batch_size // shard.count
    start = batch * batch_size + shard.index * size
    ids = np.full(size, -1, np.int64)
    part = order[start : start + size]
    ids[: len(part)] = part
    return ids

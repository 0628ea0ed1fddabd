"""Random numbers as a pure function of (seed, epoch, sample, purpose), without a state.

The numbers of a sample are the same in every thread, rank and order, and after a resume. The
generator is counter-based (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"); its
mixing function is the finaliser of SplitMix64 (Steele, Lea and Flood 2014).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from beton.arrays import Float64Array, Int64Array
from beton.jit import kernel

# Purposes of random numbers, independent of each other. This list has the purposes of all packages,
# and no number may change: files and trainings depend on them.
ORDER, JITTER, AUGMENT, ENCODE = 0, 1, 2, 4
HAND, LETTER, WRITING, PLACE, LABEL = 5, 6, 7, 8, 9
MIX, ELASTIC, DROPOUT = 10, 11, 12
IMAGE, CROP, SAMPLE = 13, 14, 15
SHAPE, GARMENT, CHARACTER = 16, 17, 18
SPLIT = 100

_STEP = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLY_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLY_2 = np.uint64(0x94D049BB133111EB)
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))
_TO_UNIT = np.float64(2.0**-53)


class Key(NamedTuple):
    """The seed and epoch that random numbers depend on, in addition to sample and purpose."""

    seed: int
    epoch: int


@kernel
def _mix(state: np.uint64, number: np.uint64) -> np.uint64:
    state = (state ^ number) + _STEP
    state = (state ^ (state >> _SHIFTS[0])) * _MULTIPLY_1
    state = (state ^ (state >> _SHIFTS[1])) * _MULTIPLY_2
    return state ^ (state >> _SHIFTS[2])


@kernel
def _bits(seed: int, epoch: int, ids: Int64Array, purpose: int, out: NDArray[np.uint64]) -> None:
    root = _mix(_mix(_mix(np.uint64(0), np.uint64(seed)), np.uint64(epoch)), np.uint64(purpose))
    for i in range(ids.size):
        sample = _mix(root, np.uint64(ids[i]))
        for k in range(out.shape[1]):
            out[i, k] = _mix(sample, np.uint64(k))


def bits(
    seed: int, epoch: int, ids: Int64Array, purpose: int, count: int = 1
) -> NDArray[np.uint64]:
    """Return `count` 64-bit numbers for each of the samples `ids` (n,): uint64 (n, count)."""
    out = np.empty((len(ids), count), np.uint64)
    _bits(seed, epoch, ids, purpose, out)
    return out


def uniform(seed: int, epoch: int, ids: Int64Array, purpose: int, count: int = 1) -> Float64Array:
    """Return `count` numbers in [0, 1) for each of the samples `ids` (n,): float64 (n, count)."""
    numbers = bits(seed, epoch, ids, purpose, count) >> np.uint64(11)
    return numbers.astype(np.float64) * _TO_UNIT

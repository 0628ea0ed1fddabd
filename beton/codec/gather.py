"""The compiled kernels that copy numbers and stored bytes into batches."""

from beton.arrays import Array, Ids, Int64Array
from beton.jit import kernel


@kernel
def gather_numbers(numbers: Array, ids: Ids, out: Array) -> None:
    """Copy numbers[ids] to the first rows of `out`; NumPy is slow where a file's are unaligned."""
    for i in range(ids.size):
        out[i] = numbers[ids[i]]


@kernel
def gather(data: Array, pointers: Int64Array, out: Array) -> None:
    """Copy payloads of out.shape[1] bytes each into rows of `out`."""
    size = out.shape[1]
    for i in range(pointers.size):
        out[i] = data[pointers[i] : pointers[i] + size]


@kernel
def gather_padded(data: Array, pointers: Int64Array, sizes: Int64Array, out: Array) -> None:
    """Copy payloads of any size into rows of `out`, padded with zeros."""
    for i in range(pointers.size):
        start, size = pointers[i], sizes[i]
        out[i, :size] = data[start : start + size]
        out[i, size:] = 0

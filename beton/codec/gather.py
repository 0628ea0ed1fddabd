"""The compiled kernels that copy stored bytes into batches."""

from beton.arrays import Array, Int64Array
from beton.jit import kernel


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

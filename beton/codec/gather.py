"""The compiled kernels that copy stored bytes into batches."""

from beton.arrays import Array, Ids
from beton.jit import kernel


@kernel
def gather(data: Array, pointers: Array, ids: Ids, out: Array) -> None:
    """Copy payloads of out.shape[1] bytes each into rows of `out`."""
    size = out.shape[1]
    for i in range(ids.size):
        start = pointers[ids[i]]
        out[i] = data[start : start + size]


@kernel
def gather_padded(data: Array, pointers: Array, sizes: Array, ids: Ids, out: Array) -> None:
    """Copy payloads of any size into rows of `out`, padded with zeros."""
    for i in range(ids.size):
        start, size = pointers[ids[i]], sizes[ids[i]]
        out[i, :size] = data[start : start + size]
        out[i, size:] = 0

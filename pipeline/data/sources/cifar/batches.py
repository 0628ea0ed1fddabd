"""Batches of CIFAR: labels and pixels of a file, pickled or binary, and the classes' names."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.base import Ints, Pixels, SourceError
from pipeline.data.sources.cifar.plain_pickle import ForeignObjectError, load_plain
from pipeline.data.sources.stored_bytes import Bytes, StoredBytes, spool

SHAPE = (3, 32, 32)  # of an image: one channel after the other
PIXELS = 3 * 32 * 32
_LARGEST_PICKLE = 1 << 28  # bytes; those of CIFAR-100 have 155 MB


@dataclass(frozen=True)
class Batch:
    """Labels (n,) and where images are: image i begins `start` + i * `stride` bytes in `data`."""

    labels: Ints
    data: Bytes
    start: int = 0
    stride: int = PIXELS


class PickledPixels(Bytes):
    """The pixels of a pickled batch, copied into a temporary file."""

    def __init__(self, stored: StoredBytes, labels: str, pixels: Pixels) -> None:
        self._stored, self._labels, self.path = stored, labels, stored.path
        self._file = spool(iter([pixels.tobytes()]), None)[0]

    def _open(self) -> IO[bytes]:
        return spool(iter([_read_pickle(self._stored, self._labels)[1].tobytes()]), None)[0]


def pickled_batch(stored: StoredBytes, labels: str) -> Batch:
    """Read a pickled batch whose labels have the key `labels`. Raises SourceError."""
    found, pixels = _read_pickle(stored, labels)
    return Batch(found, PickledPixels(stored, labels, pixels))


def binary_batch(stored: StoredBytes, label_bytes: int) -> Batch:
    """Read the labels of a binary batch: before each image are `label_bytes`, the last its label.

    Raises SourceError for a truncated file.
    """
    row, size = label_bytes + PIXELS, stored.size()
    if size % row or not size:
        raise stored.error(
            f"truncated: got {size:,} bytes, expected a multiple of {row:,}, the bytes of an image "
            "with its label"
        )
    values = np.frombuffer(b"".join(stored.blocks()), np.uint8).reshape(-1, row)
    return Batch(values[:, label_bytes - 1].astype(np.int64), stored, label_bytes, row)


def pickled_names(stored: StoredBytes, key: str) -> tuple[tuple[str, ...], int | None]:
    """Return the classes' names, and the stated images of a batch, if any. Raises SourceError."""
    content = _plain(stored)
    names = content.get(key)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise stored.error(f"got no list of names {key!r}")
    count = content.get("num_cases_per_batch")
    return _checked(stored, names), count if isinstance(count, int) else None


def listed_names(stored: StoredBytes) -> tuple[str, ...]:
    """Return the classes' names, one a line. Raises SourceError."""
    try:
        text = b"".join(stored.blocks()).decode()
    except UnicodeDecodeError as error:
        raise stored.error(f"got names of classes that are not UTF-8: {error}") from None
    return _checked(stored, [line.strip() for line in text.splitlines() if line.strip()])


def _checked(stored: StoredBytes, names: list[str]) -> tuple[str, ...]:
    if not names or not all(names) or len({*names}) < len(names):
        raise stored.error(f"got {len(names)} names of classes, expected distinct ones")
    return tuple(names)


def _read_pickle(stored: StoredBytes, key: str) -> tuple[Ints, Pixels]:
    """Return the labels (n,) and pixels (n, 3072) of a pickled batch. Raises SourceError."""
    content = _plain(stored)
    pixels, labels = content.get("data"), content.get(key)
    if pixels is None or labels is None:
        raise stored.error(f"got the keys {', '.join(content)[:100]}, expected data and {key}")
    if not isinstance(pixels, np.ndarray) or (pixels.dtype, pixels.shape[1:]) != (
        np.uint8,
        (PIXELS,),
    ):
        got = f"{pixels.dtype} {pixels.shape}" if isinstance(pixels, np.ndarray) else "no array"
        raise stored.error(f"got {got} as data, expected uint8 (n, {PIXELS})")
    values: list[Any] | NDArray[Any] = labels
    if isinstance(labels, np.ndarray):
        values = labels.tolist() if labels.ndim == 1 else []
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise stored.error(f"got {key} that are no list of whole numbers")
    if len(values) != len(pixels):
        raise stored.error(f"got {len(pixels):,} images and {len(values):,} labels")
    if not values:
        raise stored.error("got no images")
    if not all(-(1 << 63) <= value < 1 << 63 for value in values):
        raise stored.error(f"got the label {max(values, key=abs):.3g}")
    return np.array(values, np.int64), pixels


def _plain(stored: StoredBytes) -> Mapping[str, Any]:
    """Return the dict that a pickle holds, with its keys as texts. Raises SourceError."""
    parts: list[bytes] = []
    for block in stored.blocks():
        parts.append(block)
        if len(parts) << 20 > _LARGEST_PICKLE:
            raise stored.error(f"got more than {_LARGEST_PICKLE >> 20} MB, too large for CIFAR")
    try:
        content = load_plain(b"".join(parts))
    except ForeignObjectError as error:
        raise stored.error(
            f"a pickle with {error}, which could run a program; expected only the dict, lists, "
            "numbers, texts and arrays of CIFAR"
        ) from None
    except ValueError as error:
        raise stored.error(f"damaged: no complete pickle: {error}") from None
    if not isinstance(content, dict):
        raise stored.error(f"got a pickled {type(content).__name__}, expected a dict")
    return {
        key.decode("latin-1") if isinstance(key, bytes) else str(key): value
        for key, value in content.items()
    }


def check_labels(path: str, labels: Ints, classes: int) -> None:
    """Raise SourceError for a label that no class has."""
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise SourceError(
            f"{path}: got the label {labels[wrong[0]]} at image {wrong[0]}, expected 0 to "
            f"{classes - 1} for {classes} classes"
        )

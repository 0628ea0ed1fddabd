"""Samples for test_ffcv, in their own file so that workers do not import torch and ffcv."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

SAMPLES = 150  # of about 25 KB: several pages of 64 KiB, and more than one of FFCV's pages of 2 MiB
SIDE = (67, 41)  # odd, so that the image ends inside a JPEG block


def image(i: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[: SIDE[0], : SIDE[1]]
    waves = [np.sin((y * (c + 1) + x * i) / 9.0) for c in range(3)]
    return (127.5 + 127.5 * np.stack(waves, axis=2)).astype(np.uint8)


@dataclass(frozen=True)
class Tensor:
    """The part of a torch tensor that both writers use."""

    array: NDArray[np.float32]

    def numpy(self) -> NDArray[np.float32]:
        return self.array


@dataclass(frozen=True)
class Samples:
    """A field of every kind, with the values that FFCV's writer accepts."""

    names: ClassVar = ("float", "int", "raw", "jpg", "bytes", "array", "json", "tensor", "big")
    with_empty: bool = True

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, i: int) -> tuple[Any, ...]:
        i = int(i)  # FFCV's writer passes a NumPy integer
        random = np.random.default_rng(i)
        return (
            i / 3 - 1e300 * (i == 7),
            i - 2**63 * (i == 9),
            image(i),
            image(i),
            random.integers(0, 256, 0 if self.with_empty and i % 5 < 2 else 1 + i, dtype=np.uint8),
            np.arange(i, i + 6, dtype=np.int32).reshape(2, 3),
            {"i": i, "text": "é\0" * (i % 4), "none": None},
            Tensor(np.arange(4, dtype=np.float32).reshape(2, 1, 2) + i),
            random.integers(0, 256, (16, 1024), dtype=np.uint8),
        )

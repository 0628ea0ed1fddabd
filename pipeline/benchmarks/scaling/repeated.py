"""Datasets of any length from few images: each image is encoded once, and its bytes are repeated.

A file of 248,000 pages is written in seconds this way. Its samples lie at places of their own, so a
loader reads as many bytes as from different pages.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from beton.arrays import Array, Uint8Array
from beton.fields import InkField, IntField
from beton.fields.base import Payload
from beton.writer import write
from pipeline.data.charset import CHARACTERS
from pipeline.data.sources import SPLITS

VALIDATED = 64  # samples of the split "validation", in files for a training


class RepeatedInk(InkField):
    """An ink field whose values are positions in a list of images, which are encoded once."""

    def __init__(self, images: Sequence[Uint8Array], mode: str) -> None:
        super().__init__(mode)
        encoded = []
        for image in images:
            record = np.zeros(1, self.metadata_dtype)
            payload = super().encode(image, record, 0)
            encoded.append((record, payload))
        object.__setattr__(self, "_encoded", encoded)

    def encode(self, value: Any, record: Array, _sample: int) -> Payload:
        """Store the image at position `value`."""
        stored, payload = vars(self)["_encoded"][value]
        record[:] = stored
        encoded: Payload = payload
        return encoded

    def settings(self) -> dict[str, Any]:
        """Return the settings of the ink field."""
        return InkField(self.mode).settings()


def write_repeated(
    path: Path, images: Sequence[Uint8Array], labels: Sequence[int], count: int, mode: str = "auto"
) -> Path:
    """Write a dataset of `count` samples that repeat `images` (h, w) with their `labels`.

    The last few samples are for validation, all others for training.
    """
    fields = {"image": RepeatedInk(images, mode), "label": IntField(), "split": IntField()}
    validation = min(VALIDATED, count // 10)
    samples = (
        (number % len(images), labels[number % len(images)], int(number >= count - validation))
        for number in range(count)
    )
    provenance = {"kind": "synthetic", "source": "repeated images", "digest": f"{count} repeated"}
    info = {
        "classes": list(CHARACTERS),
        "splits": list(SPLITS),
        "writers": [],
        "provenance": provenance,
    }
    write(path, fields, samples, info=info)
    return path

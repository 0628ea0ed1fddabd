"""A dataset that trains in seconds: rectangles whose class is their proportions and size."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beton import writer as beton_writer
from beton.fields import BytesField, InkField, IntField
from pipeline.data.sources import SPLITS

CLASSES = ("1", "A", "a", "m")
SHAPES = {"1": (50, 6), "A": (50, 40), "a": (25, 20), "m": (10, 60)}  # height, width
PAGE = (90, 120)


def page(name: str, number: int) -> NDArray[np.uint8]:
    """Return a page with the rectangle of class `name` near the centre, black on white."""
    random = np.random.default_rng([CLASSES.index(name), number])
    height, width = SHAPES[name]
    top, left = random.integers(8, 25, 2)
    pixels = np.full(PAGE, 255, np.uint8)
    pixels[top : top + height, left : left + width] = 0
    return pixels


def write_set(
    path: Path,
    train: int = 8,
    validation: int = 3,
    classes: Sequence[str] = CLASSES,
    digest: str = "sha256:tiny",
    draw: Callable[[str, int], NDArray[np.uint8]] = page,
    writer: Callable[[str, int], int] = lambda _name, _number: -1,
    info: Mapping[str, Any] | None = None,
) -> Path:
    """Write a dataset as prep does; `train` and `validation` are pages per class.

    `info` replaces entries of the manifest, or adds some.
    """
    samples: list[dict[str, Any]] = []
    for number in range(train + validation):
        for label, name in enumerate(classes):
            samples.append(
                {
                    "image": draw(name, number),
                    "label": label,
                    "split": int(number >= train),
                    "writer": writer(name, number),
                    "name": f"{name}/{number}.png".encode(),
                }
            )
    beton_writer.write(
        path,
        {
            "image": InkField(),
            "label": IntField(),
            "split": IntField(),
            "writer": IntField(),
            "name": BytesField(),
        },
        samples,
        info={
            "classes": list(classes),
            "splits": list(SPLITS),
            "writers": [],
            "provenance": {"kind": "synthetic", "source": "tiny", "digest": digest},
            **(info or {}),
        },
    )
    return path

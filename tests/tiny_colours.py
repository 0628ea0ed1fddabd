"""A small dataset in colour, as prep writes it: noise whose class is its mean colour."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beton import writer
from beton.fields import BytesField, IntField, RGBImageField
from pipeline.data.sources import SPLITS
from pipeline.loading.image_augment import ImageAugmentation

CLASSES = ("red", "green", "blue")
MEAN, STD = (0.4, 0.5, 0.45), (0.25, 0.2, 0.3)
Pixels = NDArray[np.uint8]
EVERY_AUGMENTATION = ImageAugmentation(
    crop_scale=(0.3, 1),
    pad=3,
    flip=0.5,
    rand_augment=2,
    brightness=0.2,
    contrast=0.3,
    saturation=0.4,
    hue=0.1,
    jitter_probability=0.7,
    grey=0.2,
    cutout=4,
)


def image(label: int, number: int, height: int = 12, width: int = 16) -> Pixels:
    """Return noise, uint8 (height, width, 3), with more of one colour."""
    random = np.random.default_rng([label, number])
    pixels = random.integers(0, 160, (height, width, 3), np.uint8)
    pixels[..., label] += 80
    return pixels


def write_colours(
    path: Path,
    counts: Sequence[int] = (12, 12, 12),
    validation: int = 0,
    sizes: Sequence[tuple[int, int]] = ((12, 16),),
    mode: str = "raw",
    pixels: Mapping[str, Any] | None = None,
    classes: Sequence[str] = CLASSES,
) -> Path:
    """Write a dataset with `counts` training images of each class, and `validation` others.

    The images have `sizes` (height, width) in turn; `pixels` replaces entries of info["pixels"].
    """
    samples = []
    for label, count in enumerate(counts):
        for number in range(count + validation):
            height, width = sizes[number % len(sizes)]
            samples.append(
                {
                    "image": image(label, number, height, width),
                    "label": label,
                    "split": int(number >= count),
                    "writer": -1,
                    "name": f"{classes[label]}/{number}.png".encode(),
                }
            )
    plain = IntField()
    writer.write(
        path,
        {
            "image": RGBImageField(mode),
            "label": plain,
            "split": plain,
            "writer": plain,
            "name": BytesField(),
        },
        samples,
        info={
            "classes": list(classes),
            "splits": list(SPLITS),
            "writers": [],
            "provenance": {"kind": "synthetic", "source": "colours", "digest": "sha256:colours"},
            "pixels": {
                "colour": "rgb",
                "polarity": "each",
                "scale": None,
                "fit": "crop",
                "mean": list(MEAN),
                "std": list(STD),
                **(pixels or {}),
            },
        },
    )
    return path

"""What all synthetic sources have in common."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from beton import rng
from pipeline.data import base
from pipeline.data.base import SYNTHETIC, Annotations, Floats, Source


class SyntheticSource(Source):
    """A source without files, whose images are generated one at a time."""

    kind = SYNTHETIC
    origin = SYNTHETIC
    seconds_per_image = 300e-6
    path = Path("inkrun's generator")


TEST_IDS = 10**12  # the first sample of a test split, in the random numbers of its dataset


@dataclass(frozen=True)
class ImageCounts:
    """Numbers of training and test images."""

    train: int
    test: int


class SyntheticClasses(SyntheticSource):
    """A training and a test split, each with equally many images of every class.

    `dataset` names the generator, and another `version` of it gives other images. Raises
    SourceError for a seed outside 0 to 2^63 - 1.
    """

    def __init__(
        self,
        dataset: str,
        version: int,
        classes: Sequence[str],
        counts: ImageCounts,
        seed: int,
    ) -> None:
        base.check_seed(seed)
        self._version, self._counts, self._seed = version, counts, seed
        self.generator = {"set": dataset, **asdict(counts), "seed": seed}
        row = np.arange(counts.train + counts.test)
        is_train = row < counts.train
        # No test image has the random numbers of a training image, whatever the counts are.
        self._ids = np.where(is_train, row, row - counts.train + TEST_IDS)
        splits = np.where(is_train, base.NO_SPLIT, base.TEST)
        self.annotations = Annotations.of(classes, self._ids % len(classes), splits=splits)

    def _numbers(self, index: int, purpose: int, count: int) -> Floats:
        """Return the random numbers of an image: (count,) in [0, 1)."""
        numbers: Floats = rng.uniform(self._seed, 0, self._ids[index : index + 1], purpose, count)[
            0
        ]
        return numbers

    def _split(self, index: int) -> str:
        return "train" if index < self._counts.train else "test"

    def digest(self) -> str:
        """Return the digest of everything that determines the images and labels."""
        return base.digest_of(self._version, self.generator)

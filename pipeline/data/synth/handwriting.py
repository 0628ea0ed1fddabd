"""Sources of synthetic handwriting: pages and digits, generated one image at a time.

Nothing is read or stored: an image is a function of the seed, the writer and the character. All
files made from these sources are marked as synthetic.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from beton import rng
from pipeline.data import base
from pipeline.data.base import Annotations, Pixels, Source, SourceError
from pipeline.data.charset import CHARACTERS
from pipeline.data.synth import glyphs, pen
from pipeline.data.synth.mislabel import LabelNoise
from pipeline.data.synth.writers import write_character

VERSION = 2  # of the generator: raise it when a seed gives other images
DIGITS = CHARACTERS[:10]


class _SyntheticSource(Source):
    """The common part of all synthetic sources."""

    kind = "synthetic"
    origin = "synthetic"
    path = Path("inkrun's generator")

    def digest(self) -> str:
        """Return the digest of everything that determines the images and labels."""
        return base.digest_of(VERSION, glyphs.digest(), self.generator)


class SyntheticPages(_SyntheticSource):
    """Each of the 62 characters by each writer, one character a page, as in MIDAS part 1.

    `grey` renders soft edges instead of black and white. Raises SourceError for a number of writers
    outside 1 to 999 and a seed outside 0 to 2^63 - 1.
    """

    def __init__(self, writers: int = 40, seed: int = 0, grey: bool = False) -> None:
        if not 1 <= writers <= 999:
            raise SourceError(f"writers: got {writers}, expected 1 to 999")
        base.check_seed(seed)
        self._writers, self._seed, self._grey = writers, seed, grey
        self.generator = {"set": "pages", "writers": writers, "seed": seed, "grey": grey}
        names = [f"{writer + 1:03d}" for writer in range(writers)]
        self.annotations = Annotations.of(
            tuple(CHARACTERS),
            np.repeat(np.arange(len(CHARACTERS)), writers),
            writers=names * len(CHARACTERS),
        )

    def name(self, index: int) -> str:
        """Return the page's file name in the layout of MIDAS part 1."""
        folder, writer = (1 + number for number in divmod(index, self._writers))
        return f"handwriting/Sample{folder:03d}/img{folder:03d}-{writer:03d}.png"

    def image(self, index: int) -> Pixels:
        """Generate a page: uint8 (900, 1200), black on white."""
        label, writer = divmod(index, self._writers)
        path = write_character(self._seed, writer, CHARACTERS[label])
        place = rng.uniform(self._seed, 0, np.array([index]), rng.PLACE, 2)[0]
        return pen.draw_page(path.points, path.starts, place, self._grey)


@dataclass(frozen=True)
class DigitCounts:
    """Numbers of training and test digits; `writers` is the first writer's number."""

    train: int
    test: int
    writers: int


MNIST_COUNTS = DigitCounts(60_000, 10_000, 1_000)
PART3_COUNTS = DigitCounts(60_000, 0, 2_000)
TRAIN_DIGITS_PER_WRITER, TEST_DIGITS_PER_WRITER = 240, 40  # each writer writes for one split


class SyntheticDigits(_SyntheticSource):
    """Digits in MNIST's format, white on black; training labels can be noisy.

    Raises SourceError for a seed outside 0 to 2^63 - 1.
    """

    def __init__(
        self,
        counts: DigitCounts = MNIST_COUNTS,
        seed: int = 0,
        label_noise: LabelNoise | None = None,
    ) -> None:
        base.check_seed(seed)
        self._counts, self._seed = counts, seed
        label_noise = label_noise or LabelNoise()
        options = {"seed": seed, "mislabelling": str(label_noise)}
        self.generator = {"set": "digits", **asdict(counts), **options}
        row = np.arange(counts.train + counts.test)
        is_train = row < counts.train
        bits = rng.bits(seed, 0, counts.writers * TRAIN_DIGITS_PER_WRITER + row, rng.LABEL)
        self._digits = (bits[:, 0] % len(DIGITS)).astype(np.int64)
        noisy = label_noise.apply(self._digits, len(DIGITS), seed)
        # A digit's writer, and how many digits this writer wrote before.
        train = np.divmod(row, TRAIN_DIGITS_PER_WRITER)
        test = np.divmod(row - counts.train, TEST_DIGITS_PER_WRITER)
        first_test_writer = -(-counts.train // TRAIN_DIGITS_PER_WRITER)
        self._writers = counts.writers + np.where(is_train, train[0], first_test_writer + test[0])
        self._copies = np.where(is_train, train[1], test[1])
        self.annotations = Annotations.of(
            tuple(DIGITS),
            np.where(is_train, noisy, self._digits),  # test labels stay correct
            writers=[f"{writer:04d}" for writer in self._writers],
            splits=np.where(is_train, base.NO_SPLIT, base.TEST),
        )

    def name(self, index: int) -> str:
        """Return the split, the label as a folder, and the index as a file name."""
        part = "train" if index < self._counts.train else "test"
        return f"{part}/{self.annotations.labels[index]}/{index:05d}.png"

    def image(self, index: int) -> Pixels:
        """Generate a digit: uint8 (28, 28), white on black."""
        writer, copy = int(self._writers[index]), int(self._copies[index])
        path = write_character(self._seed, writer, DIGITS[self._digits[index]], copy)
        return pen.draw_digit(path.points, path.starts)

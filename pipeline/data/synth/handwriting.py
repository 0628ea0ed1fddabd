"""Sources of synthetic handwriting: pages and digits, generated one image at a time.

Nothing is read or stored: an image is a function of the seed, the writer and the character. All
files made from these sources are marked as synthetic.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from beton import rng
from pipeline.data.charset import CHARACTERS
from pipeline.data.sources.base import (
    NO_SPLIT,
    TEST,
    Annotations,
    Ints,
    Pixels,
    Source,
    SourceError,
)
from pipeline.data.synth import glyphs, pen
from pipeline.data.synth.mislabel import LabelNoise
from pipeline.data.synth.writers import write_character

VERSION = 2  # of the generator: raise it when a seed gives other images
DIGITS = CHARACTERS[:10]


class _SyntheticSource(Source):
    """The common part of all synthetic sources."""

    kind = "synthetic"
    expected_layout = "no files: images are generated"
    origin = "synthetic"
    path = Path("inkrun's generator")

    def size(self, rows: Ints) -> int:
        """Return 0: there are no files."""
        del rows
        return 0

    def digest(self) -> str:
        """Return the digest of everything that determines the images and labels."""
        settings = json.dumps([VERSION, glyphs.digest(), self.generator], sort_keys=True)
        return f"sha256:{hashlib.sha256(settings.encode()).hexdigest()}"


class SyntheticPages(_SyntheticSource):
    """Each of the 62 characters by each writer, one character a page, as in MIDAS part 1.

    `grey` renders soft edges instead of black and white. Raises SourceError for a number of writers
    outside 1 to 999 and a seed outside 0 to 2^63 - 1.
    """

    def __init__(self, writers: int = 40, seed: int = 0, grey: bool = False) -> None:
        if not 1 <= writers <= 999:
            raise SourceError(f"writers: got {writers}, expected 1 to 999")
        _check_seed(seed)
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
    """Numbers of training and test digits; `writers` is the first writer's number.

    Each writer writes either 240 training digits or 40 test digits.
    """

    train: int
    test: int
    writers: int


MNIST_COUNTS = DigitCounts(60_000, 10_000, 1_000)
PART3_COUNTS = DigitCounts(60_000, 0, 2_000)
DIGITS_PER_WRITER = (240, 40)  # of a training writer, of a test writer


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
        _check_seed(seed)
        self._counts, self._seed = counts, seed
        label_noise = label_noise or LabelNoise()
        self.generator = {
            "set": "digits",
            **asdict(counts),
            "seed": seed,
            "mislabelling": str(label_noise),
        }
        n = counts.train + counts.test
        ids = counts.writers * DIGITS_PER_WRITER[0] + np.arange(n)
        self._digits = (rng.bits(seed, 0, ids, rng.LABEL)[:, 0] % len(DIGITS)).astype(np.int64)
        noisy = label_noise.apply(self._digits, len(DIGITS), seed)
        # Test labels stay correct.
        self._labels = np.where(np.arange(n) < counts.train, noisy, self._digits)
        self.annotations = Annotations.of(
            tuple(DIGITS),
            self._labels,
            writers=[f"{self._writer_and_copy(index)[0]:04d}" for index in range(n)],
            splits=np.repeat([NO_SPLIT, TEST], [counts.train, counts.test]),
        )

    def name(self, index: int) -> str:
        """Return the split, the label as a folder, and the index as a file name."""
        part = "train" if index < self._counts.train else "test"
        return f"{part}/{self._labels[index]}/{index:05d}.png"

    def image(self, index: int) -> Pixels:
        """Generate a digit: uint8 (28, 28), white on black."""
        writer, copy = self._writer_and_copy(index)
        path = write_character(self._seed, writer, DIGITS[self._digits[index]], copy)
        return pen.draw_digit(path.points, path.starts)

    def _writer_and_copy(self, index: int) -> tuple[int, int]:
        """Return a digit's writer and how many digits this writer wrote before."""
        train_each, test_each = DIGITS_PER_WRITER
        if index < self._counts.train:
            writer, copy = divmod(index, train_each)
            return self._counts.writers + writer, copy
        writer, copy = divmod(index - self._counts.train, test_each)
        return self._counts.writers + -(-self._counts.train // train_each) + writer, copy


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 1 << 63:
        raise SourceError(f"seed {seed}: expected 0 to 2^63 - 1")

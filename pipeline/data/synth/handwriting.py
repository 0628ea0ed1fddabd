"""Synthetic handwriting: pages and digits that nobody wrote, drawn when they are asked for.

Nothing is stored and nothing is read: a picture is a function of the seed, the writer and the
character. What comes of it is marked as synthetic wherever it goes.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from beton import rng
from pipeline.data.charset import CHARACTERS
from pipeline.data.sources.base import (
    TEST,
    UNASSIGNED,
    Annotations,
    Ints,
    Pixels,
    Source,
    SourceError,
)
from pipeline.data.synth import glyphs, pen
from pipeline.data.synth.mislabel import LabelNoise
from pipeline.data.synth.writers import write_character

VERSION = 2  # of the writers and the pen: raised when the same seed draws something else
DIGITS = CHARACTERS[:10]


class _Synthetic(Source):
    """What the sources here have in common: no files."""

    kind = "synthetic"
    expected_layout = "nothing: it draws"
    origin = "synthetic"
    path = Path("inkrun's generator")

    def size(self, rows: Ints) -> int:
        """Return 0: there are no files."""
        del rows
        return 0

    def digest(self) -> str:
        """Return the digest of all that decides what is drawn."""
        settings = json.dumps([VERSION, glyphs.digest(), self.generator], sort_keys=True)
        return f"sha256:{hashlib.sha256(settings.encode()).hexdigest()}"


class SyntheticPages(_Synthetic):
    """Each of the 62 characters by each writer, on a page of its own, as in MIDAS part 1.

    `grey` draws soft edges instead of two values. Raises SourceError for a number of writers or a
    seed that makes no sense.
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
        """Return the file's name in a tree of the MIDAS shape."""
        folder, writer = (1 + number for number in divmod(index, self._writers))
        return f"handwriting/Sample{folder:03d}/img{folder:03d}-{writer:03d}.png"

    def image(self, index: int) -> Pixels:
        """Draw a page: uint8, black on white."""
        label, writer = divmod(index, self._writers)
        line = write_character(self._seed, writer, CHARACTERS[label])
        place = rng.uniform(self._seed, 0, np.array([index]), rng.PLACE, 2)[0]
        return pen.draw_page(line.points, line.starts, place, self._grey)


@dataclass(frozen=True)
class DigitCounts:
    """So many digits to learn from and to test on; `writers` is the first of their writers.

    Each writer writes 240 of one and 40 of the other, and nobody both.
    """

    train: int
    test: int
    writers: int


MNIST_COUNTS = DigitCounts(60_000, 10_000, 1_000)
PART3_COUNTS = DigitCounts(60_000, 0, 2_000)
DIGITS_PER_WRITER = (240, 40)  # digits per writer to learn from, to test on


class SyntheticDigits(_Synthetic):
    """Digits in MNIST's shape, white on black; some mislabelled, if so wanted.

    Raises SourceError for a seed that makes no sense.
    """

    def __init__(
        self,
        size: DigitCounts = MNIST_COUNTS,
        seed: int = 0,
        mislabelling: LabelNoise | None = None,
    ) -> None:
        _check_seed(seed)
        self._size, self._seed = size, seed
        mislabelling = mislabelling or LabelNoise()
        self.generator = {
            "set": "digits",
            **asdict(size),
            "seed": seed,
            "mislabelling": str(mislabelling),
        }
        count = size.train + size.test
        ids = size.writers * DIGITS_PER_WRITER[0] + np.arange(count)
        self._digits = (rng.bits(seed, 0, ids, rng.LABEL)[:, 0] % len(DIGITS)).astype(np.int64)
        labels = mislabelling.apply(self._digits, len(DIGITS), seed)
        # Only what is learned from is mislabelled.
        self._labels = np.where(np.arange(count) < size.train, labels, self._digits)
        self.annotations = Annotations.of(
            tuple(DIGITS),
            self._labels,
            writers=[f"{self._place(index)[0]:04d}" for index in range(count)],
            splits=np.repeat([UNASSIGNED, TEST], [size.train, size.test]),
        )

    def name(self, index: int) -> str:
        """Return the label as a folder, and the number."""
        part = "train" if index < self._size.train else "test"
        return f"{part}/{self._labels[index]}/{index:05d}.png"

    def image(self, index: int) -> Pixels:
        """Draw a digit: uint8 (28, 28), white on black."""
        writer, copy = self._place(index)
        line = write_character(self._seed, writer, DIGITS[self._digits[index]], copy)
        return pen.draw_digit(line.points, line.starts)

    def _place(self, index: int) -> tuple[int, int]:
        """Return the writer of a digit, and how many that has written before."""
        if index < self._size.train:
            writer, copy = divmod(index, DIGITS_PER_WRITER[0])
            return self._size.writers + writer, copy
        writer, copy = divmod(index - self._size.train, DIGITS_PER_WRITER[1])
        return self._size.writers + -(-self._size.train // DIGITS_PER_WRITER[0]) + writer, copy


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 1 << 63:
        raise SourceError(f"seed {seed}: expected 0 to 2^63 - 1")

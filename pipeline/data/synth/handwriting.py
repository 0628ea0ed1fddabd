"""Sources of synthetic handwriting: pages, digits and characters, generated one image at a time.

Nothing is read or stored: an image is a function of the seed, the writer and the character. All
files made from these sources are marked as synthetic.
"""

from dataclasses import asdict, dataclass

import numpy as np

from beton import rng
from pipeline.data import base
from pipeline.data.base import Annotations, Pixels, SourceError
from pipeline.data.charset import CHARACTERS
from pipeline.data.emnist import CLASSES
from pipeline.data.synth import glyphs, pen
from pipeline.data.synth.mislabel import LabelNoise
from pipeline.data.synth.source import SyntheticSource
from pipeline.data.synth.writers import write_character

VERSION = 2  # of the generator: raise it when a seed gives other images
DIGITS = CHARACTERS[:10]


class _Handwriting(SyntheticSource):
    """The common part of all sources of synthetic handwriting."""

    def digest(self) -> str:
        """Return the digest of everything that determines the images and labels."""
        return base.digest_of(VERSION, glyphs.digest(), self.generator)


class SyntheticPages(_Handwriting):
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


class SyntheticDigits(_Handwriting):
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


@dataclass(frozen=True)
class CharacterCounts:
    """Numbers of training and test sheets; `writers` is the first writer's number.

    A sheet has each digit five times and each letter once, 76 characters in all.
    """

    train: int
    test: int
    writers: int


EMNIST_COUNTS = CharacterCounts(900, 140, 3_000)  # 68,400 training and 10,640 test images
DIGITS_PER_LETTER = 5  # images of a digit's class per image of a letter's class, as in EMNIST
TRAIN_SHEETS_PER_WRITER = 3  # a writer of test images fills one sheet
_REPEATS = [DIGITS_PER_LETTER if name.isdigit() else 1 for name in CLASSES]
_SHEET = np.repeat(np.arange(len(CLASSES)), _REPEATS)  # labels
_COPIES = np.concatenate([np.arange(repeats) for repeats in _REPEATS])


class SyntheticCharacters(_Handwriting):
    """Digits and letters in EMNIST's format, white on black: both cases of a letter in one class.

    Raises SourceError for a seed outside 0 to 2^63 - 1.
    """

    def __init__(self, counts: CharacterCounts = EMNIST_COUNTS, seed: int = 0) -> None:
        base.check_seed(seed)
        self._seed = seed
        self.generator = {"set": "characters", **asdict(counts), "seed": seed}
        sheets = np.arange(counts.train + counts.test)
        is_train = sheets < counts.train
        # A sheet's writer, and how many sheets this writer filled before.
        writer, before = np.divmod(sheets, TRAIN_SHEETS_PER_WRITER)
        first_test_writer = -(-counts.train // TRAIN_SHEETS_PER_WRITER)
        writer[~is_train], before[~is_train] = (
            first_test_writer + sheets[~is_train] - counts.train,
            0,
        )
        self._writers = np.repeat(counts.writers + writer, len(_SHEET))
        self._copies = np.repeat(DIGITS_PER_LETTER * before, len(_SHEET)) + np.tile(
            _COPIES, len(sheets)
        )
        row = np.arange(len(sheets) * len(_SHEET))
        first = counts.writers * TRAIN_SHEETS_PER_WRITER * len(_SHEET)
        self._is_small = rng.bits(seed, 0, first + row, rng.CHARACTER)[:, 0] % 2 == 1
        self._train = counts.train * len(_SHEET)
        self.annotations = Annotations.of(
            CLASSES,
            np.tile(_SHEET, len(sheets)),
            writers=[f"{number:04d}" for number in self._writers.tolist()],
            splits=np.where(row < self._train, base.NO_SPLIT, base.TEST),
        )

    def name(self, index: int) -> str:
        """Return the split, the character as a folder, and the index as a file name."""
        part = "train" if index < self._train else "test"
        return f"{part}/{self.character(index)}/{index:06d}.png"

    def character(self, index: int) -> str:
        """Return the character that an image shows: a digit, a capital or a small letter."""
        name: str = CLASSES[self.annotations.labels[index]]
        return name.lower() if self._is_small[index] else name

    def image(self, index: int) -> Pixels:
        """Generate a character: uint8 (28, 28), white on black."""
        writer, copy = int(self._writers[index]), int(self._copies[index])
        path = write_character(self._seed, writer, self.character(index), copy)
        return pen.draw_character(path.points, path.starts)

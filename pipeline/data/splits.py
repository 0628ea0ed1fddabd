"""Who is trained on and who is tested on: decided once, as a function of labels, writers and seed.

Either every class is divided in the same proportions (stratified), or whole writers are held out,
so that validation measures what a new hand would see. The draw is counter-based: it depends on a
picture's place in the source and on nothing else.
"""

import re
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from beton import rng
from pipeline.data.sources.base import (
    SPLITS,
    TRAIN,
    UNASSIGNED,
    UNKNOWN_WRITER,
    VALIDATION,
    Annotations,
    Ints,
    SourceError,
)


@dataclass(frozen=True)
class Split:
    """How to divide what the source leaves free.

    `percentages` of each class for training, validation and test; or, if `writers` is not 0, that
    many writers for validation: a number from 1 up, a fraction of them below 1.
    """

    percentages: tuple[int, int, int] = (90, 10, 0)
    writers: float = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "90-10", "80-10-10", "writers=2" or "writers=0.1"; SourceError for other texts."""
        if re.fullmatch(r"[0-9]+(-[0-9]+){1,2}", text):
            train, validation, test = (*map(int, text.split("-")), 0)[:3]
            if train + validation + test == 100:
                return cls((train, validation, test))
        elif match := re.fullmatch(r"writers=([0-9]+|0?\.[0-9]+)", text):
            writers = float(match[1])
            if writers > 0:
                return cls(writers=writers)
        raise SourceError(
            f"split {text!r}: expected percentages that sum to 100, as 90-10 or 80-10-10, or "
            "writers=2 or writers=0.1 (a number or a fraction of writers to hold out)"
        )

    def __str__(self) -> str:
        if self.writers:
            return f"writers={self.writers:g}"
        shown = self.percentages if self.percentages[2] else self.percentages[:2]
        return "-".join(map(str, shown))


def assign_splits(entries: Annotations, split: Split, seed: int) -> Ints:
    """Return the split of every entry, (n,) indices into SPLITS; what is given stays as given.

    Raises SourceError if writers are to be held out and the source does not know them, and for a
    seed that is not from 0 to 2^63 - 1.
    """
    if not 0 <= seed < 1 << 63:
        raise SourceError(f"seed {seed}: expected 0 to 2^63 - 1")
    splits = entries.splits.copy()
    free = np.flatnonzero(splits == UNASSIGNED)
    if split.writers:
        splits[free] = _by_writer(entries, free, split.writers, seed)
    else:
        splits[free] = _stratified(
            entries.labels[free], split.percentages, _random_keys(seed, free)
        )
    return splits


def _random_keys(seed: int, ids: Ints) -> NDArray[np.uint64]:
    """Return a random number for each id, by which to sort."""
    return rng.bits(seed, 0, ids, rng.SPLIT)[:, 0]


def _stratified(labels: Ints, percentages: tuple[int, int, int], draw: NDArray[np.uint64]) -> Ints:
    splits = np.empty(len(labels), np.int64)
    order = np.lexsort((draw, labels))
    for rows in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        splits[rows] = np.repeat(np.arange(len(SPLITS)), _split_counts(len(rows), percentages))
    return splits


def _split_counts(n: int, percentages: tuple[int, int, int]) -> tuple[int, int, int]:
    """Divide the n pictures of a class: rounded, but none of the splits wanted is left empty.

    Where n is too small for that, training comes before validation, validation before test.
    """
    train, *others = percentages
    validation, test = (max((n * p + 50) // 100, int(p > 0)) for p in others)
    spare = max(n - int(train > 0), 0)
    validation = min(validation, spare)
    test = min(test, spare - validation)
    return n - validation - test, validation, test


def _by_writer(entries: Annotations, free: Ints, writers: float, seed: int) -> Ints:
    of_picture = entries.writers[free]
    known = np.unique(of_picture)
    if UNKNOWN_WRITER in known:
        raise SourceError(
            f"writers can only be held out where they are known: {(of_picture == UNKNOWN_WRITER).sum()} "
            f"of {len(free)} pictures have none; use --split 90-10"
        )
    count = int(writers) if writers >= 1 else max(1, round(writers * len(known)))
    if count >= len(known):
        raise SourceError(f"{count} writers to hold out: the source has {len(known)}")
    held_out = known[np.argsort(_random_keys(seed, known), kind="stable")[:count]]
    return np.where(np.isin(of_picture, held_out), VALIDATION, TRAIN)

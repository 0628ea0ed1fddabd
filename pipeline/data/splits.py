"""Training, validation and test splits, as a function of labels, writers and seed.

Either every class is divided in the same proportions (stratified), or whole writers are held out,
so that validation measures the accuracy for new writers. The random numbers are counter-based: an
image's split depends on its index in the source and on the seed.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from beton import rng
from pipeline.data import base
from pipeline.data.base import SPLITS, Annotations, Ints, SourceError


@dataclass(frozen=True)
class Split:
    """How to divide the images whose split the source does not define.

    `percentages` of each class are for training, validation and test. If `writers` is not 0,
    writers are held out for validation instead: a number from 1 up, or a fraction below 1. If
    `images` is not 0, this number of images is held out for validation, in the same proportion of
    each class.
    """

    percentages: tuple[int, int, int] = (90, 10, 0)
    writers: float = 0
    images: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse "90-10", "80-10-10", "writers=2", "writers=0.1" or "images=10000".

        Raises SourceError.
        """
        if re.fullmatch(r"[0-9]+(-[0-9]+){1,2}", text):
            train, validation, test = (*map(int, text.split("-")), 0)[:3]
            if train + validation + test == 100:
                return cls((train, validation, test))
        elif match := re.fullmatch(r"writers=([0-9]+|0?\.[0-9]+)", text):
            writers = float(match[1])
            if writers > 0:
                return cls(writers=writers)
        elif (match := re.fullmatch(r"images=([0-9]{1,12})", text)) and int(match[1]):
            return cls(images=int(match[1]))
        raise SourceError(
            f"split {text!r}: expected percentages that sum to 100, such as 90-10 or 80-10-10, or "
            "a number or fraction of writers to hold out, such as writers=2 or writers=0.1, or a "
            "number of images to hold out, such as images=10000"
        )

    def __str__(self) -> str:
        if self.writers:
            return f"writers={self.writers:g}"
        if self.images:
            return f"images={self.images}"
        shown = self.percentages if self.percentages[2] else self.percentages[:2]
        return "-".join(map(str, shown))


def assign_splits(
    annotations: Annotations, split: Split, seed: int, groups: Ints | None = None
) -> Ints:
    """Return each image's split, int64 (n,) indices into SPLITS; predefined splits stay.

    Free images with the same number in `groups` (n,) share a split, which is drawn for the first of
    them; held-out writers take precedence. Raises SourceError if writers are held out but unknown,
    for too few free images to hold out, and for a seed outside 0 to 2^63 - 1.
    """
    base.check_seed(seed)
    splits = annotations.splits.copy()
    free = np.flatnonzero(splits == base.NO_SPLIT)
    if split.writers:
        splits[free] = _by_writer(annotations, free, split.writers, seed)
    else:
        ids = free if groups is None else groups[free]
        _, first, group = np.unique(ids, return_index=True, return_inverse=True)
        drawn = free[first]
        labels, keys = annotations.labels[drawn], _keys(seed, drawn)
        if split.images:
            held_out = _hold_out(labels, np.bincount(group), split.images, keys)
            splits[free] = np.where(held_out, base.VALIDATION, base.TRAIN)[group]
        else:
            splits[free] = _stratified(labels, split.percentages, keys)[group]
    return splits


def check_trained(path: Path, annotations: Annotations, rows: Ints, splits: Ints) -> None:
    """Raise SourceError if a class has no image left, or is evaluated but never trained on.

    `splits` (n,) are those of the images `rows` (n,), which remain without bad images. A dataset
    without training images passes: it serves evaluation.
    """
    labels = annotations.labels[rows]
    lost = np.setdiff1d(annotations.labels, labels)
    if len(lost):
        names = ", ".join(repr(annotations.classes[label]) for label in lost)
        raise SourceError(
            f"{path}: no image of {names} can be decoded; mend them, or leave the class out of the "
            "source"
        )
    counts = np.zeros((len(annotations.classes), len(SPLITS)), np.int64)
    np.add.at(counts, (labels, splits), 1)
    untrained = np.flatnonzero((counts.sum(1) > 0) & (counts[:, base.TRAIN] == 0))
    if len(untrained) and counts[:, base.TRAIN].any():
        names = ", ".join(repr(annotations.classes[label]) for label in untrained)
        raise SourceError(
            f"{path}: no training images of {names}, but {counts[untrained].sum()} others; add "
            "training images, mend damaged ones, or leave the class out of the source"
        )


def join_groups(*groups: Ints) -> Ints:
    """Return the finest groups (n,) that join all images which share any of the given groups."""
    from scipy.sparse import coo_array  # slow to import
    from scipy.sparse.csgraph import connected_components

    joined, *others = groups
    for other in others:
        n = len(joined)
        _, left = np.unique(joined, return_inverse=True)
        _, right = np.unique(other, return_inverse=True)
        edges = coo_array((np.ones(n, np.bool_), (left, n + right)), (2 * n, 2 * n))
        joined = connected_components(edges, directed=False)[1][left].astype(np.int64)
    return joined


def _keys(seed: int, ids: Ints) -> NDArray[np.uint64]:
    """Return random sort keys (n,) for ids (n,)."""
    return rng.bits(seed, 0, ids, rng.SPLIT)[:, 0]


def _stratified(labels: Ints, percentages: tuple[int, int, int], keys: NDArray[np.uint64]) -> Ints:
    splits = np.empty(len(labels), np.int64)
    order = np.lexsort((keys, labels))
    for rows in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        splits[rows] = np.repeat(np.arange(len(SPLITS)), _split_counts(len(rows), percentages))
    return splits


def _split_counts(n: int, percentages: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return how many of a class's n images go to each split.

    Counts are rounded, but no split with a percentage above 0 is empty. If n is too small for that,
    training comes before validation, and validation before test.
    """
    train, *others = percentages
    validation, test = (max((n * p + 50) // 100, int(p > 0)) for p in others)
    spare = max(n - int(train > 0), 0)
    validation = min(validation, spare)
    test = min(test, spare - validation)
    return n - validation - test, validation, test


def _hold_out(
    labels: Ints, sizes: Ints, images: int, keys: NDArray[np.uint64]
) -> NDArray[np.bool_]:
    """Return whether each group of images, of a class and a size, is held out: bool (n,).

    The classes' quotas are rounded so that they sum to `images`. Groups are taken in the order of
    their keys where they fit into the quota.
    """
    counts = np.bincount(labels, weights=sizes).astype(np.int64)
    total = int(counts.sum())
    if not 0 < images < total:
        raise SourceError(
            f"--split images={images}: got {total:,} images to divide, expected more than "
            f"{images:,}"
        )
    cumulated = np.cumsum(counts)
    ends = (cumulated * images + total // 2) // total
    left = np.diff(ends, prepend=0).tolist()
    held_out = np.zeros(len(labels), np.bool_)
    order = np.lexsort((keys, labels))
    for row, label, size in zip(
        order.tolist(), labels[order].tolist(), sizes[order].tolist(), strict=True
    ):
        if size <= left[label]:
            left[label] -= size
            held_out[row] = True
    return held_out


def _by_writer(annotations: Annotations, free: Ints, writers: float, seed: int) -> Ints:
    of_image = annotations.writers[free]
    known = np.unique(of_image)
    if base.UNKNOWN_WRITER in known:
        unknown = (of_image == base.UNKNOWN_WRITER).sum()
        raise SourceError(
            f"--split writers: {unknown} of {len(free)} images have no known writer; "
            "use --split 90-10"
        )
    count = int(writers) if writers >= 1 else max(1, round(writers * len(known)))
    if count >= len(known):
        raise SourceError(f"got {count} writers to hold out, expected fewer than {len(known)}")
    held_out = known[np.argsort(_keys(seed, known), kind="stable")[:count]]
    return np.where(np.isin(of_image, held_out), base.VALIDATION, base.TRAIN)

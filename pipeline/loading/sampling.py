"""The order of samples in an epoch: sequential, shuffled, or with equally many of each class.

A sample may come several times in an epoch. A *key* names one copy: sample + copy × samples of the
file. Random numbers of augmentations are those of keys, so copies differ, and the first copy has
the numbers of its sample. Only random resized crops that the loader makes
(`pipeline.loading.colour_images`) are those of samples: copies share them within an epoch.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from beton import rng
from beton.order import epoch_order
from pipeline.loading.dataset import Ids


@dataclass(frozen=True, eq=False)
class Sampler:
    """The order of the samples `indices` (n,) of a file with `samples` samples, in each epoch.

    With `labels`, int64 (samples,), an epoch has equally many samples of each class
    (`balanced_indices`).
    """

    indices: Ids
    samples: int
    seed: int
    shuffled: bool
    labels: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """Return the number of samples in an epoch."""
        if self.labels is None:
            return len(self.indices)
        return balanced_size(self.labels, self.indices)

    def order(self, epoch: int) -> Ids:
        """Return the keys of an epoch in order: int64 (len(self),)."""
        keys = self.indices
        if self.labels is not None:
            keys = balanced_indices(self.labels, keys, self.seed, epoch)
        return keys[epoch_order(len(keys), self.seed, epoch)] if self.shuffled else keys

    def ids(self, keys: Ids) -> Ids:
        """Return the sample numbers of keys; -1, which is padding, stays -1."""
        return np.where(keys < 0, -1, keys % self.samples)


def balanced_size(labels: NDArray[np.int64], indices: Ids) -> int:
    """Return the number of samples that `balanced_indices` gives: `indices`, rounded up."""
    classes = len(np.unique(labels[indices]))
    return -(-len(indices) // classes) * classes


def balanced_indices(labels: NDArray[np.int64], indices: Ids, seed: int, epoch: int) -> Ids:
    """Return keys of an epoch that has equally many samples of each class: int64 (n,).

    `labels` (samples,) are those of the file, `indices` the samples to take. Each class gets the
    mean number of samples per class, rounded up. A class with more samples is a fresh draw in every
    epoch. A class with fewer repeats all of its samples equally often, some of them once more.
    """
    own = labels[indices]
    classes = np.unique(own)
    each = -(-len(indices) // len(classes))
    keys = []
    for label in classes:
        members = indices[own == label]
        draw = members[np.argsort(rng.bits(seed, epoch, members, rng.SAMPLE)[:, 0], kind="stable")]
        copies = np.arange(each, dtype=np.int64)
        keys.append(draw[copies % len(draw)] + copies // len(draw) * len(labels))
    return np.concatenate(keys)

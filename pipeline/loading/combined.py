"""Batches of two sets at once: rows of the set that is learned, and of an auxiliary one beside it.

Which rows meet is a function of the step alone, on any number of processes.
"""

from collections.abc import Iterator
from itertools import zip_longest

import numpy as np
import torch

from pipeline.loading.batches import DeviceLoader, Inputs
from pipeline.loading.dataset import Ids


class CombinedLoader:
    """A feed of batches whose first rows are `main`'s, and whose last are `auxiliary`'s.

    Epochs are those of `main`. Through `auxiliary` it goes at its own pace: a batch a step, over
    and over. Its samples' numbers follow those of the file of `main`, of which there are `samples`.
    Closes both.
    """

    def __init__(self, main: DeviceLoader, auxiliary: DeviceLoader, samples: int) -> None:
        self._main, self._auxiliary, self._samples = main, auxiliary, samples
        self.device = main.device

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self._main)

    def __enter__(self) -> "CombinedLoader":
        return self

    def __exit__(self, *exception: object) -> None:
        self._main.close()
        self._auxiliary.close()

    @property
    def seconds_waited(self) -> float:
        """The seconds that the loaders let us wait for."""
        return self._main.seconds_waited + self._auxiliary.seconds_waited

    def steps(self, epoch: int, start: int = 0) -> Iterator[Iterator[Inputs]]:
        """Yield the batches of an epoch, from number `start` on, each as its parts."""
        others = self._others(epoch * len(self) + start)
        for parts in self._main.steps(epoch, start):
            yield self._joined(parts, next(others))

    def ids(self, epoch: int, number: int) -> Ids:
        """Return the samples of a batch in training, those of all processes."""
        other = self._auxiliary.ids(*divmod(epoch * len(self) + number, len(self._auxiliary)))
        return np.concatenate([self._main.ids(epoch, number), other + self._samples])

    def _others(self, step: int) -> Iterator[Iterator[Inputs]]:
        """Yield the auxiliary batches, from that of a step on, without end."""
        epoch, start = divmod(step, len(self._auxiliary))
        while True:
            yield from self._auxiliary.steps(epoch, start)
            epoch, start = epoch + 1, 0

    def _joined(self, main: Iterator[Inputs], other: Iterator[Inputs]) -> Iterator[Inputs]:
        for ours, theirs in zip_longest(main, other):
            if theirs is None:
                yield ours
                continue
            theirs = theirs._replace(ids=theirs.ids + self._samples)
            if ours is None:
                yield theirs
                continue
            yield Inputs(
                torch.cat([ours.images, theirs.images]),
                torch.cat([ours.labels, theirs.labels]),
                torch.cat([ours.valid, theirs.valid]),
                np.concatenate([ours.ids, theirs.ids]),
                ours.last and theirs.last,
            )

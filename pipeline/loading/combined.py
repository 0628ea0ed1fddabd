"""Batches of a main dataset and an auxiliary dataset together.

Which rows share a batch depends on the step alone, on any number of processes.
"""

from collections.abc import Iterator
from itertools import zip_longest

import numpy as np
import torch

from pipeline.loading.batches import DeviceLoader, MicroBatch
from pipeline.loading.dataset import Ids


class CombinedLoader:
    """A loader of batches that hold rows of `main`, then rows of `auxiliary`.

    An epoch is an epoch of `main`. `auxiliary` gives one batch a step, epoch after epoch of its
    own. Sample numbers of `auxiliary` are shifted by `main_samples`, the number of samples in the
    file of `main`. `with` stops both loaders at its end.
    """

    def __init__(self, main: DeviceLoader, auxiliary: DeviceLoader, main_samples: int) -> None:
        self._main, self._auxiliary, self._main_samples = main, auxiliary, main_samples
        self.device = main.device

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self._main)

    def __enter__(self) -> "CombinedLoader":
        return self

    def __exit__(self, *exception: object) -> None:
        self._main.__exit__(*exception)
        self._auxiliary.__exit__(*exception)

    @property
    def seconds_waited(self) -> float:
        """The seconds spent waiting for both loaders."""
        return self._main.seconds_waited + self._auxiliary.seconds_waited

    def batches(self, epoch: int, start: int = 0) -> Iterator[Iterator[MicroBatch]]:
        """Yield the batches of an epoch from number `start` on, each as its micro-batches."""
        auxiliary = self._auxiliary_batches(epoch * len(self) + start)
        for main in self._main.batches(epoch, start):
            yield self._concatenate(main, next(auxiliary))

    def ids(self, epoch: int, number: int) -> Ids:
        """Return the sample numbers of a training batch, over all processes: int64 (n,)."""
        step = epoch * len(self) + number
        auxiliary = self._auxiliary.ids(*divmod(step, len(self._auxiliary)))
        return np.concatenate([self._main.ids(epoch, number), auxiliary + self._main_samples])

    def _auxiliary_batches(self, step: int) -> Iterator[Iterator[MicroBatch]]:
        """Yield the auxiliary batches of all steps from `step` on, without end."""
        epoch, start = divmod(step, len(self._auxiliary))
        while True:
            yield from self._auxiliary.batches(epoch, start)
            epoch, start = epoch + 1, 0

    def _concatenate(
        self, main: Iterator[MicroBatch], auxiliary: Iterator[MicroBatch]
    ) -> Iterator[MicroBatch]:
        shifted = (part._replace(ids=part.ids + self._main_samples) for part in auxiliary)
        for pair in zip_longest(main, shifted):
            parts = [part for part in pair if part is not None]
            yield MicroBatch(
                torch.cat([part.images for part in parts]),
                torch.cat([part.labels for part in parts]),
                torch.cat([part.valid for part in parts]),
                np.concatenate([part.ids for part in parts]),
                all(part.last for part in parts),
            )

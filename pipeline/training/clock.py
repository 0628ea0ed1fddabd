"""Where the time of a training goes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.training.datamodule import TrainLoader


@dataclass
class Clock:
    """Seconds that a training spent so far; `dataclasses.asdict` is its state in a checkpoint.

    `seconds` is training time, which includes `seconds_waited`, the time this process waited for
    its loaders. `seconds_validating` and `seconds_saving` are not part of it.
    """

    seconds: float = 0.0
    seconds_waited: float = 0.0
    seconds_validating: float = 0.0
    seconds_saving: float = 0.0

    def start(self, loader: TrainLoader) -> None:
        """Start the first lap of training on a loader's batches."""
        self._loader = loader
        self._lap_start, self._waited_before = time.perf_counter(), loader.seconds_waited

    def lap(self) -> None:
        """Add the time since the last lap to training, excluding time spent saving."""
        now, waited = time.perf_counter(), self._loader.seconds_waited
        self.seconds += now - self._lap_start
        self.seconds_waited += waited - self._waited_before
        self._lap_start, self._waited_before = now, waited

    @contextmanager
    def validating(self) -> Iterator[None]:
        """Add the time spent in the context to validation."""
        start = time.perf_counter()
        yield
        self.seconds_validating += time.perf_counter() - start

    @contextmanager
    def excluded(self) -> Iterator[None]:
        """Exclude the time spent in the context from the current lap."""
        start = time.perf_counter()
        yield
        self._lap_start += time.perf_counter() - start

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Add the time spent in the context to saving, and exclude it from the current lap."""
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self.seconds_saving += seconds
        self._lap_start += seconds

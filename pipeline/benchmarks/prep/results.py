"""Results of `bench prep`, as they are written to results.json and read back."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from pipeline.benchmarks.harness import Series, rate_series

# Names of tasks: Pillow decodes files, its decoder replaces inkrun's, inkrun prepares.
DECODES, REPLACED, OURS = "Pillow decodes", "Pillow's decoder", "inkrun prepares"


@dataclass(frozen=True)
class WriterFigures:
    """A task that reads `images` images, and its `rates`, images/s in each round.

    `written` are the bytes that it writes for an image, on average, None if it writes nothing.
    """

    name: str
    images: int
    written: float | None
    rates: tuple[float, ...]


@dataclass(frozen=True)
class ProfilePart:
    """Milliseconds an image of a part of a preparation, with Pillow's decoder and with inkrun's."""

    name: str
    pillow: float
    inkrun: float


@dataclass(frozen=True)
class DatasetFigures:
    """All tasks on a dataset of `images` image files of `file_bytes` bytes each, on average."""

    title: str
    images: int
    file_bytes: float
    figures: tuple[WriterFigures, ...]
    profile: tuple[ProfilePart, ...]

    def rates(self, name: str) -> tuple[float, ...]:
        """Return the rates of the task of this name. Raises StopIteration if there is none."""
        return next(one.rates for one in self.figures if one.name == name)


@dataclass(frozen=True)
class PrepResult:
    """The results of `bench prep`.

    Each task has `processes` processes, all on as many cores. `load` is the machine's load average
    before and after. `skipped` has a line about each writer that was not measured.
    """

    REFERENCE: ClassVar[str] = f"× {DECODES}"

    rounds: int
    processes: int
    load: tuple[float, float]
    datasets: tuple[DatasetFigures, ...]
    skipped: tuple[str, ...]

    def series(self) -> Iterator[Series]:
        """Yield the rates of each task, and their ratios to decoding by Pillow."""
        for dataset in self.datasets:
            base = dataset.rates(DECODES)
            for one in dataset.figures:
                yield rate_series(f"{dataset.title}: {one.name}", one.rates, base)

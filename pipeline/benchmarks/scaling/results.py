"""Results of `bench scaling`, as they are written to results.json and read back."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import ClassVar

from pipeline.benchmarks.harness import Rates, Ratio, Series, rate_series, ratio


@dataclass(frozen=True)
class StepFigures:
    """Training steps of `processes` processes with `rows` rows each, on the same cores in all.

    `rates` are images/s of all processes in each round, `strong` and `weak` those of one process in
    the same rounds: with the same rows in all, and with the same rows a process. They are empty
    where one process did not train on as many. The others are means of seconds a step, over steps,
    processes and rounds: `stalls` is the time a process waits for the slowest one, `all_reduce` the
    rest of the time until the gradients are exchanged, as far as it does not overlap `compute`.
    """

    processes: int
    rows: int
    rates: tuple[float, ...]
    strong: tuple[float, ...]
    weak: tuple[float, ...]
    compute: float
    all_reduce: float
    loader: float
    stalls: float

    @property
    def rate(self) -> float:
        """The median of the rates."""
        return median(self.rates)

    @property
    def seconds(self) -> float:
        """The seconds of a step."""
        return self.compute + self.all_reduce + self.loader + self.stalls

    @property
    def efficiency(self) -> float:
        """The fraction of the time that is no exchange and no wait for another process."""
        return (self.compute + self.loader) / self.seconds

    def share(self, part: str) -> float:
        """Return the fraction of the time that a part takes, by its name."""
        found: float = getattr(self, part)
        return found / self.seconds

    def factor(self, base: str) -> Ratio | None:
        """Return the ratio to one process, "strong" or "weak", None where that was not measured."""
        rates: tuple[float, ...] = getattr(self, base)
        return ratio(self.rates, rates) if rates else None


@dataclass(frozen=True)
class Model:
    """The time of a step, fitted to steps of two processes.

    A process computes for `fixed` + `per_row` × rows seconds. Between n processes in a ring, an
    all-reduce of the `gradient_bytes` takes 2 (n - 1) × `latency`, and the bytes times
    2 (n - 1) / n / `bandwidth`. Steps vary by `jitter`, a fraction of the time to compute: all wait
    for the slowest of n. It holds for processes that have cores like these two and are linked like
    them.
    """

    fixed: float
    per_row: float
    latency: float
    bandwidth: float
    gradient_bytes: int
    jitter: float


@dataclass(frozen=True)
class Check:
    """The time of a step at a number of rows that the model was not fitted to."""

    rows: int
    measured: float
    predicted: float

    @property
    def error(self) -> float:
        """The error of the prediction, as a fraction."""
        return self.predicted / self.measured - 1


@dataclass(frozen=True)
class Prediction:
    """What the model predicts; `efficiency` is the rate over that of as many single processes."""

    processes: int
    rows: int
    kind: str
    rate: float
    efficiency: float


@dataclass(frozen=True)
class DataFigures(Rates):
    """Loading a file of many samples, in a process of its own.

    `kind` is "pages", "digits, runs" or "digits, raw", as they are stored. `opened` is the median
    time to open it, in seconds. `rates` are images/s over whole epochs, `reference_rates` those of
    the smallest file in the same rounds. `order_seconds` is the time to compute an epoch's order.
    `anonymous` is the memory that belongs to the process alone (RssAnon), in bytes, and
    `reference_anonymous` that of the smallest file: mapped pages of the file do not count.
    """

    kind: str
    samples: int
    file_bytes: int
    opened: float
    rates: tuple[float, ...]
    reference_rates: tuple[float, ...]
    order_seconds: float
    anonymous: int
    reference_anonymous: int

    @property
    def order_share(self) -> float:
        """The fraction of an epoch that its order takes; of a large file, during the one before."""
        return self.order_seconds * self.rate / self.samples


@dataclass(frozen=True)
class Scaling:
    """The results of `bench scaling`. `cores` are those of all processes together."""

    REFERENCE: ClassVar[str] = "× one process, × smallest file"

    rounds: int
    cores: int
    steps: int
    load: tuple[float, float]
    training: tuple[StepFigures, ...]
    model: Model | None
    checks: tuple[Check, ...]
    predictions: tuple[Prediction, ...]
    data: tuple[DataFigures, ...]

    def series(self) -> Iterator[Series]:
        """Yield the rates of training and of loading.

        Their ratios are to one process with the same rows in all, and to the smallest file.
        """
        for one in self.training:
            name = f"{one.processes} processes, {one.rows} rows each"
            yield rate_series(name, one.rates, one.strong)
        for made in self.data:
            yield made.series(f"{made.kind}, {made.samples:,} samples")

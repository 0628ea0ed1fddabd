"""Results of `bench convergence`: trainings and times of each arm, as they are written to JSON."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from pipeline.analysis.stats import Estimate, Interval, estimate
from pipeline.benchmarks.harness import Ratio, Series

RESULT = "training.json"  # of one training, while the benchmark runs
POSITIVE = Interval(0, math.inf)  # of times

State = Literal["measured", "extrapolated", "not reached", "inferred not reached", "unknown"]


@dataclass(frozen=True)
class Arm:
    """A recipe on a loader.

    `recipe` is "inkrun", "published", or "ceiling": our recipe on correct labels. `loader` is
    "inkrun" or "pillow".
    """

    recipe: str
    loader: str

    @property
    def name(self) -> str:
        """The name in tables."""
        if self.recipe == "ceiling":
            return "ceiling: inkrun's recipe, correct labels"
        recipe = "published recipe" if self.recipe == "published" else "inkrun's recipe"
        loader = "Pillow" if self.loader == "pillow" else "inkrun's loader"
        return f"{recipe}, {loader}"


@dataclass(frozen=True)
class Point:
    """An evaluated epoch: seconds of training and images trained on until its end."""

    seconds: float
    images: int
    accuracy: float


@dataclass(frozen=True)
class Training:
    """One training, whole or cut short.

    `start_up` is the time in seconds from the start of its process that is neither training nor
    validation. `seconds` are those of training, of which the fraction `loader_share` was spent
    waiting for the loader. `images` is the number of images trained on, `epoch_images` that of an
    epoch, `epochs` the number of epochs in the schedule.
    """

    seed: int
    start_up: float
    seconds: float
    loader_share: float
    images: int
    epoch_images: int
    epochs: int
    points: tuple[Point, ...]

    @property
    def whole(self) -> bool:
        """Whether it trained for all its epochs."""
        return len(self.points) == self.epochs

    @property
    def seconds_per_epoch(self) -> float | None:
        """The mean time of an epoch, None if no step was measured."""
        return self.seconds * self.epoch_images / self.images if self.images else None


@dataclass(frozen=True)
class Time:
    """The time of a training to the accuracy `target`, from 0 to 1, and how it is known.

    `seconds` of training and `images` until then are None where the target is not reached, or where
    that is unknown. A target is "not reached" by a training that ran to its end, and "inferred not
    reached" by one that was cut short; see `times.py`.
    """

    seed: int
    target: float
    state: State
    start_up: float
    seconds: float | None = None
    images: int | None = None

    @property
    def in_all(self) -> float | None:
        """The seconds since the start of the process, without validation."""
        return None if self.seconds is None else self.start_up + self.seconds


@dataclass(frozen=True)
class Factor:
    """How many times as long as inkrun's recipe on inkrun's loader, over the seeds of both.

    It is "extrapolated" if a time of either is.
    """

    ratio: Ratio
    state: Literal["measured", "extrapolated"]


@dataclass(frozen=True)
class Reached:
    """The times of an arm to the target of this name, one for each seed.

    `factor` compares them, seed by seed. It is None for inkrun's recipe on inkrun's loader, and
    where no seed of both has a time.
    """

    target: str
    times: tuple[Time, ...]
    factor: Factor | None

    @property
    def known(self) -> tuple[Time, ...]:
        """The times of the seeds that reach the target."""
        return tuple(time for time in self.times if time.seconds is not None)

    @property
    def measured(self) -> dict[int, float]:
        """The measured seconds of training by seed."""
        return {
            time.seed: time.seconds
            for time in self.times
            if time.state == "measured" and time.seconds is not None
        }

    @property
    def extrapolated(self) -> bool:
        """Whether a time is extrapolated."""
        return any(time.state == "extrapolated" for time in self.times)

    @property
    def fastest(self) -> Time | None:
        """The shortest time of training, None if no seed has one."""
        return min(self.known, key=lambda time: time.seconds or 0.0, default=None)

    def estimate(self, start_up: bool) -> Estimate | None:
        """Return the mean time, with the start-up or without, None if no seed has one."""
        values = [time.in_all if start_up else time.seconds for time in self.known]
        found = [value for value in values if value is not None]
        return estimate(found, POSITIVE) if found else None


@dataclass(frozen=True)
class ArmResult:
    """The trainings of an arm, one for each seed that there was time for.

    `size` is the side of its images, in pixels. `published` is the accuracy that others reported
    for the end of its schedule, None if there is no such figure. `reached` has its times to each
    target, none for the arm "ceiling".
    """

    arm: Arm
    network: str
    size: int
    published: float | None
    trainings: tuple[Training, ...]
    reached: tuple[Reached, ...]


@dataclass(frozen=True)
class PartResult:
    """All arms of a part.

    `prepared` is the time in seconds to make the .beton file from its source, `written` that to
    write the PNG files of the other loader. Differences are those of both loaders' canvases, in
    grey levels. `targets` are accuracies from 0 to 1; `below_ceiling`
    is one more target, at this distance below the final accuracy of the arm "ceiling".
    """

    name: str
    title: str
    provenance: dict[str, str]
    trained: int
    validated: int
    prepared: float
    written: float
    largest_difference: float
    mean_difference: float
    targets: tuple[float, ...]
    below_ceiling: float | None
    arms: tuple[ArmResult, ...]

    def find(self, recipe: str, loader: str) -> ArmResult | None:
        """Return the result of an arm."""
        return next((one for one in self.arms if one.arm == Arm(recipe, loader)), None)


@dataclass(frozen=True)
class Convergence:
    """The results of `bench convergence`. `load` is the load average before and after it.

    `limit` is its time limit in seconds. A `quick` one shows that everything runs, no accuracy.
    `left_out` has the titles of the parts that there was no time for.
    """

    REFERENCE: ClassVar[str] = "× inkrun on inkrun's loader"

    seeds: int
    limit: float
    quick: bool
    load: tuple[float, float]
    parts: tuple[PartResult, ...]
    left_out: tuple[str, ...]

    def series(self) -> Iterator[Series]:
        """Yield the measured times of each arm to each target, and their ratios to our arm's.

        The name has the seeds if some have no measured time, so that only equal ones are compared.
        """
        for part in self.parts:
            ours = part.find("inkrun", "inkrun")
            base = {one.target: one for one in ours.reached} if ours else {}
            for arm in part.arms:
                for one in arm.reached:
                    own = one.measured
                    other = None if arm is ours else base.get(one.target)
                    others = other.measured if other else {}
                    factors = (own[seed] / others[seed] for seed in own if seed in others)
                    if own:
                        name = f"part {part.name}, {one.target}: {arm.arm.name}"
                        if len(own) < len(one.times):
                            name += f", seeds {', '.join(map(str, own))} alone"
                        yield Series(name, "s", tuple(own.values()), tuple(factors))

"""Results of `bench convergence`: the trainings of each arm, as they are written to JSON."""

from dataclasses import dataclass

RESULT = "training.json"  # of one training, while the benchmark runs


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
class ArmResult:
    """The trainings of an arm, one for each seed that there was time for.

    `size` is the side of its images, in pixels. `published` is the accuracy that others reported
    for the end of its schedule, None if there is no such figure.
    """

    arm: Arm
    network: str
    size: int
    published: float | None
    trainings: tuple[Training, ...]


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
    """

    seeds: int
    limit: float
    quick: bool
    load: tuple[float, float]
    parts: tuple[PartResult, ...]

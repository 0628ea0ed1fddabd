"""What a training is, as data: stages, each with its pictures, its schedule and its changes.

A recipe knows no code that runs it and no file, so it can be stored, compared and printed. Those
that have a name are in `pipeline.recipes`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf, sqrt
from typing import Any, Literal, Self

from pipeline.errors import UserError, check_range
from pipeline.loading.augment import Augmentation
from pipeline.recipes.losses import Loss
from pipeline.recipes.mixup import Mixing

GROUPS = 3  # of a network's layers: stem, body, head
Schedule = Literal["one-cycle", "cosine", "constant"]


@dataclass(frozen=True)
class Stage:
    """Epochs at one picture size, under one schedule of the learning rate.

    `size` is the side in pixels of the square around the ink that the network sees, or the height
    of whole pages. `learning_rate` is the highest: one for all layers, or (stem, body, head);
    (low, high) stands for even ratios between them (discriminative learning rates, Howard and Ruder
    2018). All schedules rise to it over the first `warm_up` share of the steps; then "one-cycle"
    (Smith and Topin 2018) and "cosine" (Loshchilov and Hutter 2017) fall to nothing and "constant"
    stays. The first `frozen` of the three groups of layers do not learn, but for the statistics of
    their batch normalisation.

    `optimizer` is the name of one in torch.optim, or "Muon" (`pipeline.muon`); `options` are its
    arguments besides learning rate and weight decay. `weight_decay` spares biases and
    normalisation. Gradients longer than `clip` are cut to it. `mixed_precision` false computes in
    float32 on any hardware.
    """

    size: int
    epochs: int
    learning_rate: float | tuple[float, ...]
    schedule: Schedule = "one-cycle"
    warm_up: float = 0.25
    frozen: int = 0
    loss: Loss = field(default_factory=lambda: Loss(label_smoothing=0.1))
    mixing: Mixing = field(default_factory=Mixing)
    augmentation: Augmentation = field(default_factory=Augmentation)
    optimizer: str = "AdamW"
    options: Mapping[str, Any] = field(default_factory=dict)
    weight_decay: float = 0.05
    clip: float | None = None
    mixed_precision: bool = True

    def __post_init__(self) -> None:
        check_range("size", self.size, 16, 4096)
        check_range("epochs", self.epochs, 1, 1_000_000)
        for rate in self.rates:
            check_range("learning_rate", rate, 1e-12)
        if self.schedule not in ("one-cycle", "cosine", "constant"):
            raise UserError(
                f"schedule: got {self.schedule!r}, expected one-cycle, cosine or constant"
            )
        check_range("warm_up", self.warm_up, 0, 0.99)
        check_range("frozen", self.frozen, 0, GROUPS - 1)
        check_range("weight_decay", self.weight_decay, 0)
        if self.clip is not None:
            check_range("clip", self.clip, 1e-12)

    @property
    def rates(self) -> tuple[float, ...]:
        """The highest learning rates of stem, body and head."""
        match self.learning_rate:
            case float() | int() as one:
                return (float(one),) * GROUPS
            case (low, high):
                return low, sqrt(low * high) if low > 0 < high else low, high
            case (stem, body, head):
                return stem, body, head
        raise UserError(f"learning_rate: got {self.learning_rate}, expected one, two or three")


@dataclass(frozen=True)
class Recipe:
    """Stages one after another on batches of `batch_size`, over all processes.

    The square that the network sees has a side of `window` times the height of a page, whatever its
    size in pixels; None shows whole pages. A process computes `micro_batch` rows at a time and adds
    up their gradients, all at once if None; only batch normalisation can tell. What is judged and
    kept is an exponential moving average of the weights, if `average`, its decay per step, is more
    than 0. With a `hand` of more than 0, pages are shown at such a scale that their writer's tall
    characters fill this share of a page's height, and `evaluate` adapts the network to each writer
    (`pipeline.writers`). The share `auxiliary` of each batch comes from a second set, which has
    epochs of its own: those of the recipe are of the first. Answers are the mean over `views` of a
    picture, slanted by so many even steps. Equal seeds draw equal numbers.
    """

    stages: tuple[Stage, ...]
    batch_size: int = 64
    micro_batch: int | None = None
    window: float | None = 1.0
    average: float = 0.0
    hand: float = 0.0
    auxiliary: float = 0.0
    views: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.stages:
            raise UserError("recipe: got no stages, expected at least one")
        check_range("batch_size", self.batch_size, 1, 1_000_000)
        if self.micro_batch is not None:
            check_range("micro_batch", self.micro_batch, 1, self.batch_size)
        if self.window is not None:
            check_range("window", self.window, 0.05, 1)
        elif (
            any(stage.augmentation != Augmentation() for stage in self.stages)
            or self.views > 1
            or self.hand
        ):
            raise UserError("window: got None with augmentation: whole pages are shown unchanged")
        elif self.auxiliary:
            raise UserError(
                f"auxiliary: got {self.auxiliary}, expected 0: whole pages of two sets may differ "
                "in shape"
            )
        check_range("average", self.average, 0, 0.999999)
        check_range("hand", self.hand, 0, 1)
        check_range("auxiliary", self.auxiliary, 0, 1)
        if self.auxiliary and not 0 < round(self.auxiliary * self.batch_size) < self.batch_size:
            raise UserError(
                f"auxiliary: got {self.auxiliary} of batches of {self.batch_size}, expected at "
                "least one row of each set"
            )
        check_range("views", self.views, 1, 25)
        check_range("seed", self.seed, 0, 2**63 - 1)

    def divided(self, rows: int) -> tuple[int, int]:
        """Return how many of so many rows come from either set.

        At least one from each, if there are two, even where that is more than `rows`; in pairs,
        where rows are mixed.
        """
        if not self.auxiliary:
            return rows, 0
        unit = 2 if any(stage.mixing for stage in self.stages) else 1
        second = unit * max(1, min(round(self.auxiliary * rows / unit), rows // unit - 1))
        return max(unit, rows - second), second

    @property
    def epochs(self) -> int:
        """The epochs of all stages."""
        return sum(stage.epochs for stage in self.stages)

    def scaled(self, scale: float) -> Self:
        """Return the recipe with every stage's epochs multiplied, none below one."""
        if not 0 < scale < inf:
            raise UserError(f"scale: got {scale}, expected more than 0")
        stages = (replace(s, epochs=max(1, round(s.epochs * scale))) for s in self.stages)
        return replace(self, stages=tuple(stages))

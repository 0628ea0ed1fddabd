"""The settings of a training, as data: stages with image size, schedule, loss and augmentation.

A recipe can be stored, compared and printed. `pipeline.recipes.presets` holds the named recipes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf, sqrt
from typing import Any, Literal, Self, get_args

from pipeline.errors import UserError, check_range
from pipeline.loading.augment import Augmentation
from pipeline.loading.dataset import Normalize
from pipeline.loading.image_augment import ImageAugmentation
from pipeline.recipes.losses import Loss
from pipeline.recipes.mixup import Mixing

GROUPS = 3  # of a network's layers: stem, body, head
Schedule = Literal["one-cycle", "cosine", "linear", "constant"]


@dataclass(frozen=True)
class Stage:
    """Epochs at one image size, under one learning rate schedule.

    `size` is in pixels: the side of the square around the ink, or the height of whole pages.
    `learning_rate` is the peak: one for all layers, or (stem, body, head), or (low, high) for a
    geometric series from stem to head (discriminative learning rates, Howard and Ruder 2018). All
    schedules rise to the peak over the first `warm_up` fraction of the steps. Then "one-cycle"
    (Smith and Topin 2018), "cosine" (Loshchilov and Hutter 2017) and "linear" fall to nearly 0;
    "constant" stays. The first `warm_up_steps` steps are at `warm_up_factor` times the peak
    instead. The first `frozen` of the three layer groups are not trained, except for their batch
    normalisation statistics.

    `optimizer` is a name in torch.optim, or "Muon" (`pipeline.training.optim.muon`). `options` are
    its arguments other than learning rate and weight decay. `weight_decay` does not apply to biases
    and normalisation. `clip` is the maximum norm of the gradient. Without `mixed_precision`, all
    hardware computes in float32.

    Raises UserError for a value out of range.
    """

    size: int
    epochs: int
    learning_rate: float | tuple[float, ...]
    schedule: Schedule = "one-cycle"
    warm_up: float = 0.25
    warm_up_steps: int = 0
    warm_up_factor: float = 0.1
    frozen: int = 0
    loss: Loss = field(default_factory=lambda: Loss(label_smoothing=0.1))
    mixing: Mixing = field(default_factory=Mixing)
    augmentation: Augmentation = field(default_factory=Augmentation)
    image_augmentation: ImageAugmentation = field(default_factory=ImageAugmentation)
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
        if self.schedule not in get_args(Schedule):
            raise UserError(
                f"schedule: got {self.schedule!r}, expected one of {', '.join(get_args(Schedule))}"
            )
        check_range("warm_up", self.warm_up, 0, 0.99)
        check_range("warm_up_steps", self.warm_up_steps, 0, 1_000_000_000)
        check_range("warm_up_factor", self.warm_up_factor, 0, 1)
        if self.warm_up_steps and self.warm_up:
            raise UserError(
                f"warm_up_steps: got {self.warm_up_steps} with a warm_up of {self.warm_up}, "
                "expected one of them"
            )
        check_range("frozen", self.frozen, 0, GROUPS - 1)
        check_range("weight_decay", self.weight_decay, 0)
        if self.clip is not None:
            check_range("clip", self.clip, 1e-12)

    @property
    def rates(self) -> tuple[float, ...]:
        """The peak learning rates of stem, body and head."""
        match self.learning_rate:
            case float() | int() as rate:
                return (float(rate),) * GROUPS
            case (low, high):
                return low, sqrt(low * high) if low > 0 < high else low, high
            case (stem, body, head):
                return stem, body, head
        raise UserError(f"learning_rate: got {self.learning_rate}, expected one, two or three")


@dataclass(frozen=True)
class Recipe:
    """Stages to train one after another.

    `batch_size` counts the rows of all processes. A process computes `micro_batch` rows at a time
    and accumulates gradients; None is all rows at once. `window` is the side of the square that the
    network sees, as a fraction of the page's height; None shows whole pages. `average` is the decay
    per step of an exponential moving average of the weights: the eval model. 0 evaluates the
    weights themselves.

    With `hand` above 0, pages are scaled so that their writer's tall characters fill this fraction
    of the page's height, and `evaluate` adapts the network to each writer
    (`pipeline.models.batchnorm`). `auxiliary` is the fraction of each batch that comes from an
    auxiliary dataset; an epoch is one of the main dataset. Predictions are the mean over `views` of
    an image, slanted in even steps, and with `mirrored` over it and its mirror image.

    `normalize` is applied to the network's input last. With `class_weights`, a sample's loss is
    weighted by the inverse frequency of its class; with `balanced_sampling`, an epoch has equally
    many samples of each class, some of them repeated. With `resident`, all images are on the device
    from the start. `train_images` and `validation_images` limit both splits to that number of
    images, of each class in proportion. With `train_mode_accuracy`, every validation also measures
    the accuracy in train mode: with batch statistics and dropout. `seed` determines all random
    numbers.

    Raises UserError for a value out of range.
    """

    stages: tuple[Stage, ...]
    batch_size: int = 64
    micro_batch: int | None = None
    window: float | None = 1.0
    average: float = 0.0
    hand: float = 0.0
    auxiliary: float = 0.0
    views: int = 1
    mirrored: bool = False
    normalize: Normalize | None = None
    class_weights: bool = False
    balanced_sampling: bool = False
    resident: bool = False
    train_images: int | None = None
    validation_images: int | None = None
    train_mode_accuracy: bool = False
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
                f"auxiliary: got {self.auxiliary}, expected 0: whole pages of two datasets may "
                "differ in shape"
            )
        check_range("average", self.average, 0, 0.999999)
        check_range("hand", self.hand, 0, 1)
        check_range("auxiliary", self.auxiliary, 0, 1)
        if self.auxiliary and not 0 < round(self.auxiliary * self.batch_size) < self.batch_size:
            raise UserError(
                f"auxiliary: got {self.auxiliary} of batches of {self.batch_size}, expected at "
                "least one row of each dataset"
            )
        check_range("views", self.views, 1, 25)
        for name in ("train_images", "validation_images"):
            if (limit := getattr(self, name)) is not None:
                check_range(name, limit, 1, inf)
        if self.class_weights and self.balanced_sampling:
            raise UserError("class_weights: got balanced_sampling too, expected one of them")
        check_range("seed", self.seed, 0, 2**63 - 1)

    def split_rows(self, rows: int) -> tuple[int, int]:
        """Split `rows` of a batch into the numbers of main and auxiliary rows.

        With an auxiliary dataset, each gets at least one row, or two with mixing, even if the sum
        exceeds `rows`; with mixing, auxiliary rows come in pairs.
        """
        if not self.auxiliary:
            return rows, 0
        unit = 2 if any(stage.mixing for stage in self.stages) else 1
        auxiliary = unit * max(1, min(round(self.auxiliary * rows / unit), rows // unit - 1))
        return max(unit, rows - auxiliary), auxiliary

    @property
    def expects_label_noise(self) -> bool:
        """Whether a loss takes the labels for incorrect."""
        return any(stage.loss.kind in ("forward", "complementary") for stage in self.stages)

    @property
    def epochs(self) -> int:
        """The sum of the stages' epochs."""
        return sum(stage.epochs for stage in self.stages)

    def scaled(self, scale: float) -> Self:
        """Return the recipe with every stage's epochs times `scale`, at least one."""
        if not 0 < scale < inf:
            raise UserError(f"scale: got {scale}, expected more than 0")
        stages = (replace(s, epochs=max(1, round(s.epochs * scale))) for s in self.stages)
        return replace(self, stages=tuple(stages))

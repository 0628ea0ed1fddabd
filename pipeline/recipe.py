"""What a training is, as data: stages, each with its pictures, its schedule and its changes.

A recipe knows no code that runs it and no file, so it can be stored, compared and printed.
"""

from dataclasses import dataclass, field, replace
from math import inf
from typing import TypeVar

from pipeline.augment import Augmentation
from pipeline.errors import UserError

T = TypeVar("T")


def _expect(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UserError(f"{name}: got {value}, expected {low} to {high}")


@dataclass(frozen=True)
class Stage:
    """Epochs at one picture size, under one cycle of AdamW's learning rate.

    `size` is the side in pixels of the square around the ink that the network sees. The learning
    rate rises to `learning_rate` over the first `warm_up` share of the steps and falls to nothing
    (Smith and Topin 2018). `weight_decay` spares biases and normalisation.
    """

    size: int
    epochs: int
    learning_rate: float
    warm_up: float = 0.25
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        _expect("size", self.size, 16, 4096)
        _expect("epochs", self.epochs, 1, 1_000_000)
        _expect("learning_rate", self.learning_rate, 1e-12, inf)
        _expect("warm_up", self.warm_up, 0, 0.99)
        _expect("weight_decay", self.weight_decay, 0, inf)
        _expect("label_smoothing", self.label_smoothing, 0, 1)


@dataclass(frozen=True)
class Recipe:
    """Stages one after another on batches of `batch_size`, over all processes.

    The square that the network sees has a side of `window` times the height of a page, whatever its
    size in pixels. Equal seeds draw equal numbers.
    """

    stages: tuple[Stage, ...]
    batch_size: int = 64
    window: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.stages:
            raise UserError("recipe: got no stages, expected at least one")
        _expect("batch_size", self.batch_size, 1, 1_000_000)
        _expect("window", self.window, 0.05, 1)
        _expect("seed", self.seed, 0, 2**63 - 1)


HANDS = Augmentation(rotation=10, zoom=0.1, aspect=0.2, shear=0.3, translation=0.06, pen=0.8)

PART1 = {
    "small": Recipe(
        (Stage(size=48, epochs=40, learning_rate=5e-3, augmentation=HANDS),), window=2 / 3
    ),
    "resnet18": Recipe(
        (Stage(size=96, epochs=40, learning_rate=2e-3, augmentation=HANDS),), window=2 / 3
    ),
}


def part1(
    network: str,
    *,
    size: int | None = None,
    epochs: int | None = None,
    learning_rate: float | None = None,
    batch_size: int | None = None,
    seed: int = 0,
) -> Recipe:
    """Return part 1's recipe for a network of `models.NETWORKS`, with what is given in its place.

    Raises UserError for values that make no sense.
    """
    recipe = PART1[network]
    (stage,) = recipe.stages
    stage = replace(
        stage,
        size=_or(size, stage.size),
        epochs=_or(epochs, stage.epochs),
        learning_rate=_or(learning_rate, stage.learning_rate),
    )
    return replace(
        recipe, stages=(stage,), batch_size=_or(batch_size, recipe.batch_size), seed=seed
    )


def _or(given: T | None, default: T) -> T:
    return default if given is None else given

"""Named recipes, as tables, and the published accuracies to compare with."""

import math
from dataclasses import dataclass, replace
from typing import Any

from pipeline.errors import UserError
from pipeline.loading.augment import Augmentation
from pipeline.recipes.losses import Loss
from pipeline.recipes.mixup import Mixing
from pipeline.recipes.recipe import Recipe, Stage

# Better than AdamW over few epochs, above all on few images and incorrect labels.
MUON: dict[str, Any] = {"optimizer": "Muon", "weight_decay": 0.02}
# The published trainings with a constant learning rate.
ADAM: dict[str, Any] = {
    "schedule": "constant",
    "warm_up": 0,
    "optimizer": "Adam",
    "weight_decay": 0,
}
HANDWRITING = Augmentation(rotation=10, zoom=0.1, aspect=0.2, shear=0.3, translation=0.06, pen=0.8)


@dataclass(frozen=True)
class Trial:
    """A quick run of a whole job: at most 60 s of training on two cores.

    It trains for `epochs` epochs on `train_images` images and validates on `validation_images`;
    None is all images. `batch_size` is its own where it has fewer images than the recipe needs.
    """

    epochs: int = 1
    train_images: int | None = None
    validation_images: int | None = None
    batch_size: int | None = None


@dataclass(frozen=True)
class Preset:
    """A network of `networks.NETWORKS` and its recipe.

    The epochs are for `pages` training pages; smaller datasets get more epochs. None fixes the
    epochs. `trial` is what the recipe's quick run trains on. With `find_rate`, a learning rate
    range test sets the peak learning rate, except in a quick run.
    """

    network: str
    recipe: Recipe
    pages: int | None = None
    trial: Trial = Trial()
    find_rate: bool = False

    def scale(self, pages: int) -> float:
        """Return the factor of the epochs for a dataset of `pages` training pages."""
        return max(1.0, (self.pages or 0) / max(pages, 1))


def _progressive() -> Recipe:
    """Return the published solution of part 1: progressive resizing in eight stages."""
    augmentation = Augmentation(
        rotation=10,
        magnification=math.log(1.1),
        lighting=0.2,
        warp=0.2,
        affine_probability=0.75,
        lighting_probability=0.75,
    )
    plain = Stage(
        size=224,
        epochs=30,
        learning_rate=3e-2,
        loss=Loss(),
        augmentation=augmentation,
        weight_decay=0.01,
        clip=0.1,
    )
    mixed = replace(plain, mixing=Mixing(mixup=0.4))
    focal = replace(mixed, size=299, epochs=18, loss=Loss("focal", alpha=1, gamma=2))
    return Recipe(
        (
            plain,
            replace(mixed, learning_rate=(6e-3 / 100, 6e-3 / 10, 6e-3)),
            replace(focal, learning_rate=1e-2, frozen=2),
            replace(focal, learning_rate=(6e-7, 1e-3)),
            replace(mixed, size=512, epochs=12, learning_rate=5e-3, frozen=2),
            replace(mixed, size=512, epochs=20, learning_rate=(1e-5, 1e-3)),
            replace(mixed, size=600, epochs=18, learning_rate=2e-3, frozen=2),
            replace(mixed, size=600, epochs=20, learning_rate=(1e-6, 1e-4, 7e-4)),
        ),
        micro_batch=16,
    )


def _writer_scaled(
    size: int, epochs: int, learning_rate: float, average: float, elastic: float = 0.0
) -> Recipe:
    """Return a recipe with pages at their writer's scale and half of each batch auxiliary."""
    augmentation = replace(HANDWRITING, elastic=elastic)
    stage = Stage(size, epochs, learning_rate, augmentation=augmentation, **MUON)
    return Recipe((stage,), window=2 / 3, average=average, hand=0.45, auxiliary=0.5)


PAGES_OF_40_WRITERS = 40 * 62 * 9 // 10  # for training, with a tenth held out
PART1 = {
    "fast": Preset(
        "compact",
        _writer_scaled(48, 8, 2e-2, 0.995, elastic=0.02),
        pages=PAGES_OF_40_WRITERS,
        trial=Trial(2),
    ),
    "accurate": Preset("medium", _writer_scaled(64, 12, 5e-3, 0.998), pages=PAGES_OF_40_WRITERS),
    # Large images: a trial of these two shows that they run, and no accuracy.
    "progressive": Preset("resnet18", _progressive(), trial=Trial(1, 32, 32, batch_size=8)),
    # The first published notebook, which ran out of memory at batch size 64.
    "baseline": Preset(
        "baseline",
        Recipe((Stage(900, 10, 1e-3, loss=Loss(), **ADAM),), micro_batch=4, window=None),
        trial=Trial(1, 64, 32, batch_size=8),
    ),
}
# Published accuracies of `progressive` after each stage, on the original data.
PART1_PUBLISHED = (0.8871, 0.8992, 0.9073, 0.9032, 0.9194, 0.9194, 0.9153, 0.9274)


def small_images(epochs: int, learning_rate: float, **others: Any) -> Recipe:
    """Return a recipe for images of 28×28 pixels, each shown whole and unscaled."""
    return Recipe((Stage(28, epochs, learning_rate, loss=Loss(), **others),), batch_size=128)


# Weak, since a slanted or stretched 7 becomes a 1.
MNIST_DIGITS = Augmentation(rotation=4, zoom=0.1, aspect=0.1, translation=0.04, elastic=0.02)
# A digit fills 20 of 28 pixels, as in MNIST.
PART2_WINDOW = 0.61
# For ResNet-18 at 4e-2: the published learning rate suits SGD.
SGD: dict[str, Any] = {
    "optimizer": "SGD",
    "options": {"momentum": 0.9, "nesterov": True},
    "weight_decay": 5e-4,
}


def _part1_digits(learning_rate: float, **others: Any) -> Recipe:
    """Return a recipe for the digits of part 1, shown like MNIST's."""
    stage = Stage(28, 40, learning_rate, loss=Loss(), augmentation=HANDWRITING, **others)
    return Recipe((stage,), batch_size=32, window=PART2_WINDOW)


# By network: pretraining on the digits of part 1, then training on MNIST.
PART2_DIGITS = {
    "small": _part1_digits(5e-3),
    "plain": _part1_digits(5e-3),
    "resnet18": _part1_digits(1e-2, **SGD),
}
PART2_MNIST = {
    "small": small_images(4, 1e-2, augmentation=MNIST_DIGITS),
    "plain": small_images(3, 5e-3, augmentation=MNIST_DIGITS, **MUON),
    "resnet18": replace(small_images(5, 4e-2, **SGD), batch_size=64),
}
# Published accuracies of ResNet-18 on MNIST, after 5 epochs, one run each. On the digits of part 1,
# it had 40 epochs to a rate of 1e-1 and 15 to rates of (6e-7, 2e-3): an accuracy of 92.50 %.
PART2_PUBLISHED = {"pretrained": 0.9945, "scratch": 0.9923}


PART3_RECOVERY = Preset("plain", small_images(6, 5e-3, **MUON))


def override(
    recipe: Recipe,
    *,
    size: int | None = None,
    epochs: int | None = None,
    learning_rate: float | None = None,
    batch_size: int | None = None,
    scale: float | None = None,
    auxiliary: float | None = None,
    seed: int = 0,
) -> Recipe:
    """Return a recipe with the given values; None keeps the recipe's own.

    Raises UserError for invalid values, and for a size, epochs or learning rate if the recipe has
    several stages.
    """
    given = {"size": size, "epochs": epochs, "learning_rate": learning_rate}
    stage_values: dict[str, Any] = {n: value for n, value in given.items() if value is not None}
    if stage_values and len(recipe.stages) > 1:
        raise UserError(
            f"{', '.join(stage_values)}: the recipe has {len(recipe.stages)} stages, each with its "
            "own; --scale shortens or lengthens them all"
        )
    stages = tuple(replace(stage, **stage_values) for stage in recipe.stages)
    batch_size = recipe.batch_size if batch_size is None else batch_size
    micro_batch = recipe.micro_batch and min(recipe.micro_batch, batch_size)
    recipe = replace(
        recipe,
        stages=stages,
        batch_size=batch_size,
        micro_batch=micro_batch,
        auxiliary=recipe.auxiliary if auxiliary is None else auxiliary,
        seed=seed,
    )
    return recipe if scale is None else recipe.scaled(scale)


def as_trial(recipe: Recipe, trial: Trial) -> Recipe:
    """Return a recipe with the epochs and images of a quick run."""
    return replace(
        recipe,
        stages=tuple(replace(stage, epochs=trial.epochs) for stage in recipe.stages),
        train_images=trial.train_images,
        validation_images=trial.validation_images,
    )

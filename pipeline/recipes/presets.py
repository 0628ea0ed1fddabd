"""The recipes that have a name, as tables: what to train, in which stages."""

import math
from dataclasses import dataclass, replace
from typing import Any

from pipeline.errors import UserError
from pipeline.loading.augment import Augmentation
from pipeline.recipes.losses import Loss
from pipeline.recipes.mixup import Mixing
from pipeline.recipes.recipe import Recipe, Stage

# In few epochs it learns more than AdamW does, above all from few pictures and wrong labels.
ORTHOGONAL: dict[str, Any] = {"optimizer": "Muon", "weight_decay": 0.02}
HANDS = Augmentation(rotation=10, zoom=0.1, aspect=0.2, shear=0.3, translation=0.06, pen=0.8)


@dataclass(frozen=True)
class Preset:
    """A network of `models.NETWORKS` and the recipe to train it by.

    `split` is how prep must have split the data, None if any way will do. The epochs are those of
    a set of `pages` to learn from, if that is told: smaller ones are gone through more often.
    """

    network: str
    recipe: Recipe
    split: str | None = None
    pages: int | None = None

    def scale(self, pages: int) -> float:
        """Return what to multiply the epochs by for a set of so many pages."""
        return max(1.0, (self.pages or 0) / max(pages, 1))


def _progressive() -> Recipe:
    """Return the published solution of part 1 by progressive resizing, stage by stage.

    It came, on the original data, to 88.71, 89.92, 90.73, 90.32, 91.94, 91.94, 91.53 and 92.74 %.
    """
    changes = Augmentation(
        rotation=10,
        magnification=math.log(1.1),
        lighting=0.2,
        warp=0.2,
        affine_probability=0.75,
        lighting_probability=0.75,
    )
    focal = Loss("focal", alpha=1, gamma=2)
    mixup = Mixing(mixup=0.4)

    def stage(
        size: int,
        epochs: int,
        rate: float | tuple[float, ...],
        loss: Loss,
        mixing: Mixing,
        frozen: int = 0,
    ) -> Stage:
        return Stage(
            size,
            epochs,
            rate,
            loss=loss,
            mixing=mixing,
            frozen=frozen,
            augmentation=changes,
            weight_decay=0.01,
            clip=0.1,
        )

    plain, none = Loss(), Mixing()
    return Recipe(
        (
            stage(224, 30, 3e-2, plain, none),
            stage(224, 30, (6e-3 / 100, 6e-3 / 10, 6e-3), plain, mixup),
            stage(299, 18, 1e-2, focal, mixup, frozen=2),
            stage(299, 18, (6e-7, 1e-3), focal, mixup),
            stage(512, 12, 5e-3, plain, mixup, frozen=2),
            stage(512, 20, (1e-5, 1e-3), plain, mixup),
            stage(600, 18, 2e-3, plain, mixup, frozen=2),
            stage(600, 20, (1e-6, 1e-4, 7e-4), plain, mixup),
        ),
        micro_batch=16,
    )


def _by_hands(size: int, epochs: int, average: float) -> Recipe:
    """Return a recipe that shows pages at their writer's scale, and synthetic ones besides."""
    stage = Stage(size, epochs, 5e-3, augmentation=HANDS, **ORTHOGONAL)
    return Recipe((stage,), window=2 / 3, average=average, hand=0.45, auxiliary=0.5)


FORTY_WRITERS = 40 * 62 * 9 // 10  # pages to learn from, where a tenth is held out
PART1 = {
    "fast": Preset("small", _by_hands(48, 6, 0.995), pages=FORTY_WRITERS),
    "accurate": Preset("medium", _by_hands(64, 12, 0.998), pages=FORTY_WRITERS),
    "progressive": Preset("resnet18", _progressive()),
    # The first published notebook's: out of memory at batch 64 there.
    "baseline": Preset(
        "baseline",
        Recipe(
            (
                Stage(
                    size=900,
                    epochs=10,
                    learning_rate=1e-3,
                    schedule="constant",
                    warm_up=0,
                    loss=Loss(),
                    optimizer="Adam",
                    weight_decay=0,
                ),
            ),
            micro_batch=4,
            window=None,
        ),
        split="80-10-10",
    ),
}


def small_images(epochs: int, learning_rate: float, **others: Any) -> Recipe:
    """Return a recipe for images of 28×28 pixels, each shown whole and unscaled."""
    return Recipe((Stage(28, epochs, learning_rate, loss=Loss(), **others),), batch_size=128)


# Modest, since a 7 that is slanted or stretched becomes a 1.
FORMS = Augmentation(rotation=4, zoom=0.1, aspect=0.1, translation=0.04, elastic=0.02)
# Such that a digit fills as much of the square as MNIST's do, 20 of 28 pixels.
PART2_WINDOW = 0.61
# ResNet-18's at 4e-2, the published rate, which is one for plain descent.
MOMENTUM: dict[str, Any] = {
    "optimizer": "SGD",
    "options": {"momentum": 0.9, "nesterov": True},
    "weight_decay": 5e-4,
}


def _digits(learning_rate: float, **others: Any) -> Recipe:
    """Return a recipe for the few digits of part 1, shown as MNIST's are."""
    stage = Stage(28, 40, learning_rate, loss=Loss(), augmentation=HANDS, **others)
    return Recipe((stage,), batch_size=32, window=PART2_WINDOW)


# By network. Part 2's digits come first, MNIST after them.
PART2_DIGITS = {
    "small": _digits(5e-3),
    "plain": _digits(5e-3),
    "resnet18": _digits(1e-2, **MOMENTUM),
}
PART2_MNIST = {
    "small": small_images(4, 1e-2, augmentation=FORMS),
    "plain": small_images(3, 5e-3, augmentation=FORMS, **ORTHOGONAL),
    "resnet18": replace(small_images(5, 4e-2, **MOMENTUM), batch_size=64),
}
# What ResNet-18 came to by others, on the original data, after 5 epochs of one run each.
PART2_PUBLISHED = {"pretrained": 0.9945, "scratch": 0.9923}


PART3_RECOVERY = Preset("plain", small_images(6, 5e-3, **ORTHOGONAL))


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
    """Return a recipe with what is given in its place.

    Raises UserError for values that make no sense, and for a size, epochs or learning rate for a
    recipe of several stages.
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

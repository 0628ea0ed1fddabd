"""The parts of the benchmark as a table: data, recipes, targets."""

from dataclasses import dataclass, replace

from pipeline.benchmarks.convergence.outcome import Arm
from pipeline.recipes.arms import PART3_ARMS
from pipeline.recipes.fashion_presets import FASHION
from pipeline.recipes.losses import Loss
from pipeline.recipes.presets import (
    PART1,
    PART1_PUBLISHED,
    PART2_MNIST,
    PART2_PUBLISHED,
    PART3_RECOVERY,
    Preset,
    as_trial,
    override,
)
from pipeline.recipes.recipe import Recipe

ARMS = tuple(
    Arm(recipe, loader) for recipe in ("inkrun", "published") for loader in ("inkrun", "pillow")
)
CEILING = Arm("ceiling", "inkrun")


@dataclass(frozen=True)
class Part:
    """A dataset, our recipe, the published one, and the accuracies to reach.

    `published_accuracy` was reported for the end of the published schedule. `below_ceiling` is a
    target relative to our recipe's accuracy with correct labels. `colour` says that the pages are
    RGB files in the original dataset.
    """

    name: str
    title: str
    dataset: str
    ours: Preset
    published: Preset
    published_accuracy: float | None
    targets: tuple[float, ...]
    below_ceiling: float | None = None
    learn_from: str = "train"
    validate_on: str = "test"
    colour: bool = False

    @property
    def arms(self) -> tuple[Arm, ...]:
        """The arms, in the order of their trainings."""
        return ARMS if self.below_ceiling is None else (CEILING, *ARMS)

    def preset(self, arm: Arm) -> Preset:
        """Return the preset of an arm."""
        if arm.recipe == "ceiling":
            return replace(self.ours, recipe=_with_loss(self.ours.recipe, Loss()))
        return self.published if arm.recipe == "published" else self.ours

    def recipe(self, arm: Arm, pages: int, seed: int, quick: bool) -> Recipe:
        """Return the recipe of an arm for a number of training pages."""
        preset = self.preset(arm)
        if quick:
            small = override(preset.recipe, batch_size=preset.trial.batch_size, seed=seed)
            return as_trial(small, preset.trial)
        return replace(preset.recipe, seed=seed).scaled(preset.scale(pages))


def _with_loss(recipe: Recipe, loss: Loss) -> Recipe:
    return replace(recipe, stages=tuple(replace(stage, loss=loss) for stage in recipe.stages))


def _first_stage(preset: Preset) -> Preset:
    return replace(preset, recipe=replace(preset.recipe, stages=preset.recipe.stages[:1]))


def _digits(network: str) -> Preset:
    return Preset(network, PART2_MNIST[network])


PARTS = {
    part.name: part
    for part in (
        Part(
            "1",
            "Part 1: 62 classes of handwritten characters, on writers never seen",
            "part1",
            PART1["fast"],
            _first_stage(PART1["progressive"]),
            PART1_PUBLISHED[0],
            (0.8, 0.85, 0.88, 0.9),
            validate_on="validation",
            colour=True,
        ),
        Part(
            "2",
            "Part 2: MNIST, from random weights",
            "mnist",
            _digits("plain"),
            _digits("resnet18"),
            PART2_PUBLISHED["scratch"],
            (0.97, 0.98, 0.99, 0.994),
            learn_from="train+validation",
        ),
        Part(
            "3",
            "Part 3: digits of which every training label is wrong, tested on correct labels",
            "mnist",
            replace(
                PART3_RECOVERY, recipe=_with_loss(PART3_RECOVERY.recipe, Loss("complementary"))
            ),
            PART3_ARMS["simple"].preset,
            PART3_ARMS["simple"].published,
            (0.8, 0.85),
            below_ceiling=0.015,
            learn_from="train+validation",
        ),
        Part(
            "fashion",
            "Fashion-MNIST: ten kinds of clothing",
            "fashion",
            FASHION["fast"],
            FASHION["lenet"],
            None,  # the published accuracy is that of the first epoch, in train mode
            (0.85, 0.9, 0.92, 0.93),
            validate_on="validation",
        ),
    )
}

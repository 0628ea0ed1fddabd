"""Trainings on Fashion-MNIST: the published LeNet."""

from pipeline.recipes.losses import Loss
from pipeline.recipes.presets import ADAM, Preset, Trial
from pipeline.recipes.recipe import Recipe, Stage

FASHION = {
    "lenet": Preset(
        "lenet",
        Recipe(
            (Stage(28, 5, 0.1, loss=Loss(), **ADAM),),
            batch_size=100,
            window=None,
            train_mode_accuracy=True,  # the published accuracy was measured so
        ),
        trial=Trial(1, 50_000, 10_000),
    ),
}

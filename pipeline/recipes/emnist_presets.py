"""The published trainings on EMNIST's digits and letters, and one for smaller images.

The published weight decay applied to all parameters; here it does not apply to biases and
normalisation (`recipe.Stage`).
"""

import math
from dataclasses import replace
from typing import Any

from pipeline.loading.augment import Augmentation
from pipeline.loading.dataset import Normalize
from pipeline.recipes.losses import Loss
from pipeline.recipes.presets import Preset, Trial
from pipeline.recipes.recipe import Recipe, Stage

MEAN, STD = 0.1307, 0.3081  # MNIST's, as published


def _recipe(learning_rate: float, batch_size: int, epochs: int = 5, **others: Any) -> Recipe:
    settings = {"schedule": "constant", "warm_up": 0, "loss": Loss(), **others}
    return Recipe(
        (Stage(28, epochs, learning_rate, **settings),),
        batch_size=batch_size,
        window=None,
        normalize=Normalize((MEAN,), (STD,)),
    )


_ADAMW: dict[str, Any] = {"optimizer": "AdamW", "weight_decay": 0.1}
_FIRST = _recipe(1e-4, 64, **_ADAMW)
# Down to a quarter of the size, and never larger than it is.
_SMALLER = Augmentation(magnification=-math.log(4))

EMNIST = {
    "first": Preset("emnist-first", _FIRST, trial=Trial(1, 40_000, 2_000)),
    # 200 steps at 1e-5.
    "first-xavier": Preset(
        "emnist-first-xavier",
        _recipe(1e-4, 64, warm_up_steps=200, **_ADAMW),
        trial=Trial(1, 40_000, 2_000),
    ),
    "middle": Preset("emnist-middle", _recipe(1e-4, 128, **_ADAMW), trial=Trial(1, 12_000, 2_000)),
    "deeper": Preset("emnist-deeper", _recipe(1e-4, 64, **_ADAMW), trial=Trial(1, 12_000, 2_000)),
    # `first` for characters of any size up to 28 pixels, cut out around the ink.
    "first-sizes": Preset(
        "emnist-first",
        replace(
            _FIRST,
            stages=(replace(_FIRST.stages[0], augmentation=_SMALLER),),
            window=1.0,
        ),
        trial=Trial(1, 40_000, 2_000),
    ),
}


def _comparison(optimizer: str, learning_rate: float, **options: float) -> Preset:
    recipe = _recipe(
        learning_rate,
        128,
        optimizer=optimizer,
        options=options,
        weight_decay=1e-4,
        warm_up_steps=500,
        warm_up_factor=1e-5 / learning_rate,
    )
    return Preset("emnist-first", recipe, trial=Trial(1, 40_000, 2_000))


# The published comparison: by optimizer, its training and the accuracy after 5 epochs. Learning
# rates rise after 500 steps at 1e-5, but Adam and AdamW stayed there.
EMNIST_OPTIMIZERS = {
    "SGD": (_comparison("SGD", 1e-4, momentum=0.9), 0.87),
    "Adagrad": (_comparison("Adagrad", 1e-4), 0.71),
    "Adam": (_comparison("Adam", 1e-5), 0.90),
    "AdamW": (_comparison("AdamW", 1e-5), 0.91),
}
# For a fair comparison: a grid of learning rates around each optimizer's best one. The rate is
# constant after the warm-up, so SGD with momentum needs lower ones than a schedule that falls.
EMNIST_LEARNING_RATES = {
    "SGD": (3e-4, 1e-3, 3e-3, 1e-2),
    "Adagrad": (1e-3, 3e-3, 1e-2, 3e-2),
    "Adam": (1e-4, 3e-4, 1e-3, 3e-3),
    "AdamW": (1e-4, 3e-4, 1e-3, 3e-3),
}

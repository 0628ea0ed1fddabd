"""Trainings on Fashion-MNIST: the published LeNet, and two of ten and sixty minutes on a CPU."""

from pipeline.loading.dataset import Normalize
from pipeline.loading.image_augment import ImageAugmentation
from pipeline.recipes.losses import Loss
from pipeline.recipes.presets import ADAM, MUON, Preset, Trial
from pipeline.recipes.recipe import Recipe, Stage

FASHION_PIXELS = Normalize((0.2860,), (0.3530,))  # of the 60,000 training images


def _residual(epochs: int) -> Recipe:
    """Return a training of the residual networks; it has the same settings for both."""
    stage = Stage(
        28,
        epochs,
        5e-3,
        schedule="cosine",
        warm_up=0.2,
        image_augmentation=ImageAugmentation(flip=0.5, pad=2, pad_mode="constant"),
        **MUON,
    )
    return Recipe((stage,), batch_size=250, window=None, normalize=FASHION_PIXELS, mirrored=True)


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
    "fast": Preset("fashion", _residual(12), trial=Trial(2, 15_000, 5_000)),
    "accurate": Preset("fashion-wide", _residual(16), trial=Trial(2, 8_000, 5_000)),
}

"""Trainings on CIFAR-10: the published small ResNet, and one of a few seconds on a GPU."""

from pipeline.loading.dataset import Normalize
from pipeline.loading.image_augment import ImageAugmentation
from pipeline.recipes.losses import Loss
from pipeline.recipes.presets import Preset, Trial
from pipeline.recipes.recipe import Recipe, Stage

CIFAR10_PIXELS = Normalize(
    (0.49139968, 0.48215827, 0.44653124), (0.24703233, 0.24348505, 0.26158768)
)


def _resnet() -> Recipe:
    """Return the published training; its number of epochs and batch size are ours."""
    augmentation = ImageAugmentation(
        contrast=0.1,
        saturation=0.2,
        hue=0.1,
        jitter_probability=0.5,
        grey=0.2,
        pad=4,
        flip=0.5,
        cutout=8,
    )
    stage = Stage(
        32,
        24,
        1e-3,  # for a quick run; otherwise the learning rate range test sets it
        loss=Loss(),
        image_augmentation=augmentation,
        optimizer="Adam",
        weight_decay=0,
    )
    return Recipe((stage,), batch_size=128, window=None, normalize=CIFAR10_PIXELS)


def _speed() -> Recipe:
    """Return a training in the spirit of airbench94 (Jordan 2024), with Muon.

    Its learning rates are those published, times the 2,000 images of a batch: here the loss is the
    mean over a batch, there it was the sum. Biases are trained for all epochs, there those of the
    first layer for three of them.
    """
    biases, head, kernels = 0.053 * 2000, 0.67 * 2000, 0.24
    stage = Stage(
        32,
        8,
        (biases, biases, head),
        schedule="linear",
        warm_up=0,
        loss=Loss(label_smoothing=0.2),
        image_augmentation=ImageAugmentation(alternate_flip=True, pad=2),
        optimizer="Muon",
        options={"ratio": kernels / biases, "momentum": 0.6, "unit_rows": True, "others": "SGD"},
        weight_decay=2e-6 * 2000 / head,
    )
    return Recipe(
        (stage,),
        batch_size=2000,
        window=None,
        normalize=CIFAR10_PIXELS,
        mirrored=True,
        resident=True,
    )


CIFAR10 = {
    "resnet": Preset(
        "resnet9", _resnet(), find_rate=True, trial=Trial(1, 1_800, 400, batch_size=16)
    ),
    "speed": Preset("airbench", _speed(), trial=Trial(2, 3_000, 500, batch_size=100)),
}

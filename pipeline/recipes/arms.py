"""The trainings of part 3 that have published counterparts, as a table: one entry per training."""

from dataclasses import dataclass

from pipeline.recipes.presets import ADAM, Preset, small_images


@dataclass(frozen=True)
class ArmSpec:
    """A training of part 3 after a published one, at a learning rate of our own.

    `key` is its name in options, files and folders, `label` its name in tables. `published` is the
    accuracy, from 0 to 1, that others reported for MNIST's test set after one training on the
    original data, at the peak learning rate `published_rate`. The arm starts from the weights of
    part 2's training `start`, and has that training's network; None stands for random weights.
    """

    key: str
    label: str
    preset: Preset
    published: float
    published_rate: float
    start: str | None = None


_SIMPLE = Preset("plain", small_images(10, 1e-2))
_CONSTANT = Preset("plain", small_images(10, 1e-3, **ADAM))
_RESNET18 = Preset("resnet18", small_images(10, 1e-2))
_TABLE = (
    ArmSpec("simple", "simple CNN, one-cycle", _SIMPLE, 0.0031, 0.4),
    ArmSpec("constant", "simple CNN, constant rate", _CONSTANT, 0.0099, 0.4),
    ArmSpec("resnet18", "ResNet-18, one-cycle", _RESNET18, 0.0007, 0.02),
    ArmSpec("digits", "from the weights of 2a (digits of part 1)", _SIMPLE, 0.0003, 0.04, "digits"),
    ArmSpec(
        "pretrained", "from the weights of 2b (2a, then MNIST)", _SIMPLE, 0.0, 0.03, "pretrained-0"
    ),
)
PART3_ARMS = {arm.key: arm for arm in _TABLE}

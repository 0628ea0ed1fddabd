"""The jobs that train one network on one dataset, as a table: recipes and published figures."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.recipes.cifar10_presets import CIFAR10
from pipeline.recipes.emnist_presets import EMNIST
from pipeline.recipes.fashion_presets import FASHION
from pipeline.recipes.presets import PART1, PART1_PUBLISHED, Preset


@dataclass(frozen=True)
class Published:
    """A figure that others reported, from 0 to 1; `what` names it, `note` says how it was measured.

    It belongs to the original data, and to one run unless the note says otherwise.
    """

    what: str
    value: float
    note: str = ""


@dataclass(frozen=True)
class System:
    """A job's named recipes for the dataset `dataset`, and published figures by recipe."""

    title: str
    question: str
    dataset: str
    recipes: Mapping[str, Preset]
    default: str
    published: Mapping[str, tuple[Published, ...]] = field(default_factory=dict)


_AFTER_5 = "accuracy after 5 epochs"
SYSTEMS = {
    "part1": System(
        "62 classes of handwritten characters",
        "How accurately does a network classify single handwritten characters when it is trained "
        "from random weights, and how much training does it need?",
        "part1",
        PART1,
        "fast",
        {
            "progressive": tuple(
                Published(f"accuracy after stage {stage}", accuracy)
                for stage, accuracy in enumerate(PART1_PUBLISHED, start=1)
            )
        },
    ),
    "emnist": System(
        "Handwritten digits and letters, 36 classes",
        "How accurately do three published networks of growing depth tell handwritten digits and "
        "letters apart after a few epochs?",
        "emnist",
        EMNIST,
        "first",
        {
            "first": (Published(_AFTER_5, 0.91),),
            "first-xavier": (Published(_AFTER_5, 0.92, "loss 0.2432"),),
            "middle": (Published(_AFTER_5, 0.93),),
            "deeper": (
                Published(_AFTER_5, 0.94, "loss 0.206"),
                Published("accuracy after 30 epochs", 0.96, "validation loss 0.186"),
            ),
        },
    ),
    "fashion": System(
        "Fashion-MNIST: ten kinds of clothing",
        "How accurately does a network classify small grey images of clothing?",
        "fashion",
        FASHION,
        "lenet",
        {
            "lenet": (
                Published(
                    "accuracy after the first epoch",
                    0.838,
                    "with batch statistics and dropout, as in training",
                ),
            ),
        },
    ),
    "cifar10": System(
        "CIFAR-10: ten classes of small photographs",
        "How accurately does a small ResNet classify small photographs, and how few seconds does a "
        "network need?",
        "cifar10",
        CIFAR10,
        "resnet",
        {
            "resnet": (
                Published("accuracy on test images", 0.9052),
                Published("accuracy on training images", 0.8666, "augmented, during training"),
            ),
            "speed": (
                Published(
                    "accuracy on test images",
                    0.9401,
                    "in 2.59 s on one A100, by airbench94; mean of 200 trainings",
                ),
            ),
        },
    ),
}

"""The framing of training images: where on an image the ink is, and how large."""

from dataclasses import dataclass

from pipeline.evaluation.evaluate import TrainedModel


@dataclass(frozen=True)
class Framing:
    """The place and size of ink in training images, as fractions of the image's height.

    `tall` is the height of tall characters.
    """

    tall: float

    @classmethod
    def of(cls, trained: TrainedModel) -> "Framing":
        """Return the framing of the images that a network was trained on."""
        return cls(tall=trained.config.recipe.hand or 0.45)

"""Recipes for any dataset, which depend on its images, and the choice among them.

They suit a CPU of few cores: a few hundred images take about a minute, 60,000 some tens of minutes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from pipeline.errors import UserError
from pipeline.loading.image_augment import ImageAugmentation
from pipeline.recipes.presets import MUON, PART1, Preset, Trial
from pipeline.recipes.recipe import Recipe, Stage

SMALL_GREY, SMALL_COLOUR = 40, 48  # at most, in pixels: the median of the longer sides
PHOTO_SIZE = 64  # height of photographs as the network sees them


@dataclass(frozen=True)
class DataFacts:
    """What decides how to train on a dataset: colour, median size in pixels, counts of training.

    With `characters`, each class is named by a single letter or digit.
    """

    colour: bool
    height: int
    width: int
    classes: int
    images: int
    characters: bool = False

    @property
    def flip(self) -> float:
        """The probability that a training image is mirrored: a mirrored b is a d."""
        return 0.0 if self.characters else 0.5


def choose_preset(facts: DataFacts, recipe: str = "auto") -> tuple[str, Preset]:
    """Return the name of a recipe for a dataset and the recipe itself.

    "auto" is chosen by the images: small ones are shown whole, in colour or not; other grey images
    are taken for handwriting, and other images in colour for photographs. Raises UserError for a
    name that is not in `ANY_DATASET`.
    """
    if recipe == "auto":
        small = max(facts.height, facts.width) <= (SMALL_COLOUR if facts.colour else SMALL_GREY)
        recipe = "small-images" if small else "photos" if facts.colour else "handwriting"
    if recipe not in ANY_DATASET:
        names = ", ".join(["auto", *ANY_DATASET])
        raise UserError(f"recipe: got {recipe!r}, expected one of {names}")
    return recipe, ANY_DATASET[recipe](facts)


def _epochs(images: int) -> int:
    """Return more epochs for fewer images: 8, and as many as 20,000 images take."""
    return min(100, round(8 + 20_000 / max(images, 1)))


def _preset(facts: DataFacts, network: str, size: int, **stage: Any) -> Preset:
    """Return a recipe for whole images of a height."""
    epochs, images = _epochs(facts.images), max(facts.images, 1)
    batch_size = 128 if images >= 10_000 else 64 if images >= 2_000 else min(32, images)
    recipe = Recipe(
        (Stage(size, epochs, 5e-3, **stage, **MUON),),
        batch_size=batch_size,
        window=None,
        average=0.99,
    )
    return Preset(network, recipe, trial=_trial(images, epochs))


def _trial(images: int, epochs: int) -> Trial:
    seen = min(images, 3_000)
    return Trial(max(1, min(epochs, 12_000 // seen)), seen, 1_000)


def _small_images(facts: DataFacts) -> Preset:
    """Return a recipe for images of few pixels, seen whole and in their own size.

    Images in colour are mirrored unless their classes are characters. Grey ones may be characters
    under any names.
    """
    shortest = min(facts.height, facts.width)
    enlarged = ceil(facts.height * max(1.0, 16 / max(shortest, 1)))
    if facts.colour:
        augmentation = ImageAugmentation(pad=4, flip=facts.flip)
        return _preset(facts, "resnet9-narrow", enlarged, image_augmentation=augmentation)
    return _preset(facts, "plain", enlarged, image_augmentation=ImageAugmentation(pad=2))


def _photos(facts: DataFacts) -> Preset:
    """Return a recipe for photographs, seen whole and small."""
    augmentation = ImageAugmentation(crop_scale=(0.35, 1), flip=facts.flip)
    return _preset(facts, "small", PHOTO_SIZE, image_augmentation=augmentation)


def _handwriting(facts: DataFacts) -> Preset:
    """Return part 1's recipe `fast` for characters whose writers and classes may be unknown.

    The learning rate is lower, for more epochs, and the network is `small`: without scales of
    writers, `compact` is faster and no better.
    """
    fast, images = PART1["fast"], max(facts.images, 1)
    epochs = _epochs(images)
    recipe = replace(
        fast.recipe,
        stages=(replace(fast.recipe.stages[0], epochs=epochs, learning_rate=5e-3),),
        batch_size=min(fast.recipe.batch_size, images),
        hand=0,
        auxiliary=0,
    )
    return Preset("small", recipe, trial=_trial(images, epochs))


ANY_DATASET: Mapping[str, Callable[[DataFacts], Preset]] = {
    "small-images": _small_images,
    "photos": _photos,
    "handwriting": _handwriting,
}

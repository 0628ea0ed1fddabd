"""Part 1's auxiliary dataset: the fraction of a batch that options ask for, and its checks."""

from pathlib import Path

from beton.reader import Reader
from pipeline.data.catalog import AUXILIARY
from pipeline.data.charset import CHARACTERS
from pipeline.errors import UserError
from pipeline.experiments.command import open_data
from pipeline.experiments.options import Options, Part1Options
from pipeline.recipes.recipe import Recipe


def wants_auxiliary(options: Options, recipe: Recipe) -> bool:
    """Return whether options ask for the default auxiliary dataset, on the 62 classes."""
    if not isinstance(options, Part1Options) or options.auxiliary is not None:
        return False
    share = options.auxiliary_share
    return bool(recipe.auxiliary if share is None else share)


def auxiliary_fraction(options: Options, recipe: Recipe, file: Reader) -> float:
    """Return the fraction of each batch that comes from the auxiliary dataset.

    By default it is the recipe's, and 0 where the classes are others than the 62. Raises UserError
    for an auxiliary dataset of which nothing would be used.
    """
    if not isinstance(options, Part1Options):
        return 0
    other_classes = tuple(file.info["classes"]) != tuple(CHARACTERS)
    if options.auxiliary_share is not None:
        return options.auxiliary_share
    fraction = 0 if other_classes else recipe.auxiliary
    if options.auxiliary is not None and not fraction:
        reason = "for other classes than the 62" if other_classes else "in this recipe"
        raise UserError(
            f"auxiliary: got {options.auxiliary}, but its default fraction of a batch is 0 "
            f"{reason}; set one: --auxiliary-share"
        )
    return fraction


def auxiliary_path(options: Options, recipe: Recipe, data: Path) -> Path | None:
    """Return the file of the auxiliary dataset of a recipe, None if it uses none."""
    if not (isinstance(options, Part1Options) and recipe.auxiliary):
        return None
    return options.auxiliary or data.with_name(f"{AUXILIARY}.beton")


def open_auxiliary(path: Path, file: Reader) -> Reader:
    """Open an auxiliary dataset of the training on `file`.

    Raises UserError if it is missing or has the same images.
    """
    auxiliary = open_data(path, AUXILIARY)
    if auxiliary.info["provenance"]["digest"] == file.info["provenance"]["digest"]:
        auxiliary.close()
        raise UserError(
            f"auxiliary: {path} has the same images as {file.path}, validation images included; "
            "expected others"
        )
    return auxiliary

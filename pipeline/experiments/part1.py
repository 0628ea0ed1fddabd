"""Part 1: the recipe and the auxiliary dataset that options ask for, checked before training."""

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from beton.reader import Reader
from pipeline.data.catalog import AUXILIARY
from pipeline.data.charset import CHARACTERS
from pipeline.errors import UserError
from pipeline.evaluation.run_config import TrainingConfig
from pipeline.experiments.command import open_data
from pipeline.loading.dataset import split_indices
from pipeline.models import networks
from pipeline.recipes.presets import Preset, override
from pipeline.recipes.recipe import Recipe
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.datamodule import DataModule
from pipeline.training.distributed import Processes


def choose_recipe(
    preset: Preset,
    file: Reader,
    auxiliary: Path | None,
    share: float | None,
    epochs: int | None,
    scale: float | None,
    **others: Any,
) -> Recipe:
    """Return a preset's recipe with the values given in place of its own.

    A dataset smaller than the preset's is trained on for more epochs, unless `epochs` are given. By
    default, no fraction of a batch is from the auxiliary dataset where the classes are others than
    the 62. Raises UserError for values that make no sense, and for an `auxiliary` dataset of which
    the recipe uses nothing.
    """
    if epochs is None and (more := preset.scale(len(split_indices(file, "train")))) > 1:
        scale = more * (1 if scale is None else scale)
    other_classes = tuple(file.info["classes"]) != tuple(CHARACTERS)
    fraction = 0 if share is None and other_classes else share
    recipe = override(preset.recipe, epochs=epochs, scale=scale, auxiliary=fraction, **others)
    if auxiliary is not None and share is None and not recipe.auxiliary:
        reason = "for other classes than the 62" if other_classes else "in this recipe"
        raise UserError(
            f"auxiliary: got {auxiliary}, but its default fraction of a batch is 0 {reason}; "
            "set one: --auxiliary-share"
        )
    return recipe


def check(processes: Processes, training: TrainingConfig, file: Reader, checkpoints: Path) -> None:
    """Raise UserError for a training that its data, its network or `checkpoints` rule out."""
    path, digest = training.auxiliary, file.info["provenance"]["digest"]
    with open_data(path, AUXILIARY) if path else nullcontext() as auxiliary:
        if auxiliary is not None and auxiliary.info["provenance"]["digest"] == digest:
            raise UserError(
                f"auxiliary: {path} has the same images as {file.path}, validation images "
                "included; expected others"
            )
        data = DataModule(processes, training.recipe, file, auxiliary=auxiliary)
        for stage in training.recipe.stages:
            networks.check_size(training.network, *data.view(stage).shape)
    Checkpoints(checkpoints, **asdict(training.checkpoints))

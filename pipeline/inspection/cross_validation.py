"""Predictions for training images by networks that were not trained on them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from beton.reader import Column, Reader
from pipeline.data.inflated import working_folder
from pipeline.data.sources import SPLITS
from pipeline.errors import UserError
from pipeline.evaluation.evaluate import TrainedModel
from pipeline.evaluation.predict import Predictions
from pipeline.evaluation.run_dir import RunDir
from pipeline.loading.dataset import Ids, split_indices
from pipeline.runtime.hardware import Precision
from pipeline.training.distributed import join_processes
from pipeline.training.runner import run_training, write_config


class FoldReader(Reader):
    """A dataset in which one fold of the samples `ids` is for validation, the others for training.

    The folds divide each class evenly. Samples that are in no fold are test samples.
    """

    def __init__(self, path: Path, ids: Ids, folds: int, fold: int) -> None:
        super().__init__(path)
        order = ids[np.argsort(self.column("label").metadata[ids], kind="stable")]
        splits = np.full(len(self), SPLITS.index("test"))
        splits[order] = SPLITS.index("train")
        splits[order[fold::folds]] = SPLITS.index("validation")
        self._splits = splits.astype(super().column("split").metadata.dtype)

    def column(self, name: str) -> Column:
        """Return one field's arrays, those of the folds for `split`."""
        column = super().column(name)
        return replace(column, metadata=self._splits) if name == "split" else column


def cross_validated(
    trained: TrainedModel, file: Reader, folds: int, precision: Precision, console: Console
) -> Predictions:
    """Predict the training images of a run, each by a network that was not trained on it.

    `folds` networks are trained by the run's recipe on the dataset `file`, each without one fold.
    Raises UserError for a recipe whose loss takes labels for incorrect, and what training raises,
    such as UserError for fewer images than a batch.
    """
    config = trained.config
    if config.recipe.expects_label_noise:
        raise UserError("folds: got a training that takes its labels for incorrect")
    recipe = replace(config.recipe, train_images=None, validation_images=None)
    training = replace(
        config.training, recipe=recipe, learn_from="train", validate_on="validation", until=None
    )
    ids = split_indices(file, config.learn_from, config.recipe.train_images)
    parts = []
    with working_folder() as folder, join_processes(precision) as here:
        for fold in range(folds):
            run = RunDir(folder / str(fold))
            with FoldReader(file.path, ids, folds, fold) as part:
                write_config(run, config.job, training, part, {})
                label = f"fold {fold + 1} of {folds}"
                finished = run_training(here, run, training, part, console, label)
            assert finished.predictions is not None
            parts.append(finished.predictions)
    found = Predictions(*(torch.cat(column) for column in zip(*parts, strict=True)))
    order = found.ids.argsort()
    return Predictions(*(column[order] for column in found))

"""The data of a training: loaders of its training batches and its validation samples.

The global batch is fixed: any number of processes see the same samples.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from beton.order import Shard
from beton.reader import Reader
from pipeline.data.base import has_same_writers
from pipeline.errors import UserError, check_range
from pipeline.loading.augment import Augmentation
from pipeline.loading.batches import CombinedLoader, Decode, DeviceLoader
from pipeline.loading.dataset import Floats, Ids, View, eval_batch_size, split_indices
from pipeline.loading.image_augment import ImageAugmentation
from pipeline.loading.resident import ResidentLoader
from pipeline.loading.sampling import balanced_size
from pipeline.loading.writer_scale import writer_scales
from pipeline.recipes.losses import balanced_weights
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.training.distributed import Processes

TrainLoader = DeviceLoader | CombinedLoader
MakeLoader = Callable[..., DeviceLoader]  # with the parameters of DeviceLoader


@dataclass(frozen=True)
class DataModule:
    """Loaders of a recipe's batches for this one of the processes.

    Training uses the samples of `file` in the splits `learn_from` and, if the recipe uses an
    auxiliary dataset, all samples of `auxiliary`. Validation uses the split `validate_on` of
    `file`. `make_loader` makes the loaders of training batches, None for those of the recipe.
    Raises UserError for a recipe that does not suit the files or the number of processes.
    """

    processes: Processes
    recipe: Recipe
    file: Reader
    learn_from: str = "train"
    validate_on: str = "validation"
    auxiliary: Reader | None = None
    decode: Decode = "auto"
    make_loader: MakeLoader | None = None

    def __post_init__(self) -> None:
        recipe, classes = self.recipe, self.file.info["classes"]
        for stage in recipe.stages:
            stage.loss.check(len(classes))
            stage.image_augmentation.check(self.view(stage).input_shape)
        self._check_batch_size(self.file, self.learn_from, 0)
        if not recipe.auxiliary:
            return
        for name in ("class_weights", "balanced_sampling"):
            if getattr(recipe, name):
                raise UserError(
                    f"{name}: got an auxiliary dataset too, expected one of them; "
                    "--auxiliary-share 0 uses no auxiliary dataset"
                )
        if self.auxiliary is None:
            raise UserError("auxiliary: got no dataset, expected one: the recipe trains on two")
        if (others := self.auxiliary.info["classes"]) != classes:
            raise UserError(
                f"auxiliary: {self.auxiliary.path} has the classes {', '.join(others)}; expected "
                f"those of {self.file.path}: {', '.join(classes)}"
            )
        if has_same_writers(self.auxiliary.info, self.file.info):
            raise UserError(
                f"auxiliary: {self.auxiliary.path} has the synthetic writers of {self.file.path}, "
                "those of its validation images included; expected pages of another seed"
            )
        self._check_batch_size(self.auxiliary, "all", 1)

    def _check_batch_size(self, file: Reader, split: str, index: int) -> None:
        recipe, processes = self.recipe, self.processes.count
        batch_size = recipe.split_rows(recipe.batch_size)[index]
        got = f"batch_size: got {recipe.batch_size}"
        if recipe.auxiliary:
            got += f", of which {batch_size} rows are of {file.path}"
        if batch_size % processes:
            raise UserError(f"{got}, expected a multiple of {processes} processes")
        samples = len(self._train_indices(file, split))
        if not samples:
            raise UserError(f"{file.path}: no images to train on in its split {split!r}")
        if batch_size > samples:
            raise UserError(f"{got}, expected at most {samples} samples")
        micro_batch = recipe.split_rows(recipe.micro_batch or recipe.batch_size // processes)[index]
        for stage in recipe.stages:
            stage.mixing.check(batch_size // processes)
            stage.mixing.check(micro_batch)

    @property
    def batches_per_epoch(self) -> int:
        """The number of batches in an epoch of the main dataset."""
        indices = self._train_indices(self.file, self.learn_from)
        samples = len(indices)
        if self.recipe.balanced_sampling:
            samples = balanced_size(self._labels, indices)
        return samples // self.recipe.split_rows(self.recipe.batch_size)[0]

    def class_weights(self) -> Tensor | None:
        """Return the factor of the loss of each class, on the device, None if all are 1."""
        if not self.recipe.class_weights:
            return None
        labels = self._labels[self._train_indices(self.file, self.learn_from)]
        counts = np.bincount(labels, minlength=len(self.file.info["classes"]))
        return balanced_weights(counts.tolist()).to(self.processes.device)

    def view(self, stage: Stage) -> View:
        """Return what the network sees of a page in a stage."""
        return View.of(self.file, stage.size, self.recipe.window, normalize=self.recipe.normalize)

    def train_loader(self, stage: Stage) -> TrainLoader:
        """Open the loader of a stage's training batches."""
        main = self._train_loader(self.file, self.learn_from, stage, 0)
        if not self.recipe.auxiliary:
            return main
        assert self.auxiliary is not None
        auxiliary = self._train_loader(self.auxiliary, "all", stage, 1)
        return CombinedLoader(main, auxiliary, len(self.file))

    def validation_loader(self, stage: Stage) -> AbstractContextManager[DeviceLoader | None]:
        """Open the loader of the validation samples, None if there are none."""
        return self._eval_loader(self.validate_on, stage)

    def test_loader(self, stage: Stage) -> AbstractContextManager[DeviceLoader | None]:
        """Open the loader of the test samples, None if there are none."""
        return self._eval_loader("test", stage)

    def check_until(self, accuracy: float | None) -> None:
        """Raise UserError for a validation accuracy that cannot end a training."""
        if accuracy is None:
            return
        check_range("until", accuracy, 1e-6, 1)
        if not len(split_indices(self.file, self.validate_on)):
            raise UserError(
                f"until: {self.file.path} has no images in its split {self.validate_on!r}, whose "
                "accuracy would end the training"
            )

    @property
    def _labels(self) -> Ids:
        """The labels of all samples of the main dataset: int64 (n,)."""
        return np.asarray(self.file.column("label").metadata)

    def _eval_loader(self, split: str, stage: Stage) -> AbstractContextManager[DeviceLoader | None]:
        indices = split_indices(self.file, split, self.recipe.validation_images)
        if not len(indices):
            return nullcontext()
        view = self.view(stage)
        batch_size = eval_batch_size(view) * self.processes.count
        return self._loader(self.file, indices, view, batch_size)

    def _train_indices(self, file: Reader, split: str) -> Ids:
        limit = self.recipe.train_images if file is self.file else None
        return split_indices(file, split, limit)

    def _view_of(self, file: Reader, stage: Stage) -> View:
        view = self.view(stage)
        return view if file is self.file else view.on(file, self.recipe.window)

    def _train_loader(self, file: Reader, split: str, stage: Stage, index: int) -> DeviceLoader:
        recipe = self.recipe
        return self._loader(
            file,
            self._train_indices(file, split),
            self._view_of(file, stage),
            recipe.split_rows(recipe.batch_size)[index],
            None if recipe.micro_batch is None else recipe.split_rows(recipe.micro_batch)[index],
            stage.augmentation,
            stage.image_augmentation,
            balanced=recipe.balanced_sampling,
        )

    def _loader(
        self,
        file: Reader,
        indices: Ids,
        view: View,
        batch_size: int,
        micro_batch: int | None = None,
        augmentation: Augmentation | None = None,
        image_augmentation: ImageAugmentation | None = None,
        balanced: bool = False,
    ) -> DeviceLoader:
        make: MakeLoader = ResidentLoader if self.recipe.resident else DeviceLoader
        if augmentation is not None and self.make_loader is not None:
            make = self.make_loader
        return make(
            file,
            indices,
            view,
            batch_size,
            device=self.processes.device,
            micro_batch=micro_batch,
            scales=self._scales if file is self.file else self._auxiliary_scales,
            decode=self.decode,
            augmentation=augmentation,
            image_augmentation=image_augmentation,
            balanced=balanced,
            seed=self.recipe.seed,
            shard=Shard(self.processes.rank, self.processes.count),
        )

    @cached_property
    def _scales(self) -> Floats | None:
        return self._scales_of(self.file)

    @cached_property
    def _auxiliary_scales(self) -> Floats | None:
        return None if self.auxiliary is None else self._scales_of(self.auxiliary)

    def _scales_of(self, file: Reader) -> Floats | None:
        if not self.recipe.hand:
            return None
        view = self._view_of(file, self.recipe.stages[0])
        return writer_scales(file, self.recipe.hand, view.proportion)

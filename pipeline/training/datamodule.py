"""The data of a training: loaders of its training batches and its validation samples.

The global batch is fixed: any number of processes see the same samples.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property

import torch

from beton.order import Shard
from beton.reader import Reader
from pipeline.errors import UserError
from pipeline.loading.augment import Augmentation
from pipeline.loading.batches import Decode, DeviceLoader
from pipeline.loading.combined import CombinedLoader
from pipeline.loading.dataset import Floats, View, eval_batch_size, split_indices
from pipeline.loading.writer_scale import writer_scales
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.training.distributed import Processes

TrainLoader = DeviceLoader | CombinedLoader


@dataclass(frozen=True)
class DataModule:
    """Loaders of a recipe's batches on a device, for one of several processes.

    Training uses the samples of `file` in the splits `learn_from` and, if the recipe uses an
    auxiliary dataset, all samples of `auxiliary`. Validation uses the split `validate_on` of
    `file`. Raises UserError for a recipe that does not suit the files or the number of processes.
    """

    recipe: Recipe
    file: Reader
    learn_from: str
    validate_on: str
    auxiliary: Reader | None
    decode: Decode
    device: torch.device
    shard: Shard

    @classmethod
    def of(
        cls,
        processes: Processes,
        recipe: Recipe,
        file: Reader,
        learn_from: str = "train",
        validate_on: str = "validation",
        auxiliary: Reader | None = None,
        decode: Decode = "auto",
    ) -> "DataModule":
        """Return the data module of this process."""
        shard = Shard(processes.rank, processes.count)
        return cls(
            recipe, file, learn_from, validate_on, auxiliary, decode, processes.device, shard
        )

    def __post_init__(self) -> None:
        classes = self.file.info["classes"]
        for stage in self.recipe.stages:
            stage.loss.check(len(classes))
        if self.recipe.auxiliary:
            if self.auxiliary is None:
                raise UserError("auxiliary: got no dataset, expected one: the recipe trains on two")
            if (others := self.auxiliary.info["classes"]) != classes:
                raise UserError(
                    f"auxiliary: {self.auxiliary.path} has the classes {', '.join(others)}; "
                    f"expected those of {self.file.path}: {', '.join(classes)}"
                )
        for index in range(len(self._datasets)):
            self._check_batch_size(index)

    @property
    def _datasets(self) -> list[tuple[Reader, str]]:
        """The main dataset and, if the recipe uses it, the auxiliary one, with training splits."""
        datasets = [(self.file, self.learn_from)]
        if self.recipe.auxiliary:
            assert self.auxiliary is not None
            datasets.append((self.auxiliary, "all"))
        return datasets

    def _check_batch_size(self, index: int) -> None:
        recipe, processes = self.recipe, self.shard.count
        file, split = self._datasets[index]
        batch_size = recipe.split_rows(recipe.batch_size)[index]
        got = f"batch_size: got {recipe.batch_size}"
        if recipe.auxiliary:
            got += f", of which {batch_size} rows are of {file.path}"
        if batch_size % processes:
            raise UserError(f"{got}, expected a multiple of {processes} processes")
        samples = len(split_indices(file, split))
        if batch_size > samples:
            raise UserError(f"{got}, expected at most {samples} samples")
        micro_batch = recipe.split_rows(recipe.micro_batch or recipe.batch_size // processes)[index]
        for stage in recipe.stages:
            stage.mixing.check(batch_size // processes)
            stage.mixing.check(micro_batch)

    @property
    def batches_per_epoch(self) -> int:
        """The number of batches in an epoch, which is one of the main dataset."""
        samples = len(split_indices(self.file, self.learn_from))
        return samples // self.recipe.split_rows(self.recipe.batch_size)[0]

    def view(self, stage: Stage) -> View:
        """Return what the network sees of a page in a stage."""
        return View.of(self.file, stage.size, self.recipe.window)

    def train_loader(self, stage: Stage) -> TrainLoader:
        """Open the loader of a stage's training batches."""
        main, *auxiliary = (self._train_loader(stage, n) for n in range(len(self._datasets)))
        return CombinedLoader(main, auxiliary[0], len(self.file)) if auxiliary else main

    def validation_loader(self, stage: Stage) -> AbstractContextManager[DeviceLoader | None]:
        """Open the loader of the validation samples, None if there are none."""
        if not len(split_indices(self.file, self.validate_on)):
            return nullcontext()
        view = self.view(stage)
        batch_size = eval_batch_size(view) * self.shard.count
        return self._loader(0, self.validate_on, view, batch_size)

    def _train_loader(self, stage: Stage, index: int) -> DeviceLoader:
        recipe = self.recipe
        file, split = self._datasets[index]
        return self._loader(
            index,
            split,
            View.of(file, stage.size, recipe.window),
            recipe.split_rows(recipe.batch_size)[index],
            None if recipe.micro_batch is None else recipe.split_rows(recipe.micro_batch)[index],
            stage.augmentation,
        )

    def _loader(
        self,
        index: int,
        split: str,
        view: View,
        batch_size: int,
        micro_batch: int | None = None,
        augmentation: Augmentation | None = None,
    ) -> DeviceLoader:
        file, _ = self._datasets[index]
        return DeviceLoader(
            file,
            split_indices(file, split),
            view,
            batch_size,
            device=self.device,
            micro_batch=micro_batch,
            scales=self._scales[index],
            decode=self.decode,
            augmentation=augmentation,
            seed=self.recipe.seed,
            shard=self.shard,
        )

    @cached_property
    def _scales(self) -> list[Floats | None]:
        """The scales of both datasets' pages, None where the recipe leaves them as they are."""
        hand = self.recipe.hand
        return [writer_scales(file, hand) if hand else None for file, _ in self._datasets]

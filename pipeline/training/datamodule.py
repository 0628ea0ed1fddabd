"""What a training learns from and is validated on: one file, or two blended, as feeds.

The global batch is fixed: however many processes share it, they see the same samples.
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


@dataclass(frozen=True)
class DataModule:
    """Feeds of a recipe on a device, for one of several processes.

    It learns from the samples of `file` in the splits `learn_from` and, if the recipe wants some,
    from all of `auxiliary`; it is validated on the split `validate_on` of `file`. Raises UserError
    for a recipe that does not suit the files or the number of processes.
    """

    recipe: Recipe
    file: Reader
    learn_from: str
    validate_on: str
    auxiliary: Reader | None
    decode: Decode
    device: torch.device
    shard: Shard

    def __post_init__(self) -> None:
        recipe, classes = self.recipe, self.file.info["classes"]
        for stage in recipe.stages:
            stage.loss.check(len(classes))
        self._check(self.file, self.learn_from, 0)
        if not recipe.auxiliary:
            return
        if self.auxiliary is None:
            raise UserError("auxiliary: got no set, expected one: the recipe learns from two")
        if (others := self.auxiliary.info["classes"]) != classes:
            raise UserError(
                f"auxiliary: {self.auxiliary.path} has the classes {', '.join(others)}; expected "
                f"those of {self.file.path}: {', '.join(classes)}"
            )
        self._check(self.auxiliary, "all", 1)

    def _check(self, file: Reader, split: str, place: int) -> None:
        batch, processes = self.recipe.split_rows(self.recipe.batch_size)[place], self.shard.count
        got = f"batch_size: got {self.recipe.batch_size}"
        if self.recipe.auxiliary:
            got += f", of which {batch} rows are of {file.path}"
        if batch % processes:
            raise UserError(f"{got}, expected a multiple of {processes} processes")
        samples = len(split_indices(file, split))
        if batch > samples:
            raise UserError(f"{got}, expected at most {samples}, all there is")
        rows = self.recipe.split_rows(
            self.recipe.micro_batch or self.recipe.batch_size // processes
        )
        for stage in self.recipe.stages:
            stage.mixing.check(batch // processes)
            stage.mixing.check(rows[place])

    @property
    def batches(self) -> int:
        """The number of batches of an epoch."""
        learned = len(split_indices(self.file, self.learn_from))
        return learned // self.recipe.split_rows(self.recipe.batch_size)[0]

    def view(self, stage: Stage) -> View:
        """Return what the network sees of a page in a stage."""
        return View.of(self.file, stage.size, self.recipe.window)

    def training(self, stage: Stage) -> DeviceLoader | CombinedLoader:
        """Open what a stage learns from."""
        main = self._learning(self.file, self.learn_from, stage, 0)
        if not self.recipe.auxiliary:
            return main
        assert self.auxiliary is not None
        return CombinedLoader(main, self._learning(self.auxiliary, "all", stage, 1), len(self.file))

    def held_out(self, stage: Stage) -> AbstractContextManager[DeviceLoader | None]:
        """Open what a stage is validated on, None if there is nothing."""
        if not len(split_indices(self.file, self.validate_on)):
            return nullcontext()
        view = self.view(stage)
        return self._feed(
            self.file, self.validate_on, view, eval_batch_size(view) * self.shard.count
        )

    def _learning(self, file: Reader, split: str, stage: Stage, place: int) -> DeviceLoader:
        recipe = self.recipe
        return self._feed(
            file,
            split,
            View.of(file, stage.size, recipe.window),
            recipe.split_rows(recipe.batch_size)[place],
            None if recipe.micro_batch is None else recipe.split_rows(recipe.micro_batch)[place],
            stage.augmentation,
        )

    def _feed(
        self,
        file: Reader,
        split: str,
        view: View,
        batch_size: int,
        rows: int | None = None,
        augmentation: Augmentation | None = None,
    ) -> DeviceLoader:
        return DeviceLoader(
            file,
            split_indices(file, split),
            view,
            batch_size,
            device=self.device,
            micro_batch=rows,
            scales=self._scales if file is self.file else self._auxiliary_scales,
            decode=self.decode,
            augmentation=augmentation,
            seed=self.recipe.seed,
            shard=self.shard,
        )

    @cached_property
    def _scales(self) -> Floats | None:
        return writer_scales(self.file, self.recipe.hand) if self.recipe.hand else None

    @cached_property
    def _auxiliary_scales(self) -> Floats | None:
        if self.auxiliary is None or not self.recipe.hand:
            return None
        return writer_scales(self.auxiliary, self.recipe.hand)

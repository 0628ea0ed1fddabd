"""Training images/s of recipes with each decode, and of a loop without the training engine."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor, nn

from beton.reader import Reader
from pipeline.benchmarks.device.results import BARE, TrainingFigures
from pipeline.benchmarks.device.timing import peak_memory, reset_peak_memory, synchronize
from pipeline.benchmarks.harness import take_turns
from pipeline.data.prepare import prepare
from pipeline.data.synth.garments import SyntheticGarments
from pipeline.data.synth.source import ImageCounts
from pipeline.loading.augment import transform_images
from pipeline.loading.batches import Decode, DeviceLoader
from pipeline.loading.dataset import View, open_dataset, split_indices
from pipeline.models import networks
from pipeline.recipes.fashion_presets import FASHION
from pipeline.recipes.presets import PART1, Preset
from pipeline.recipes.recipe import Recipe
from pipeline.runtime.hardware import autocast
from pipeline.training import optim
from pipeline.training.distributed import Processes
from pipeline.training.trainer import Trainer

PRESETS = {**PART1, "fashion": FASHION["fast"]}
ON_A_CPU = ("fast", "accurate", "fashion")  # a step of the others takes a minute there
VALIDATED = 32  # images; the validation is not part of the time


class Turn(NamedTuple):
    """One turn of a method: images/s, the fraction of waiting, and peak bytes of the device."""

    rate: float
    loader_share: float | None
    peak: int | None


@dataclass(frozen=True)
class Training:
    """The first stage of a recipe on a file, for about `steps` steps."""

    processes: Processes
    name: str
    file: Reader
    steps: int

    @property
    def preset(self) -> Preset:
        """The recipe's preset."""
        return PRESETS[self.name]

    @property
    def recipe(self) -> Recipe:
        """The recipe to measure: one dataset, each page at its own scale."""
        full = self.preset.recipe
        samples = len(split_indices(self.file, "train"))
        batch_size = min(full.batch_size, samples)
        batches = min(self.steps, samples // batch_size)
        return replace(
            full,
            stages=(replace(full.stages[0], epochs=max(round(self.steps / batches), 1)),),
            batch_size=batch_size,
            hand=0.0,
            auxiliary=0.0,
            train_images=batches * batch_size,
            validation_images=VALIDATED,
        )

    def network(self) -> nn.Module:
        """Return a network with random weights."""
        shape = View.of(self.file, self.recipe.stages[0].size, self.recipe.window).input_shape
        classes = len(self.file.info["classes"])
        return networks.build(self.preset.network, classes, 0, shape)

    def engine(self, decode: Decode) -> Turn:
        """Train by the engine."""
        device = self.processes.device
        reset_peak_memory(device)
        trainer = Trainer(self.processes, self.network(), self.recipe, self.file, decode=decode)
        trainer.run()
        found = trainer.performance()
        return Turn(found["images_per_second"], found["loader_share"], peak_memory(device))

    def bare(self) -> Turn:
        """Train the same network by a plain loop on canvases in memory."""
        device, recipe = self.processes.device, self.recipe
        ids = split_indices(self.file, "train", recipe.train_images)
        view = replace(View.of(self.file, recipe.stages[0].size, recipe.window), whole=True)
        reset_peak_memory(device)
        with DeviceLoader(self.file, ids, view, len(ids), device=device) as loader:
            (batch,) = loader.micro_batches()
            canvases, labels = batch.images, batch.labels.clone()
        network = self.network().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        seconds, images = bare_loop(network, recipe, canvases, labels, self.processes.precision)
        return Turn(images / seconds, None, peak_memory(device))


def bare_loop(
    network: nn.Module, recipe: Recipe, canvases: Tensor, labels: Tensor, precision: str
) -> tuple[float, int]:
    """Train on canvases (n, 1, h, w) and labels (n,); return the seconds and number of images.

    It has the recipe's augmentations and optimizer, but no loader, validation, log or checks.
    """
    (stage,) = recipe.stages
    optimizer = optim.build(network, stage)
    batches = len(labels) // recipe.batch_size
    steps = stage.epochs * batches
    network.train()
    synchronize(labels.device)
    start = time.perf_counter()
    for step in range(steps):
        if step % batches == 0:
            order = torch.randperm(len(labels))
        optim.set_lr(optimizer, optim.stage_lr_factor(stage, step, steps))
        first = step % batches * recipe.batch_size
        rows = order[first : first + recipe.batch_size]
        transforms = stage.augmentation.sample(recipe.seed, 0, rows.numpy())
        parts = {name: part.to(labels.device) for name, part in transforms.parts().items()}
        rows = rows.to(labels.device)
        images = transform_images(canvases[rows], transforms._replace(**parts), stage.size)
        with autocast(labels.device, precision):
            logits = network(images)
        loss = stage.loss.per_sample(logits.float(), labels[rows]).mean()
        torch.autograd.backward(loss)
        with autocast(labels.device, precision):
            optimizer.step()
        optimizer.zero_grad()
    synchronize(labels.device)
    return time.perf_counter() - start, steps * recipe.batch_size


def write_garments(count: int, path: Path) -> Path:
    """Write a dataset of synthetic garments for the recipe "fashion"; return its path."""
    prepare(SyntheticGarments(ImageCounts(count, 100)), path)
    return path


def measure(training: Training, rounds: int) -> Iterator[TrainingFigures]:
    """Train a recipe with each decode in turns, after a warm-up of each."""
    tasks: dict[str, Callable[[], Turn]] = {
        decode: partial(training.engine, decode) for decode in ("loader", "device")
    }
    if training.name == "fast":
        tasks[BARE] = training.bare
    for task in tasks.values():
        task()
    turns = take_turns(tasks, rounds)
    reference = tuple(turn.rate for turn in turns["loader"])
    for method, own in turns.items():
        shares = [turn.loader_share for turn in own if turn.loader_share is not None]
        peaks = [turn.peak for turn in own if turn.peak is not None]
        yield TrainingFigures(
            training.name,
            training.preset.network,
            training.recipe.stages[0].size,
            method,
            tuple(turn.rate for turn in own),
            reference,
            median(shares) if shares else None,
            max(peaks, default=None),
        )


def measure_all(
    processes: Processes,
    names: Sequence[str],
    pages: Reader,
    scratch: Path,
    steps: int,
    rounds: int,
) -> Iterator[TrainingFigures]:
    """Measure recipes by name; "fashion" trains on synthetic garments."""
    for name in names:
        if name != "fashion":
            yield from measure(Training(processes, name, pages, steps), rounds)
            continue
        path = write_garments(20 * FASHION["fast"].recipe.batch_size, scratch / "garments.beton")
        with open_dataset(path) as garments:
            yield from measure(Training(processes, name, garments, steps), rounds)

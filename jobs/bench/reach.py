"""Time to a given accuracy: part 1's recipe `fast` against the published solution.

    ./launch.sh bench reach                              synthetic pages
    ./launch.sh bench reach --source trainPart1.zip      real pages

Both train on the same pages, `fast` on auxiliary pages as well, and are validated on the same
held-out writers. `fast` runs in the engine, with all its epochs. The published solution's first
stage (ResNet-18, 224×224, its own schedule and augmentations) gets its images as people usually do
it, from a DataLoader that decodes PNG files with Pillow. It runs for at most --times the time of
`fast` to the accuracy. It uses the engine's networks, optimizers, augmentations and precision, so
only recipe and loading differ.
"""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import math
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from beton.reader import Reader
from pipeline.analysis.stats import first_reached
from pipeline.benchmarks import trainings
from pipeline.benchmarks.harness import table
from pipeline.data.catalog import AUXILIARY, SyntheticData
from pipeline.data.prepare import prepare
from pipeline.data.sources import Source, open_source
from pipeline.data.splits import Split
from pipeline.data.synth.export import save_pages
from pipeline.evaluation.predict import predict
from pipeline.evaluation.run_config import TrainingConfig
from pipeline.experiments import command
from pipeline.loading.augment import Transforms, transform_images
from pipeline.loading.dataset import open_dataset, paper_greys, source_line, split_indices
from pipeline.models import networks
from pipeline.recipes.presets import PART1, PART1_PUBLISHED, override
from pipeline.reporting.common import percent
from pipeline.runtime.hardware import machine
from pipeline.runtime.progress import progress
from pipeline.training import optim
from pipeline.training.datamodule import DataModule
from pipeline.training.distributed import Processes, join_processes

WORKERS = 2  # of the DataLoader


@dataclass(frozen=True)
class Config:
    """Measure the time to a given accuracy."""

    source: Path | None = None
    """Pages in the layout of MIDAS part 1. Default: synthetic pages."""
    writers: int = 40
    """Writers of the synthetic pages."""
    auxiliary_writers: int = 200
    """Writers of the auxiliary synthetic pages of `fast`."""
    held_out: int = 4
    """Writers to validate on."""
    accuracy: float = 0.85
    """Validation accuracy to reach."""
    times: float = 20
    """Time limit of the published solution, in multiples of the time of `fast`."""
    epochs: int | None = None
    """Epochs of `fast`. Default: the recipe's."""
    size: int | None = None
    """Image size of the published solution, in pixels. Default: its first stage's."""
    seed: int = 0
    """Of the pages, held-out writers, weights, order and augmentations."""


def png_files(source: Source, folder: Path, console: Console) -> list[Path]:
    """Return the PNG files of a source's pages, in its order; write or unpack them to `folder`."""
    if source.path.is_dir():
        folder = source.path
    elif source.origin == "synthetic":
        with progress(console, "PNG files", len(source)) as advance:
            save_pages(source, folder, advance)
    else:
        shutil.unpack_archive(source.path, folder, "zip")
    return [folder / source.name(index) for index in range(len(source))]


@dataclass(frozen=True)
class Outcome:
    """Figures of a training.

    `epochs` are those of its schedule, `images` those it trained on. `seconds` are training time,
    of which it spent the fraction `loader_share` waiting for its loader. `accuracy` is the last
    one. `reached` is the training time to the accuracy of the config, None if it was not reached.
    """

    loader: str
    network: str
    size: int
    epochs: int
    images_per_epoch: int
    images: int
    seconds: float
    loader_share: float
    accuracy: float
    reached: float | None

    @property
    def seconds_per_epoch(self) -> float:
        """The mean time of an epoch."""
        return self.seconds * self.images_per_epoch / self.images

    def figures(self, accuracy: float) -> dict[str, str]:
        """Return the figures by name, formatted; `accuracy` is that of the config."""
        reached = f"{self.reached:,.1f}" if self.reached else "not reached"
        return {
            "loader": self.loader,
            "network, image size": f"{self.network}, {self.size}",
            "images/s": f"{self.images / self.seconds:,.0f}",
            "waiting for the loader": percent(self.loader_share, 1),
            "seconds per epoch": f"{self.seconds_per_epoch:,.1f}",
            "epochs of the schedule": f"{self.epochs}",
            "epochs trained": f"{self.images / self.images_per_epoch:.2f}",
            "training time (s)": f"{self.seconds:,.0f}",
            "last accuracy": percent(self.accuracy, 1),
            f"time to {percent(accuracy, 0)} accuracy (s)": reached,
        }


class Published:
    """Training by the first stage of `progressive` on PNG files, one file per sample of `file`."""

    def __init__(
        self, processes: Processes, config: Config, file: Reader, files: Sequence[Path]
    ) -> None:
        preset = PART1["progressive"]
        recipe = replace(preset.recipe, stages=preset.recipe.stages[:1])
        self._recipe = override(recipe, size=config.size, seed=config.seed)
        (self._stage,) = self._recipe.stages
        self._processes, self._steps = processes, 0
        self._seconds = self._seconds_waited = 0.0
        self._data = DataModule(processes, self._recipe, file)  # for validation
        self._batches = self._data.batches_per_epoch
        canvas = self._data.view(self._stage).canvas
        pages = trainings.PillowPages(files, canvas, Image.Resampling.BOX)
        self._loader: DataLoader[Any] = DataLoader(
            Subset(pages, split_indices(file, "train").tolist()),
            self._recipe.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=WORKERS,
            persistent_workers=True,  # restarting them every epoch would take time
            generator=torch.Generator().manual_seed(config.seed),
        )
        self._labels = torch.from_numpy(file.column("label").metadata.astype(np.int64))
        self._papers = torch.from_numpy(paper_greys(file))
        network = networks.build(preset.network, len(file.info["classes"]), config.seed)
        self._network = network.to(processes.device).to(memory_format=torch.channels_last)
        self._optimizer = optim.build(self._network, self._stage)

    def run(self, accuracy: float, limit: float, console: Console) -> Outcome:
        """Train until an epoch ends at `accuracy` or above, or for `limit` seconds."""
        for epoch in range(self._stage.epochs):
            label = f"published, epoch {epoch + 1} of {self._stage.epochs}"
            with progress(console, label, self._batches * self._recipe.batch_size) as advance:
                loss = self._train_epoch(epoch, limit, advance)
            with self._data.validation_loader(self._stage) as loader:
                assert loader is not None
                reached = predict(self._network, loader, self._processes.precision).accuracy
            console.print(
                f"{label}: loss {loss:.3f}, validation: accuracy {reached:.2%} "
                f"({self._seconds:.1f} s of at most {limit:.1f} s)"
            )
            if reached >= accuracy or self._seconds >= limit:
                break
        return Outcome(
            f"DataLoader ({WORKERS} workers), Pillow",
            PART1["progressive"].network,
            self._stage.size,
            self._stage.epochs,
            self._batches * self._recipe.batch_size,
            self._steps * self._recipe.batch_size,
            self._seconds,
            self._seconds_waited / self._seconds,
            reached,
            self._seconds if reached >= accuracy else None,
        )

    def _train_epoch(self, epoch: int, limit: float, advance: Callable[[int], None]) -> float:
        """Train for an epoch, or until the time limit; return the mean loss."""
        stage, before = self._stage, self._seconds
        losses: list[float] = []
        start = now = time.perf_counter()
        batches = iter(self._loader)
        while len(losses) < self._batches and self._seconds < limit:
            pages, ids = next(batches)
            self._seconds_waited += time.perf_counter() - now
            steps = stage.epochs * self._batches
            factor = optim.stage_lr_factor(stage, self._steps, steps)
            optim.set_lr(self._optimizer, factor)
            losses.append(self._backward(epoch, ids, pages))
            nn.utils.clip_grad_norm_(self._network.parameters(), stage.clip or math.inf)
            self._optimizer.step()
            self._optimizer.zero_grad()
            self._steps += 1
            advance(len(ids))
            now = time.perf_counter()
            self._seconds = before + now - start
        return sum(losses) / len(losses)

    def _backward(self, epoch: int, ids: Tensor, pages: Tensor) -> float:
        """Accumulate the gradients of a batch over its micro-batches; return the batch's loss."""
        stage, device = self._stage, self._processes.device
        step = self._recipe.micro_batch or len(ids)
        transforms = stage.augmentation.sample(self._recipe.seed, epoch, ids.numpy())
        transforms = Transforms(**{n: part.to(device) for n, part in transforms.parts().items()})
        total = 0.0
        for start in range(0, len(ids), step):
            rows = slice(start, start + step)
            papers = self._papers[ids[rows]].float().view(-1, 1, 1, 1)
            ink = pages[rows, None].float().sub_(papers).abs_().div_(255).to(device)
            images = transform_images(ink, transforms.select(rows), stage.size)
            with torch.autocast(device.type, torch.bfloat16, self._processes.precision == "bf16"):
                logits = self._network(images)
            labels = self._labels[ids[rows]].to(device)
            loss = stage.loss.per_sample(logits, labels).sum() / len(ids)
            torch.autograd.backward(loss)
            total += loss.item()
        return total


def run_fast(
    processes: Processes, config: Config, file: Reader, folder: Path, console: Console
) -> Outcome:
    """Train by `fast` to its end; `folder` holds the auxiliary dataset and gets the run."""
    preset = PART1["fast"]
    recipe = override(preset.recipe, epochs=config.epochs, seed=config.seed)
    training = TrainingConfig(preset.network, recipe, auxiliary=folder / "auxiliary.beton")
    run = trainings.train(processes, folder / "run", training, file, console, "fast")
    accuracies = [epoch.accuracy or 0.0 for epoch in run.history]
    return Outcome(
        "inkrun",
        preset.network,
        recipe.stages[-1].size,
        recipe.epochs,
        run.result.images // recipe.epochs,
        run.result.images,
        run.result.seconds_training,
        run.result.loader_share,
        accuracies[-1],
        first_reached([epoch.seconds for epoch in run.history], accuracies, config.accuracy),
    )


def closing_table(fast: Outcome, published: Outcome, accuracy: float) -> Table:
    """Return the figures of both trainings, in Markdown."""
    others = published.figures(accuracy)
    rows = [(name, figure, others[name]) for name, figure in fast.figures(accuracy).items()]
    headings = ["", "`fast`", "published, first stage"]
    return table(headings, rows, "lrr", style=box.MARKDOWN)


def conclusion(fast: Outcome, published: Outcome, accuracy: float) -> str:
    """Return the ratio of the times to an accuracy, in words. `fast` must have reached it."""
    assert fast.reached is not None
    start = f"To {percent(accuracy, 0)} accuracy, the published solution takes"
    if published.reached is not None:
        return f"{start} {published.reached / fast.reached:.1f} times as long."
    whole = published.seconds_per_epoch * published.epochs
    return (
        f"{start} more than {published.seconds / fast.reached:.1f} times as long. At this speed, "
        f"its first stage of {published.epochs} epochs, with a published accuracy of "
        f"{percent(PART1_PUBLISHED[0], 1)} on the original data, would take {whole:,.0f} s: "
        f"{whole / fast.reached:,.0f} times as long."
    )


def main(config: Config) -> None:
    """Run the benchmark and print its table."""
    console = Console(width=110, highlight=False)
    if config.times <= 0:
        raise SystemExit(f"bench: times: got {config.times}, expected more than 0")
    synthetic = SyntheticData(config.writers, config.auxiliary_writers, seed=config.seed)
    source = open_source(config.source) if config.source else synthetic.source("part1")
    with tempfile.TemporaryDirectory() as name, join_processes() as processes:
        folder = Path(name)
        with progress(console, "pages", len(source)) as advance:
            split = Split(writers=config.held_out)
            prepare(source, folder / "set.beton", split=split, seed=config.seed, progress=advance)
        prepare(synthetic.source(AUXILIARY), folder / "auxiliary.beton")
        files = png_files(source, folder / "png", console)
        with open_dataset(folder / "set.beton") as file:
            train, validation = (len(split_indices(file, s)) for s in ("train", "validation"))
            title = (
                f"{machine()}; {source_line(file.info['provenance'])}; {train:,} training pages, "
                f"{validation:,} validation pages of {config.held_out} other writers; precision: "
                f"{processes.precision}. `fast` also trains on synthetic pages of "
                f"{config.auxiliary_writers} more writers."
            )
            console.print(title)
            fast = run_fast(processes, config, file, folder, console)
            if fast.reached is None:
                raise SystemExit(
                    f"bench: accuracy: got {percent(fast.accuracy, 1)} from `fast` in the end, "
                    f"expected {percent(config.accuracy, 0)} after some epoch"
                )
            limit = config.times * fast.reached
            published = Published(processes, config, file, files).run(
                config.accuracy, limit, console
            )
    console.print(f"\n{title}")
    console.print(closing_table(fast, published, config.accuracy))
    console.print(conclusion(fast, published, config.accuracy))


if __name__ == "__main__":
    sys.exit(command.main("bench reach", Config, main))

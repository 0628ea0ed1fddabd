"""How soon a good accuracy is reached: part 1's recipe `fast` against the published solution.

    ./launch.sh bench reach                              synthetic pages
    ./launch.sh bench reach --source trainPart1.zip      real ones

Both learn from the same pages, `fast` from its auxiliary ones besides, and are validated on the
same held-out writers. `fast` trains through the engine, to its end. The published solution's first
stage (ResNet-18, 224×224, its own schedule and changes of pictures) is fed as people do it, by a
DataLoader over Pillow, which decodes the PNG files; it is given so many times the seconds that
`fast` took to the accuracy. Its network, optimizer, changes and precision are the engine's own, so
that recipe and feeding are all that differs.
"""

import math
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from beton.reader import Reader
from pipeline.analysis.stats import first_reached
from pipeline.data.catalog import AUXILIARY, SyntheticData
from pipeline.data.prepare import prepare
from pipeline.data.sources import Source, open_source
from pipeline.data.splits import Split
from pipeline.evaluation.predict import predict
from pipeline.evaluation.run_config import TrainingConfig
from pipeline.evaluation.run_dir import RunDir
from pipeline.loading.augment import Transforms, transform_images
from pipeline.loading.dataset import Ids, open_dataset, source_line, split_indices
from pipeline.models import networks
from pipeline.recipes.presets import PART1, override
from pipeline.recipes.recipe import Recipe
from pipeline.reporting.part1 import PUBLISHED
from pipeline.runtime.hardware import machine
from pipeline.runtime.progress import progress
from pipeline.training import optim
from pipeline.training.distributed import Processes, join_processes
from pipeline.training.runner import run_training, write_config
from pipeline.training.trainer import data_module

WORKERS = 2  # of the DataLoader


@dataclass(frozen=True)
class Config:
    """Measure how soon a good accuracy is reached."""

    source: Path | None = None
    """Pages in the shape of MIDAS part 1. By default, synthetic ones are drawn."""
    writers: int = 40
    """Of the synthetic pages."""
    auxiliary_writers: int = 200
    """Of the synthetic pages that `fast` learns from besides."""
    held_out: int = 4
    """Writers to validate on."""
    accuracy: float = 0.85
    """To be reached on these."""
    times: float = 20
    """How much longer than `fast` the published solution may try."""
    epochs: int | None = None
    """Of `fast`. By default, the recipe's."""
    size: int | None = None
    """Side in pixels of what the published network sees. By default, its first stage's."""
    seed: int = 0
    """Of the pages, the writers held out, weights, order and changes."""


def png_files(source: Source, folder: Path, console: Console) -> list[Path]:
    """Return the PNG files of a source's pages in its order: drawn or unpacked into `folder`."""
    root = source.path if source.path.is_dir() else folder
    files = [root / source.name(index) for index in range(len(source))]
    if source.origin == "synthetic":
        with progress(console, "PNG files", len(files)) as advance:
            for index, path in enumerate(files):
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(source.image(index)).save(path)
                advance(1)
    elif root == folder:
        with zipfile.ZipFile(source.path) as archive:
            archive.extractall(folder)
    return files


class PillowPages(Dataset[tuple[int, Tensor]]):
    """The samples `ids` of a file, decoded from their PNG files: (id, uint8 (height, width)).

    They are resized to the `canvas` of a view by a box filter: area averages, as the engine's are,
    but for pixels that straddle a border.
    """

    def __init__(self, files: Sequence[Path], ids: Ids, canvas: tuple[int, int]) -> None:
        self._files, self._ids, self._canvas = files, ids, canvas

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        number = int(self._ids[index])
        height, width = self._canvas
        with Image.open(self._files[number]) as image:
            page = image.convert("L").resize((width, height), Image.Resampling.BOX)
        return number, torch.from_numpy(np.array(page))


@dataclass(frozen=True)
class Outcome:
    """What a training came to; `epochs` are all of its schedule, `images` those learned from.

    `accuracy` is the last one. `reached` are the seconds of training until the accuracy that was
    wanted was there, None if it never was.
    """

    network: str
    size: int
    epochs: int
    images_an_epoch: int
    images: int
    seconds: float
    loader_share: float
    accuracy: float
    reached: float | None

    @property
    def seconds_an_epoch(self) -> float:
        """The mean, of what was trained."""
        return self.seconds * self.images_an_epoch / self.images


class Published:
    """The first stage of a recipe, to be trained on PNG files; `files` are the file's samples'."""

    def __init__(
        self,
        processes: Processes,
        network: nn.Module,
        recipe: Recipe,
        file: Reader,
        files: Sequence[Path],
    ) -> None:
        self.stage = recipe.stages[0]
        self.seconds = self.seconds_waited = 0.0
        self.steps = 0
        self._processes, self._recipe = processes, recipe
        self._supply = data_module(processes, recipe, file)  # of what it is validated on
        self.batches = self._supply.batches
        self._loader: DataLoader[Any] = DataLoader(
            PillowPages(files, split_indices(file, "train"), self._supply.view(self.stage).canvas),
            recipe.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=WORKERS,
            persistent_workers=True,  # starting them anew for every epoch would cost time
            generator=torch.Generator().manual_seed(recipe.seed),
        )
        self._labels = torch.from_numpy(file.column("label").metadata.astype(np.int64))
        self._backgrounds = torch.from_numpy(file.column("image").metadata["background"].copy())
        self._network = network.to(processes.device).to(memory_format=torch.channels_last)
        self._optimizer = optim.build(self._network, self.stage)

    def run(self, accuracy: float, limit: float, console: Console) -> tuple[float, bool]:
        """Train until an accuracy is reached, after an epoch, or for so many seconds.

        Returns the accuracy that it came to, and whether that is it.
        """
        for epoch in range(self.stage.epochs):
            label = f"published, epoch {epoch + 1} of {self.stage.epochs}"
            with progress(console, label, self.batches * self._recipe.batch_size) as advance:
                loss = self._learn(epoch, limit, advance)
            found = self._validate()
            console.print(
                f"{label}: loss {loss:.3f}, validation: accuracy {found:.2%} "
                f"({self.seconds:.1f} s of at most {limit:.1f} s)"
            )
            if found >= accuracy or self.seconds >= limit:
                break
        return found, found >= accuracy

    def _learn(self, epoch: int, limit: float, advance: Callable[[int], None]) -> float:
        """Train for an epoch, or until the time is up; return the mean loss."""
        stage, before = self.stage, self.seconds
        losses: list[float] = []
        start = asked = time.perf_counter()
        batches = iter(self._loader)
        while len(losses) < self.batches and self.seconds < limit:
            ids, pages = next(batches)
            self.seconds_waited += time.perf_counter() - asked
            steps = stage.epochs * self.batches
            share = optim.factor(stage.schedule, self.steps, steps, stage.warm_up)
            for group in self._optimizer.param_groups:
                group["lr"] = group["top"] * share
            losses.append(self._differentiate(epoch, ids, pages))
            nn.utils.clip_grad_norm_(self._network.parameters(), stage.clip or math.inf)
            self._optimizer.step()
            self._optimizer.zero_grad()
            self.steps += 1
            advance(len(ids))
            asked = time.perf_counter()
            self.seconds = before + asked - start
        return sum(losses) / len(losses)

    def _differentiate(self, epoch: int, ids: Tensor, pages: Tensor) -> float:
        """Add up the gradients of a batch, in the parts that the recipe says; return its loss."""
        stage, device = self.stage, self._processes.device
        rows = self._recipe.micro_batch or len(ids)
        changes = stage.augmentation.draw(self._recipe.seed, epoch, ids.numpy())
        changes = Transforms(**{name: part.to(device) for name, part in changes.parts().items()})
        loss = 0.0
        for first in range(0, len(ids), rows):
            part = slice(first, first + rows)
            backgrounds = self._backgrounds[ids[part]].float().view(-1, 1, 1, 1)
            ink = pages[part, None].float().sub_(backgrounds).abs_().div_(255).to(device)
            images = transform_images(ink, changes.of(part), stage.size)
            with torch.autocast(device.type, torch.bfloat16, self._processes.precision == "bf16"):
                logits = self._network(images)
            labels = self._labels[ids[part]].to(device)
            own = stage.loss.per_sample(logits, labels).sum() / len(ids)
            self._processes.backward(own)
            loss += own.item()
        return loss

    def _validate(self) -> float:
        """Return the share of the held-out pages that are read right; the engine feeds them."""
        with self._supply.held_out(self.stage) as feed:
            assert feed is not None
            predictions = predict(self._network, feed, self._processes.precision)
        return (predictions.logits.argmax(dim=1) == predictions.labels).float().mean().item()


def run_fast(
    processes: Processes, config: Config, file: Reader, folder: Path, console: Console
) -> Outcome:
    """Train by `fast`, to its end; `folder` holds its auxiliary set and gets the run."""
    known = PART1["fast"]
    recipe = override(known.recipe, epochs=config.epochs, seed=config.seed)
    record = RunDir(folder / "run")
    assignment = TrainingConfig(known.network, recipe, auxiliary=folder / "auxiliary.beton")
    write_config(record, "bench", assignment, file, asdict(config))
    run = run_training(processes, record, assignment, file, console, "fast")
    accuracies = [epoch.accuracy or 0.0 for epoch in run.history]
    return Outcome(
        known.network,
        recipe.stages[-1].size,
        recipe.epochs,
        run.result.images // recipe.epochs,
        run.result.images,
        run.result.seconds_training,
        run.result.loader_share,
        accuracies[-1],
        first_reached([epoch.seconds for epoch in run.history], accuracies, config.accuracy),
    )


def run_published(
    processes: Processes,
    config: Config,
    file: Reader,
    files: Sequence[Path],
    limit: float,
    console: Console,
) -> Outcome:
    """Train by the first stage of `progressive`, for `limit` seconds at most."""
    known = PART1["progressive"]
    first = known.recipe.stages[0]
    stage = replace(first, size=config.size or first.size)
    recipe = replace(known.recipe, stages=(stage,), seed=config.seed)
    network = networks.build(known.network, len(file.info["classes"]), config.seed)
    training = Published(processes, network, recipe, file, files)
    accuracy, reached = training.run(config.accuracy, limit, console)
    return Outcome(
        known.network,
        stage.size,
        stage.epochs,
        training.batches * recipe.batch_size,
        training.steps * recipe.batch_size,
        training.seconds,
        training.seconds_waited / training.seconds,
        accuracy,
        training.seconds if reached else None,
    )


def percent(share: float, decimals: int = 1) -> str:
    """Return a share in words."""
    return f"{100 * share:.{decimals}f} %"


def closing_table(fast: Outcome, published: Outcome, accuracy: float) -> Table:
    """Return both outcomes, a row for each figure, in Markdown."""
    table = Table(box=box.MARKDOWN)
    table.add_column("")
    for heading in ("`fast`", "published, first stage"):
        table.add_column(heading, justify="right")
    rows: dict[str, Callable[[Outcome], str]] = {
        "fed by": lambda one: "inkrun" if one is fast else f"DataLoader({WORKERS} workers), Pillow",
        "network, side of its pictures": lambda one: f"{one.network}, {one.size}",
        "images/s": lambda one: f"{one.images / one.seconds:,.0f}",
        "waiting for the loader": lambda one: percent(one.loader_share),
        "seconds an epoch": lambda one: f"{one.seconds_an_epoch:,.1f}",
        "epochs of its schedule": lambda one: f"{one.epochs}",
        "of these, trained": lambda one: f"{one.images / one.images_an_epoch:.2f}",
        "in seconds": lambda one: f"{one.seconds:,.0f}",
        "accuracy after these": lambda one: percent(one.accuracy),
        f"seconds to {percent(accuracy, 0)}": lambda one: (
            f"{one.reached:,.1f}" if one.reached else "never"
        ),
    }
    for name, figure in rows.items():
        table.add_row(name, figure(fast), figure(published))
    return table


def verdict(fast: Outcome, published: Outcome, accuracy: float) -> str:
    """Say how much longer the published solution takes. Needs a `fast` that got there."""
    assert fast.reached is not None
    if published.reached is not None:
        ratio = f"{published.reached / fast.reached:.1f}"
        return f"To {percent(accuracy, 0)}, the published solution takes {ratio} times as long."
    whole = published.seconds_an_epoch * published.epochs
    return (
        f"To {percent(accuracy, 0)}, the published solution takes more than "
        f"{published.seconds / fast.reached:.1f} times as long. At this pace its first stage of "
        f"{published.epochs} epochs, which was published to end at {percent(PUBLISHED[0])} on the "
        f"original data, would take {whole:,.0f} s: {whole / fast.reached:,.0f} times as long."
    )


def main(config: Config) -> None:
    """Run the benchmark and print its table."""
    console = Console(width=110, highlight=False)
    if config.times <= 0:
        raise SystemExit(f"bench: times: got {config.times}, expected more than 0")
    drawn = SyntheticData(config.writers, config.auxiliary_writers, seed=config.seed)
    source = open_source(config.source) if config.source else drawn.source("part1")
    with tempfile.TemporaryDirectory() as name, join_processes() as processes:
        folder = Path(name)
        with progress(console, "pages", len(source)) as advance:
            split = Split(writers=config.held_out)
            prepare(source, folder / "set.beton", split=split, seed=config.seed, progress=advance)
        prepare(drawn.source(AUXILIARY), folder / "auxiliary.beton")
        files = png_files(source, folder / "png", console)
        with open_dataset(folder / "set.beton") as file:
            train, validation = (
                len(split_indices(file, split)) for split in ("train", "validation")
            )
            title = (
                f"{machine()}; {source_line(file.info['provenance'])}; {train:,} pages to learn "
                f"from, {validation:,} of {config.held_out} other writers to validate on; "
                f"precision: {processes.precision}. `fast` learns from synthetic pages of "
                f"{config.auxiliary_writers} more writers besides."
            )
            console.print(title)
            fast = run_fast(processes, config, file, folder, console)
            if fast.reached is None:
                raise SystemExit(
                    f"bench: `fast` ended at {percent(fast.accuracy)} and was never at "
                    f"{percent(config.accuracy, 0)}"
                )
            limit = config.times * fast.reached
            published = run_published(processes, config, file, files, limit, console)
    console.print(f"\n{title}")
    console.print(closing_table(fast, published, config.accuracy))
    console.print(verdict(fast, published, config.accuracy))


if __name__ == "__main__":
    main(tyro.cli(Config))

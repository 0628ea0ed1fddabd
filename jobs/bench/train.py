"""Overhead of the training engine, against a bare loop on tensors in memory.

    ./launch.sh bench train --data data/part1.beton

Both train part 1's network in turn, by the first stage of `fast`, with equal augmentations and
optimizer. The bare loop has all canvases in one tensor, and no loader, validation or log. A third
task also omits the augmentations.
"""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median_high

import torch
from rich.console import Console
from torch import Tensor, nn

from pipeline.benchmarks.harness import compare_rates
from pipeline.experiments import command
from pipeline.loading.augment import Augmentation, transform_images
from pipeline.loading.batches import DeviceLoader
from pipeline.loading.dataset import View, open_dataset, source_line, split_indices
from pipeline.models import networks
from pipeline.recipes.presets import PART1
from pipeline.recipes.recipe import Recipe
from pipeline.runtime.hardware import machine
from pipeline.training import optim
from pipeline.training.distributed import Processes, join_processes
from pipeline.training.trainer import Trainer


@dataclass(frozen=True)
class Config:
    """Measure the overhead of the training engine."""

    data: Path = Path("data/part1.beton")
    """The dataset that `./launch.sh prep part1` wrote."""
    size: int = 64
    """Side of an image, in pixels."""
    epochs: int = 10
    """Epochs of a round; the time to start and end a training counts once."""
    rounds: int = 5
    """Rounds of the comparison."""


def bare_loop(
    processes: Processes, network: nn.Module, recipe: Recipe, canvases: Tensor, labels: Tensor
) -> int:
    """Train on canvases (n, 1, h, w) and labels (n,); return the number of images."""
    (stage,) = recipe.stages
    optimizer = optim.build(network, stage)
    mixed = processes.precision == "bf16"
    batches = len(labels) // recipe.batch_size
    steps = stage.epochs * batches
    network.train()
    for step in range(steps):
        if step % batches == 0:
            order = torch.randperm(len(labels))
        optim.set_lr(optimizer, optim.stage_lr_factor(stage, step, steps))
        first = step % batches * recipe.batch_size
        rows = order[first : first + recipe.batch_size]
        images = canvases[rows]
        if stage.augmentation != Augmentation():
            transforms = stage.augmentation.sample(recipe.seed, 0, rows.numpy())
            images = transform_images(images, transforms, stage.size)
        with torch.autocast("cpu", torch.bfloat16, mixed):
            logits = network(images)
        loss = stage.loss.per_sample(logits, labels[rows]).mean()
        torch.autograd.backward(loss)
        with torch.autocast("cpu", torch.bfloat16, mixed):
            optimizer.step()
        optimizer.zero_grad()
    return steps * recipe.batch_size


def main(config: Config) -> None:
    """Run the benchmark and print its table."""
    console = Console(width=110, highlight=False)
    fast = PART1["fast"].recipe
    stage = replace(fast.stages[0], size=config.size, epochs=config.epochs)
    recipe = replace(fast, stages=(stage,), average=0.0, hand=0.0, auxiliary=0.0)
    with open_dataset(config.data) as file, join_processes() as processes:
        classes = len(file.info["classes"])
        ids = split_indices(file, "train")
        view = replace(View.of(file, config.size, recipe.window), whole=True)
        with DeviceLoader(file, ids, view, len(ids), device=torch.device("cpu")) as loader:
            (batch,) = loader.micro_batches()
            canvases, labels = batch.images, batch.labels.clone()
        plain = replace(recipe, stages=(replace(stage, augmentation=Augmentation()),))
        squares = canvases[..., : config.size, : config.size].contiguous()
        loader_shares: list[float] = []

        def network() -> nn.Module:
            return networks.build("small", classes, 0).to(memory_format=torch.channels_last)

        def engine() -> int:
            trainer = Trainer(processes, network(), recipe, file, validate_on="test")
            trainer.run()
            loader_shares.append(trainer.performance()["loader_share"])
            return trainer.images

        tasks = {
            "bare loop": lambda: bare_loop(processes, network(), recipe, canvases, labels),
            "engine": engine,
            "bare loop, no augmentation": lambda: bare_loop(
                processes, network(), plain, squares, labels
            ),
        }
        origin = source_line(file.info["provenance"])
        title = f"{machine()}; {origin}; {config.size}×{config.size}"
        console.print(compare_rates(tasks, config.rounds, "bare loop", title))
        share = median_high(loader_shares)
        console.print(f"waiting for the loader, fraction of the engine's time, median: {share:.2%}")


if __name__ == "__main__":
    sys.exit(command.main("bench train", Config, main))

"""Accuracy of part 1's recipes on unseen writers, and their training time.

    ./launch.sh bench part1 --source hand-sample.zip [--recipe accurate] [--learned 3]

Each draw holds out a few writers at random, trains on the others and on synthetic pages, and tests
on the held-out writers. The number of training pages is that of 40 writers. "Equal counts" is the
accuracy under the assumption that each writer wrote each class equally often.
"""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Literal

from rich.console import Console

from pipeline.benchmarks import trainings
from pipeline.benchmarks.harness import table
from pipeline.data.catalog import AUXILIARY, SyntheticData
from pipeline.data.prepare import prepare
from pipeline.evaluation.evaluate import evaluate, load_model
from pipeline.evaluation.run_config import TrainingConfig
from pipeline.experiments import command
from pipeline.loading.dataset import open_dataset, source_line, split_indices
from pipeline.recipes.presets import PART1
from pipeline.runtime.hardware import machine
from pipeline.training.distributed import join_processes


@dataclass(frozen=True)
class Config:
    """Measure part 1's recipes on unseen writers."""

    source: Path
    """Pages in the layout of MIDAS part 1."""
    writers: int = 3
    """Writers to hold out."""
    draws: int = 4
    """Random choices of the held-out writers."""
    learned: int | None = None
    """Writers to train on, nested subsets of the others. Default: all others."""
    recipe: Literal["fast", "accurate"] = "fast"
    """Recipe to measure."""
    epochs: int | None = None
    """Epochs, of the pages of 40 writers. Default: the recipe's."""


def main(config: Config) -> None:
    """Run the benchmark and print its table."""
    console = Console(width=110, highlight=False)
    preset = PART1[config.recipe]
    epochs = config.epochs or preset.recipe.epochs
    rows = []
    with tempfile.TemporaryDirectory() as name, join_processes() as processes:
        folder = Path(name)
        auxiliary, workers = folder / "auxiliary.beton", len(os.sched_getaffinity(0))
        prepare(SyntheticData().source(AUXILIARY), auxiliary, workers=workers)
        for seed in range(config.draws):
            path = folder / f"{seed}.beton"
            source = trainings.split_writers(config.source, config.writers, seed, config.learned)
            prepare(source, path)
            with open_dataset(path) as file:
                pages = len(split_indices(file, "train"))
                scale = preset.scale(pages) * epochs / preset.recipe.epochs
                recipe = replace(preset.recipe.scaled(scale), seed=seed)
                training = TrainingConfig(preset.network, recipe, auxiliary=auxiliary)
                run = trainings.train(processes, folder / f"run-{seed}", training, file)
            evaluation = evaluate(load_model(run.path), path, split="validation", equal_counts=True)
            scores = evaluation.scores
            counted, unadapted = evaluation.equal_counts, evaluation.unadapted or scores
            assert counted is not None
            both = [(s.accuracy, s.accuracy_ignoring_case or 0.0) for s in (scores, counted)]
            rows.append((unadapted.accuracy, *both[0], *both[1], run.result.seconds_training))
            console.print(f"draw {seed}: {', '.join(formatted(rows[-1]))}")
            for warning in evaluation.warnings:
                console.print(f"draw {seed}: warning: {warning}", markup=False)
    title = (
        f"{machine()}; {source_line(run.config.provenance)}; {config.writers} writers held out, "
        f"{config.learned or 'all'} others for training"
    )
    counted_headings = ["equal counts", "and case ignored"]
    headings = ["draw", "accuracy", "adapted", "case ignored", *counted_headings, "training time"]
    means = [mean(column) for column in zip(*rows, strict=True)]
    shown = [(str(label), *formatted(row)) for label, row in [*enumerate(rows), ("mean", means)]]
    console.print(table(headings, shown, "r" * len(headings), title))


def formatted(row: Sequence[float]) -> list[str]:
    """Format a row of accuracies and, last, seconds."""
    *accuracies, seconds = row
    return [*(f"{accuracy:.1%}" for accuracy in accuracies), f"{seconds:.0f} s"]


if __name__ == "__main__":
    sys.exit(command.main("bench part1", Config, main))

"""The design choices of part 1's recipe `fast`, one by one: accuracy without each of them.

    ./launch.sh bench choices --source hand-sample.zip [--draws 4] [--only ema,muon]

Each draw holds out a few writers at random, and every variant trains on the other writers with the
draw's number as its seed. So differences are paired: same writers, same order, same seed. Accuracy
is of the held-out writers, adapted to each of them, as `evaluate` reports it.
"""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.analysis.stats import Comparison, compare
from pipeline.benchmarks import trainings
from pipeline.benchmarks.harness import table
from pipeline.data.catalog import AUXILIARY, SyntheticData
from pipeline.data.prepare import prepare
from pipeline.errors import UserError
from pipeline.evaluation.evaluate import evaluate, load_model
from pipeline.evaluation.run_config import TrainingConfig
from pipeline.experiments import command
from pipeline.loading.augment import Augmentation
from pipeline.loading.dataset import open_dataset, source_line, split_indices
from pipeline.recipes.losses import Loss
from pipeline.recipes.mixup import Mixing
from pipeline.recipes.presets import PART1
from pipeline.recipes.recipe import Recipe
from pipeline.runtime.hardware import machine
from pipeline.training.distributed import Processes, join_processes


@dataclass(frozen=True)
class Config:
    """Measure each design choice of part 1's recipe `fast` on unseen writers."""

    source: Path
    """Pages in the layout of MIDAS part 1."""
    writers: int = 3
    """Writers to hold out."""
    draws: int = 4
    """Random choices of the held-out writers."""
    epochs: int | None = None
    """Epochs, of the pages of 40 writers. Default: the recipe's."""
    only: str | None = None
    """Keys of the choices to measure, separated by commas. Default: all."""


@dataclass(frozen=True)
class Choice:
    """A design choice: what `fast` does, what the variant does instead, and how to make it."""

    chosen: str
    instead: str
    variant: Callable[[Recipe], Recipe]
    network: str = PART1["fast"].network


def _stages(**values: Any) -> Callable[[Recipe], Recipe]:
    def variant(recipe: Recipe) -> Recipe:
        return replace(recipe, stages=tuple(replace(s, **values) for s in recipe.stages))

    return variant


def _recipe(**values: Any) -> Callable[[Recipe], Recipe]:
    return lambda recipe: replace(recipe, **values)


CHOICES = {
    "auxiliary": Choice("half of a batch synthetic", "real pages alone", _recipe(auxiliary=0.0)),
    "scale": Choice("pages at their writer's scale", "pages as they are", _recipe(hand=0.0)),
    "muon": Choice(
        "Muon",
        "AdamW, 5e-3",
        _stages(optimizer="AdamW", learning_rate=5e-3, weight_decay=0.05),
    ),
    "ema": Choice("moving average of the weights", "last weights", _recipe(average=0.0)),
    "augmentation": Choice(
        "augmentation of handwriting", "none", _stages(augmentation=Augmentation())
    ),
    "smoothing": Choice("label smoothing 0.1", "none", _stages(loss=Loss())),
    "mixup": Choice("no mixup", "mixup 0.4", _stages(mixing=Mixing(mixup=0.4))),
    "schedule": Choice("one-cycle", "constant rate", _stages(schedule="constant", warm_up=0.0)),
    "size-32": Choice("48 pixels", "32 pixels", _stages(size=32)),
    "size-64": Choice("48 pixels", "64 pixels", _stages(size=64)),
    "small": Choice("network compact", "network small", lambda recipe: recipe, "small"),
    "plain": Choice("network compact", "network plain", lambda recipe: recipe, "plain"),
}


def train(
    processes: Processes, folder: Path, network: str, recipe: Recipe, data: Path, auxiliary: Path
) -> tuple[float, float]:
    """Train on a draw; return the accuracy on its held-out writers and the training time (s)."""
    with open_dataset(data) as file:
        training = TrainingConfig(
            network, recipe, auxiliary=auxiliary if recipe.auxiliary else None
        )
        run = trainings.train(processes, folder, training, file)
    evaluation = evaluate(load_model(run.path), data, split="validation")
    return evaluation.scores.accuracy, run.result.seconds_training


def row(choice: Choice, difference: Comparison, seconds: Sequence[float]) -> list[str]:
    """Format the row of a choice: points that the choice gains, its interval, seconds."""
    assert difference.difference is not None
    interval = difference.interval
    bounds = f"{100 * interval.low:+.1f} to {100 * interval.high:+.1f}" if interval else "–"
    return [
        choice.chosen,
        choice.instead,
        f"{100 * difference.difference:+.1f}",
        bounds,
        "shown" if difference.shown else "not shown",
        f"{sum(seconds) / len(seconds):.0f}",
    ]


def main(config: Config) -> None:
    """Run the benchmark and print its table."""
    wanted = list(CHOICES) if config.only is None else config.only.split(",")
    if unknown := [key for key in wanted if key not in CHOICES]:
        raise UserError(f"only: got {unknown[0]!r}, expected some of {', '.join(CHOICES)}")
    console, preset = Console(width=110, highlight=False), PART1["fast"]
    epochs = config.epochs or preset.recipe.epochs
    accuracies: dict[str, list[float]] = {key: [] for key in ("", *wanted)}
    seconds: dict[str, list[float]] = {key: [] for key in ("", *wanted)}
    with tempfile.TemporaryDirectory() as name, join_processes() as processes:
        folder = Path(name)
        auxiliary, workers = folder / "auxiliary.beton", len(os.sched_getaffinity(0))
        prepare(SyntheticData().source(AUXILIARY), auxiliary, workers=workers)
        for draw in range(config.draws):
            data = folder / f"{draw}.beton"
            prepare(trainings.split_writers(config.source, config.writers, draw), data)
            with open_dataset(data) as file:
                pages, provenance = len(split_indices(file, "train")), file.info["provenance"]
            scale = preset.scale(pages) * epochs / preset.recipe.epochs
            recipe = replace(preset.recipe.scaled(scale), seed=draw)
            for key in accuracies:
                choice = CHOICES.get(key)
                network = choice.network if choice else preset.network
                variant = choice.variant(recipe) if choice else recipe
                run = folder / f"run-{draw}-{key or 'fast'}"
                accuracy, taken = train(processes, run, network, variant, data, auxiliary)
                accuracies[key].append(accuracy)
                seconds[key].append(taken)
                console.print(f"draw {draw}, {key or 'fast'}: {accuracy:.1%}, {taken:.0f} s")
    console.print(closing_table(accuracies, seconds, f"{machine()}; {source_line(provenance)}"))


def closing_table(
    accuracies: dict[str, list[float]], seconds: dict[str, list[float]], title: str
) -> Table:
    """Return the table of all choices; the key "" has the accuracies of `fast` by draw."""
    rows = [
        row(CHOICES[key], compare(accuracies[""], own), seconds[key])
        for key, own in accuracies.items()
        if key
    ]
    mean = sum(accuracies[""]) / len(accuracies[""])
    rows.insert(
        0, ["fast", "", f"{100 * mean:.1f} %", "", "", f"{sum(seconds['']) / len(seconds['']):.0f}"]
    )
    headings = ["chosen", "instead", "gain (points)", "95 % interval", "", "training time (s)"]
    return table(headings, rows, "llrrlr", title)


if __name__ == "__main__":
    sys.exit(command.main("bench choices", Config, main))

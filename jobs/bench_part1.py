"""How well part 1's recipe reads writers that it has not seen, and how long it takes to learn.

    ./launch.sh bench part1 --source hand-sample.zip [--recipe accurate] [--learned 3]

A few writers are held out at random, several times; the network learns from the others, as many
pages as it would see of 40 writers, and from synthetic pages besides, and is tested on those.
"""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Literal

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from pipeline.data.catalog import AUXILIARY, SyntheticData
from pipeline.data.prepare import prepare
from pipeline.data.sources import Source, SourceError, open_source
from pipeline.data.sources.base import TEST, TRAIN
from pipeline.data.splits import Split, assign_splits
from pipeline.evaluation.evaluate import evaluate, load_model
from pipeline.evaluation.run_config import TrainingConfig
from pipeline.evaluation.run_dir import RunDir
from pipeline.loading.dataset import open_dataset, source_line, split_indices
from pipeline.recipes.presets import PART1
from pipeline.runtime.hardware import machine
from pipeline.training.distributed import join_processes
from pipeline.training.runner import run_training, write_config


@dataclass(frozen=True)
class Config:
    """Measure part 1's recipe on writers that it has not seen."""

    source: Path
    """Pages in the shape of MIDAS part 1."""
    writers: int = 3
    """To hold out."""
    draws: int = 4
    """Times that so many are held out."""
    learned: int | None = None
    """Writers to learn from, of the others; fewer are among more. By default, all."""
    recipe: Literal["fast", "accurate"] = "fast"
    """To measure."""
    epochs: int | None = None
    """Of 40 writers' pages. By default, the recipe's."""


def divided(config: Config, seed: int) -> Source:
    """Return the pages with their splits; writers that are not learned from are put with the test.

    Raises SourceError for more writers than there are.
    """
    source = open_source(config.source)
    splits = assign_splits(source.annotations, Split(writers=config.writers), seed)
    learned = np.unique(source.annotations.writers[splits == TRAIN])
    count = len(learned) if config.learned is None else config.learned
    if not 1 <= count <= len(learned):
        raise SourceError(f"learned: got {count} writers, expected 1 to {len(learned)}")
    left = np.random.Generator(np.random.Philox(seed)).permutation(learned)[count:]
    splits[np.isin(source.annotations.writers, left)] = TEST
    source.annotations = replace(source.annotations, splits=splits)
    return source


def main(config: Config) -> None:
    """Run the benchmark and print its table."""
    console = Console(width=110, highlight=False)
    known = PART1[config.recipe]
    rows = []
    with tempfile.TemporaryDirectory() as name, join_processes() as launch:
        auxiliary = Path(name) / "auxiliary.beton"
        workers = len(os.sched_getaffinity(0))
        prepare(SyntheticData().source(AUXILIARY), auxiliary, workers=workers)
        for seed in range(config.draws):
            path = Path(name) / f"{seed}.beton"
            prepare(divided(config, seed), path)
            with open_dataset(path) as file:
                epochs = config.epochs or known.recipe.epochs
                scale = (
                    known.scale(len(split_indices(file, "train"))) * epochs / known.recipe.epochs
                )
                recipe = replace(known.recipe.scaled(scale), seed=seed)
                record = RunDir(Path(name) / f"run-{seed}")
                assignment = TrainingConfig(known.network, recipe, auxiliary=auxiliary)
                write_config(record, "bench", assignment, file, asdict(config))
                run = run_training(launch, record, assignment, file, Console(quiet=True))
                origin = source_line(file.info["provenance"])
            found = evaluate(load_model(record.path), path, split="validation")
            unadapted = found.unadapted or found.scores
            rows.append(
                (
                    unadapted.accuracy,
                    found.scores.accuracy,
                    found.scores.accuracy_ignoring_case or 0.0,
                    run.result.seconds_training,
                )
            )
            console.print(f"draw {seed}: {', '.join(told(rows[-1]))}")
    learned = "all others" if config.learned is None else f"{config.learned} others"
    title = f"{machine()}; {origin}; {config.writers} writers held out, {learned} learned from"
    table = Table(title=title)
    for heading in ("draw", "accuracy", "adapted", "case ignored", "training"):
        table.add_column(heading, justify="right")
    for label, row in [*enumerate(rows), ("mean", tuple(map(mean, zip(*rows, strict=True))))]:
        table.add_row(str(label), *told(row))
    console.print(table)


def told(row: Sequence[float]) -> list[str]:
    """Return what a row's shares, and its seconds at the end, are written as."""
    *shares, seconds = row
    return [*(f"{share:.1%}" for share in shares), f"{seconds:.0f} s"]


if __name__ == "__main__":
    main(tyro.cli(Config))

"""What benchmarks of trainings share: splits by writer, one training."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from beton.reader import Reader
from pipeline.data.base import TEST, TRAIN
from pipeline.data.sources import Source, SourceError, open_source
from pipeline.data.splits import Split, assign_splits
from pipeline.evaluation.run_config import TrainingConfig
from pipeline.evaluation.run_dir import FinishedRun, RunDir
from pipeline.training.distributed import Processes
from pipeline.training.runner import run_training, write_config


def split_writers(path: Path, held_out: int, seed: int, learned: int | None = None) -> Source:
    """Return the pages at `path` split by writer, with `held_out` writers for validation.

    `learned` is the number of writers to train on, None for all others; the test split gets the
    pages of unused writers. Raises SourceError for more writers than the source has.
    """
    source = open_source(path)
    splits = assign_splits(source.annotations, Split(writers=held_out), seed)
    others = np.unique(source.annotations.writers[splits == TRAIN])
    count = len(others) if learned is None else learned
    if not 1 <= count <= len(others):
        raise SourceError(f"learned: got {count} writers, expected 1 to {len(others)}")
    unused = np.random.Generator(np.random.Philox(seed)).permutation(others)[count:]
    splits[np.isin(source.annotations.writers, unused)] = TEST
    source.annotations = replace(source.annotations, splits=splits)
    return source


def train(
    processes: Processes,
    folder: Path,
    training: TrainingConfig,
    file: Reader,
    console: Console | None = None,
    label: str = "training",
) -> FinishedRun:
    """Train in the new run directory `folder`; nothing is printed without a console."""
    run = RunDir(folder)
    write_config(run, "bench", training, file, {})
    return run_training(processes, run, training, file, console or Console(quiet=True), label)

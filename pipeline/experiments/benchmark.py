"""What the benchmarks share: rates of several ways to do the same work, tables, trainings.

The speed of a shared machine drifts. So every round runs each task once, and results are medians
over the rounds: of a task's rate, and of its ratio to the baseline in the same round.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import Dataset

from beton.reader import Reader
from pipeline.data.base import TEST, TRAIN
from pipeline.data.sources import Source, SourceError, open_source
from pipeline.data.splits import Split, assign_splits
from pipeline.evaluation.run_config import TrainingConfig
from pipeline.evaluation.run_dir import FinishedRun, RunDir
from pipeline.training.distributed import Processes
from pipeline.training.runner import run_training, write_config


def table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    align: str,
    title: str | None = None,
    style: box.Box = box.HEAVY_HEAD,
) -> Table:
    """Return a table; `align` has an "l" or "r" for each column."""
    made = Table(title=title, title_justify="left", box=style)
    for heading, side in zip(headings, align, strict=True):
        made.add_column(heading, justify="right" if side == "r" else "left", overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def compare_rates(
    tasks: Mapping[str, Callable[[], int]], rounds: int, baselines: str | Sequence[str], title: str
) -> Table:
    """Run every task once per round, in turn, after a warm-up; a task returns its image count.

    Returns a row for each task: median, slowest and fastest round, median ratio to each baseline.
    """
    baselines = [baselines] if isinstance(baselines, str) else baselines
    for task in tasks.values():
        task()
    rates: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            start = time.perf_counter()
            images = task()
            rates[name].append(images / (time.perf_counter() - start))
    rows = []
    for name, own in rates.items():
        numbers = median(own), min(own), max(own)
        ratios = [
            median(rate / base for rate, base in zip(own, rates[baseline], strict=True))
            for baseline in baselines
        ]
        ratio_cells = (f"{ratio:,.2f}" for ratio in ratios)
        rows.append([name, *(f"{number:,.0f}" for number in numbers), *ratio_cells])
    headings = ["", "images/s (median)", "slowest", "fastest", *(f"× {name}" for name in baselines)]
    return table(headings, rows, "l" + "r" * (len(headings) - 1), title)


class PillowPages(Dataset[tuple[Tensor, int]]):
    """Images of PNG files, uint8 (height, width), and their numbers, decoded by Pillow.

    They are resized to `canvas`, (height, width). A box filter averages areas, as the engine does,
    except at pixels that straddle an edge.
    """

    def __init__(
        self, files: Sequence[Path], canvas: tuple[int, int], resampling: Image.Resampling
    ) -> None:
        self._files, self._canvas, self._resampling = files, canvas, resampling

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        height, width = self._canvas
        with Image.open(self._files[index]) as image:
            page = image.convert("L").resize((width, height), self._resampling)
        return torch.from_numpy(np.array(page)), index


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

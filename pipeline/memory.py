"""How many rows fit into memory at a time, found by trying.

A GPU says when its memory is full. Linux does not: it hands out memory that it does not have and
then ends somebody. So on a CPU what a trial may take is limited to what is free.
"""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate.utils import find_executable_batch_size

from beton.reader import Reader
from pipeline import models, optim
from pipeline.feed import View
from pipeline.recipe import Recipe
from pipeline.train import Launch

SHARE = 0.8  # of the free memory of a CPU that training may take


def fit(launch: Launch, network: str, recipe: Recipe, file: Reader) -> int:
    """Return the most rows of a process's share of a batch that it can learn from at a time.

    That is the share itself, or half of it, or half of that, and so on: the first that a step of
    the stage with the largest pictures has room for. Raises RuntimeError if not even one fits.
    """
    stage = max(recipe.stages, key=lambda stage: (stage.size, -stage.frozen))
    view = View.of(file, stage.size, recipe.window)
    shape = view.canvas if view.whole else (view.size, view.size)
    classes = len(file.info["classes"])

    @find_executable_batch_size(starting_batch_size=recipe.batch_size // launch.num_processes)  # type: ignore[untyped-decorator]
    def find(batch_size: int) -> int:
        model = models.build(network, classes, recipe.seed).to(launch.device)
        optimizer = optim.build(model, stage)
        pictures = torch.zeros(batch_size, 1, *shape, device=launch.device)
        labels = torch.zeros(batch_size, dtype=torch.int64, device=launch.device)
        for _ in range(2):  # the second has the optimizer's state
            with launch.autocast():
                logits = model(pictures)
            launch.backward(stage.loss.per_sample(logits, labels).mean())
            optimizer.step()
        return batch_size

    with _limited(launch.device, launch.num_processes):
        rows: int = find()
    return rows


@contextmanager
def _limited(device: torch.device, processes: int) -> Iterator[None]:
    if device.type != "cpu":
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    facts = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(facts["MemAvailable"].split()[0]) * 1024
    used = pages * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + int(SHARE * free / processes), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)

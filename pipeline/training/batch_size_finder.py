"""How many rows fit into memory at a time, found by trying.

A GPU says when its memory is full. Linux does not: it hands out memory that it does not have and
then ends somebody. So on a CPU what a trial may take is limited to what is free.
"""

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate.utils import find_executable_batch_size

from beton.reader import Reader
from pipeline.errors import UserError
from pipeline.loading.dataset import View
from pipeline.models import networks
from pipeline.recipes.recipe import Recipe
from pipeline.training import optim
from pipeline.training.distributed import Processes

SHARE = 0.8  # of the free memory of a CPU that training may take
ONEDNN = re.compile("could not (create|execute) a |bad_alloc")  # no room for its scratch pad


def find_batch_size(processes: Processes, network: str, recipe: Recipe, file: Reader) -> int:
    """Return the most rows of a process's share of a batch that it can learn from at a time.

    That is the share itself, or half of it, or half of that, and so on, less one if that is odd, so
    that rows can be mixed in pairs: the first that a step of the stage with the largest pictures
    has room for, in every process. Raises UserError, in all of them, if not even one fits.
    """
    stage = max(recipe.stages, key=lambda stage: (stage.size, -stage.frozen))
    view = View.of(file, stage.size, recipe.window)
    shape = view.canvas if view.whole else (view.size, view.size)
    classes = len(file.info["classes"])

    # Out here, since a first optimizer imports much, and an import must not run out of memory.
    model = networks.build(network, classes, recipe.seed).to(processes.device)
    optimizer = optim.build(model, stage)
    sizes = _halves(recipe.batch_size // processes.count)

    @find_executable_batch_size(  # type: ignore[untyped-decorator]
        starting_batch_size=next(sizes), reduce_batch_size_fn=lambda: next(sizes)
    )
    def find(batch_size: int) -> int:
        optimizer.zero_grad()  # of a trial that failed
        images = torch.zeros(batch_size, 1, *shape, device=processes.device)
        labels = torch.zeros(batch_size, dtype=torch.int64, device=processes.device)
        with _plain_words():
            for _ in range(2):  # the second has the optimizer's state
                with processes.autocast():
                    logits = model(images)
                processes.backward(stage.loss.per_sample(logits, labels).mean())
                optimizer.step()
        return batch_size

    with _limited(processes.device, processes.count):
        try:
            rows: int = find()
        except RuntimeError as error:
            if "reached zero" not in str(error):
                raise
            rows = 0
    least = int(processes.gather(torch.tensor([rows], device=processes.device)).min())
    if not least:
        height, width = shape
        raise UserError(
            f"batch_size: got auto, but memory has no room for one picture of {height}×{width}"
        )
    return least


def _halves(rows: int) -> Iterator[int]:
    yield rows
    while rows:
        rows //= 2
        yield rows - rows % 2 if rows > 1 else rows


@contextmanager
def _plain_words() -> Iterator[None]:
    """Say that memory is full in the words that accelerate knows, where others say it in theirs."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or ONEDNN.search(str(error)):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory") from error
        raise


@contextmanager
def _limited(device: torch.device, processes: int) -> Iterator[None]:
    if device.type != "cpu":
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = used + int(SHARE * free_bytes() / processes)
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def free_bytes() -> int:
    """Return how much memory Linux could give to programs now, without swapping."""
    facts = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(facts["MemAvailable"].split()[0]) * 1024

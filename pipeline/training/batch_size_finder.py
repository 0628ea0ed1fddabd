"""Finds the largest micro-batch for which memory has room, by trial.

A GPU reports when its memory is full. Linux does not: it grants more memory than it has, and kills
a process when that runs out. A trial on a CPU is therefore limited to the free memory.
"""

import math
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
from pipeline.runtime.hardware import free_memory
from pipeline.training import optim
from pipeline.training.distributed import Processes
from pipeline.training.mixed_precision import MixedPrecision

MEMORY_FRACTION = 0.8  # of the free memory of a CPU, for training
ONEDNN = re.compile("could not (create|execute) a |bad_alloc")  # no room for its scratch pad


def find_micro_batch(processes: Processes, network: str, recipe: Recipe, file: Reader) -> int:
    """Return the largest micro-batch size for which every process has room.

    Candidates are the local batch size, half of it, half of that, and so on; odd ones but 1 lose a
    row, because mixing works on pairs. A trial takes steps of the stage with the largest images,
    beside the memory that a training needs for the whole batch.
    Raises UserError, in all processes, if not even one row fits.
    """
    stage = max(recipe.stages, key=lambda stage: (stage.size, -stage.frozen))
    view = View.of(file, stage.size, recipe.window, normalize=recipe.normalize)
    shape = channels, height, width = view.input_shape
    rows = recipe.batch_size // processes.count
    classes = len(file.info["classes"])

    # Outside of the trials: the first optimizer imports modules, and they need memory as well.
    model = networks.build(network, classes, recipe.seed, shape)
    model.to(processes.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = optim.build(model, stage)
    arithmetic = MixedPrecision(processes.device, processes.precision)
    parameters = [p for p in model.parameters() if p.requires_grad]
    sizes = _halves(rows)

    @find_executable_batch_size(  # type: ignore[untyped-decorator]
        starting_batch_size=next(sizes), reduce_batch_size_fn=lambda: next(sizes)
    )
    def find(batch_size: int) -> int:
        optimizer.zero_grad()  # of a trial that failed
        # A training also has the canvases of the whole batch, of which a part is computed
        # at a time; the average of the weights; the buffers in which processes share gradients.
        copies = bool(recipe.average) + (processes.count > 1)
        held = [
            torch.empty(rows, channels, *view.canvas, device=processes.device),
            *(torch.empty_like(weights) for _ in range(copies) for weights in model.parameters()),
        ]
        images = torch.zeros(batch_size, *shape, device=processes.device)
        images = images.to(memory_format=torch.channels_last)
        labels = torch.zeros(batch_size, dtype=torch.int64, device=processes.device)
        with _memory_errors_for_accelerate():
            for _ in range(2):  # the optimizer's state exists in the second
                with arithmetic.autocast(stage.mixed_precision):
                    logits = model(images)
                arithmetic.backward(stage.loss.per_sample(logits.float(), labels).mean())
                arithmetic.step(optimizer, parameters, stage.clip or math.inf)
        del held
        return batch_size

    with _limited_memory(processes.device, processes.count):
        try:
            micro_batch: int = find()
        except RuntimeError as error:
            if "reached zero" not in str(error):
                raise
            micro_batch = 0
    found = torch.tensor([micro_batch], device=processes.device)
    if smallest := int(processes.gather(found).min()):
        return smallest
    raise UserError(f"batch_size: got auto, but memory has no room for one {height}×{width} image")


def _halves(batch_size: int) -> Iterator[int]:
    yield batch_size
    while batch_size:
        batch_size //= 2
        yield batch_size - batch_size % 2 if batch_size > 1 else batch_size


@contextmanager
def _memory_errors_for_accelerate() -> Iterator[None]:
    """Raise errors that mean full memory with a message that accelerate recognises."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or ONEDNN.search(str(error)):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory") from error
        raise


@contextmanager
def _limited_memory(device: torch.device, processes: int) -> Iterator[None]:
    if device.type != "cpu":
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = used + int(MEMORY_FRACTION * free_memory(device) / processes)
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)

"""Finds the largest micro-batch for which memory has room, by trial.

A GPU reports when its memory is full. Linux does not: it grants more memory than it has, and kills
a process when that runs out. A trial on a CPU is therefore limited to the free memory, in a child
process.
"""

import math
import resource
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from accelerate.utils import find_executable_batch_size
from torch import nn
from torch.optim import Optimizer

from beton.reader import Reader
from pipeline.errors import UserError
from pipeline.loading.dataset import View
from pipeline.models import networks
from pipeline.models.blocks import Shape
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.runtime.hardware import free_memory, is_full_memory
from pipeline.runtime.launch import use_cores
from pipeline.training import optim
from pipeline.training.distributed import Processes
from pipeline.training.mixed_precision import MixedPrecision

MEMORY_FRACTION = 0.8  # of the free memory of a CPU, for training


@dataclass(frozen=True)
class Trial:
    """Steps of a stage with images of `shape`, in micro-batches of different sizes.

    `rows` are those of a process's batch. All of a batch's canvases (height, width) are in memory
    at a time. `copies` are those of the weights beside the network's own, such as their average.
    """

    network: str
    classes: int
    stage: Stage
    shape: Shape
    canvas: tuple[int, int]
    rows: int
    copies: int
    precision: str
    device: str
    processes: int

    def largest(self, sizes: Iterable[int], on_size: Callable[[int], None]) -> int:
        """Return the first of some sizes that fits, the last of which is 0; calls `on_size` first.

        On a CPU, a size may also end the process.
        """
        # Outside of the trials: the first optimizer imports modules, and they need memory as well.
        device = torch.device(self.device)
        model = networks.build(self.network, self.classes, 0, self.shape)
        model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer, arithmetic = (
            optim.build(model, self.stage),
            MixedPrecision(device, self.precision),
        )
        left = iter(sizes)

        @find_executable_batch_size(  # type: ignore[untyped-decorator]
            starting_batch_size=next(left), reduce_batch_size_fn=lambda: next(left)
        )
        def find(batch_size: int) -> int:
            on_size(batch_size)
            optimizer.zero_grad()  # of a trial that failed
            with _memory_errors_for_accelerate():
                self._take_steps(model, optimizer, arithmetic, batch_size)
            return batch_size

        with _limited_memory(device, self.processes):
            try:
                found: int = find()
            except RuntimeError as error:
                if "reached zero" not in str(error):
                    raise
                found = 0
        return found

    def _take_steps(
        self, model: nn.Module, optimizer: Optimizer, arithmetic: MixedPrecision, batch_size: int
    ) -> None:
        device, stage = torch.device(self.device), self.stage
        parameters = [p for p in model.parameters() if p.requires_grad]
        held = [
            torch.empty(self.rows, self.shape[0], *self.canvas, device=device),
            *(torch.empty_like(one) for _ in range(self.copies) for one in model.parameters()),
        ]
        images = torch.zeros(batch_size, *self.shape, device=device)
        images = images.to(memory_format=torch.channels_last)
        labels = torch.zeros(batch_size, dtype=torch.int64, device=device)
        for _ in range(2):  # the optimizer's state exists in the second
            with arithmetic.autocast(stage.mixed_precision):
                logits = model(images)
            arithmetic.backward(stage.loss.per_sample(logits.float(), labels).mean())
            arithmetic.step(optimizer, parameters, stage.clip or math.inf)
        del held


def find_micro_batch(processes: Processes, network: str, recipe: Recipe, file: Reader) -> int:
    """Return the largest micro-batch size for which every process has room.

    Candidates are the local batch size, half of it, half of that, and so on; odd ones but 1 lose a
    row, because mixing works on pairs. A trial takes steps of the stage with the largest images.
    Raises UserError, in all processes, if not even one row fits.
    """
    stage = max(recipe.stages, key=lambda stage: (stage.size, -stage.frozen))
    view = View.of(file, stage.size, recipe.window, normalize=recipe.normalize)
    trial = Trial(
        network,
        len(file.info["classes"]),
        stage,
        view.input_shape,
        view.canvas,
        recipe.batch_size // processes.count,
        # The average of the weights, and the buffers in which processes share gradients.
        bool(recipe.average) + (processes.count > 1),
        processes.precision,
        str(processes.device),
        processes.count,
    )
    alone = processes.device.type == "cuda"  # a GPU reports full memory
    sizes = list(_halves(trial.rows))
    micro_batch = trial.largest(sizes, lambda _: None) if alone else in_children(trial, sizes)
    found = torch.tensor([micro_batch], device=processes.device)
    if smallest := int(processes.gather(found).min()):
        return smallest
    _, height, width = trial.shape
    raise UserError(f"batch_size: got auto, but memory has no room for one {height}×{width} image")


def in_children(trial: Trial, sizes: Sequence[int]) -> int:
    """Return the first of some sizes that fits, the last of which is 0, or 0 if none does.

    It is tried in a child process: where memory is short, native code ends its process.
    """
    context = get_context("spawn")
    while sizes:
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=_try_sizes, args=(trial, sizes, sender), daemon=True)
        child.start()
        sender.close()
        tried = 0
        try:
            while True:
                kind, value = receiver.recv()
                if kind == "raised":
                    raise value
                if kind == "found":
                    return int(value)
                tried = value
        except EOFError:  # the child died of this size, or before it tried any
            sizes = [size for size in sizes if size < tried]
        finally:
            child.join()
    return 0


def _try_sizes(trial: Trial, sizes: Sequence[int], sender: Connection) -> None:
    # Where memory runs out, the system ends this process and not the parent.
    Path("/proc/self/oom_score_adj").write_text("1000")
    use_cores()
    try:
        found = trial.largest(sizes, lambda size: sender.send(("tried", size)))
        sender.send(("found", found))
    except Exception as error:  # the parent raises it
        sender.send(("raised", error))


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
        if is_full_memory(error):
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

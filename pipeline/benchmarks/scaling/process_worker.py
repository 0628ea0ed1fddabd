"""One of the processes that train together, for the benchmark of scaling.

Accelerate's launcher starts it, as it does for `./launch.sh train --processes N`. The argument is a
`Task` as JSON; the main process writes an `Outcome` to its file.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from beton.reader import Reader
from pipeline.experiments.command import arguments
from pipeline.loading.dataset import open_dataset
from pipeline.models import networks
from pipeline.recipes.presets import PART1
from pipeline.recipes.recipe import Recipe
from pipeline.runtime.files import convert
from pipeline.training.distributed import Processes, join_processes
from pipeline.training.trainer import Trainer

SIZES = (1 << 12, 1 << 16, 1 << 18, 1 << 20, 1 << 22)  # bytes of all-reduces
REPEATS = 15  # of each of them


@dataclass(frozen=True)
class Task:
    """Train on `data` for `steps` steps with each of `rows` rows a process; write to `out`."""

    data: str
    rows: tuple[int, ...]
    steps: int
    out: str


@dataclass(frozen=True)
class Steps:
    """Images/s of all processes, and means over steps and processes of the seconds of a step."""

    rows: int
    rate: float
    compute: float
    all_reduce: float
    loader: float
    stalls: float


@dataclass(frozen=True)
class Outcome:
    """What was measured; `reduced` are bytes and seconds of all-reduces alone."""

    steps: tuple[Steps, ...]
    reduced: tuple[tuple[int, float], ...]
    gradient_bytes: int


class Exchange:
    """A communication hook for DDP that notes when the last gradients are ready, and exchanged.

    All processes are on one machine, whose monotonic clock they share.
    """

    def __init__(self) -> None:
        self.ready: list[float] = []
        self.done: list[float] = []

    def attach(self, model: DistributedDataParallel) -> None:
        """Replace DDP's own all-reduce by an equal one that is timed."""
        model.register_comm_hook(self, Exchange.reduce)

    def reduce(
        self,
        bucket: dist.GradBucket,  # type: ignore[name-defined]  # DDP checks it
    ) -> torch.futures.Future[Tensor]:
        """Start the all-reduce of the mean of a bucket."""
        tensor, last = bucket.buffer().div_(dist.get_world_size()), bucket.is_last()
        if last:
            self.ready.append(time.monotonic())
        work: Any = dist.all_reduce(tensor, async_op=True)

        def finish(future: Any) -> Tensor:
            if last:
                self.done.append(time.monotonic())
            result: Tensor = future.value()[0]
            return result

        reduced: torch.futures.Future[Tensor] = work.get_future().then(finish)
        return reduced


def main() -> None:
    """Train at each number of rows, and measure all-reduces."""
    task = convert(json.loads(arguments()[0]), Task)
    with open_dataset(Path(task.data)) as file, join_processes("no") as processes:
        train(processes, file, task.rows[0], 2)  # a warm-up
        steps = tuple(train(processes, file, rows, task.steps) for rows in task.rows)
        reduced = tuple(reduce_times()) if processes.count > 1 else ()
        network = networks.build(PART1["fast"].network, len(file.info["classes"]), 0)
        size = sum(weights.nbytes for weights in network.parameters())
        if processes.is_main:
            Path(task.out).write_text(json.dumps(asdict(Outcome(steps, reduced, size))))


def recipe_of(batch_size: int, steps: int) -> Recipe:
    """Return the first stage of part 1's `fast` on one dataset, for `steps` steps."""
    fast = PART1["fast"].recipe
    return replace(
        fast,
        stages=(replace(fast.stages[0], epochs=1),),
        batch_size=batch_size,
        hand=0.0,
        auxiliary=0.0,
        train_images=steps * batch_size,
        validation_images=8,
    )


def train(processes: Processes, file: Reader, rows: int, steps: int) -> Steps:
    """Train with `rows` rows in each process, and divide the time of a step into its parts."""
    exchange = Exchange()
    network = networks.build(PART1["fast"].network, len(file.info["classes"]), 0)
    processes.on_parallel = exchange.attach
    recipe = recipe_of(rows * processes.count, steps)
    trainer = Trainer(processes, network, recipe, file)
    trainer.run()
    found = trainer.performance()
    seconds = found["seconds_training"] / steps
    waited = torch.tensor([found["loader_share"] * seconds], dtype=torch.float64)
    loader = float(processes.gather(waited).mean())
    all_reduce, stalls = exchanged(processes, exchange)
    compute = seconds - loader - all_reduce - stalls
    return Steps(rows, found["images_per_second"], compute, all_reduce, loader, stalls)


def exchanged(processes: Processes, exchange: Exchange) -> tuple[float, float]:
    """Return the mean seconds of exchanging gradients, and of waiting for the slowest process."""
    if processes.count == 1:
        return 0.0, 0.0
    times = torch.tensor([exchange.ready, exchange.done], dtype=torch.float64)[None]
    return split(processes.gather(times))


def split(times: Tensor) -> tuple[float, float]:
    """Split the time to the exchange's end, by the process that is ready last.

    `times`, float64 (processes, 2, steps), are when the gradients were ready, and exchanged.
    """
    ready, done = times[:, 0], times[:, 1]
    last = ready.max(dim=0).values
    return float((done - last).mean()), float((last - ready).mean())


def reduce_times() -> Sequence[tuple[int, float]]:
    """Return the bytes and the median seconds of all-reduces of several sizes."""
    return [(size, _reduce_time(size)) for size in SIZES]


def _reduce_time(size: int) -> float:
    tensor, seconds = torch.zeros(size // 4), []
    reduce = partial(dist.all_reduce, tensor)
    reduce()
    for _ in range(REPEATS):
        dist.barrier()
        start = time.perf_counter()
        reduce()
        seconds.append(time.perf_counter() - start)
    return median(seconds)


if __name__ == "__main__":
    main()

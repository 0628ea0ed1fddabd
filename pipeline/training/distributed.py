"""The processes that train together: the only module that uses accelerate's `Accelerator`."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.errors import UserError
from pipeline.runtime.hardware import Precision, precision_for
from pipeline.runtime.launch import (
    check_launcher,
    cpu_only,
    launched_precision,
    local_processes,
    use_cores,
)

T = TypeVar("T")
# For other processes, such as the main one that prepares or saves; the default is ten minutes.
LONGEST_WAIT = timedelta(hours=6)
PRECISIONS: tuple[Precision, ...] = ("no", "bf16", "fp16")


class Processes:
    """The processes that train together, as one of them sees them; `join_processes` creates it.

    `rank` is the number of this process, 0 to `count` - 1. It computes on `device`, in `precision`:
    "no", "bf16" or "fp16". The main process, `is_main`, prints and writes files. All processes must
    call every method except `log` and `start_tracker` alike. `on_parallel` is called with each
    wrapper that `parallel` makes.
    """

    def __init__(self, accelerator: Accelerator, precision: str) -> None:
        self._accelerator = accelerator
        self.rank: int = accelerator.process_index
        self.count: int = accelerator.num_processes
        self.is_main: bool = accelerator.is_main_process
        self.precision = precision
        self.on_parallel: Callable[[DistributedDataParallel], None] = lambda _: None
        # Accelerate calls the CPU of several processes "cpu:0", which safetensors refuses. A
        # tensor on that device names it "cpu".
        self.device = torch.empty(0, device=accelerator.device).device

    def wait(self) -> None:
        """Wait until all processes have reached this call."""
        self._accelerator.wait_for_everyone()

    def from_main(self, make: Callable[[], T]) -> T:
        """Call `make` in the main process; return its result, or raise its error, in every one."""
        outcome: list[Any] = [None, None]
        if self.is_main:
            try:
                outcome[0] = make()
            except (ValueError, OSError) as error:
                outcome[1] = error
        broadcast_object_list(outcome)
        if outcome[1] is not None:
            raise outcome[1]
        result: T = outcome[0]
        return result

    def mean(self, tensor: Tensor) -> Tensor:
        """Return the mean of a tensor over the processes."""
        mean: Tensor = self._accelerator.reduce(tensor, "mean")
        return mean

    def gather(self, tensor: Tensor) -> Tensor:
        """Concatenate a tensor (n, …) of each process, by rank: (n × count, …)."""
        gathered: Tensor = self._accelerator.gather(tensor)
        return gathered

    def parallel(self, network: nn.Module) -> nn.Module:
        """Return a model whose gradients are means over the processes: the network or a wrapper."""
        if self.count == 1:
            return network
        # All processes begin with equal weights. Each keeps its own batch statistics: the trainer
        # averages them over the processes before it uses them.
        known = signature(DistributedDataParallel).parameters
        name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        options: dict[str, Any] = {name: False, "init_sync": False}
        model = DistributedDataParallel(network, **options)
        self.on_parallel(model)
        return model

    def no_sync(self, model: nn.Module) -> AbstractContextManager[None]:
        """Return a context in which gradients accumulate in each process alone."""
        return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()

    def start_tracker(self, folder: Path, config: Mapping[str, Any]) -> None:
        """Start the tracker in a folder, with a run's configuration."""
        self._accelerator.project_configuration.logging_dir = str(folder)
        settings = {name: json.dumps(value) for name, value in config.items()}
        self._accelerator.init_trackers("inkrun", settings, {"wandb": {"dir": str(folder)}})

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log metrics to the tracker."""
        self._accelerator.log(metrics, step=step)


def _said(precision: Precision) -> Precision:
    """Return the precision of the options, or what the user said to the launcher."""
    said = launched_precision()
    if said is None or said == precision:
        return precision
    if precision != "auto":
        raise UserError(f"precision: got {precision}, and {said} by the launcher, expected one")
    for known in PRECISIONS:
        if said == known:
            return known
    raise UserError(
        f"precision: got the launcher's {said}, expected one of {', '.join(PRECISIONS)}"
    )


class LocalTensors:
    """Tensors whose values differ between the processes, float32 on the device."""

    def __init__(self, processes: Processes, tensors: Sequence[Tensor]) -> None:
        self._processes, self._tensors = processes, tensors

    def gather(self) -> Tensor:
        """Return the values of all processes: float32 (processes, values)."""
        return self._processes.gather(self._values()[None])

    def average(self) -> None:
        """Give all processes the means of their values."""
        self._set(self._processes.mean(self._values()))

    @contextmanager
    def as_means(self, gathered: Tensor) -> Iterator[None]:
        """Give this process the means of the values gathered, for the time of the context."""
        own = self._values()
        self._set(gathered.mean(0))
        try:
            yield
        finally:
            self._set(own)

    def restore(self, gathered: Tensor) -> None:
        """Give each process its own values again, or the means if the number of them changed."""
        alike = len(gathered) == self._processes.count
        self._set(gathered[self._processes.rank] if alike else gathered.mean(0))

    def _values(self) -> Tensor:
        return torch.cat([tensor.flatten() for tensor in self._tensors])

    def _set(self, values: Tensor) -> None:
        sizes = [tensor.numel() for tensor in self._tensors]
        for tensor, part in zip(self._tensors, torch.split(values, sizes), strict=True):
            tensor.copy_(part.view_as(tensor))


@contextmanager
def join_processes(precision: Precision = "auto", track: str | None = None) -> Iterator[Processes]:
    """Join the processes of this launch, on their devices and cores, for the time of the context.

    A precision that the user gave to the launcher counts as `precision`. `track` is the name of one
    of accelerate's trackers. Raises UserError for a precision that the device does not support, for
    two of them, for more processes than GPUs, and for a tracker that is not installed.
    """
    check_launcher()
    precision = _said(precision)
    if track and find_spec(track) is None:
        raise UserError(f"track: {track} is not installed: ./launch.sh setup track")
    use_cores()
    cpu = cpu_only()
    if not cpu and (count := local_processes()) > (gpus := torch.cuda.device_count()):
        raise UserError(f"processes: got {count}, expected at most {gpus}, one for each GPU")
    computes = precision_for(PartialState(cpu=cpu, timeout=LONGEST_WAIT).device, precision)
    # The precision is that of each training's own steps (`mixed_precision`), whose stages differ.
    accelerator = Accelerator(
        cpu=cpu,
        mixed_precision="no",
        log_with=track,
        # TensorBoard needs a folder now; the run directory is known later.
        project_dir="." if track else None,
    )
    yield Processes(accelerator, computes)
    # A process aborts at exit if gloo's threads outlive their group. Before the group is destroyed,
    # wrapped models must be freed and all processes must have reached this point.
    accelerator.free_memory()
    accelerator.wait_for_everyone()
    accelerator.end_training()

"""The processes that train together: the only module that uses accelerate's `Accelerator`."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import PartialState
from accelerate.utils import (
    AutocastKwargs,
    DistributedDataParallelKwargs,
    broadcast_object_list,
)
from torch import Tensor, nn
from torch.optim import Optimizer

from pipeline.errors import UserError
from pipeline.runtime.hardware import Precision, precision_for
from pipeline.runtime.launch import cpu_only, use_cores

T = TypeVar("T")


class Processes:
    """The processes that train together, as one of them sees them; `join_processes` creates it.

    `rank` is the number of this process, 0 to `count` - 1. It computes on `device`, in `precision`:
    "no", "bf16" or "fp16". The main process, `is_main`, prints and writes files. All processes must
    call every method except `log` and `start_tracker` alike.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self.rank: int = accelerator.process_index
        self.count: int = accelerator.num_processes
        self.is_main: bool = accelerator.is_main_process
        self.precision: str = accelerator.mixed_precision
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

    @contextmanager
    def wrapped(
        self, network: nn.Module, optimizer: Optimizer, mixed_precision: bool = True
    ) -> Iterator[tuple[nn.Module, Optimizer]]:
        """Yield a model whose gradients are means over the processes, and its optimizer.

        The model computes in `precision`, or in float32 if `mixed_precision` is false. The network
        itself is unwrapped again afterwards.
        """
        self._accelerator.autocast_handler = AutocastKwargs(enabled=mixed_precision)
        model, optimizer = self._accelerator.prepare(network, optimizer)
        yield model, optimizer
        self._accelerator.unwrap_model(model, keep_fp32_wrapper=False)
        self._accelerator.free_memory()

    def autocast(self) -> AbstractContextManager[None]:
        """Return a context that computes in `precision`."""
        context: AbstractContextManager[None] = self._accelerator.autocast()
        return context

    def no_sync(self, model: nn.Module) -> AbstractContextManager[None]:
        """Return a context in which gradients accumulate in each process alone."""
        context: AbstractContextManager[None] = self._accelerator.no_sync(model)
        return context

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradients of a loss."""
        self._accelerator.backward(loss)

    def clip_grad_norm(self, parameters: list[nn.Parameter], max_norm: float) -> Tensor:
        """Scale gradients down to a norm of at most `max_norm`; return the norm before."""
        norm: Tensor = self._accelerator.clip_grad_norm_(parameters, max_norm)
        return norm

    def start_tracker(self, folder: Path, config: Mapping[str, Any]) -> None:
        """Start the tracker in a folder, with a run's configuration."""
        self._accelerator.project_configuration.logging_dir = str(folder)
        settings = {name: json.dumps(value) for name, value in config.items()}
        self._accelerator.init_trackers("inkrun", settings, {"wandb": {"dir": str(folder)}})

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log metrics to the tracker."""
        self._accelerator.log(metrics, step=step)


@contextmanager
def join_processes(precision: Precision = "auto", track: str | None = None) -> Iterator[Processes]:
    """Join the processes of this launch, on their devices and cores, for the time of the context.

    `track` is the name of one of accelerate's trackers. Raises UserError for a precision that the
    device does not support, and for a tracker that is not installed.
    """
    if track and find_spec(track) is None:
        raise UserError(f"track: {track} is not installed: ./launch.sh setup track")
    use_cores()
    cpu = cpu_only()
    accelerator = Accelerator(
        cpu=cpu,
        mixed_precision=precision_for(PartialState(cpu=cpu).device, precision),
        log_with=track,
        # TensorBoard needs a folder now; the run directory is known later.
        project_dir="." if track else None,
        # The trainer averages batch statistics over the processes before it uses them.
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    yield Processes(accelerator)
    # A process aborts at exit if gloo's threads outlive their group. Before the group is destroyed,
    # wrapped models must be freed and all processes must have reached this point.
    accelerator.free_memory()
    accelerator.wait_for_everyone()
    accelerator.end_training()

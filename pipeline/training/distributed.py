"""The processes of one launch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, TypeAlias, TypeVar

from accelerate import Accelerator
from accelerate.state import PartialState
from accelerate.utils import (
    DistributedDataParallelKwargs,
    broadcast_object_list,
)

from pipeline.errors import UserError
from pipeline.runtime.hardware import Precision, precision_for
from pipeline.runtime.launch import use_cores, wants_cpu

Launch: TypeAlias = Accelerator  # what `processes` yields, for others to hand on


T = TypeVar("T")


@contextmanager
def join_processes(precision: Precision = "auto", track: str | None = None) -> Iterator[Launch]:
    """Join the processes of this launch, on their devices and cores, and leave in good order.

    `track` names a tracker of accelerate's. Raises UserError for a precision that the device does
    not offer, and for a tracker that is not installed.
    """
    if track and find_spec(track) is None:
        raise UserError(f"track: {track} is not installed: ./launch.sh setup track")
    use_cores()
    cpu = wants_cpu()
    mixed = precision_for(PartialState(cpu=cpu).device, precision)
    accelerator = Accelerator(
        cpu=cpu,
        mixed_precision=mixed,
        log_with=track,
        # The folder of a run is known later, but TensorBoard wants one from the beginning.
        project_dir="." if track else None,
        # Statistics are of every process's share, see `_share_statistics`, not of the main one's.
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    yield accelerator
    # Where gloo's threads outlive their group, the process aborts at exit: no wrapped model may be
    # left, and everybody must have come this far, before the group is taken down.
    accelerator.free_memory()
    accelerator.wait_for_everyone()
    accelerator.end_training()


def from_main(launch: Launch, make: Callable[[], T]) -> T:
    """Return, in every process, what `make` returns in the main one."""
    made: list[Any] = [make() if launch.is_main_process else None]
    broadcast_object_list(made)
    value: T = made[0]
    return value

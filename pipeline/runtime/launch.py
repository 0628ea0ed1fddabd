"""How this process was launched: its rank, its share of the cores, its age.

The only place that reads a launcher's environment variables.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from beton.errors import BetonError
from pipeline.errors import UserError
from pipeline.runtime.signals import Stopped


def is_main() -> bool:
    """Tell whether this is the process that speaks for all of a launch."""
    return os.environ.get("RANK", "0") == "0"


def caller_folder() -> Path:
    """Return the folder from which the user called launch.sh: the current one if not told."""
    return Path(os.environ.get("INKRUN_CALLER", ""))


def wants_cpu() -> bool:
    """Tell whether to compute on the CPU: there is no GPU, or `accelerate launch --cpu` said so.

    Without being told so, accelerate takes processes on a CPU for strangers to each other.
    """
    return not torch.cuda.is_available() or os.environ.get("ACCELERATE_USE_CPU") == "True"


def run_job(name: str, job: Callable[[], None]) -> int:
    """Run a job; what stops it is said in a line, once, by the main process.

    Returns the exit status: 0 done, 2 not done, 128 + a signal's number if that stopped it.
    """
    try:
        job()
    except (UserError, BetonError, OSError, FloatingPointError) as error:
        _say(f"{name}: {error}")
        let_main_speak()
        return 2
    except Stopped as stop:
        _say(f"{name}: {stop}; go on: ./launch.sh train {name} --resume {stop.run}")
        return 128 + stop.signal
    except KeyboardInterrupt:
        _say(f"{name}: interrupted")
        return 128 + signal.SIGINT
    return 0


def _say(line: str) -> None:
    if is_main():
        print(line, file=sys.stderr)


def let_main_speak(seconds: float = 5.0) -> None:
    """Wait, in other processes than the main one, before ending with an error that all have.

    A launcher ends all processes when one fails: it must not be the silent ones that fail first.
    """
    if not is_main():
        time.sleep(seconds)


def use_cores() -> int:
    """Let torch use this process's share of the cores that it may run on; return the number.

    Accelerate's launcher sets OMP_NUM_THREADS to 1 where nobody said anything. What the user said,
    in the environment or to the launcher, stands.
    """
    if not _is_told():
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(max(len(os.sched_getaffinity(0)) // here, 1))
    return torch.get_num_threads()


def _is_told() -> bool:
    """Tell whether the user chose the number of threads; else accelerate's launcher did, or nobody.

    The launcher hands on its own environment with the number added, so what it was started with,
    as Linux shows it, says who chose.
    """
    number = os.environ.get("OMP_NUM_THREADS")
    if number != "1" or "ACCELERATE_MIXED_PRECISION" not in os.environ:
        return number is not None
    launcher = Path(f"/proc/{os.getppid()}")
    try:
        environment = (launcher / "environ").read_bytes().split(b"\0")
        arguments = (launcher / "cmdline").read_bytes().split(b"\0")
    except OSError:  # another system, or another user's launcher
        return False
    return any(entry.startswith(b"OMP_NUM_THREADS=") for entry in environment) or any(
        argument.startswith(b"--num_cpu_threads_per_process") for argument in arguments
    )


def seconds_since_start() -> float:
    """Return this process's age, imports included."""
    ticks = Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19]
    started = int(ticks) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started

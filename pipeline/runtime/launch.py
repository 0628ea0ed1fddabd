"""The launch of this process: rank, cores, age, exit status.

The only module, beside `signals`, that reads a launcher's environment variables.
"""

import faulthandler
import io
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from beton.errors import BetonError, printable
from pipeline.errors import UserError
from pipeline.runtime.cgroup import usable_cores
from pipeline.runtime.hardware import is_full_memory
from pipeline.runtime.signals import Stopped, drop_output, with_notes

NO_THREAD = "can't start new thread"  # Python's words where a limit on processes is reached
LEFT_OUT = {
    "ACCELERATE_DYNAMO_BACKEND": "--dynamo_backend",
    "ACCELERATE_USE_DEEPSPEED": "--use_deepspeed",
    "ACCELERATE_USE_FSDP": "--use_fsdp",
    "ACCELERATE_USE_MEGATRON_LM": "--use_megatron_lm",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "--use_parallelism_config",
}


def is_main() -> bool:
    """Return whether this is the main process of a launch, the only one that prints."""
    return os.environ.get("RANK", "0") == "0"


def is_local_main() -> bool:
    """Return whether this is the main process of a launch on this machine."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def local_processes() -> int:
    """Return the number of processes of a launch on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def launch_name() -> str:
    """Return a text that the processes of a launch on this machine share, and no other ones."""
    return f"{os.getppid()} {os.environ.get('MASTER_PORT', '')}"


def set_up_streams() -> None:
    """Open the null device in place of a closed stdin, stdout or stderr; print all characters.

    The next file to be opened would take the number of a closed stream, and get what libraries in C
    print to it. Characters that the encoding of the output lacks, as ASCII does, are printed as
    escapes, as they are on stderr anyway.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def caller_folder() -> Path:
    """Return the folder from which the user called launch.sh, by default the current one."""
    return Path(os.environ.get("INKRUN_CALLER", ""))


def check_launcher() -> None:
    """Raise UserError for features of accelerate's launcher that inkrun's training does not have.

    Accelerate would take them from the environment, and nothing would say that they are not used.
    """
    for name, option in LEFT_OUT.items():
        if os.environ.get(name, "no").lower() not in ("", "no", "false", "0"):
            raise UserError(f"accelerate: got {option}, expected plain processes: leave it out")


def launched_precision() -> str | None:
    """Return the mixed precision that the user gave to accelerate's launcher, None for none.

    The launcher says "no" by default, and its questions about a configuration offer that; it counts
    only on the command line.
    """
    said = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    return said if said != "no" or b"--mixed_precision" in _launcher("cmdline") else None


def cpu_only() -> bool:
    """Return whether to compute on the CPU: without a GPU, or under `accelerate launch --cpu`.

    Accelerate connects processes on a CPU only with an explicit `cpu=True`.
    """
    return not torch.cuda.is_available() or os.environ.get("ACCELERATE_USE_CPU") == "True"


def run_job(name: str, job: Callable[[], None]) -> int:
    """Run a job and return its exit status: 0 done, 2 failed, 128 + number if stopped by a signal.

    The main process prints the reason in one line. A crash, such as SIGBUS for a mapped file that
    another process cut short, prints the stacks of all threads.
    """
    if not faulthandler.is_enabled():
        faulthandler.enable(2)
    try:
        job()
    except SystemExit as error:
        if error.code:  # the parser rejected the command line
            _wait_for_main()
        raise
    except (UserError, BetonError, OSError, FloatingPointError) as error:
        print_error(f"{name}: {_reason(error)}")
        _wait_for_main()
        return 2
    except Stopped as stop:
        command = name if name == "sweep" else f"train {name}"
        print_error(f"{name}: {stop}; resume: ./launch.sh {command} --resume {stop.run}")
        return 128 + stop.signal
    except KeyboardInterrupt as stop:
        print_error(with_notes(f"{name}: interrupted", stop))
        return 128 + signal.SIGINT
    except (MemoryError, RuntimeError) as error:
        if not (is_full_memory(error) or str(error) == NO_THREAD):
            raise
        reason = str(error).partition("\n")[0]
        if is_full_memory(error):
            words = f"memory is full: {reason}".removesuffix(": ")
            reason = f"{words}; smaller batches or images need less"
        print_error(f"{name}: {reason}", every=True)  # the memory of other processes may not be
        return 2
    return 0


def leave_group(status: int) -> None:
    """End this process now, if it is one of several and an error or a signal has ended its job.

    Its group was not destroyed then, and Python's own exit sometimes aborts (134 in place of
    `status`) where gloo's threads outlive it.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _reason(error: Exception) -> str:
    """Return what went wrong; of the system's errors, the path and its words without a number."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error)


def print_error(line: str, every: bool = False) -> None:
    """Print a line on stderr, in the main process or in `every` one.

    Where stderr is a file on a full disk, only the exit status can report the error.
    """
    if is_main() or every:
        try:
            print(printable(line), file=sys.stderr, flush=True)
        except OSError:
            drop_output(2)


def _wait_for_main(seconds: float = 5.0) -> None:
    """Wait, in all processes except the main one, before exiting with an error of all processes.

    A launcher kills all processes when one fails; the main one must print the error first.
    """
    if not is_main():
        time.sleep(seconds)


def use_cores() -> int:
    """Divide the usable cores among the processes of this machine; return this process's threads.

    A number of threads that the user set, in the environment or for the launcher, stays. Accelerate
    sets OMP_NUM_THREADS to 1 otherwise.
    """
    if not _user_set_threads():
        torch.set_num_threads(max(usable_cores() // local_processes(), 1))
    return torch.get_num_threads()


def _user_set_threads() -> bool:
    """Return whether the user set the number of threads, rather than accelerate's launcher.

    The launcher adds the number to the environment of its processes, so the launcher's own
    environment, as Linux shows it, holds only what the user set.
    """
    number = os.environ.get("OMP_NUM_THREADS")
    if number != "1" or "ACCELERATE_MIXED_PRECISION" not in os.environ:
        return number is not None
    return any(entry.startswith(b"OMP_NUM_THREADS=") for entry in _launcher("environ")) or any(
        argument.startswith(b"--num_cpu_threads_per_process") for argument in _launcher("cmdline")
    )


def _launcher(kind: str) -> list[bytes]:
    """Return the launcher's arguments ("cmdline") or environment ("environ"), as Linux shows them.

    Empty on another system, and for another user's launcher.
    """
    try:
        return Path(f"/proc/{os.getppid()}/{kind}").read_bytes().split(b"\0")
    except OSError:
        return []


def seconds_since_start() -> float:
    """Return the seconds since this process started, including imports."""
    ticks = Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19]
    started = int(ticks) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started

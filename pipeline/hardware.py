"""What there is to compute with: cores, precision, and a record of both."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch

from pipeline.timing import processor

Precision = Literal["auto", "no", "bf16", "fp16"]
PACKAGES = ("inkrun", "torch", "torchvision", "accelerate", "numba", "numpy", "torchmetrics")


def precision_for(device: torch.device, wish: Precision = "auto") -> Literal["no", "bf16", "fp16"]:
    """Return the mixed precision to train in: bf16 where the hardware computes in it, unless told.

    A CPU without bf16 instructions emulates it, many times slower. Raises ValueError for a wish
    that the device cannot fulfil.
    """
    if wish == "fp16" and device.type == "cpu":
        raise ValueError("precision: got 'fp16' on a CPU, expected 'auto', 'no' or 'bf16'")
    if wish != "auto":
        return wish
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        facts = getattr(torch.cpu, "get_capabilities", dict)()  # new in torch 2.11
        fast = facts.get("avx512_bf16", False) or facts.get("amx_bf16", False)
    return "bf16" if fast else "no"


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
    """Tell whether the user chose the number of threads, or accelerate's launcher did by default.

    The launcher hands on its own environment with the number added, so what it was started with,
    as Linux shows it, says who chose.
    """
    number = os.environ.get("OMP_NUM_THREADS")
    if number is None or number != "1" or "ACCELERATE_MIXED_PRECISION" not in os.environ:
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


def environment(device: torch.device, precision: str, processes: int) -> dict[str, Any]:
    """Return versions and hardware, for a run's record."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: version(name) for name in PACKAGES},
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": precision,
        "processes": processes,
        "threads": torch.get_num_threads(),
    }

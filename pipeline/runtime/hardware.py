"""The hardware: the precision for it, and its description."""

import os
import platform
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch

from pipeline.errors import UserError
from pipeline.runtime.cgroup import memory_left, usable_cores

Precision = Literal["auto", "no", "bf16", "fp16"]
FULL_MEMORY = re.compile(
    "out of memory|can't allocate memory|bad_alloc|ALLOC_FAILED"
    "|could not (create|execute) a "  # oneDNN, without room for its scratch pad
)
PACKAGES = ("inkrun", "torch", "torchvision", "accelerate", "numba", "numpy", "torchmetrics")


def precision_for(
    device: torch.device, requested: Precision = "auto"
) -> Literal["no", "bf16", "fp16"]:
    """Return the mixed precision: as requested; "auto" is bf16 if the hardware computes in it.

    A CPU without bf16 instructions emulates it, many times slower. Raises UserError for a precision
    that the device does not support.
    """
    if requested == "fp16" and device.type == "cpu":
        raise UserError("precision: got 'fp16' on a CPU, expected 'auto', 'no' or 'bf16'")
    if requested != "auto":
        return requested
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # Older versions of torch have no get_capabilities.
        flags: Mapping[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        fast = flags.get("avx512_bf16", False) or flags.get("amx_bf16", False)
    return "bf16" if fast else "no"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return a context that computes in "bf16" or "fp16"; in "no", it computes in float32."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision != "no")


def free_memory(device: torch.device) -> int:
    """Return the bytes that a device has to spare; on a CPU, within the limit of a container."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    info = Path("/proc/meminfo")
    lines = info.read_text().splitlines() if info.exists() else []
    available = (int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    free = next(available, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    limited = memory_left()
    return free if limited is None else min(free, limited)


def is_full_memory(error: Exception) -> bool:
    """Return whether an error means that memory is full, of this machine or of a device."""
    return isinstance(error, MemoryError) or bool(FULL_MEMORY.search(str(error)))


def gpu_environment(number: int) -> dict[str, str]:
    """Return the environment in which the process `number` of several sees a GPU of its own.

    The processes share the GPUs in turn. Without several GPUs, nothing changes.
    """
    if (count := torch.cuda.device_count()) < 2:
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(gpu) for gpu in range(count)]
    return {"CUDA_VISIBLE_DEVICES": gpus[number % count]}


def environment(device: torch.device, precision: str, processes: int) -> dict[str, Any]:
    """Return versions and hardware, for a run's environment.json."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: version(name) for name in PACKAGES},
        "processor": processor(),
        "cores": usable_cores(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": precision,
        "processes": processes,
        "threads": torch.get_num_threads(),
    }


def machine() -> str:
    """Return the processor, usable cores and Python version, in one line."""
    return f"{processor()}, {usable_cores()} cores, Python {platform.python_version()}"


def processor() -> str:
    """Return the processor's name as Linux gives it, or its architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())

"""The limits that a container sets: Linux control groups (cgroups), version 2 and 1.

A group's limits hold for all groups within it, so the strictest on the way to the root counts.
https://docs.kernel.org/admin-guide/cgroup-v2.html
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

MOUNT, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def usable_cores(mount: Path = MOUNT, own: Path = OWN) -> int:
    """Return the number of cores that this process may use, within its groups' quota of time."""
    quotas = [_quota(folder) for folder in _groups("cpu", mount, own)]
    return max(1, math.floor(min([*quotas, len(os.sched_getaffinity(0))])))


def memory_left(mount: Path = MOUNT, own: Path = OWN) -> int | None:
    """Return the bytes that this process's groups leave for it, None without a limit.

    Files in memory that were not used lately make room, and do not count.
    """
    left = [_left(folder) for folder in _groups("memory", mount, own)]
    smallest = min(left, default=math.inf)
    return None if smallest == math.inf else max(0, int(smallest))


def _groups(controller: str, mount: Path, own: Path) -> Iterator[Path]:
    """Yield the folders of this process's group of a controller, and of those around it."""
    lines = own.read_text().splitlines() if own.exists() else []
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = mount / controllers if controllers else mount
        if controllers and not root.exists():
            root = mount / controller
        # In a container, the own group may be mounted as the root.
        folder = root / name.lstrip("/")
        yield from (one for one in (folder, *folder.parents) if one.is_relative_to(root))


def _quota(folder: Path) -> float:
    """Return the cores whose whole time a group may use."""
    if (limits := _words(folder / "cpu.max")) and limits[0] != "max":
        return int(limits[0]) / int(limits[1])
    quota, period = (_words(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    return int(quota[0]) / int(period[0]) if quota and period and int(quota[0]) > 0 else math.inf


def _left(folder: Path) -> float:
    """Return the bytes up to the limit of a group's memory."""
    for limit, usage, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        most, used = _words(folder / limit), _words(folder / usage)
        if most and used and most[0] != "max":
            words = _words(folder / "memory.stat")
            found = dict(zip(words[::2], map(int, words[1::2]), strict=True))
            return int(most[0]) - int(used[0]) + found.get(cache, 0)
    return math.inf


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:  # a controller that is off, or the root, which has no limits
        return []

"""Limits of containers, in copies of the files in which Linux shows control groups."""

import os
from pathlib import Path

import pytest
from raw_data import make_tree

from pipeline.runtime.cgroup import memory_left, usable_cores

GIB = 1 << 30


def groups(folder: Path, lines: str, files: dict[str, str]) -> tuple[Path, Path]:
    own = folder / "own"
    own.write_text(lines)
    return make_tree(folder / "mount", {name: text.encode() for name, text in files.items()}), own


def test_version_2_and_the_strictest_group_on_the_way(tmp_path: Path) -> None:
    files = {
        "jobs/memory.max": f"{4 * GIB}\n",
        "jobs/memory.current": f"{GIB}\n",
        "jobs/memory.stat": f"anon 5\ninactive_file {GIB // 2}\n",
        "jobs/cpu.max": "150000 100000\n",
        "jobs/one/memory.max": "max\n",
        "jobs/one/memory.current": "7\n",
        "jobs/one/cpu.max": "max 100000\n",
        "others/memory.max": "0\n",
        "others/memory.current": "0\n",
    }
    mount, own = groups(tmp_path, "0::/jobs/one\n", files)
    assert memory_left(mount, own) == 3.5 * GIB
    assert usable_cores(mount, own) == 1  # one and a half: two threads would wait for each other


def test_version_1_has_a_tree_for_each_controller(tmp_path: Path) -> None:
    files = {
        "memory/box/memory.limit_in_bytes": f"{GIB}\n",
        "memory/box/memory.usage_in_bytes": f"{2 * GIB}\n",
        "memory/box/memory.stat": "cache 1\ntotal_inactive_file 0\n",
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
        "memory/memory.usage_in_bytes": "0\n",
        "cpu,cpuacct/box/cpu.cfs_quota_us": "100000\n",
        "cpu,cpuacct/box/cpu.cfs_period_us": "100000\n",
        "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
        "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    }
    lines = "4:memory:/box\n3:cpu,cpuacct:/box\n1:name=systemd:/\n0::/\n"
    mount, own = groups(tmp_path, lines, files)
    assert memory_left(mount, own) == 0  # above its limit, as for a moment a group can be
    assert usable_cores(mount, own) == 1


@pytest.mark.parametrize("lines", ["", "0::/\n", "2:cpu:/nowhere\n0::/nowhere\n"])
def test_without_limits_all_is_usable(tmp_path: Path, lines: str) -> None:
    mount, own = groups(tmp_path, lines, {"cgroup.procs": "1\n"})
    assert memory_left(mount, own) is None
    assert usable_cores(mount, own) == len(os.sched_getaffinity(0))


def test_in_a_container_the_own_group_is_mounted(tmp_path: Path) -> None:
    files = {"memory.max": f"{GIB}\n", "memory.current": "0\n", "memory.stat": "anon 0\n"}
    mount, own = groups(tmp_path, "0::/docker/5a\n", files)
    assert memory_left(mount, own) == GIB
    assert memory_left(mount, tmp_path / "none") is None  # another system

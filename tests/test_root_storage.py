"""Disks that need root: a checkout that is mounted read-only, and a disk of 3 MB.

    INKRUN_ROOT_TESTS=1 python -m pytest tests/test_root_storage.py

Nothing is simulated: the mounts are real ones.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from raw_data import folders, make_tree, saved

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.environ.get("INKRUN_ROOT_TESTS") != "1", reason="needs root and INKRUN_ROOT_TESTS=1"
    ),
]
CHECKOUT = Path(__file__).resolve().parents[1]


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", *options, str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def prep(checkout: Path, folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(checkout / "jobs" / "prep.py"), *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(checkout), "HOME": str(folder / "home")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_read_only_checkout_prepares_data(tmp_path: Path) -> None:
    make_tree(tmp_path / "set", folders())
    read_only = tmp_path / "checkout"
    with mounted(read_only, "--bind", str(CHECKOUT)):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(read_only)], check=True)
        with pytest.raises(OSError, match="Read-only"):
            (read_only / "beton" / "new").touch()
        for force in ([], ["--force"]):
            done = prep(read_only, tmp_path, "set", "--source", "set", *force)
            assert done.returncode == 0, done.stderr
            assert done.stderr == ""
    assert list((tmp_path / "home").rglob("*.kernel"))  # compiled once


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 500, 500), np.uint8)
    images = {f"{i % 2}/{i}.png": saved(Image.fromarray(each)) for i, each in enumerate(noise)}
    make_tree(tmp_path / "set", images)
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=3m", "tmpfs") as disk:
        done = prep(CHECKOUT, tmp_path, "set", "--source", "set", "--out", "disk")
        assert done.returncode == 2
        assert done.stderr.splitlines() == ["prep: disk/set.beton: No space left on device"]
        assert list(disk.iterdir()) == []

"""The default datasets of the jobs: prepared where they are missing, by one process of a launch.

This happens before the processes form a group, since a group's members may wait for each other only
for some minutes. A lock on a file beside the dataset keeps other launches out. The main process of
a machine prepares, and the others wait for the dataset, or for the note of a failure.
"""

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from pipeline.data.catalog import AUXILIARY, SourceFinder, default_split
from pipeline.data.pixels.options import PixelOptions
from pipeline.errors import UserError
from pipeline.experiments.data_options import default_colour
from pipeline.experiments.preparation import prepare_dataset
from pipeline.runtime import launch
from pipeline.runtime.cgroup import usable_cores
from pipeline.runtime.progress import make_console

FOLDER = Path("data")
POLL = 0.1  # seconds between two checks of a process that waits


def default_dataset(name: str) -> Path:
    """Return the path of a default dataset."""
    return FOLDER / f"{name}.beton"


def prepare_defaults(names: Sequence[str]) -> None:
    """Prepare the default datasets that are missing, from data/raw or else generated.

    All processes of a launch must call it alike. Raises SourceError, BetonError or OSError, in the
    process that prepares, and UserError in the others.
    """
    for name in names:
        if default_dataset(name).exists():
            continue
        if launch.is_local_main():
            _prepare_locked(name)
        else:
            _wait_for(name)


def _prepare_locked(name: str) -> None:
    path = default_dataset(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(_lock(path)) as note:
        if path.exists():  # another launch has prepared it meanwhile
            return
        try:
            _prepare(name, path, make_console(quiet=not launch.is_main()))
        except BaseException:
            os.pwrite(note, launch.launch_name().encode(), 0)
            raise
        _lock(path).unlink()


def _wait_for(name: str) -> None:
    path = default_dataset(name)
    while not path.exists():
        time.sleep(POLL)
        try:
            failed = _lock(path).read_text() == launch.launch_name()
        except FileNotFoundError:  # the main process has not begun, or is done
            failed = False
        if failed:
            raise UserError(f"{path}: its preparation failed in the main process")


def _lock(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Hold the lock on a file, which is made and emptied; yield its descriptor."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.truncate(descriptor, 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _prepare(name: str, path: Path, console: Console) -> None:
    source, found_by = SourceFinder().find(name)
    console.print(f"{name}: {path} is missing; it is prepared first")
    prepare_dataset(
        console,
        name,
        source,
        path,
        path.with_suffix(".html"),
        found_by=found_by,
        split=None if name == AUXILIARY else default_split(name, source),
        pixels=PixelOptions(colour=default_colour(name)),
        workers=usable_cores(),
    )

"""Preparation speed, against decoding the same files with Pillow.

    ./launch.sh bench prep --source hand-sample.zip

Preparation starts processes, reads and hashes the archive, decodes, encodes and writes. The
baseline decodes the unpacked files to arrays in a pool of as many processes, and drops them. Both
run in turn, with a warm page cache; the table shows medians and ratios.
"""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import multiprocessing
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from pipeline.benchmarks.harness import compare_rates
from pipeline.data.prepare import prepare
from pipeline.data.sources import open_source
from pipeline.experiments import command
from pipeline.runtime.hardware import machine


@dataclass(frozen=True)
class Config:
    """Measure preparation against decoding with Pillow."""

    source: Path
    """A zip archive with one folder of images per class."""
    copies: int = 3
    """Copies of each image."""
    processes: int = 2
    """Processes of both tasks."""
    rounds: int = 5
    """Rounds of the comparison."""


def multiply(source: Path, copies: int, folder: Path) -> tuple[Path, list[Path]]:
    """Write an archive of `copies` of each file; return it and its unpacked files."""
    target = folder / source.name
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for member in old.infolist():
            for copy in range(copies if not member.is_dir() else 0):
                path = Path(member.filename)
                new.writestr(f"{path.parent}/{path.stem}-{copy}{path.suffix}", old.read(member))
    shutil.unpack_archive(target, folder / "unpacked", "zip")
    return target, sorted((folder / "unpacked").rglob("*.png"))


def decode(path: Path) -> int:
    """Decode a file with Pillow; return its number of pixels."""
    return np.asarray(Image.open(path).convert("L")).size


def run_pillow(files: list[Path], processes: int) -> int:
    """Decode all files with Pillow; return their number."""
    with multiprocessing.Pool(processes) as pool:
        return sum(pixels > 0 for pixels in pool.imap_unordered(decode, files, chunksize=8))


def main(config: Config) -> None:
    """Run the benchmark and print its table."""
    console = Console(width=110)
    console.print(f"{machine()}; medians of {config.rounds} rounds")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive, files = multiply(config.source, config.copies, folder)
        out, processes = folder / "out.beton", config.processes

        def prepare_all() -> int:
            prepared = prepare(open_source(archive), out, workers=processes, force=True)
            return sum(prepared.images.values())

        baseline = f"Pillow decodes, {processes} processes"
        tasks: dict[str, Callable[[], int]] = {
            baseline: partial(run_pillow, files, processes),
            f"inkrun prepares, at most {processes} processes": prepare_all,
        }
        title = f"{len(files):,} images of {config.source.name}"
        console.print(compare_rates(tasks, config.rounds, baseline, title))


if __name__ == "__main__":
    sys.exit(command.main("bench prep", Config, main))

"""How fast preparation is: all of it, against only decoding the same files with Pillow.

    python jobs/bench/prep.py --source hand-sample.zip

Preparation reads the archive, hashes it, decodes, encodes and writes; starting its processes is
counted. The baseline is a pool of as many processes that decodes the unpacked files to arrays and
throws them away. Both run in turn, page cache warm; medians and ratios are printed.
"""

import multiprocessing
import tempfile
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import tyro
from PIL import Image
from rich.console import Console

from pipeline.data.prepare import prepare
from pipeline.data.sources import open_source
from pipeline.runtime.benchmark import measure
from pipeline.runtime.hardware import machine


@dataclass(frozen=True)
class Config:
    """Measure preparation against decoding with Pillow."""

    source: Path
    """A zip archive with a folder of pictures per class."""
    copies: int = 3
    """How many times its pictures are taken."""
    processes: int = 2
    """Processes of either way."""
    rounds: int = 5
    """Rounds of the comparison."""


def multiply(source: Path, copies: int, folder: Path) -> tuple[Path, list[Path]]:
    """Write an archive of `copies` of each file; return it and the files, unpacked."""
    target = folder / source.name
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for member in old.infolist():
            for copy in range(copies if not member.is_dir() else 0):
                path = Path(member.filename)
                new.writestr(f"{path.parent}/{path.stem}-{copy}{path.suffix}", old.read(member))
    with zipfile.ZipFile(target) as archive:
        archive.extractall(folder / "unpacked")
    return target, sorted((folder / "unpacked").rglob("*.png"))


def decode(path: Path) -> int:
    """Decode a file as people do; returns its number of pixels."""
    return np.asarray(Image.open(path).convert("L")).size


def run_pillow(files: list[Path], processes: int) -> int:
    """Decode all files with Pillow; returns their number."""
    with multiprocessing.Pool(processes) as pool:
        return sum(pixels > 0 for pixels in pool.imap_unordered(decode, files, chunksize=8))


def run_prepare(archive: Path, out: Path, processes: int) -> int:
    """Prepare the archive; returns the number of its pictures."""
    prepared = prepare(open_source(archive), out, workers=processes, force=True)
    return sum(prepared.images.values())


def main(config: Config) -> None:
    """Run the benchmark and print its table."""
    console = Console(width=110)
    console.print(f"{machine()}; medians of {config.rounds} rounds")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive, files = multiply(config.source, config.copies, folder)
        baseline = f"Pillow decodes, {config.processes} processes"
        ways = {
            baseline: partial(run_pillow, files, config.processes),
            f"inkrun prepares, at most {config.processes} processes": partial(
                run_prepare, archive, folder / "out.beton", config.processes
            ),
        }
        rates = measure(ways, config.rounds, baseline)
        console.print(rates.table(f"{len(files):,} pictures of {config.source.name}", "pictures"))


if __name__ == "__main__":
    main(tyro.cli(Config))

"""Synthetic handwriting as files and pictures; `prep` needs none of this to train on it.

    ./launch.sh synth --out pages --writers 40 --seed 1       a PNG tree of the MIDAS shape
    ./launch.sh synth --table forms.png                       every form of every character
    ./launch.sh synth --compare SOURCE --grid mixed.png       against real pages: figures, pictures

Exit status: 0 done, 2 not done, with the reason in a line.
"""

import os
import shutil
import sys
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from rich.console import Console
from rich.table import Table
from tyro import conf

from pipeline.data.sources import Source, SourceError, open_source
from pipeline.data.sources.image_decoder import SYNTHETIC_MARK
from pipeline.data.synth import preview, shape_stats
from pipeline.data.synth.handwriting import SyntheticPages
from pipeline.runtime.progress import progress, terminal


@dataclass(frozen=True)
class Config:
    """Synthetic handwriting as files and pictures."""

    out: Annotated[Path | None, conf.arg(metavar="DIR")] = None
    """a new folder for PNG files: handwriting/Sample001…Sample062/imgCCC-WWW.png"""
    writers: int = 40
    """1 to 999"""
    seed: int = 0
    """equal seeds draw equal pages"""
    grey: bool = False
    """soft edges, instead of black and white"""
    table: Annotated[Path | None, conf.arg(metavar="FILE")] = None
    """a picture of every form of every character"""
    compare: Annotated[Path | None, conf.arg(metavar="SOURCE")] = None
    """real pages to compare with: a zip or a folder in the shape of MIDAS part 1"""
    grid: Annotated[Path | None, conf.arg(metavar="FILE")] = None
    """with --compare: a picture of real and synthetic characters, mixed; the key is printed"""


def save_page(source: Source, folder: Path, index: int) -> None:
    """Draw a page and save it where it belongs in the tree."""
    path = folder / source.name(index)
    path.parent.mkdir(parents=True, exist_ok=True)
    marks = PngInfo()
    marks.add_text("Source", SYNTHETIC_MARK)
    Image.fromarray(source.image(index)).save(path, pnginfo=marks)


def save_tree(source: Source, out: Path, console: Console) -> None:
    """Save all pages below `out`, which appears whole or not at all."""
    if out.exists():
        raise SourceError(f"{out}: is there already; give a new folder")
    partial_tree = out.with_name(f".{out.name}-{os.getpid()}")
    partial_tree.mkdir(parents=True)
    save = partial(save_page, source, partial_tree)
    workers = len(os.sched_getaffinity(0))
    try:
        with (
            progress(console, "synth", len(source)) as advance,
            ProcessPoolExecutor(workers, get_context("forkserver")) as pool,
        ):
            for _ in pool.map(save, range(len(source)), chunksize=32):
                advance(1)
        partial_tree.rename(out)
    finally:
        shutil.rmtree(partial_tree, ignore_errors=True)
    console.print(f"synth: {len(source):,} pages in {out} (synthetic)")


def save_picture(image: Image.Image, path: Path) -> None:
    """Save a picture, whole or not at all."""
    temporary = path.with_name(f".{path.name}")
    image.save(temporary, format="PNG")
    temporary.replace(path)


def measures(source: Source, console: Console, name: str) -> shape_stats.Floats:
    """Measure all pages of a source."""
    with progress(console, name, len(source)) as advance:
        rows = []
        for index in range(len(source)):
            rows.append(shape_stats.measure(source.image(index)))
            advance(1)
    return np.array(rows)


def comparison_table(rows: list[shape_stats.Comparison], title: str) -> Table:
    """Return a measure per row: means, standard deviations, 95 % intervals of the real ones."""
    table = Table(title=title, title_justify="left", box=None)
    for heading in ("", "real mean", "synthetic", "real spread", "synthetic", ""):
        table.add_column(heading, justify="right" if heading else "left")
    for row in rows:
        mean, spread = (
            f"{figure.value:.4g} ({figure.low:.4g}–{figure.high:.4g})"
            for figure in (row.real_mean, row.real_spread)
        )
        agrees = "within" if row.agrees else "outside"
        table.add_row(row.measure, mean, f"{row.mean:.4g}", spread, f"{row.spread:.4g}", agrees)
    return table


def synthesize(config: Config) -> None:
    """Do what the options say. Raises SourceError or OSError."""
    console = terminal()
    pages = SyntheticPages(config.writers, config.seed, config.grey)
    if not (config.out or config.table or config.compare):
        raise SourceError("nothing to do: give --out DIR, --table FILE or --compare SOURCE")
    if config.grid and not config.compare:
        raise SourceError("--grid goes with --compare SOURCE")
    if config.out:
        save_tree(pages, config.out, console)
    if config.table:
        save_picture(preview.glyph_table(), config.table)
    if config.compare:
        real = open_source(config.compare)
        if config.grid:
            grid, key = preview.mixed_grid(real, pages, config.seed)
            save_picture(grid, config.grid)
            console.print("\n".join([f"{config.grid}: R is real, S synthetic", *key]))
        rows = shape_stats.compare(
            measures(real, console, "real"),
            real.annotations.writers,
            measures(pages, console, "synthetic"),
        )
        title = f"{len(real):,} real pages ({real.path.name}), {len(pages):,} synthetic ones"
        console.print(comparison_table(rows, title))


def main() -> int:
    """Run the job; a failure is said in a line, without a traceback. Returns the exit status."""
    try:
        synthesize(tyro.cli(Config, config=(conf.FlagCreatePairsOff,)))
    except (SourceError, OSError, BrokenExecutor) as error:
        print(f"synth: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("synth: interrupted", file=sys.stderr)
        return 130
    else:
        return 0
    return 2


if __name__ == "__main__":
    sys.exit(main())

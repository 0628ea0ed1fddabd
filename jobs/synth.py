"""Export and inspect synthetic data; `prep` needs none of this to train on them.

    ./launch.sh synth --out pages --writers 40 --seed 1       PNG files in MIDAS part 1's layout
    ./launch.sh synth --table forms.png                       an image of all forms of characters
    ./launch.sh synth --compare SOURCE --grid mixed.png       compare with real pages
    ./launch.sh synth --samples cifar10 --grid shapes.png     images of each class

Exit status: 0 success, 2 failure with a one-line error, 130 interrupted.
"""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro import conf

from pipeline.data.catalog import SyntheticData
from pipeline.data.sources import SourceError, open_source
from pipeline.data.synth import preview, shape_stats
from pipeline.data.synth.export import save_pages, save_png
from pipeline.data.synth.handwriting import SyntheticPages
from pipeline.experiments import command
from pipeline.reporting.data_tables import comparison_table
from pipeline.runtime.progress import make_console, progress

SAMPLES = 108  # images of --samples, approximately
ROWS, COLUMNS = 12, 18  # of --samples: the most classes with a row each, and columns of others


@dataclass(frozen=True)
class Config:
    """Export and inspect synthetic data."""

    out: Annotated[Path | None, conf.arg(metavar="DIR")] = None
    """New folder for PNG files: handwriting/SampleCCC/imgCCC-WWW.png, class CCC by writer WWW."""
    writers: int = 40
    """Number of writers, 1 to 999."""
    seed: int = 0
    """Random seed; equal seeds give equal pages."""
    grey: bool = False
    """Render soft edges instead of black and white."""
    table: Annotated[Path | None, conf.arg(metavar="FILE")] = None
    """PNG file for an image of all forms of all characters."""
    compare: Annotated[Path | None, conf.arg(metavar="SOURCE")] = None
    """Real pages to compare with: a zip archive or folder in the layout of MIDAS part 1."""
    grid: Annotated[Path | None, conf.arg(metavar="FILE")] = None
    """With --compare: PNG file for a grid of real and synthetic characters; prints the key.
    With --samples: PNG file for the samples."""
    samples: Literal["mnist", "emnist", "fashion", "cifar10"] | None = None
    """With --grid: draw images of each class of this synthetic dataset."""


def synthesize(config: Config) -> None:
    """Write and print what the options request. Raises SourceError or OSError."""
    console = make_console()
    pages = SyntheticPages(config.writers, config.seed, config.grey)
    if not (config.out or config.table or config.compare or config.samples):
        raise SourceError("expected --out DIR, --table FILE, --compare SOURCE or --samples NAME")
    if config.grid and not (config.compare or config.samples):
        raise SourceError("--grid: expected --compare SOURCE or --samples NAME too")
    if config.samples and (config.compare or not config.grid):
        raise SourceError("--samples: expected --grid FILE too, and no --compare")
    if config.out:
        with progress(console, "synth", len(pages)) as advance:
            save_pages(pages, config.out, advance)
        console.print(f"synth: {len(pages):,} synthetic pages in {config.out}")
    if config.table:
        save_png(preview.glyph_table(), config.table)
    if config.samples and config.grid:
        source = SyntheticData(seed=config.seed).source(config.samples)
        classes = len(source.annotations.classes)
        per_class = SAMPLES // classes
        columns = per_class if classes <= ROWS else COLUMNS
        save_png(preview.sample_sheet(source, per_class, columns), config.grid)
    if config.compare:
        real = open_source(config.compare)
        if config.grid:
            grid, key = preview.mixed_grid(real, pages, config.seed)
            save_png(grid, config.grid)
            console.print("\n".join([f"{config.grid}: R is real, S synthetic", *key]))
        with progress(console, "real", len(real)) as advance:
            of_real = shape_stats.measure(real, advance)
        with progress(console, "synthetic", len(pages)) as advance:
            of_synthetic = shape_stats.measure(pages, advance)
        rows = shape_stats.compare(of_real, real.annotations.writers, of_synthetic)
        title = f"{len(real):,} real pages ({real.path.name}), {len(pages):,} synthetic pages"
        console.print(comparison_table(rows, title))


def main() -> int:
    """Run the command; print a failure as one line. Returns the exit status."""
    return command.main("synth", Config, synthesize, conf.FlagCreatePairsOff)


if __name__ == "__main__":
    sys.exit(main())

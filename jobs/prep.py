"""Prepare datasets: raw images → data/NAME.beton, one file per dataset.

    ./launch.sh prep                                     all datasets whose raw data are in data/raw
    ./launch.sh prep part1 --source trainPart1.zip       one dataset, from a zip, folder or IDX file
    ./launch.sh prep mnist --download                    download the data if data/raw lacks them
    ./launch.sh prep part1 --synthetic --writers 400     generate them, the default without data
    ./launch.sh prep fashion-wrong --source fashion-mnist --mislabel wrong    corrupt the labels
    ./launch.sh prep leaves --source leaves.zip --check  only report what prep understands

Each file stores its training, validation and test splits, and has a data card, data/NAME.html. An
up-to-date file is not written again. An ambiguity is an error that names the options to settle it.
Exit status: 0 success, 2 failure with a one-line error, 128 + the number of a signal (130, 143).
"""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro import conf

from beton.format.storage import temporary_folder
from pipeline.data.catalog import (
    AUXILIARY,
    SYNTHETIC_BY_DEFAULT,
    SourceFinder,
    SyntheticData,
    default_split,
)
from pipeline.data.inflated import inflating_into
from pipeline.data.pixels.options import ColourOption
from pipeline.data.prepare import PrepareResult
from pipeline.data.sources import SourceError
from pipeline.data.splits import Split
from pipeline.data.synth.mislabel import LabelNoise
from pipeline.errors import UserError
from pipeline.experiments import command
from pipeline.experiments.data_options import DataOptions, default_colour
from pipeline.experiments.preparation import prepare_dataset
from pipeline.loading.dataset import open_dataset
from pipeline.reporting.data_tables import prepared_table
from pipeline.runtime.progress import make_console


@dataclass(frozen=True)
class Config:
    """Prepare datasets: raw images → data/NAME.beton, one file per dataset."""

    names: Annotated[tuple[str, ...], conf.Positional, conf.arg(metavar="[NAME …]")] = ()
    """part1, part2 (the digits of part 1), part3, mnist, emnist (digits and letters), fashion,
    cifar10, emnist-letters …, or a new name. part1 also prepares auxiliary: additional synthetic
    pages to train on.
    Default: the dataset at --source; without --source, all datasets in data/raw;
    if data/raw has none, part1, part2, part3 and mnist."""
    source: Annotated[Path | None, conf.arg(metavar="PATH")] = None
    """Raw data: a folder, a zip or tar archive, or a file of arrays; docs/prep.md lists what is
    read. FOLDER/DATASET selects one of several IDX datasets.
    Default: search data/raw; if part1, part2, part3, mnist, emnist, fashion or cifar10 are missing,
    generate them."""
    out: Path = Path("data")
    """Folder of the .beton files."""
    split: str | None = None
    """90-10 or 80-10-10: percentages of each class for training, validation and test.
    writers=2 or writers=0.1: number or fraction of writers held out for validation.
    images=5000: number of images held out for validation.
    A test set of the raw data stays the test split. Default: 90-10; for fashion, images=10000."""
    seed: int = 0
    """Seed of the splits, of synthetic data and of --mislabel."""
    skip_bad: bool = False
    """Skip images that cannot be decoded, and list them in the file, instead of stopping."""
    force: bool = False
    """Write files again even if they are up to date."""
    download: bool = False
    """Download raw data that data/raw lacks."""
    synthetic: bool = False
    """Generate synthetic data even if raw data exist; replaces files of real data."""
    writers: int = 40
    """Number of writers of the synthetic part1."""
    auxiliary_writers: int = 200
    """Number of writers of auxiliary, which is always synthetic."""
    grey: bool = False
    """Render the synthetic part1 with soft edges instead of black and white."""
    check: bool = False
    """Report the layout, decode all images and draw the data card, but write no dataset."""
    data: conf.OmitArgPrefixes[DataOptions] = field(default_factory=DataOptions)
    """How to understand raw images."""
    colour: ColourOption | None = None
    """auto: in colour if the images show more than one line of colours, such as ink of one colour
    on paper; rgb: in colour; grey: as grey levels.
    Default: grey for part1, part2, part3, mnist, emnist and fashion, auto for other datasets."""
    quality: int | None = None
    """JPEG quality of images in colour, 1 to 100; up to 4,096 pixels are never compressed.
    Default: JPEG files are stored as they are, and other images with quality 95."""
    mislabel: str | None = None
    """Corrupt all labels of --source or of the synthetic part3, except those of its own test set:
    wrong (all labels), symmetric=RATE, pairs=RATE, permutation, shuffled, none, or
    flips=2:7:0.2,3:8:0.1 (of class number 2, 20 % become 7; of 3, 10 % become 8).
    Default: wrong for the synthetic part3, none otherwise."""
    workers: int = len(os.sched_getaffinity(0))
    """Maximum number of processes."""


def prepare_datasets(config: Config) -> None:
    """Prepare the datasets. Raises UserError, SourceError, BetonError or OSError."""
    if config.out.suffix == ".beton" and not config.out.is_dir():
        raise UserError(f"--out: got {config.out}, expected a folder for files of the datasets")
    with inflating_into(config.out):
        _prepare(config)


def _prepare(config: Config) -> None:
    console = make_console()
    split = Split.parse(config.split) if config.split is not None else None
    label_noise = LabelNoise.parse(config.mislabel) if config.mislabel is not None else None
    synthetic = SyntheticData(
        config.writers, config.auxiliary_writers, config.grey, label_noise, config.seed
    )
    finder = SourceFinder(
        source=config.source,
        download=config.download,
        always_synthetic=config.synthetic,
        synthetic=synthetic,
        layout=config.data.layout(),
    )
    results: dict[str, PrepareResult] = {}
    for name in finder.datasets(config.names):
        out = config.out / f"{name}.beton"
        source, found_by = finder.find(name)
        if found_by == SYNTHETIC_BY_DEFAULT and holds_real_data(out):
            message = f"{name}: {out} holds real data whose source is missing"
            if config.force:
                raise SourceError(f"{message}; --synthetic replaces it")
            console.print(f"{message}; not replaced")
            continue
        with ExitStack() as stack:
            if config.check:
                config.out.mkdir(parents=True, exist_ok=True)  # for the data card
                out = stack.enter_context(temporary_folder(out)) / out.name
            result = prepare_dataset(
                console,
                name,
                source,
                out,
                config.out / f"{name}.html",
                found_by=found_by,
                # Training uses all auxiliary pages.
                split=None if name == AUXILIARY else split or default_split(name, source),
                seed=config.seed,
                pixels=config.data.pixels(config.colour or default_colour(name), config.quality),
                workers=config.workers,
                skip_bad=config.skip_bad,
                force=config.force,
            )
        if config.check:
            console.print(f"{name}: only checked; no dataset is written")
        else:
            console.print(f"{name}: dataset {out}")
            results[name] = result
    if results:
        console.print(prepared_table(results))


def holds_real_data(path: Path) -> bool:
    """Return whether a file of real data exists.

    Raises BetonError for an unreadable file, which may hold the only copy of real data.
    """
    if not path.exists():
        return False
    with open_dataset(path) as file:
        return bool(file.info["provenance"]["kind"] == "real")


def main() -> int:
    """Run the command; print a failure as one line. Returns the exit status."""
    return command.main("prep", Config, prepare_datasets, conf.FlagCreatePairsOff)


if __name__ == "__main__":
    sys.exit(main())

"""Prepare data once: archives of pictures → data/NAME.beton.

    ./launch.sh prep                                     every set whose data are in data/raw
    ./launch.sh prep part1 --source trainPart1.zip       one set, from a zip, a folder or IDX files
    ./launch.sh prep mnist --download                    fetched, as nothing is without this word
    ./launch.sh prep part1 --synthetic --writers 400     drawn, as it is by default without data
    ./launch.sh prep fashion-wrong --source fashion-mnist --mislabel wrong    mislabelled on purpose

Each file's splits are drawn here and stored in it. Doing it again with the same data and settings
does nothing. Exit status: 0 done, 2 not done, with the reason in one line.
"""

import os
import sys
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Table
from tyro import conf

from beton.errors import BetonError
from pipeline.data import catalog
from pipeline.data.prepare import BadImagesError, PrepareResult, prepare
from pipeline.data.sources import SPLITS, SourceError
from pipeline.data.splits import Split
from pipeline.data.synth.mislabel import LabelNoise, MislabelledSource
from pipeline.loading.dataset import open_dataset
from pipeline.runtime.progress import progress, terminal

RAW = Path("data/raw")


@dataclass(frozen=True)
class Config:
    """Prepare data once: archives of pictures → data/NAME.beton."""

    names: Annotated[tuple[str, ...], conf.Positional, conf.arg(metavar="[NAME …]")] = ()
    """part1 (and with it auxiliary, which can be drawn alone), part2 (the digits of part 1), part3,
    mnist, fashion-mnist, emnist-letters …, or your own; none stands for what --source is called,
    or else for all that data/raw has, or else for part1, part2, part3 and mnist"""
    source: Annotated[Path | None, conf.arg(metavar="PATH")] = None
    """a zip, a folder with a folder per class, or IDX files; FOLDER/SET is one IDX set of several;
    without it, data/raw is searched; what is not there is drawn: synthetic handwriting"""
    out: Path = Path("data")
    """the folder that NAME.beton is written into"""
    split: str = "90-10"
    """90-10 or 80-10-10: each class divided for training, validation, test;
    writers=2 or writers=0.1: so many writers held out for validation;
    a test set that comes with the data stays one"""
    seed: int = 0
    """of the draw of the splits, and of synthetic handwriting"""
    skip_bad: bool = False
    """leave out and record pictures that cannot be decoded, instead of stopping"""
    force: bool = False
    """write again what is there already"""
    download: bool = False
    """fetch what data/raw does not have"""
    synthetic: bool = False
    """draw the set, whatever data there are; replaces a file of real data"""
    writers: int = 40
    """of the synthetic part 1"""
    auxiliary_writers: int = 200
    """of the synthetic pages that part 1 learns from besides: auxiliary, which goes with it"""
    grey: bool = False
    """soft edges for the synthetic part 1, instead of black and white"""
    mislabel: str | None = None
    """of the synthetic part 3, or on purpose of what --source has, but for its test set: wrong (no
    label is right), symmetric=0.4, pairs=0.3, permutation, shuffled, none; by default, wrong for
    the one and none for the other"""
    workers: int = len(os.sched_getaffinity(0))
    """the greatest number of processes"""


def prepare_all(config: Config) -> None:
    """Prepare the sets that are wanted. Raises SourceError, BetonError or OSError."""
    console = terminal()
    split = Split.parse(config.split)
    if config.synthetic and (config.source or config.download):
        raise SourceError("--synthetic goes without --source and --download")
    mislabelling = LabelNoise.parse(config.mislabel or "wrong")
    synthetic = catalog.Synthetic(
        config.writers, config.auxiliary_writers, config.grey, mislabelling, config.seed
    )
    if config.source and (config.grey or config.writers != Config.writers):
        raise SourceError("--writers and --grey are of the synthetic part1; leave out --source")
    names = catalog.datasets_to_prepare(config.names, config.source, RAW, config.download)
    if config.mislabel and not config.source and "part3" not in names:
        raise SourceError("--mislabel goes with --source, or with the synthetic part3")
    if catalog.AUXILIARY in names:
        synthetic.source(catalog.AUXILIARY)  # says now what is wrong with its settings
    done: dict[str, PrepareResult] = {}
    for name in names:
        out = config.out / f"{name}.beton"
        if config.synthetic:
            source, via = synthetic.source(name), "--synthetic"
        else:
            source, via = catalog.find_source(name, config.source, RAW, config.download, synthetic)
            wrong = config.source and config.mislabel and mislabelling.kind != "none"
            if wrong and name != catalog.AUXILIARY:
                source = MislabelledSource(source, mislabelling, config.seed)
            if (
                config.mislabel
                and not config.source
                and name == "part3"
                and via != catalog.GENERATED_BY_DEFAULT
            ):
                raise SourceError(
                    f"--mislabel: part3 is there, {source.path}; to mislabel it on purpose, say "
                    "--source, or draw one by --synthetic"
                )
            if via == catalog.GENERATED_BY_DEFAULT and is_of_real_data(out):
                if config.force:
                    raise SourceError(
                        f"{name}: {out} is of real data that are not here; --synthetic replaces it"
                    )
                console.print(f"{name}: {out} is there already; its source is not, so it stays")
                continue
        console.print(f"{name}: {via} {source.path}, {source}")
        with progress(console, name, len(source)) as advance:
            done[name] = prepare(
                source,
                out,
                split=None if name == catalog.AUXILIARY else split,  # of which all is learned from
                seed=config.seed,
                via=via,
                workers=config.workers,
                skip_bad=config.skip_bad,
                force=config.force,
                progress=advance,
            )
        result = done[name]
        if result.replaced and not config.force:
            console.print(f"{name}: replaces what {out} was: other data, or made in another way")
        if not result.built:
            console.print(
                f"{name}: {out} is there already, from the same data; --force rebuilds it"
            )
        for image, reason in result.skipped:
            console.print(f"{name}: left out {image}: {reason}")
    if done:
        console.print(closing_table(done))


def is_of_real_data(out: Path) -> bool:
    """Say whether a file of real data is there. Raises BetonError if it cannot be read.

    What nobody can read might be all there is of somebody's data, so it is not replaced.
    """
    if not out.exists():
        return False
    with open_dataset(out) as file:
        return bool(file.info["provenance"]["kind"] == "real")


def closing_table(done: dict[str, PrepareResult]) -> Table:
    """Return what was prepared, a row per set."""
    table = Table("set", "files", "classes", *SPLITS, "MB in", "MB out", "s", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, result in done.items():
        table.add_row(
            name,
            f"{sum(result.images.values()) + len(result.skipped):,}",
            f"{result.classes}",
            *(f"{result.images[split]:,}" for split in SPLITS),
            f"{result.source_bytes / 1e6:,.1f}" if result.source_bytes else "–",
            f"{result.file_bytes / 1e6:,.1f}",
            f"{result.seconds:.1f}" if result.built else "–",
        )
    return table


def main() -> int:
    """Run the job; a failure is said in a line, without a traceback. Returns the exit status."""
    try:
        prepare_all(tyro.cli(Config, config=(conf.FlagCreatePairsOff,)))
    except BadImagesError as error:
        for name, reason in error.bad:
            print(f"{name}: {reason}", file=sys.stderr)
        print(
            f"prep: {error}; nothing was written; --skip-bad goes on without them", file=sys.stderr
        )
    except (SourceError, BetonError, OSError, BrokenExecutor) as error:
        print(f"prep: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("prep: interrupted", file=sys.stderr)
        return 130
    else:
        return 0
    return 2


if __name__ == "__main__":
    sys.exit(main())

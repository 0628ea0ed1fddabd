"""The sets that have a name: what their archives are called, where they lie, how to get them.

Any other name stands for an archive or folder of that name in the folder of raw data. The sets of
the hand-writing task and MNIST are never missing: what is not there is drawn.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.data.charset import CHARACTERS
from pipeline.data.download import download
from pipeline.data.sources import ClassSubset, Source, SourceError, open_source
from pipeline.data.sources.idx import EMNIST
from pipeline.data.synth.handwriting import (
    MNIST_COUNTS,
    PART3_COUNTS,
    SyntheticDigits,
    SyntheticPages,
)
from pipeline.data.synth.mislabel import LabelNoise


@dataclass(frozen=True)
class CatalogEntry:
    """`paths` are looked for in this order; `classes`, if any, are those taken from the source."""

    paths: tuple[str, ...]
    classes: tuple[str, ...] = ()


MAIN_DATASETS = {
    "part1": CatalogEntry(("trainPart1.zip", "trainPart1", "part1.zip", "part1")),
    "part2": CatalogEntry(
        ("trainPart1.zip", "trainPart1", "part1.zip", "part1"), tuple(CHARACTERS[:10])
    ),
    "part3": CatalogEntry(("mnistTask3.zip", "mnistTask3", "part3.zip", "part3")),
    "mnist": CatalogEntry(
        ("MNIST", "mnist", "mnist.zip", "train-images-idx3-ubyte", "train-images-idx3-ubyte.gz")
    ),
}
CATALOG = {
    **MAIN_DATASETS,
    "fashion-mnist": CatalogEntry(("FashionMNIST", "fashion-mnist", "fashion-mnist.zip")),
    **{
        f"emnist-{part}": CatalogEntry(
            tuple(f"{place}/emnist-{part}" for place in ("EMNIST/raw", "emnist", "gzip.zip"))
        )
        for part in EMNIST
    },
}


GENERATED_BY_DEFAULT = "embedded default"

# What part 1 learns from besides: hands that nobody has, and other ones than the drawn part 1's.
AUXILIARY, AUXILIARY_SEED_OFFSET = "auxiliary", 7


class NoDataError(SourceError):
    """There are no data for a set; the message says in three lines how to get them."""

    def __init__(self, name: str, raw: Path) -> None:
        lines = (
            f"no data for {name}: no --source, and nothing that fits in {raw}",
            f"put {' or '.join(_entry(name).paths)} there, in {raw},",
            f"or say where it is: ./launch.sh prep {name} --source PATH, or fetch it: --download",
        )
        super().__init__("\n".join(lines))


@dataclass(frozen=True)
class Synthetic:
    """How to draw what is not there: writers of part 1 and beside them, part 3's mislabelling."""

    writers: int = 40
    auxiliary_writers: int = 200
    grey: bool = False
    mislabelling: LabelNoise = field(default_factory=lambda: LabelNoise("wrong"))
    seed: int = 0

    def source(self, name: str) -> Source:
        """Return one of MAIN_SETS or AUXILIARY, drawn. Raises SourceError for another."""
        match name:
            case "auxiliary":
                return SyntheticPages(self.auxiliary_writers, self.seed + AUXILIARY_SEED_OFFSET)
            case "part1":
                return SyntheticPages(self.writers, self.seed, self.grey)
            case "part2":
                return ClassSubset(
                    SyntheticPages(self.writers, self.seed, self.grey), tuple(CHARACTERS[:10])
                )
            case "part3":
                return SyntheticDigits(PART3_COUNTS, self.seed, self.mislabelling)
            case "mnist":
                return SyntheticDigits(MNIST_COUNTS, self.seed)
        raise SourceError(f"{name} cannot be drawn; {', '.join((*MAIN_DATASETS, AUXILIARY))} can")


def datasets_to_prepare(
    names: Sequence[str], given: Path | None, raw: Path, may_download: bool
) -> tuple[str, ...]:
    """Return the sets to prepare: those named, else the one that `given` is for, else all found.

    MAIN_SETS where none is found, or may be downloaded; AUXILIARY after part 1. Raises SourceError
    for a name that cannot be a file's, and for AUXILIARY from elsewhere.
    """
    for name in names:
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise SourceError(f"{name!r} cannot be a set's name: letters, digits, . _ and - can")
    if AUXILIARY in names and (given is not None or may_download):
        raise SourceError(f"{AUXILIARY}: it is always drawn; leave out --source and --download")
    if names:
        chosen = tuple(names)
    elif given is not None:
        chosen = (_dataset_for(given),)
    else:
        found = () if may_download else tuple(name for name in CATALOG if find_raw(name, raw))
        chosen = found or tuple(MAIN_DATASETS)
    return (*chosen, AUXILIARY) if "part1" in chosen and AUXILIARY not in chosen else chosen


def _entry(name: str) -> CatalogEntry:
    return CATALOG.get(name, CatalogEntry((f"{name}.zip", name)))


def _dataset_for(path: Path) -> str:
    """Return the set that an archive is for: one of SETS by its name, or one of its own name."""
    for name, known in CATALOG.items():
        if path.name in known.paths:
            return name
    stem = re.sub(r"\.(zip|gz)$", "", path.resolve().name, flags=re.IGNORECASE)
    return re.sub(r"[^\w.-]+", "-", stem).lstrip("-.") or "data"


def find_raw(name: str, raw: Path) -> Path | None:
    """Return where the raw data of a set lie below `raw`, None if they are not there."""
    for place in _entry(name).paths:
        path = raw / place
        if path.exists():
            return path
        # FOLDER/SET is the beginning of files' names; ARCHIVE/SET is that inside.
        if "/" in place and (path.parent.is_file() or any(path.parent.glob(f"{path.name}-*"))):
            return path
    return None


def find_source(
    name: str, given: Path | None, raw: Path, may_download: bool, synthetic: Synthetic
) -> tuple[Source, str]:
    """Return a set's source and how it was found: given, below `raw`, downloaded, or drawn.

    Raises NoDataError if there are no data, SourceError if there are and they cannot be used.
    """
    if name == AUXILIARY:
        return synthetic.source(name), GENERATED_BY_DEFAULT
    if given is not None:
        path, via = given, "--source"
    elif located := find_raw(name, raw):
        path, via = located, "data/raw"
    elif may_download:
        path, via = download(name, raw), "--download"
    elif name in MAIN_DATASETS:
        return synthetic.source(name), GENERATED_BY_DEFAULT
    else:
        raise NoDataError(name, raw)
    source = open_source(path)
    classes = CATALOG[name].classes if name in CATALOG else ()
    return (ClassSubset(source, classes).check() if classes else source), via

"""The catalog of named datasets: their files in the folder of raw data, and how to find a source.

A name that is not in the catalog stands for a zip archive or folder of that name. The datasets in
GENERATED are always available: missing data are replaced by synthetic data.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.data.base import NO_SPLIT
from pipeline.data.download import download
from pipeline.data.emnist import PARTS, open_emnist, parts_in
from pipeline.data.layout.options import LayoutOptions
from pipeline.data.sources import ClassSubset, Source, SourceError, open_source
from pipeline.data.sources.known_sets import EMNIST
from pipeline.data.splits import Split
from pipeline.data.synth import garments, handwriting, shapes
from pipeline.data.synth.garments import SyntheticGarments
from pipeline.data.synth.handwriting import (
    DIGITS,
    SyntheticCharacters,
    SyntheticDigits,
    SyntheticPages,
)
from pipeline.data.synth.mislabel import LabelNoise, MislabelledSource
from pipeline.data.synth.shapes import SyntheticShapes


@dataclass(frozen=True)
class CatalogEntry:
    """A dataset's possible paths in the folder of raw data, and its classes, if not all.

    The names of files that may hold it match `similar` (lower case), and none of the dataset is
    generated while such a file is there. `package` is the package of Debian that installs the
    dataset, in the folder of its name without "dataset-". `grey` datasets are stored as grey ink,
    whatever colours their images have, unless the option --colour is given; for all others the
    pixels decide. `split` is the dataset's published division, the default of --split.
    """

    paths: tuple[str, ...]
    classes: tuple[str, ...] = ()
    similar: str = r"(?!)"
    package: str = ""
    grey: bool = False
    split: Split = field(default_factory=Split)


ARCHIVE_SUFFIXES = (".zip", "", ".tar.gz", ".tgz", ".tar")
SUFFIXES = (*ARCHIVE_SUFFIXES, ".npz", ".csv", ".mat", ".parquet")


def _paths(*names: str, suffixes: Sequence[str] = ARCHIVE_SUFFIXES) -> tuple[str, ...]:
    return tuple(f"{name}{suffix}" for name in names for suffix in suffixes)


_PART1_PATHS, _PART1_SIMILAR = _paths("trainPart1", "part1"), r"(train)?[ _-]*part[ _-]*1\b.*"
_IDX_PATHS = _paths(*("train-images-idx3-ubyte", "train-images.idx3-ubyte"), suffixes=("", ".gz"))
MAIN_DATASETS = {
    "part1": CatalogEntry(_PART1_PATHS, similar=_PART1_SIMILAR, grey=True),
    "part2": CatalogEntry(_PART1_PATHS, tuple(DIGITS), _PART1_SIMILAR, grey=True),
    "part3": CatalogEntry(
        _paths("mnistTask3", "part3"), similar=r"(mnist[ _-]*)?(task|part)[ _-]*3\b.*", grey=True
    ),
    "mnist": CatalogEntry(
        (*_paths("MNIST", "mnist"), "mnist.npz", *_IDX_PATHS),
        similar=r"(mnist(?![ _-]*task)|(train|t10k)-(images|labels)|digit-recognizer).*",
        grey=True,
    ),
}
_EMNIST_PLACES = ("EMNIST", "emnist", "gzip")
_FASHION = CatalogEntry(
    _paths("FashionMNIST", "fashion-mnist", "fashion"),
    similar=r"fashion[ _-]*mnist.*",
    package="dataset-fashion-mnist",
    grey=True,
    split=Split(images=10_000),
)
SYSTEM_DATASETS = {
    "emnist": CatalogEntry(
        _paths(*_EMNIST_PLACES), similar=r"emnist(?!-(by|balanced|mnist)).*", grey=True
    ),
    "fashion": _FASHION,
    "cifar10": CatalogEntry(
        _paths(
            *("cifar-10-python", "cifar-10-batches-py", "cifar-10-binary", "cifar-10-batches-bin"),
            *("cifar10", "cifar-10", "CIFAR10", "CIFAR-10"),
        ),
        similar=r"cifar[ _-]*10(?!0).*",
    ),
}
GENERATED = {**MAIN_DATASETS, **SYSTEM_DATASETS, "fashion-mnist": _FASHION}
CATALOG = {
    **GENERATED,
    **{
        f"emnist-{part}": CatalogEntry(
            tuple(f"{place}/emnist-{part}" for place in ("EMNIST/raw", "emnist", "gzip.zip")),
            grey=True,
        )
        for part in EMNIST
    },
}
_ALIASES = {"fashion-mnist"}  # names in CATALOG of a dataset that has another one

SYNTHETIC_BY_DEFAULT = "embedded default"  # how the source of missing data was found

# Synthetic pages for training part 1, by other writers than those of a synthetic part 1.
AUXILIARY, AUXILIARY_SEED_OFFSET = "auxiliary", 7


@dataclass(frozen=True)
class SyntheticData:
    """Settings of synthetic datasets; without `label_noise`, all labels of part 3 are wrong."""

    writers: int = 40
    auxiliary_writers: int = 200
    grey: bool = False
    label_noise: LabelNoise | None = None
    seed: int = 0

    def source(self, name: str) -> Source:
        """Return a synthetic source. Raises SourceError for unknown names and invalid settings."""
        match name:
            case "auxiliary":
                return SyntheticPages(self.auxiliary_writers, self.seed + AUXILIARY_SEED_OFFSET)
            case "part1":
                return SyntheticPages(self.writers, self.seed, self.grey)
            case "part2":
                return ClassSubset(SyntheticPages(self.writers, self.seed, self.grey), DIGITS)
            case "part3":
                label_noise = self.label_noise or LabelNoise("wrong")
                return SyntheticDigits(handwriting.PART3_COUNTS, self.seed, label_noise)
            case "mnist":
                return SyntheticDigits(handwriting.MNIST_COUNTS, self.seed)
            case "emnist":
                return SyntheticCharacters(handwriting.EMNIST_COUNTS, self.seed)
            case "fashion" | "fashion-mnist":
                return SyntheticGarments(garments.FASHION_COUNTS, self.seed)
            case "cifar10":
                return SyntheticShapes(shapes.CIFAR10_COUNTS, self.seed)
        known = ", ".join((*GENERATED, AUXILIARY))
        raise SourceError(f"{name}: no synthetic version, expected one of {known}")


@dataclass(frozen=True)
class SourceFinder:
    """Finds datasets' sources: at `source`, below `raw`, by download, installed, or synthetic.

    `synthetic.label_noise` also applies to the data at `source`. `layout` says how to read files.
    `installed` is the folder of the datasets that packages of Debian install.
    """

    raw: Path = Path("data/raw")
    source: Path | None = None
    download: bool = False
    always_synthetic: bool = False
    synthetic: SyntheticData = SyntheticData()
    layout: LayoutOptions = field(default_factory=LayoutOptions)
    installed: Path = Path("/usr/share/datasets")

    def datasets(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the datasets to prepare: `names`, or the name of `source`, or all below `raw`.

        MAIN_DATASETS if none is below `raw`, or with `download`. AUXILIARY follows part 1. Raises
        SourceError for names that no file can have and for options that exclude each other.
        """
        synthetic, elsewhere = self.synthetic, self.source is not None or self.download
        if self.always_synthetic and elsewhere:
            raise SourceError("--synthetic excludes --source and --download")
        if self.source and (synthetic.grey or synthetic.writers != SyntheticData.writers):
            raise SourceError("--writers and --grey are for the synthetic part1; remove --source")
        for name in names:
            if not re.fullmatch(r"\w[\w.-]*", name):
                raise SourceError(f"name {name!r}: expected letters, digits, ., _ and -")
        if AUXILIARY in names and elsewhere:
            raise SourceError(f"{AUXILIARY}: always synthetic; remove --source and --download")
        if names:
            chosen = tuple(names)
        elif self.source is not None:
            chosen = (_dataset_name(self.source),)
        else:
            found = () if self.download else tuple(n for n in CATALOG if self._holds(n))
            chosen = found or tuple(MAIN_DATASETS)
        if synthetic.label_noise and not self.source and "part3" not in chosen:
            raise SourceError("--mislabel: expected --source, or the synthetic part3")
        if "part1" in chosen and AUXILIARY not in chosen:
            chosen = (*chosen, AUXILIARY)
        if AUXILIARY in chosen:
            synthetic.source(AUXILIARY)  # raises for invalid settings before anything is written
        return chosen

    def find(self, name: str) -> tuple[Source, str]:
        """Return a dataset's source and how it was found.

        Raises SourceError if the data are missing or cannot be used.
        """
        if self.always_synthetic:
            return self.synthetic.source(name), "--synthetic"
        if name == AUXILIARY:
            return self.synthetic.source(name), SYNTHETIC_BY_DEFAULT
        if self.source is not None:
            path, found_by = self.source, "--source"
        elif raw_path := find_raw(name, self.raw):
            path, found_by = raw_path, "data/raw"
        elif self.download:
            path, found_by = download(name, self.raw), "--download"
        elif similar := find_similar(name, self.raw):
            raise SourceError(
                f"{name}: {similar} may hold it, under another name than {_entry(name).paths[0]}; "
                f"use --source {shlex.quote(str(similar))}, or --synthetic to generate {name}"
            )
        elif (package := _entry(name).package) and self._installed(package).exists():
            path, found_by = self._installed(package), f"package {package}"
        elif name in GENERATED:
            return self.synthetic.source(name), SYNTHETIC_BY_DEFAULT
        else:
            raise SourceError(
                f"no data for {name}: no --source, and no matching file or folder in {self.raw}; "
                f"put {' or '.join(_entry(name).paths)} into {self.raw}, "
                f"or give the path by ./launch.sh prep {name} --source PATH, or add --download"
            )
        label_noise = self.synthetic.label_noise
        if label_noise and self.source is None and name == "part3":
            raise SourceError(
                f"--mislabel: part3 would be read from {path}; "
                "add --source to mislabel it, or --synthetic"
            )
        source = (open_emnist if name == "emnist" else open_source)(path, self.layout)
        if classes := _entry(name).classes:
            source = ClassSubset(source, classes).check()
        if label_noise and label_noise.kind != "none" and self.source is not None:
            source = MislabelledSource(source, label_noise, self.synthetic.seed)
        return source, found_by

    def _holds(self, name: str) -> bool:
        """Return whether `raw` holds a dataset, both parts of EMNIST included."""
        path = find_raw(name, self.raw)
        if path is None or name in _ALIASES:
            return False
        return name != "emnist" or parts_in(path) == PARTS

    def _installed(self, package: str) -> Path:
        return self.installed / package.removeprefix("dataset-")


def default_split(name: str, source: Source) -> Split:
    """Return the division of a dataset where none is given: the published one, or 90-10.

    The published division is for datasets of at least five times the images that it holds out.
    """
    published = _entry(name).split
    free = int((source.annotations.splits == NO_SPLIT).sum())
    return published if free >= 5 * published.images else Split()


def stored_grey(name: str) -> bool:
    """Return whether a dataset is stored as grey ink unless the option --colour is given."""
    return _entry(name).grey


def find_raw(name: str, raw: Path) -> Path | None:
    """Return the path of a dataset's raw data below `raw`, None if they are missing."""
    for candidate in _entry(name).paths:
        path = raw / candidate
        if path.exists():
            return path
        # FOLDER/DATASET is a prefix of file names in a folder or archive.
        if "/" in candidate and (path.parent.is_file() or any(path.parent.glob(f"{path.name}-*"))):
            return path
    return None


def find_similar(name: str, raw: Path) -> Path | None:
    """Return a path below `raw` whose name suggests that it holds a dataset, None without one."""
    pattern = re.compile(_entry(name).similar)
    found = raw.iterdir() if raw.is_dir() else ()
    return min((path for path in found if pattern.fullmatch(path.name.lower())), default=None)


def _entry(name: str) -> CatalogEntry:
    return CATALOG.get(name, CatalogEntry(_paths(name, suffixes=SUFFIXES)))


def _dataset_name(path: Path) -> str:
    """Return the dataset that has this path in CATALOG, or else a name made from the path."""
    for name, entry in CATALOG.items():
        if name in _ALIASES:
            continue
        if path.name in entry.paths and path.name not in _IDX_PATHS:  # names of any IDX dataset
            return name
    suffixes = "|".join(re.escape(suffix) for suffix in SUFFIXES if suffix)
    stem = re.sub(rf"({suffixes}|\.gz)$", "", path.resolve().name, flags=re.IGNORECASE)
    return re.sub(r"[^\w.-]+", "-", stem).lstrip("-.") or "data"

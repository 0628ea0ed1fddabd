"""The sets that have a name: what their archives are called, where they lie, how to get them.

Any other name stands for an archive or folder of that name in the folder of raw data.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.download import download
from pipeline.sources import Source, SourceError, Subset, open_source
from pipeline.sources.idx import EMNIST
from pipeline.sources.midas import CHARACTERS


@dataclass(frozen=True)
class NamedSet:
    """`places` are looked for in this order; `classes`, if any, are those taken from the source."""

    places: tuple[str, ...]
    classes: tuple[str, ...] = ()


MAIN_SETS = {
    "part1": NamedSet(("trainPart1.zip", "trainPart1", "part1.zip", "part1")),
    "part2": NamedSet(
        ("trainPart1.zip", "trainPart1", "part1.zip", "part1"), tuple(CHARACTERS[:10])
    ),
    "part3": NamedSet(("mnistTask3.zip", "mnistTask3", "part3.zip", "part3")),
    "mnist": NamedSet(
        ("MNIST", "mnist", "mnist.zip", "train-images-idx3-ubyte", "train-images-idx3-ubyte.gz")
    ),
}
SETS = {
    **MAIN_SETS,
    "fashion-mnist": NamedSet(("FashionMNIST", "fashion-mnist", "fashion-mnist.zip")),
    **{
        f"emnist-{part}": NamedSet(
            tuple(f"{place}/emnist-{part}" for place in ("EMNIST/raw", "emnist", "gzip.zip"))
        )
        for part in EMNIST
    },
}


class NoDataError(SourceError):
    """There are no data for some sets; the message says in three lines how to get them."""

    def __init__(self, names: Sequence[str], raw: Path) -> None:
        lines = (
            f"no data for {', '.join(names)}: no --source, and nothing that fits in {raw}",
            f"put trainPart1.zip (part1, part2), mnistTask3.zip (part3) or MNIST there, in {raw},",
            "or say where it is: ./launch.sh prep part1 --source PATH, or fetch it: add --download",
        )
        super().__init__("\n".join(lines))


def wanted(
    names: Sequence[str], given: Path | None, raw: Path, may_download: bool
) -> tuple[str, ...]:
    """Return the sets to prepare: those named, else the one that `given` is for, else all found.

    Raises SourceError for a name that cannot be a file's, NoDataError if there is nothing.
    """
    for name in names:
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise SourceError(f"{name!r} cannot be a set's name: letters, digits, . _ and - can")
    if names:
        return tuple(names)
    if given is not None:
        return (_set_of(given),)
    if may_download:
        return tuple(MAIN_SETS)
    if found := tuple(name for name in SETS if locate(name, raw)):
        return found
    raise NoDataError(tuple(MAIN_SETS), raw)


def _set_of(path: Path) -> str:
    """Return the set that an archive is for: one of SETS by its name, or one of its own name."""
    for name, known in SETS.items():
        if path.name in known.places:
            return name
    stem = re.sub(r"\.(zip|gz)$", "", path.resolve().name, flags=re.IGNORECASE)
    return re.sub(r"[^\w.-]+", "-", stem).lstrip("-.") or "data"


def locate(name: str, raw: Path) -> Path | None:
    """Return where the raw data of a set lie below `raw`, None if they are not there."""
    known = SETS.get(name, NamedSet((f"{name}.zip", name)))
    for place in known.places:
        path = raw / place
        if path.exists():
            return path
        # FOLDER/SET is the beginning of files' names; ARCHIVE/SET is that inside.
        if "/" in place and (path.parent.is_file() or any(path.parent.glob(f"{path.name}-*"))):
            return path
    return None


def find(name: str, given: Path | None, raw: Path, may_download: bool) -> tuple[Source, str]:
    """Return a set's source and how it was found: given, below `raw`, or downloaded to there.

    Raises NoDataError if there are no data, SourceError if there are and they cannot be used.
    """
    if given is not None:
        path, via = given, "--source"
    elif located := locate(name, raw):
        path, via = located, "data/raw"
    elif may_download:
        path, via = download(name, raw), "--download"
    else:
        raise NoDataError([name], raw)
    source = open_source(path)
    classes = SETS[name].classes if name in SETS else ()
    return (Subset(source, classes).check() if classes else source), via

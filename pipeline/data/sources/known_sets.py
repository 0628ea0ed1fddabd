"""Known datasets of arrays: their classes, and whether their images are stored by columns.

Arrays of pixels and labels do not name their classes, and no contents show that images lie on their
sides. The name of a dataset does: the nearest known name, from the prefix of the file outwards
through the folders below the source, and then the name of the source. A name is a whole component
of a path, never a part of one: `fashion-mnist-compared` is not known.
"""

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from posixpath import dirname

from pipeline.data.archives import Archive, SingleFile
from pipeline.data.base import SourceError

_DIGITS = tuple(string.digits)
_LETTERS = tuple(string.ascii_uppercase)
_MERGED = (*_DIGITS, *_LETTERS, *"abdefghnqrt")  # similar upper and lower case letters are one
EMNIST = {
    "byclass": (*_DIGITS, *_LETTERS, *string.ascii_lowercase),
    "bymerge": _MERGED,
    "balanced": _MERGED,
    "letters": _LETTERS,
    "digits": _DIGITS,
    "mnist": _DIGITS,
}
FASHION = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)

# Folders that say nothing about their contents.
_NEUTRAL = {"", "raw", "gzip", "idx", "data", "ubyte", "matlab", "train", "test"}
_ENDING = re.compile(r"(\.(zip|npz|tar|tgz|gz)|-(master|main))+$", re.IGNORECASE)


@dataclass(frozen=True)
class KnownSet:
    """A dataset whose name is known.

    Labels count from `first`. If `named` is False, the classes are numbers and only those up to the
    largest label are used. `transposed` images are stored by columns.
    """

    name: str
    classes: tuple[str, ...]
    named: bool = True
    first: int = 0
    transposed: bool = False


@dataclass(frozen=True)
class Recognized:
    """A known dataset and the reason: the name `found` in a path.

    `distant` are the unknown folders between this name and the file.
    """

    known: KnownSet
    found: str
    distant: tuple[str, ...] = ()


def _numbered(name: str, count: int) -> KnownSet:
    return KnownSet(name, tuple(map(str, range(count))), named=False)


_SETS = {
    "mnist": _numbered("MNIST", 10),
    "qmnist": _numbered("QMNIST", 10),
    "kmnist": _numbered("KMNIST", 10),
    "k49": _numbered("Kuzushiji-49", 49),
    "k49mnist": _numbered("Kuzushiji-49", 49),
    "kuzushiji49": _numbered("Kuzushiji-49", 49),
    "fashion": KnownSet("Fashion-MNIST", FASHION),
    "fashionmnist": KnownSet("Fashion-MNIST", FASHION),
}


def emnist(part: str) -> KnownSet:
    """Return a part of EMNIST, a key of EMNIST."""
    first = 1 if part == "letters" else 0
    return KnownSet(f"EMNIST {part}", EMNIST[part], first=first, transposed=True)


def recognize(archive: Archive, name: str, prefix: str, labels: Sequence[int]) -> Recognized | None:
    """Return the known dataset of a file `name` of an archive, None if no known name is near.

    `prefix` is the part of the file's name that names a dataset. The distinct `labels` tell the
    parts of EMNIST apart where no name does. Raises SourceError if they cannot.
    """
    path = Path(archive.path.absolute())
    if isinstance(archive, SingleFile):
        path = path.parent
    outwards = [prefix, *reversed(dirname(name).split("/")), path.name]
    if _normalized(path.name) in _NEUTRAL:
        path = path.parent
        outwards.append(path.name)
    if _normalized(path.name) in EMNIST and _normalized(path.parent.name) == "emnist":
        outwards.append(path.parent.name)  # a part alone names no dataset
    names = [component for component in outwards if _normalized(component) not in _NEUTRAL]
    for number, component in enumerate(names):
        distant = tuple(c for c in names[:number] if _normalized(c) not in EMNIST)
        beyond = names[number + 1] if number + 1 < len(names) else ""
        key = _normalized(component)
        if key in EMNIST and _normalized(beyond) == "emnist":
            return Recognized(emnist(key), f"{beyond}/{component}", distant)
        if key in _SETS:
            return Recognized(_SETS[key], component, distant)
        if key.startswith("emnist"):
            part = key.removeprefix("emnist") or _normalized(beyond)
            if part not in EMNIST and key == "emnist":
                part = _part_of_emnist(labels)
                if not part and labels:
                    raise SourceError(
                        f"{archive.path}: the name {component!r} does not show which part of "
                        f"EMNIST it is, nor do labels from {min(labels)} to {max(labels)}; name "
                        f"the folder emnist-PART, with one of {', '.join(EMNIST)}"
                    )
            if part in EMNIST:
                return Recognized(emnist(part), component, distant)
    return None


def _part_of_emnist(labels: Sequence[int]) -> str:
    """Return the smallest part of EMNIST that has these labels; "" if none has."""
    if not labels or min(labels) < 0:
        return ""
    if max(labels) < len(_DIGITS):
        return "digits"
    if min(labels) > 0 and max(labels) == len(_LETTERS):
        return "letters"
    if max(labels) == len(_MERGED) - 1:
        return "balanced"
    return "byclass" if max(labels) == len(EMNIST["byclass"]) - 1 else ""


def _normalized(component: str) -> str:
    return re.sub(r"[-_ ]", "", _ENDING.sub("", component)).lower()

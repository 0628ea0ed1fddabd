"""The relative paths of images as folders: a million names have few distinct folders."""

import glob
import shlex
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.data.base import Ints
from pipeline.data.layout.folders.vocabulary import is_container, normalize, split_of
from pipeline.data.layout.options import FolderRule

Folder = tuple[str, ...]
MOST_PATTERNS = 8  # in one suggestion


@dataclass(frozen=True)
class Paths:
    """The `names` of images (n,), their distinct folders, and each image's folder.

    `root` is the source's path. `folder_of` (n,) indexes `folders`, whose names are in NFC;
    `counts` are the images directly in each folder.
    """

    root: Path
    names: Sequence[str]
    folders: tuple[Folder, ...]
    folder_of: Ints
    counts: Ints

    @classmethod
    def of(cls, root: Path, names: Sequence[str]) -> "Paths":
        """Find the folders of relative names."""
        numbers: dict[str, int] = {}
        of_image = np.fromiter(
            (numbers.setdefault(name.rpartition("/")[0], len(numbers)) for name in names),
            np.int64,
            len(names),
        )
        merged: dict[Folder, int] = {}
        spelled = [_parts(folder) for folder in numbers]
        number = np.array([merged.setdefault(parts, len(merged)) for parts in spelled], np.int64)
        folder_of = number[of_image] if len(names) else of_image
        counts = np.bincount(folder_of, minlength=len(merged)).astype(np.int64)
        return cls(root, names, tuple(merged), folder_of, counts)

    def example(self, folder: int) -> str:
        """Return the name of the first image directly in a folder."""
        return self.names[int(np.argmax(self.folder_of == folder))]


class Part(NamedTuple):
    """A folder of a path, and its level below the source, the outermost being 0."""

    level: int
    name: str


def essential_parts(
    folders: Sequence[Folder], ignored: Sequence[frozenset[int]] | None = None
) -> list[tuple[Part, ...]]:
    """Return each folder's parts without wrappers: folders that are alone and add nothing.

    A folder is left out if it is the only one in its parent, no image is beside it, and it is the
    outermost of all, a container (images, data), or repeats its parent's name or split. `ignored`
    are levels of each folder that do not count at all.
    """
    levels: list[tuple[Part, ...]] = []
    for i, folder in enumerate(folders):
        dropped = ignored[i] if ignored else frozenset()
        levels.append(tuple(Part(k, name) for k, name in enumerate(folder) if k not in dropped))
    children: dict[Folder, set[str]] = {}
    images = {tuple(part.name for part in parts) for parts in levels}
    for spelled in images:
        for end in range(len(spelled)):
            children.setdefault(spelled[:end], set()).add(spelled[end])

    def is_wrapper(spelled: Folder, end: int, kept: bool) -> bool:
        parent = spelled[:end]
        if len(children[parent]) > 1 or parent in images:
            return False
        name = spelled[end]
        if is_container(name):
            return True
        if end and _repeats(spelled[end - 1], name):
            return True
        inner = spelled[: end + 1]
        return not kept and split_of(name) is None and inner in children and inner not in images

    known: dict[Folder, tuple[int, ...]] = {(): ()}  # which parts of a path are kept

    def kept_of(spelled: Folder) -> tuple[int, ...]:
        start = len(spelled)
        while spelled[:start] not in known:
            start -= 1
        for end in range(start, len(spelled)):
            kept = known[spelled[:end]]
            wrapped = is_wrapper(spelled, end, bool(kept))
            known[spelled[: end + 1]] = kept if wrapped else (*kept, end)
        return known[spelled]

    return [tuple(parts[k] for k in kept_of(tuple(p.name for p in parts))) for parts in levels]


def folder_rule(
    folders: Sequence[Folder],
    parts: Sequence[Sequence[Part] | None],
    *,
    innermost_first: bool = False,
) -> FolderRule | None:
    """Return the rule that gives each folder its parts, and None where `parts` is None.

    None if no rule does, because the levels differ. `innermost_first` prefers levels from -1.
    """
    first = next((i for i, own in enumerate(parts) if own), None)
    if first is None:
        return None
    rules = [
        FolderRule(tuple(part.level for part in parts[first] or ())),
        FolderRule(tuple(part.level - len(folders[first]) for part in parts[first] or ())),
    ]
    for rule in reversed(rules) if innermost_first else rules:
        values = (rule.value("/".join((*folder, ""))) for folder in folders)
        if all(
            value == ("/".join(part.name for part in own) if own else None)
            for value, own in zip(values, parts, strict=True)
        ):
            return rule
    return None


def below(folder: Folder) -> str:
    """Return the shell pattern of everything below a folder."""
    return f"{glob.escape('/'.join(folder))}/*"


def option(name: str, *values: object) -> str:
    """Return an option for each value, as a shell reads it."""
    return " ".join(f"--{name} {shlex.quote(str(value))}" for value in values)


def listed(values: Iterable[object], limit: int = 4) -> str:
    """Return the first values, separated by commas."""
    shown = [str(value) for value in values]
    return ", ".join(shown[:limit]) + (", …" if len(shown) > limit else "")


def topmost(
    folders: Sequence[Folder], chosen: Callable[[int], bool]
) -> tuple[list[Folder], list[Folder]]:
    """Return the outermost folders that hold only chosen folders, and only others.

    `chosen` is called with the indices of `folders`. Neither list holds a folder for images that
    are directly beside folders of the other kind.
    """
    state: dict[Folder, set[bool]] = {}
    for i, folder in enumerate(folders):
        for end in range(len(folder) + 1):
            state.setdefault(folder[:end], set()).add(chosen(i))
    pure: Mapping[bool, dict[Folder, None]] = {True: {}, False: {}}
    for i, folder in enumerate(folders):
        for end in range(1, len(folder) + 1):
            if len(state[folder[:end]]) == 1:
                pure[chosen(i)][folder[:end]] = None
                break
    return list(pure[True]), list(pure[False])


def _parts(folder: str) -> Folder:
    return tuple(unicodedata.normalize("NFC", folder).split("/")) if folder else ()


def _repeats(parent: str, name: str) -> bool:
    if normalize(parent) == normalize(name):
        return True
    return split_of(name) is not None and split_of(name) == split_of(parent)

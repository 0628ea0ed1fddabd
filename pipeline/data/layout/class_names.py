"""Names of classes: cleaned, or translated where folders are numbers or codes of characters."""

import re
from collections.abc import Iterable, Sequence

from pipeline.data.base import Ints, LayoutError
from pipeline.data.charset import sample_character, sample_number
from pipeline.data.layout.columns import Column, clean
from pipeline.data.layout.paths import Paths, listed

MIDAS = "MIDAS part 1"
MIDAS_WRITER = r"name:(?i)(?:^|/)img[0-9]+-([0-9]{3})\.[^/]*$"

_WRITER = re.compile(MIDAS_WRITER.removeprefix("name:"))
_PRINTED = frozenset(("img", "bmp", "msk", "fnt"))  # Chars74K's photos and fonts: no writers


def clean_classes(paths: Paths, classes: Column) -> tuple[Column, list[str]]:
    """Return the column with cleaned names, and warnings. Raises LayoutError for an empty name."""
    names = [clean(value) for value in classes.values]
    if "" in names:
        raise LayoutError(f"{paths.root}: {classes.rule} gives a class without a name")
    warnings = []
    if merged := _duplicates(names, [n.casefold() for n in names], same=True):
        warnings.append(f"folders that differ in spaces around their names are one class: {merged}")
    if similar := _duplicates(names, [n.casefold() for n in names], same=False):
        warnings.append(f"classes differ in case alone: {similar}")
    return classes.renamed(names), warnings


def name_samples(classes: Column) -> tuple[Column, list[str]]:
    """Return the characters of MIDAS part 1 instead of its numbers, and notes.

    Folders of other names, or with numbers that are no character's, stay as they are.
    """
    if not all(sample_number(value) is not None for value in classes.values):
        return classes, []
    characters = [sample_character(value) for value in classes.values]
    named = [character for character in characters if character is not None]
    if len(named) == len(characters):
        return classes.renamed(named), ["Sample001 … Sample062 are 0–9, A–Z and a–z"]
    others = [v for v, c in zip(classes.values, characters, strict=True) if c is None]
    return classes, [
        f"{listed(others)} are no characters of MIDAS part 1: folders name the classes"
    ]


def midas_writers(paths: Paths, rows: Ints) -> tuple[Column, list[str]]:
    """Return the writers WWW of files imgCCC-WWW, and notes.

    Other numbers of digits, and Chars74K's photos and fonts, are counters.
    """
    handwritten = [_is_handwritten(folder) for folder in paths.folders]
    values: list[str | None] = []
    for row in rows.tolist():
        match = _WRITER.search(paths.names[row]) if handwritten[paths.folder_of[row]] else None
        values.append(match[1] if match else None)
    column = Column.of(values, MIDAS_WRITER)
    if column.values:
        return column, []
    return column, ["the numbers in the file names are counters, not writers"]


def _is_handwritten(folder: Sequence[str]) -> bool:
    names = {name.casefold() for name in folder}
    return "hnd" in names or not names & _PRINTED


def _duplicates(names: Iterable[str], keys: Iterable[str], *, same: bool) -> str:
    """List the names that are equal (`same`), or that differ but have equal keys."""
    groups: dict[str, list[str]] = {}
    for name, key in zip(names, keys, strict=True):
        groups.setdefault(name if same else key, []).append(name)
    found = [sorted(set(g)) for g in groups.values() if len(g) > 1 and (same or len(set(g)) > 1)]
    return listed("/".join(map(repr, group)) for group in found)

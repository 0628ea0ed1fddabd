"""Names of classes: cleaned, or translated where folders are numbers or codes of characters."""

import re
from collections.abc import Sequence

from pipeline.data.base import Ints, LayoutError
from pipeline.data.charset import hex_character, sample_character, sample_number
from pipeline.data.layout.columns import Column, clean
from pipeline.data.layout.folders.paths import Paths, listed
from pipeline.data.layout.folders.vocabulary import is_partition, is_repeated_partition

MIDAS, NIST = "MIDAS part 1", "NIST SD19"
MIDAS_WRITER = r"name:(?i)(?:^|/)img[0-9]+-([0-9]{3})\.[^/]*$"

_WRITER = re.compile(MIDAS_WRITER.removeprefix("name:"))
_PRINTED = frozenset(("img", "bmp", "msk", "fnt"))  # Chars74K's photos and fonts: no writers


def clean_classes(paths: Paths, classes: Column) -> tuple[Column, list[str]]:
    """Return the column with cleaned names, and warnings. Raises LayoutError for an empty name."""
    names = [clean(value) for value in classes.values]
    if "" in names:
        raise LayoutError(f"{paths.root}: {classes.rule} gives a class without a name")
    warnings = []
    if merged := _groups(classes.values, names):
        warnings.append(f"names that differ in spaces alone are one class: {merged}")
    if similar := _groups(sorted(set(names)), [name.casefold() for name in sorted(set(names))]):
        warnings.append(f"classes differ in case alone: {similar}")
    numbers = [name.lstrip("0") if name.isdigit() else name for name in sorted(set(names))]
    if equal := _groups(sorted(set(names)), numbers):
        warnings.append(f"classes are the same number: {equal}")
    return classes.renamed(names), warnings


def name_characters(paths: Paths, classes: Column) -> tuple[Column, str, list[str]]:
    """Return characters instead of the numbers or codes of folders, the dataset, and notes.

    Numbers are those of MIDAS part 1, codes those of NIST SD19. Other names stay as they are.
    """
    if all(map(hex_character, classes.values)) and any(map(_of_nist, _all_names(paths))):
        return classes.renamed([hex_character(v) or v for v in classes.values]), NIST, []
    if not all(sample_number(value) is not None for value in classes.values):
        return classes, "", []
    characters = [sample_character(value) for value in classes.values]
    others = [v for v, c in zip(classes.values, characters, strict=True) if c is None]
    if others:
        note = f"{listed(others)} are no characters of MIDAS part 1: folders name the classes"
        return classes, "", [note]
    named = classes.renamed([character or "" for character in characters])
    return named, MIDAS, ["Sample001 … Sample062 are 0–9, A–Z and a–z"]


def _of_nist(name: str) -> bool:
    return is_partition(name) or is_repeated_partition(name)


def _all_names(paths: Paths) -> set[str]:
    return {name for folder in paths.folders for name in folder}


def midas_writers(paths: Paths, rows: Ints) -> tuple[Column, list[str]]:
    """Return the writers WWW of files imgCCC-WWW, and notes.

    Other numbers of digits, and Chars74K's photos and fonts, are counters.
    """
    handwritten = [_is_handwritten(folder) for folder in paths.folders]
    values: list[str | None] = []
    for row in rows.tolist():
        match = _WRITER.search(paths.names[row]) if handwritten[paths.folder_of[row]] else None
        values.append(match[1] if match else None)
    if any(values):
        return Column.of(values, MIDAS_WRITER), []
    return Column.of(values, ""), ["the numbers in the file names are counters, not writers"]


def _is_handwritten(folder: Sequence[str]) -> bool:
    names = {name.casefold() for name in folder}
    return "hnd" in names or not names & _PRINTED


def _groups(names: Sequence[str], keys: Sequence[str]) -> str:
    """List the names with equal keys, if they are longer than a character."""
    groups: dict[str, list[str]] = {}
    for name, key in zip(names, keys, strict=True):
        groups.setdefault(key, []).append(name)
    found = [sorted(g) for g in groups.values() if len(g) > 1 and max(map(len, g)) > 1]
    return listed(" and ".join(map(repr, group)) for group in found)

"""Columns of a layout: each image's class, split or writer, as a rule gives it."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.data.base import Ints
from pipeline.data.layout.folders.paths import Paths
from pipeline.data.layout.folders.vocabulary import natural_sort_key
from pipeline.data.layout.options import FolderRule, NameRule

NONE = -1  # the code of an image without a value


@dataclass(frozen=True)
class Column:
    """The values of n images: `codes` (n,) index `values` or are NONE. `rule` describes them."""

    values: tuple[str, ...]
    codes: Ints
    rule: str

    @classmethod
    def of(cls, values: Sequence[str | None], rule: str, index: Ints | None = None) -> "Column":
        """Build a column of values, of which image i has the one at index[i], or at i."""
        numbers: dict[str | None, int] = {None: NONE}
        codes = np.array([numbers.setdefault(v, len(numbers) - 1) for v in values], np.int64)
        found = tuple(value for value in numbers if value is not None)
        if index is not None:
            codes = codes[index] if len(codes) else index
        return cls(found, codes, rule)

    def renamed(self, names: Sequence[str]) -> "Column":
        """Return the column with other values, equal ones merged."""
        merged = Column.of([*names, None], self.rule)
        return Column(merged.values, merged.codes[self.codes], self.rule)

    def rows(self, rows: Ints) -> "Column":
        """Return the column of some images, without values that none of them has, in order."""
        codes = self.codes[rows]
        used = [code for code in np.unique(codes).tolist() if code != NONE]
        used.sort(key=lambda code: natural_sort_key(self.values[code]))
        number = np.full(len(self.values) + 1, NONE)
        number[used] = np.arange(len(used))
        return Column(tuple(self.values[code] for code in used), number[codes], self.rule)


def column_of(rule: FolderRule | NameRule, paths: Paths) -> Column:
    """Return the column that a rule gives the images of `paths`."""
    if isinstance(rule, FolderRule):
        values = [rule.value("/".join((*folder, ""))) for folder in paths.folders]
        return Column.of(values, str(rule), paths.folder_of)
    values = [rule.value(unicodedata.normalize("NFC", name)) for name in paths.names]
    return Column.of(values, str(rule))


def levels_of(rule: object, paths: Paths) -> list[frozenset[int]]:
    """Return the levels of each folder that a folder rule uses; none for another rule."""
    if not isinstance(rule, FolderRule):
        return [frozenset()] * len(paths.folders)
    return [
        frozenset(
            level % len(folder) for level in rule.levels if -len(folder) <= level < len(folder)
        )
        for folder in paths.folders
    ]


def clean(name: str) -> str:
    """Return a class name in NFC and one line, without spaces around it and around its slashes."""
    line = " ".join(unicodedata.normalize("NFC", name).splitlines())
    return "/".join(part.strip() for part in line.split("/"))

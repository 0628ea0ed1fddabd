"""Errors of layouts that give no class, no split, or two answers, and what settles them."""

import glob
import re
from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.data.base import Ints, LayoutError
from pipeline.data.layout.columns import NONE, Column
from pipeline.data.layout.folders.classes import FolderClasses
from pipeline.data.layout.folders.paths import MOST_PATTERNS, Paths, below, listed, option, topmost
from pipeline.data.layout.folders.split_level import SplitLevel
from pipeline.data.layout.folders.vocabulary import is_surely_writer
from pipeline.data.layout.options import NameRule, TableRule
from pipeline.data.layout.tables import TableMatch

# What names of files may say of their classes: cat.0.jpg, 7_12.png, 12_7.png, 12_label7.png.
_NAME_RULES = (
    r"(?:^|/)([^/]*[^/0-9._ -])[-_. ]*[0-9]+\.[^/.]*$",
    r"(?:^|/)([^/_-]+)[_-][^/]*$",
    r"[-_. ]([^/_. -]+)\.[^/.]*$",
    r"(?i)(?:label|class)[-_ =]?([^/_. -]+)[^/]*$",
)


def no_classes(paths: Paths, level: SplitLevel) -> LayoutError:
    """Return the error for images whose folders and tables give no class."""
    if level.split_from:
        splits = listed(sorted(set(level.names)))
        reason = f"the folders {splits} give the split, and nothing gives the class"
    elif any(paths.folders):
        reason = "its folders give no class"
    else:
        reason = "no folder gives a class"
    return LayoutError(
        f"{paths.root}: {reason} of {len(paths.names):,} images, for example {paths.names[0]}; "
        "expected one folder of images per class, or a table of labels",
        [option("class-from", rule) for rule in _name_rules(paths, level)],
    )


def check_no_writers(paths: Paths, level: SplitLevel, found: FolderClasses) -> None:
    """Raise LayoutError if all classes of folders are named like writers: writer_01, writer_02."""
    names = sorted(found.names)
    if len(names) < 2 or not all(map(is_surely_writer, names)):
        return
    suggestions = [option("class-from", rule) for rule in _name_rules(paths, level)]
    if ":" in found.class_from:
        writers = option("writer-from", found.class_from)
        suggestions = [f"{rule} {writers}" for rule in suggestions]
        suggestions.append(option("class-from", found.class_from))
    raise LayoutError(
        f"{paths.root}: the folders {listed(names)} are named like writers, and nothing else gives "
        "the class",
        suggestions,
    )


def too_few_classes(
    paths: Paths, level: SplitLevel, classes: Sequence[str], images: int, expected: int
) -> LayoutError:
    """Return the error for one class, or a few, where more are expected."""
    return LayoutError(
        f"{paths.root}: got {_classes(classes)} for all {images} images, expected at least "
        f"{expected} classes",
        [option("class-from", rule) for rule in _name_rules(paths, level)],
    )


def _classes(names: Sequence[str]) -> str:
    return f"one class, {names[0]!r}," if len(names) == 1 else f"{len(names)} classes"


def _name_rules(paths: Paths, level: SplitLevel) -> list[NameRule]:
    """Return the rules for file names that give classes to all images of some folders."""
    found: list[tuple[NameRule, set[str]]] = []
    for pattern in _NAME_RULES:
        rule = NameRule(re.compile(pattern))
        values = [rule.value(name) for name in paths.names]
        missing = np.array([value is None for value in values])
        given = np.bincount(paths.folder_of[~missing], minlength=len(paths.folders))
        partial = (given > 0) & (given < paths.counts)
        outside = [i for i in np.flatnonzero(given == 0) if level.splits[i] is None]
        classes = {value for value in values if value is not None}
        if not partial.any() and not outside and 2 <= len(classes) <= (~missing).sum() // 2:
            found.append((rule, classes))
    words = [len(classes) for _, classes in found if not all(map(str.isdigit, classes))]
    most = min(words, default=len(paths.names))  # beside fewer words, numbers are counters
    return [
        rule
        for rule, classes in found
        if len(classes) <= most or not all(map(str.isdigit, classes))
    ]


def unmatched(paths: Paths, rule: str, rows: Ints) -> LayoutError:
    """Return the error for the images `rows` (m,) to which a rule gives no class."""
    chosen = np.zeros(len(paths.names), bool)
    chosen[rows] = True
    counts = np.bincount(paths.folder_of[rows], minlength=len(paths.folders))
    whole = counts == paths.counts
    patterns: list[str] = []
    if whole[counts > 0].all():
        inner, _ = topmost(paths.folders, lambda i: bool(counts[i]))
        patterns = [below(folder) for folder in inner]
    elif len(rows) <= MOST_PATTERNS:
        patterns = [glob.escape(paths.names[row]) for row in rows]
    few = 0 < len(patterns) <= MOST_PATTERNS
    return LayoutError(
        f"{paths.root}: --class-from {rule} gives no class to {len(rows):,} of "
        f"{len(paths.names):,} images, for example {paths.names[int(rows[0])]}",
        [option("exclude", *patterns)] if few else [],
    )


def check_splits(
    paths: Paths,
    splits: Column,
    rows: Ints,
    meanings: Mapping[str, int],
    tables: Sequence[str] = (),
) -> None:
    """Raise LayoutError if an image among `rows` (m,) has no split, or an unknown one.

    `tables` give the splits, unless a rule of the user does.
    """
    unknown = [code for code, value in enumerate(splits.values) if value not in meanings]
    bad = np.flatnonzero(np.isin(splits.codes, [*unknown, NONE]))
    if not len(bad):
        return
    got = sorted({splits.values[code] for code in unknown}) or ["nothing"]
    counts = np.bincount(paths.folder_of[rows[bad]], minlength=len(paths.folders))
    of_rows = np.bincount(paths.folder_of[rows], minlength=len(paths.folders))
    patterns: list[str] = []
    if (counts[counts > 0] == of_rows[counts > 0]).all():
        inner, _ = topmost(paths.folders, lambda i: bool(counts[i]))
        patterns = [below(folder) for folder in inner]
    few = 0 < len(patterns) <= MOST_PATTERNS
    raise LayoutError(
        f"{paths.root}: {splits.rule} gives {listed(map(repr, got))} as the split of {len(bad):,} "
        f"images, for example {paths.names[int(rows[bad[0]])]}; expected train, validation or test",
        [option("exclude", *p) for p in (patterns * few, [*map(glob.escape, tables)]) if p],
    )


def label_without_folder(paths: Paths, table: TableMatch, label: str, row: int) -> LayoutError:
    """Return the error for a label that a table gives an image, and no folder is named so."""
    return LayoutError(
        f"{paths.root}: {table.file} gives {paths.names[row]} the label {label!r}, which is no "
        "class of the folders",
        [option("exclude", *map(glob.escape, table.file.split(",")))],
    )


def check_table_agrees(paths: Paths, found: FolderClasses, table: TableMatch) -> None:
    """Raise LayoutError if a table contradicts the folders of the images that both label.

    Both agree if each class has one label and each label one class, whatever their names are.
    """
    classes = [found.classes[folder] for folder in paths.folder_of.tolist()]
    pairs = {pair for pair in zip(classes, table.labels, strict=True) if None not in pair}
    if len(pairs) == len({c for c, _ in pairs}) == len({label for _, label in pairs}):
        return
    raise LayoutError(
        f"{paths.root}: {table.file} and the folders ({found.class_from}) give different classes",
        [
            option("class-from", TableRule(table.file)),
            *([option("class-from", found.class_from)] if found.class_from.count(":") else []),
        ],
    )

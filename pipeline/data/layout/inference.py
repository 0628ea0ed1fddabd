"""Infers the class, split and writer of image files from their paths, tables and a user's rules.

Each meaning that no rule gives is inferred from folders, and from a table where folders give no
classes. Work is done for each distinct folder, not for each file, wherever that is possible.
"""

import re
import shlex
from collections.abc import Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from pipeline.data.archives.base import Archive
from pipeline.data.base import NO_SPLIT, SPLITS, Annotations, Ints, Layout, LayoutError
from pipeline.data.layout import refusals
from pipeline.data.layout.class_names import MIDAS, clean_classes, midas_writers, name_characters
from pipeline.data.layout.columns import NONE, Column, clean, column_of, levels_of
from pipeline.data.layout.folders.classes import FolderClasses, find_classes
from pipeline.data.layout.folders.companions import check_companions
from pipeline.data.layout.folders.paths import Paths, essential_parts
from pipeline.data.layout.folders.split_level import (
    SplitLevel,
    check_split_classes,
    find_splits,
    predefined,
)
from pipeline.data.layout.folders.vocabulary import SPLIT_WORDS, mentions_split, splits_of
from pipeline.data.layout.options import FolderRule, LayoutOptions, NameRule, Rule, TableRule
from pipeline.data.layout.tables import (
    IAM_WORDS,
    TableMatch,
    find_split_table,
    find_table,
    read_table,
)
from pipeline.data.layout.tables.formats import SUFFIXES

# Names of files that begin with their split: 0/train_12.png beside 0/test_7.png.
NAMED_SPLIT = NameRule(re.compile(rf"(?i)(?:^|/)({'|'.join(SPLIT_WORDS)})[-_. ][^/]*$"))


@dataclass(frozen=True)
class ImageLayout:
    """The images that take part: their numbers `rows` (m,), their annotations and the layout."""

    rows: Ints
    annotations: Annotations
    layout: Layout


class Inference:
    """One interpretation of the images `names` (n,) of an archive.

    Its steps add to `left_out`, `notes` and `warnings`, and set `level`, the splits of folders.
    Only a table that gives classes is called `table`.
    """

    def __init__(self, archive: Archive, names: Sequence[str], options: LayoutOptions) -> None:
        self.archive, self.options = archive, options
        self.left_out: dict[str, int] = {}
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self._tables: dict[str, TableMatch] = {}
        self._agreeing: TableMatch | None = None  # labels images as their folders do
        self._rows = self._select(names)
        self.paths = Paths.of(archive.path, [names[row] for row in self._rows])

    def run(self) -> ImageLayout:
        """Return the layout. Raises LayoutError if it is ambiguous or contradictory."""
        self.level = level = self._split_level()
        found, table = self._find_classes(level)
        classes = self._classes(found, table)
        rows = self._labelled(classes, level, found, table)
        classes, dataset = self._name_classes(classes.rows(rows), found)
        splits = self._splits(level, table, rows)
        writers = self._writers(found, table, rows, dataset)
        annotations = Annotations(
            classes.values, classes.codes, writers.codes, writers.values, splits.codes
        )
        if splits.rule:
            names = [self.paths.names[row] for row in rows]
            check_split_classes(
                self.paths.root, classes.values, classes.codes, splits.codes, names.__getitem__
            )
        reader = "midas" if dataset == MIDAS else "folders" if self._of_folders(found) else "files"
        layout = Layout(
            reader=reader,
            class_from=classes.rule,
            split_from=splits.rule,
            writer_from=writers.rule,
            dataset=dataset,
            left_out=dict(self.left_out),
            notes=tuple(dict.fromkeys(self.notes)),
            warnings=tuple(dict.fromkeys(self.warnings)),
        )
        return ImageLayout(self._rows[rows], annotations, layout)

    def _select(self, names: Sequence[str]) -> Ints:
        """Return the images that --exclude and --include leave."""
        options = self.options
        if not options.exclude and not options.include:
            return np.arange(len(names))
        rows = np.flatnonzero([options.selects(name) for name in names])
        if not len(rows):
            raise LayoutError(f"{self.archive.path}: --exclude and --include leave no images")
        return rows

    def _split_level(self) -> SplitLevel:
        """Return the splits of folders, and their parts that rules and splits do not use."""
        options, paths = self.options, self.paths
        rules = (options.class_from, options.split_from, options.writer_from)
        used = zip(*(levels_of(rule, paths) for rule in rules), strict=True)
        parts = essential_parts(paths.folders, [a | b | c for a, b, c in used])
        given = options.class_from and options.split_from
        level = SplitLevel.none(parts) if given else find_splits(paths, parts)
        if not isinstance(rule := options.split_from, FolderRule | NameRule):
            return level
        column = column_of(rule, paths)
        if not (meanings := splits_of(column.values)):
            refusals.check_splits(paths, column, np.arange(len(paths.names)), {})
        if isinstance(rule, FolderRule):
            names = [rule.value("/".join((*folder, ""))) or "" for folder in paths.folders]
            level = SplitLevel([meanings.get(n) for n in names], level.rest, str(rule), names)
        return level

    def _find_classes(self, level: SplitLevel) -> tuple[FolderClasses | None, TableMatch | None]:
        """Return the classes of folders, or else the table that gives them.

        Neither if a rule gives them. Raises LayoutError if nothing does, or if both disagree.
        """
        if self.options.class_from:
            return None, None
        found, refused, table = None, None, None
        try:
            found = find_classes(self.paths, level)
            if found:
                refusals.check_no_writers(self.paths, level, found)
                check_companions(self.paths, found)
        except LayoutError as error:
            refused = error
        try:
            table = self._find_table()
        except LayoutError as error:
            if refused is None and (found is None or len(found.names) < 2):
                raise
            self.warnings.append(f"folders give the classes, no table: {error.reason}")
        if table and refused is None and self._is_preferred(table, found):
            return None, table
        if refused:
            if table and (table.format == IAM_WORDS or None not in table.labels):
                return None, table
            raise refused
        if found is None:
            raise refusals.no_classes(self.paths, level)
        if table:
            refusals.check_table_agrees(self.paths, found, table)
            self.notes.append(f"{table.file} also names labels; folders give the classes")
            self._agreeing = table
        elif found:
            self._agreeing = self._table_of_unlabelled(found)
        return found, None

    def _table_of_unlabelled(self, found: FolderClasses) -> TableMatch | None:
        """Return the table that labels images outside the folders of classes, None without any."""
        paths, unlabelled = self.paths, [name is None for name in found.classes]
        rows = np.flatnonzero(np.array(unlabelled)[paths.folder_of])
        if not len(rows) or (archive := self._archive_of_tables) is None:
            return None
        names = [paths.names[row] for row in rows.tolist()]
        known = _by_number([name for name in found.classes if name is not None]).keys()
        try:
            table = find_table(archive, names, self.options)
        except LayoutError as error:
            table = self._table_of_classes(archive, names, error, known)
        if table is None:
            return None
        labels: list[str | None] = [None] * len(paths.names)
        for row, label in zip(rows.tolist(), table.labels, strict=True):
            labels[row] = label
        if known.isdisjoint(labels):
            self.warnings.append(f"{table.file} has labels that are no classes; not used")
            return None
        return replace(table, labels=labels, splits=None, writers=None)

    def _table_of_classes(
        self, archive: Archive, names: Sequence[str], error: LayoutError, known: Set[str]
    ) -> TableMatch | None:
        """Return the table by the one suggested column of labels that are all known classes."""
        found = []
        for suggestion in error.suggestions:
            option, *words = shlex.split(suggestion)
            if option == "--columns":
                columns = LayoutOptions.parse(columns=words[0]).columns
                with suppress(LayoutError):
                    table = find_table(archive, names, replace(self.options, columns=columns))
                    if table and {*table.labels} - {None} <= known:
                        found.append(table)
        return found[0] if len(found) == 1 else None

    def _is_preferred(self, table: TableMatch, found: FolderClasses | None) -> bool:
        """Return whether a table gives the classes rather than folders.

        It does if folders give none, and, with a label for every image, if they give one class or
        are unclear.
        """
        if found is None or table.format == IAM_WORDS:
            return True
        if None in table.labels:
            return False
        return not found.clear or len(found.names) < 2

    def _find_table(self) -> TableMatch | None:
        """Return the table that gives the images' classes, None if there is none."""
        if (archive := self._archive_of_tables) is None:
            return None
        return find_table(archive, self.paths.names, self.options)

    @cached_property
    def _archive_of_tables(self) -> Archive | None:
        """Return the files that may be tables, None if there are none."""
        archive = self.archive
        if not any(name.lower().endswith(SUFFIXES) for name in archive.names):
            return None
        if exclude := self.options.exclude:
            archive = archive.select(LayoutOptions(exclude=exclude).selects)
        return archive

    def _classes(self, found: FolderClasses | None, table: TableMatch | None) -> Column:
        if rule := self.options.class_from:
            return self._column(rule, "labels")
        if table:
            self._report(table)
            return Column.of(table.labels, str(TableRule(table.file)))
        assert found is not None
        self.notes += found.notes
        folders = Column.of(found.classes, found.class_from, self.paths.folder_of)
        return self._completed(folders, self._agreeing) if self._agreeing else folders

    def _completed(self, folders: Column, table: TableMatch) -> Column:
        """Return the classes of folders, completed by the table's labels of other images.

        Raises LayoutError for a label of the table that is no class of a folder.
        """
        values: list[str | None] = [*folders.values, None]
        classes = [values[code] for code in folders.codes.tolist()]
        pairs = zip(table.labels, classes, strict=True)
        class_of = {label: name for label, name in pairs if label is not None and name is not None}
        class_of = class_of or _by_number(folders.values)
        missing = [i for i, name in enumerate(classes) if name is None and table.labels[i]]
        for i in missing:
            if (label := table.labels[i] or "") not in class_of:
                raise refusals.label_without_folder(self.paths, table, label, i)
            classes[i] = class_of[label]
        if not missing:
            return folders
        self.notes.append(f"{table.file} labels {len(missing):,} images outside folders of classes")
        return Column.of(classes, f"{folders.rule}, {TableRule(table.file)}")

    def _labelled(
        self,
        classes: Column,
        level: SplitLevel,
        found: FolderClasses | None,
        table: TableMatch | None,
    ) -> Ints:
        """Return the images that have a class, and count the others by reason.

        Raises LayoutError if images outside the splits' folders have none.
        """
        paths, labelled = self.paths, classes.codes != NONE
        if not labelled.any():
            raise LayoutError(f"{paths.root}: {classes.rule} gives no image a class")
        if found:
            for folder, reason in found.left_out.items():
                labelled[paths.folder_of == folder] = False
                self._leave_out(reason, int(paths.counts[folder]))
        with_class = np.bincount(paths.folder_of[labelled], minlength=len(paths.folders))
        matched = {level.names[i] for i in np.flatnonzero(with_class).tolist()}
        by_name = isinstance(self.options.class_from, NameRule)
        unmatched = []
        for i in np.flatnonzero(with_class < paths.counts).tolist():
            count = int(paths.counts[i] - with_class[i])
            if found and i in found.left_out:
                continue
            in_split = level.splits[i] is not None and not (by_name and level.names[i] in matched)
            if in_split and not with_class[i]:
                self._leave_out(f"unlabelled images of {level.names[i]}", count)
            elif table or isinstance(self.options.class_from, TableRule):
                reason = f"images that {classes.rule} does not name"
                self._leave_out(reason, count)
                self.warnings.append(f"{reason} are left out")
            else:
                unmatched.append(i)
        if unmatched:
            rows = np.flatnonzero(~labelled & np.isin(paths.folder_of, unmatched))
            raise refusals.unmatched(paths, classes.rule, rows)
        return np.flatnonzero(labelled)

    def _name_classes(self, classes: Column, found: FolderClasses | None) -> tuple[Column, str]:
        """Return the final classes and the known name of the dataset."""
        classes, warnings = clean_classes(self.paths, classes)
        self.warnings += warnings
        dataset = ""
        if self._of_folders(found):
            classes, dataset, notes = name_characters(self.paths, classes)
            self.notes += notes
        return classes.rows(np.arange(len(classes.codes))), dataset

    def _of_folders(self, found: FolderClasses | None) -> bool:
        return found is not None or isinstance(self.options.class_from, FolderRule)

    def _splits(self, level: SplitLevel, table: TableMatch | None, rows: Ints) -> Column:
        """Return the splits that the source gives its images: codes are indices into SPLITS."""
        paths, free = self.paths, Column((), np.full(len(rows), NO_SPLIT), "")
        tables: list[str] = []
        if rule := self.options.split_from:
            column = self._column(rule, "splits").rows(rows)
        elif level.split_from:
            values = [None if split is None else SPLITS[split] for split in level.splits]
            column = Column.of(values, level.split_from, paths.folder_of).rows(rows)
        elif divided := self._split_table(table):
            column = Column.of(divided.splits or (), str(TableRule(divided.file))).rows(rows)
            tables = divided.file.split(",")
        elif NAMED_SPLIT.value(paths.names[int(rows[0])]):  # else all need not be compared
            column = column_of(NAMED_SPLIT, paths).rows(rows)
            if NONE in column.codes or len({*splits_of(column.values).values()}) < 2:
                return free
        else:
            self._warn_of_splits(table)
            return free
        meanings = splits_of(column.values)
        refusals.check_splits(paths, column, rows, meanings, tables)
        numbers = np.array([meanings[value] for value in column.values], np.int64)
        splits = predefined(numbers[column.codes])
        if (splits == NO_SPLIT).all():
            self.notes.append(f"{column.rule} names training images alone: prep divides them")
            return free
        return Column(SPLITS, splits, column.rule)

    def _split_table(self, table: TableMatch | None) -> TableMatch | None:
        """Return the table that gives splits: the one of the classes, or others."""
        if table and table.splits and any(table.splits):
            return table
        if (archive := self._archive_of_tables) is None:
            return None
        if found := find_split_table(archive, self.paths.names, self.options):
            self._report(found)
        return found

    def _warn_of_splits(self, table: TableMatch | None) -> None:
        """Warn of tables that are named like splits and are not used."""
        archive, used = self._archive_of_tables, table.file.split(",") if table else []
        for name in archive.names if archive else ():
            stem, _, suffix = name.rpartition("/")[2].rpartition(".")
            known = f".{suffix.lower()}" in SUFFIXES and name not in used
            if known and mentions_split(stem):
                self.warnings.append(f"{name} may define splits, and is not used")

    def _writers(
        self, found: FolderClasses | None, table: TableMatch | None, rows: Ints, dataset: str
    ) -> Column:
        """Return the images' writers; the rule is "" if none is known."""
        if rule := self.options.writer_from:
            column = self._column(rule, "writers").rows(rows)
            if not column.values:
                raise LayoutError(
                    f"{self.paths.root}: --writer-from {rule} gives no image a writer"
                )
            return column
        column = Column.of([None], "", np.zeros(len(self.paths.names), np.int64))
        if found and found.writer_from:
            column = Column.of(found.writers, found.writer_from, self.paths.folder_of)
        elif table and table.writers and any(table.writers):
            column = Column.of(table.writers, str(TableRule(table.file)))
        elif dataset == MIDAS:
            column, notes = midas_writers(self.paths, rows)
            self.notes += notes
            return column.rows(np.arange(len(rows)))
        return column.rows(rows)

    def _column(self, rule: Rule, kind: str) -> Column:
        """Return the labels, splits or writers that a rule gives."""
        if not isinstance(rule, TableRule):
            return column_of(rule, self.paths)
        if rule.file not in self._tables:
            names = self.paths.names
            self._tables[rule.file] = read_table(rule.file, self.archive, names, self.options)
            self._report(self._tables[rule.file])
        values = getattr(self._tables[rule.file], kind)
        if values is None or not any(values):
            column = f"--columns {kind.removesuffix('s')}=…"
            raise LayoutError(f"{self.paths.root}: {rule.file} has no {kind}; {column} names them")
        return Column.of(values, str(rule))

    def _report(self, table: TableMatch) -> None:
        self.notes += table.notes
        self.warnings += table.warnings

    def _leave_out(self, reason: str, count: int) -> None:
        self.left_out[reason] = self.left_out.get(reason, 0) + count


def _by_number(folders: Sequence[str]) -> dict[str, str]:
    """Return each folder by its cleaned name and, if all are different numbers, without zeros."""
    by_name = {clean(name): name for name in folders}
    if not all(map(str.isdecimal, by_name)):
        return by_name
    numbers = {str(int(name)): folder for name, folder in by_name.items()}
    return numbers | by_name if len(numbers) == len(by_name) else by_name

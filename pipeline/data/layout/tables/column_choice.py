"""Columns of a table: which one names the image, and which are its label, split and writer."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

from pipeline.data.layout.options import COLUMNS
from pipeline.data.layout.tables.image_names import ImageNames
from pipeline.data.layout.tables.table import DETECTION, NotATableError, Table, TableError


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Names in lower case, without spaces, underscores and other signs.
_KNOWN = {
    "file": _words(
        "file files filename filenames fname fn filepath path image images imagename imageid "
        "imagefile imagefilename imagepath img imgs imgname imgid imgfile imgpath name id uuid "
        "fileupload photo key"
    ),
    "label": _words(
        "label labels class classes classname classid classlabel category categoryname categoryid "
        "target digit character char letter symbol text word transcription transcript groundtruth "
        "gt y choice choices"
    ),
    "split": _words("split splits set subset partition usage datasplit splitname"),
    "writer": _words(
        "writer writerid author authorid user userid subject subjectid participant participantid "
        "scribe"
    ),
}
# Columns of true and false, as fastai's, and the splits for both.
_FLAGS = {
    "isvalid": ("validation", "train"),
    "istest": ("test", "train"),
    "istrain": ("train", "test"),
}
# Columns that are never a label unless the user names them.
_OTHER = _words(
    "index unnamed0 width height w h depth channels size filesize sha256 md5 hash url license "
    "fold kfold createdat updatedat leadtime annotationid annotator"
).union(_FLAGS, [""])
_BOXES = ("xmin ymin xmax ymax", "x1 y1 x2 y2", "bbox", "left top width height", "x y width height")
_SPLIT_VALUE = re.compile(r"train|val|dev|test", re.IGNORECASE)
_MISSING = {"nan", "none", "null", "na", "n/a", "<na>", "-"}
_MOST_SUGGESTIONS = 6


def squeeze(name: str) -> str:
    """Return a column's name in lower case, without spaces and signs."""
    return re.sub(r"[\W_]+", "", name.casefold())


def is_header(cells: Sequence[str], names: ImageNames, columns: Mapping[str, str]) -> bool:
    """Return whether a first row has the names of columns: a known one, or no image's name."""
    known = _KNOWN["file"] | set(map(squeeze, columns.values()))
    return any(squeeze(cell) in known for cell in cells) or not any(map(names.may_name, cells))


@dataclass(frozen=True)
class Values:
    """The columns of a table, one entry per row.

    `known` tells whether the label's column is known by its name or by the user's.
    """

    files: list[str]
    labels: list[str | None] | None
    splits: list[str | None] | None
    writers: list[str | None] | None
    known: bool
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def read_columns(
    table: Table, names: ImageNames, columns: Mapping[str, str], needed: Set[str]
) -> Values:
    """Choose the columns by `columns`, which map COLUMNS to names, else by names and values.

    Raises TableError where a column that is `needed` is missing, or one is ambiguous.
    """
    return _Chooser(table, names, columns, needed).read()


@dataclass
class _Chooser:
    table: Table
    names: ImageNames
    given: Mapping[str, str]
    needed: Set[str]
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.squeezed = [squeeze(name) for name in self.table.columns]
        self.chosen = {kind: self._find(name) for kind, name in self.given.items()}

    def read(self) -> Values:
        file = self.chosen["file"] if "file" in self.chosen else self._file()
        self.chosen["file"] = file
        files = self._cells(file)
        self.notes.append(f"column {self._name(file)} names the images")
        self._refuse_boxes(files)
        known = True
        labels: list[str | None] | None = None
        try:
            labels, known = self._labels()
        except TableError:
            if "label" in self.needed:
                raise
        splits = self._splits()
        writer = self._named("writer")
        if writer is not None:
            self.notes.append(f"column {self._name(writer)} is the writer")
        writers = None if writer is None else [cell.strip() or None for cell in self._cells(writer)]
        for kind, values in (("split", splits), ("writer", writers)):
            if values is None and kind in self.needed:
                raise TableError(f"has no column of the {kind}; it has {self._list()}")
        return Values(
            files, labels, splits, writers, known, tuple(self.notes), tuple(self.warnings)
        )

    def _find(self, name: str) -> int:
        columns = self.table.columns
        if name in columns:
            return columns.index(name)
        same = [i for i, one in enumerate(self.squeezed) if one == squeeze(name)]
        if len(same) != 1:
            raise NotATableError(f"has no column {name!r}; it has {self._list()}")
        return same[0]

    def _list(self) -> str:
        shown = ", ".join(self.table.columns[:10])
        return f"{shown} …" if len(self.table.columns) > 10 else shown

    def _name(self, column: int) -> str:
        return repr(self.table.columns[column])

    def _cells(self, column: int) -> list[str]:
        return [row[column] for row in self.table.rows]

    def _free(self) -> list[int]:
        """Return the columns that are not chosen yet."""
        return [i for i in range(len(self.squeezed)) if i not in self.chosen.values()]

    def _settled(self, kind: str, candidates: Sequence[int]) -> list[str]:
        """Return the options that choose each candidate, completed where more is ambiguous."""
        suggestions: list[str] = []
        for column in candidates[:_MOST_SUGGESTIONS]:
            name = self.table.columns[column]
            if not name or "," in name:
                continue
            given = {**self.given, kind: name}
            try:
                read_columns(self.table, self.names, given, self.needed)
            except TableError as error:
                suggestions += error.suggestions
            else:
                pairs = ",".join(f"{one}={given[one]}" for one in COLUMNS if one in given)
                suggestions.append(f"--columns {shlex.quote(pairs)}")
        return list(dict.fromkeys(suggestions))[:_MOST_SUGGESTIONS]

    # --- the image

    def _file(self) -> int:
        free = self._free()
        known = [i for i in free if self.squeezed[i] in _KNOWN["file"]]
        others = set().union(*(_KNOWN[kind] for kind in ("label", "split", "writer")), _OTHER)
        unknown = [i for i in free if i not in known and self.squeezed[i] not in others]
        candidates = self._naming(known) or self._naming([i for i in unknown if self._is_key(i)])
        if not candidates:
            raise NotATableError(f"has no column that names the images; it has {self._list()}")
        if len(candidates) > 1:
            matches = [self.names.match(self._cells(i), "").indices for i in candidates]
            if any(match != matches[0] for match in matches):
                raise TableError(
                    f"has several columns that name images: {self._join(candidates)}",
                    self._settled("file", candidates),
                )
        return candidates[0]

    def _naming(self, columns: Sequence[int]) -> list[int]:
        """Return the columns whose values name images, those with whole file names if any."""
        found = [i for i in columns if self._names_images(self._cells(i))]
        bases = {name.rpartition("/")[2] for name in self.names.names}
        whole = [
            i for i in found if 2 * sum(_base(c) in bases for c in self._cells(i)) >= self._count()
        ]
        return whole or found

    def _names_images(self, cells: Sequence[str]) -> bool:
        possible = min(len(set(cells)), len(self.names.names))
        return possible > 0 and 2 * self.names.hits(cells) >= possible

    def _is_key(self, column: int) -> bool:
        """Return whether values differ from row to row, and are not numbers under a name."""
        cells = self._cells(column)
        named = self.table.columns[column] != str(column + 1)
        return 10 * len(set(cells)) >= 9 * len(cells) and not (
            named and all(map(_is_number, cells))
        )

    def _count(self) -> int:
        return len(self.table.rows)

    def _join(self, columns: Sequence[int]) -> str:
        return " and ".join(self._name(i) for i in columns[:_MOST_SUGGESTIONS])

    def _refuse_boxes(self, files: Sequence[str]) -> None:
        present = set(self.squeezed)
        if any(_words(box) <= present for box in _BOXES):
            if len(set(files)) < len(files):
                raise TableError(DETECTION)
            self.warnings.append("has a box for each image, which is not used")

    # --- the label

    def _labels(self) -> tuple[list[str | None], bool]:
        if "label" in self.chosen:
            return self._label_column(self.chosen["label"]), True
        free = self._free()
        known = [i for i in free if self.squeezed[i] in _KNOWN["label"]]
        if known:
            usable = [i for i in known if self._has_classes(i)] or known
            return self._label_column(self._one("label", usable)), True
        taken = set().union(*_KNOWN.values())
        rest = [i for i in free if self.squeezed[i] not in taken | _OTHER]
        if len(free) > 1 and (one_hot := self._one_hot(free)) is not None:
            return one_hot, True
        if len(rest) == 1:
            return self._label_column(rest[0]), bool(self.given)
        if not rest:
            raise NotATableError(f"has no column of labels; it has {self._list()}")
        raise TableError(
            f"has no column that is clearly the label; it has {self._list()}",
            self._settled("label", [i for i in rest if self._has_classes(i)]),
        )

    def _has_classes(self, column: int) -> bool:
        """Return whether values differ, and not from row to row."""
        count = len({cell.strip() for cell in self._cells(column)} - {""})
        return count > 1 and (count < self._count() or count <= 10)

    def _one(self, kind: str, candidates: Sequence[int]) -> int:
        """Return the one candidate; of columns that say the same, the first that is not numbers."""
        first = candidates[0]
        if len(candidates) == 1:
            return first
        pairs = [set(zip(self._cells(first), self._cells(i), strict=True)) for i in candidates]
        count = len(set(self._cells(first)))
        same = all(len(p) == len({b for _, b in p}) == count for p in pairs)
        named = [i for i in candidates if not all(map(_is_number, self._cells(i)))]
        if same and (kind != "label" or len(named) == 1):
            return named[0] if len(named) == 1 else first
        raise TableError(
            f"has several columns that may be the {kind}: {self._join(candidates)}",
            self._settled(kind, candidates),
        )

    def _label_column(self, column: int) -> list[str | None]:
        self.notes.append(f"column {self._name(column)} is the label")
        texts = {cell: _label(cell) for cell in set(self._cells(column))}
        numbers = [text for text in texts.values() if text is not None]
        if all(re.fullmatch(r"-?[0-9]+(\.0+)?", text) for text in numbers) and any(
            "." in text for text in numbers
        ):
            texts = {cell: t and t.partition(".")[0] for cell, t in texts.items()}
            self.notes.append("labels are whole numbers, written with .0, which is left out")
        labels = [texts[cell] for cell in self._cells(column)]
        missing = {text for text in texts.values() if text and text.casefold() in _MISSING}
        for text in sorted(missing):
            self.warnings.append(f"has {labels.count(text):,} labels {text!r}, taken as a class")
        return labels

    def _one_hot(self, free: Sequence[int]) -> list[str | None] | None:
        """Return the labels of columns of 0 and 1, one for each class; None if these are not."""
        taken = _KNOWN["split"] | _KNOWN["writer"] | set(_FLAGS) | {""}
        columns = [i for i in free if self.squeezed[i] not in taken and self._is_class(i)]
        if len(columns) < 2:
            return None
        labels: list[str | None] = []
        several = -1
        for number, row in enumerate(self.table.rows):
            ones = [i for i in columns if row[i].strip() in ("1", "1.0")]
            if len(ones) > 1 and several < 0:
                several = number
            labels.append(self.table.columns[ones[0]] if ones else None)
        if 2 * sum(label is None for label in labels) > len(labels):
            return None
        if several >= 0:
            row = self.table.rows[several]
            both = [self.table.columns[i] for i in columns if row[i].strip() in ("1", "1.0")]
            raise TableError(
                f"gives several labels to one image: {' and '.join(both[:5])} to "
                f"{row[self.chosen['file']]!r}, expected one",
                self._settled("label", columns),
            )
        self.notes.append(f"the {len(columns)} columns of 0 and 1 are the classes")
        if "Unlabeled" in labels:
            self.notes.append("'Unlabeled' is no label")
        return [None if label == "Unlabeled" else label for label in labels]

    def _is_class(self, column: int) -> bool:
        return {cell.strip() for cell in self._cells(column)} <= {"0", "1", "0.0", "1.0"}

    # --- split and writer

    def _named(self, kind: str) -> int | None:
        if kind not in self.chosen:
            candidates = [i for i in self._free() if self.squeezed[i] in _KNOWN[kind]]
            if not candidates:
                return None
            self.chosen[kind] = self._one(kind, candidates)
        return self.chosen[kind]

    def _splits(self) -> list[str | None] | None:
        given = "split" in self.given
        column = self._named("split")
        if column is not None:
            splits = [cell.strip() or None for cell in self._cells(column)]
            if given or "split" in self.needed or any(s and _SPLIT_VALUE.search(s) for s in splits):
                self.notes.append(f"column {self._name(column)} is the split")
                return splits
            self.warnings.append(f"has a column {self._name(column)} that names no split")
        flags = [i for i in self._free() if self.squeezed[i] in _FLAGS]
        if not flags:
            return None
        self.notes.append(f"column {self._join(flags)} is the split")
        return [self._flagged(row, flags) for row in self.table.rows]

    def _flagged(self, row: Sequence[str], flags: Sequence[int]) -> str:
        """Return the split that flags give a row: validation or test if any of them says so."""
        splits = []
        for i in flags:
            is_true, is_false = _FLAGS[self.squeezed[i]]
            splits.append(
                is_true if row[i].strip().casefold() in ("1", "1.0", "true") else is_false
            )
        named = [split for split in splits if split != "train"]
        return "validation" if "validation" in named else named[0] if named else "train"


def _base(entry: str) -> str:
    return re.split(r"[\\/]", entry.strip())[-1]


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"\s*-?[0-9.]*\s*", cell) is not None


def _label(cell: str) -> str | None:
    """Return a label without outer spaces; None if it is empty. Raises TableError for several."""
    text = cell.strip()
    if text[:1] in ("[", "{") and text[1:]:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return text
        choices = value.get("choices") if isinstance(value, dict) else value
        if isinstance(choices, list) and all(isinstance(one, str) for one in choices):
            if len(choices) > 1:
                raise TableError(f"gives several labels to one image: {text[:80]}, expected one")
            return choices[0].strip() or None if choices else None
    return text or None

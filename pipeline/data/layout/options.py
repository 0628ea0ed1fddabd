"""Options that correct a layout: where class, split and writer come from, and which files count."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from functools import cached_property
from pathlib import Path

from pipeline.data.base import SourceError

COLUMNS = ("file", "label", "split", "writer")


@dataclass(frozen=True)
class FolderRule:
    """The names of folders: levels counted from 0, the outermost below the source, or from -1."""

    levels: tuple[int, ...]

    def __str__(self) -> str:
        return f"folder:{','.join(map(str, self.levels))}"

    def value(self, name: str) -> str | None:
        """Return the folders of a relative path, joined by a slash; None if one is missing."""
        folders = name.split("/")[:-1]
        if any(not -len(folders) <= level < len(folders) for level in self.levels):
            return None
        return "/".join(folders[level] for level in self.levels)


@dataclass(frozen=True)
class NameRule:
    """The one group of a regular expression, found anywhere in the relative path (in NFC)."""

    pattern: re.Pattern[str]

    def __str__(self) -> str:
        return f"name:{self.pattern.pattern}"

    def value(self, name: str) -> str | None:
        """Return the group's text, None if the pattern does not match."""
        match = self.pattern.search(name)
        return match[1] if match else None


@dataclass(frozen=True)
class TableRule:
    """A column of a table: a member of the source, or a file of the user."""

    file: str

    def __str__(self) -> str:
        return f"table:{self.file}"


Rule = FolderRule | NameRule | TableRule


def parse_rule(option: str, text: str) -> Rule:
    """Parse "folder:N[,M]", "name:REGEX" or "table:FILE". Raises SourceError; `option` names it."""
    kind, _, value = text.partition(":")
    if kind == "folder" and re.fullmatch(r"-?[0-9]{1,3}(,-?[0-9]{1,3})*", value):
        levels = tuple(map(int, value.split(",")))
        if len({*levels}) < len(levels):
            raise SourceError(f"{option} {text!r}: got a level twice")
        return FolderRule(levels)
    if kind == "name" and value:
        try:
            pattern = re.compile(unicodedata.normalize("NFC", value))
        except re.error as error:
            raise SourceError(f"{option} {text!r}: no regular expression: {error}") from None
        if pattern.groups == 1:
            return NameRule(pattern)
        raise SourceError(f"{option} {text!r}: got {pattern.groups} groups, expected one: (…)")
    if kind == "table" and value:
        return TableRule(value)
    raise SourceError(f"{option} {text!r}: expected folder:N[,M], name:REGEX or table:FILE.csv")


@dataclass(frozen=True)
class LayoutOptions:
    """A user's corrections of a layout; the defaults correct nothing.

    `columns` name a table's columns for COLUMNS. `exclude` and `include` are shell patterns for
    relative paths, in which * also matches slashes; a pattern also selects all that is below a
    folder it matches. `allow_gaps` accepts label numbers with large gaps. `shape` is the (height,
    width) of images in rows of pixels; in colour, with 3 before or after it, as the values lie. A
    relative file of a table is in `folder`.
    """

    class_from: Rule | None = None
    split_from: Rule | None = None
    writer_from: Rule | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    allow_gaps: bool = False
    shape: tuple[int, ...] | None = None
    folder: Path = Path()

    @classmethod
    def parse(
        cls,
        *,
        class_from: str | None = None,
        split_from: str | None = None,
        writer_from: str | None = None,
        columns: str | None = None,
        exclude: tuple[str, ...] = (),
        include: tuple[str, ...] = (),
        allow_gaps: bool = False,
        shape: str | None = None,
        folder: Path = Path(),
    ) -> "LayoutOptions":
        """Parse the options of the command line. Raises SourceError for one that is invalid."""
        rules = {
            name: None if text is None else parse_rule(f"--{name.replace('_', '-')}", text)
            for name, text in (
                ("class_from", class_from),
                ("split_from", split_from),
                ("writer_from", writer_from),
            )
        }
        return cls(
            **rules,
            columns=_parse_columns(columns or ""),
            exclude=exclude,
            include=include,
            allow_gaps=allow_gaps,
            shape=_parse_shape(shape),
            folder=folder,
        )

    @property
    def has_rules(self) -> bool:
        """Whether a rule for class, split or writer is given."""
        return any((self.class_from, self.split_from, self.writer_from))

    def selects(self, name: str) -> bool:
        """Return whether a file takes part, by its relative path."""
        included = not self.include or any(p.match(name) for p in self._include)
        return included and not any(p.match(name) for p in self._exclude)

    @cached_property
    def _include(self) -> tuple[re.Pattern[str], ...]:
        return tuple(map(_path_pattern, self.include))

    @cached_property
    def _exclude(self) -> tuple[re.Pattern[str], ...]:
        return tuple(map(_path_pattern, self.exclude))


def _path_pattern(glob: str) -> re.Pattern[str]:
    glob = unicodedata.normalize("NFC", glob).rstrip("/")
    return re.compile(f"{translate(glob)}|{translate(glob + '/*')}")


def _parse_columns(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",") if part]
    for name, _, column in pairs:
        if name not in COLUMNS or not column:
            raise SourceError(
                f"--columns {text!r}: expected some of {', '.join(f'{c}=…' for c in COLUMNS)}"
            )
    return {name: column for name, _, column in pairs}


def _parse_shape(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    side = "[1-9][0-9]{0,4}"
    if re.fullmatch(f"(3x)?{side}x{side}|{side}x{side}x3", text):
        return tuple(map(int, text.split("x")))
    raise SourceError(
        f"--shape {text!r}: expected HEIGHTxWIDTH, for example 28x28; in colour 3x32x32 or 32x32x3"
    )

"""Finds the level of folders that is the class, and the level that is the writer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pipeline.data.base import LayoutError
from pipeline.data.charset import hex_character, sample_number
from pipeline.data.layout.folders.paths import (
    MOST_PATTERNS,
    Part,
    Paths,
    below,
    folder_rule,
    listed,
    option,
    topmost,
)
from pipeline.data.layout.folders.split_level import SplitLevel
from pipeline.data.layout.folders.vocabulary import (
    are_characters,
    copied_from,
    is_fold,
    is_no_class,
    is_partition,
    is_repeated_partition,
    is_version,
    is_writer,
)


@dataclass
class FolderClasses:
    """Each folder's class (None: unlabelled) and writer (None: unknown), and the rules for both.

    `left_out` names, by folder, why its images are not used. `clear` is whether only this meaning
    is likely; a table that says otherwise goes first where it is not.
    """

    classes: list[str | None]
    writers: list[str | None]
    class_from: str
    writer_from: str = ""
    left_out: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    clear: bool = True

    @property
    def names(self) -> set[str]:
        """The distinct classes."""
        return {name for name in self.classes if name is not None}


def find_classes(paths: Paths, split: SplitLevel) -> FolderClasses | None:
    """Find the class of each folder, None if no folder gives one.

    Raises LayoutError if the layout is ambiguous.
    """
    labelled = [i for i, rest in enumerate(split.rest) if rest]
    if not labelled:
        return None
    _refuse_mixed_samples(paths, split.rest, labelled)
    _refuse_other_depths(paths, split, labelled)
    levels = _varying_levels([split.rest[i] for i in labelled])
    rest = [tuple(own[k] for k in levels) if own else () for own in split.rest]
    find = _LevelReader(paths, rest, labelled)
    found = find.one_level() if len(levels) == 1 else find.several_levels()
    _refuse_unlikely(paths, found)
    return found


class _LevelReader:
    """The parts (l,) of each labelled folder, of which one is the class."""

    def __init__(self, paths: Paths, rest: list[tuple[Part, ...]], labelled: Sequence[int]) -> None:
        self.paths, self.rest, self.labelled = paths, rest, labelled
        self.depth = len(rest[labelled[0]])
        columns = zip(*(rest[i] for i in labelled), strict=True)
        self.names = [{part.name for part in column} for column in columns]

    def one_level(self) -> FolderClasses:
        """Return classes from the only level."""
        return self.read(0)

    def read(
        self, class_level: int, writer_level: int | None = None, *, clear: bool = True
    ) -> FolderClasses:
        """Return the classes of one level and the writers of another."""
        found = FolderClasses(
            self.values(class_level),
            [None] * len(self.rest) if writer_level is None else self.values(writer_level),
            self.rule(class_level) or f"the folders {listed(sorted(self.names[class_level]))}",
            clear=clear,
        )
        if writer_level is not None:
            names = listed(sorted(self.names[writer_level]))
            found.writer_from = self.rule(writer_level) or f"the folders {names}"
        for level in range(self.depth):
            if level not in (class_level, writer_level):
                found.notes.append(f"the folders {listed(sorted(self.names[level]))} are not used")
        return found

    def several_levels(self) -> FolderClasses:
        """Return the classes of one of several levels. Raises LayoutError if two are likely."""
        outer, inner = self.depth - 2, self.depth - 1
        if nist := self.nist_partitions():
            return nist
        if self.repeated_under_containers():
            raise self.several_parents()
        if all(map(is_partition, self.names[inner])) and self.depth == 2:
            found = self.read(outer)
            found.notes = [_partitions(self.names[inner])]
            return found
        if all(map(is_writer, self.names[inner])):
            if self.depth == 2:
                return self.read(outer, inner)
        elif all(map(is_writer, self.names[outer])):
            if self.depth == 2:
                return self.read(inner, outer)
        elif self.depth == 2 and all(map(is_fold, self.names[outer])):
            return self.read(inner)
        elif _are_classes(self.names[inner]):
            if not any(_are_classes(names) for names in self.names[:inner]):
                return self.read(inner)
        elif self.are_own_classes() and not self.of_partitions():
            return self.read(inner, clear=False)
        raise self.ambiguous()

    def nist_partitions(self) -> FolderClasses | None:
        """Return the classes of NIST SD19: codes of characters above partitions hsf_N."""
        codes, partitions = self.names[-2], self.names[-1]
        known = [n for n in partitions if is_partition(n) or is_repeated_partition(n)]
        if len(known) < len(partitions) or not all(map(hex_character, codes)):
            return None
        found = self.read(self.depth - 2)
        found.notes = [_partitions(partitions)]
        if not all(map(is_repeated_partition, partitions)):
            for i in self.labelled:
                if is_repeated_partition(self.rest[i][-1].name):
                    found.left_out[i] = "images that train_… repeats"
        return found

    def of_partitions(self) -> bool:
        """Return whether folders are those of writers in NIST SD19's partitions."""
        return any(is_partition(name) for folder in self.paths.folders for name in folder)

    def repeated_under_containers(self) -> bool:
        """Return whether the same classes are below folders that mean nothing: Bmp and Msk.

        So do versions of the same images: original and processed, 28x28 and 56x56, data and a copy.
        """
        parents = {name for names in self.names[:-1] for name in names}
        samples = all(sample_number(name) is not None for name in self.names[-1])
        containers = all(map(is_no_class, parents))
        versions = any(is_version(name) or copied_from(name) in parents for name in parents)
        return (
            self.is_repeated(self.depth - 1)
            and (containers or samples or versions)
            and not any(map(is_writer, parents))
        )

    def several_parents(self) -> LayoutError:
        """Return the error for classes below several parents, of which one may be meant."""
        parents: dict[tuple[str, ...], dict[tuple[str, ...], int]] = {}  # in each split
        for i in self.labelled:
            outer = self.rest[i][: self.depth - 1]
            places = parents.setdefault(tuple(part.name for part in outer), {})
            place = self.paths.folders[i][: outer[-1].level + 1]
            places[place] = places.get(place, 0) + int(self.paths.counts[i])
        shown = (
            f"{' and '.join(map('/'.join, places))} ({sum(places.values()):,} images)"
            for places in parents.values()
        )
        rule = self.rule(self.depth - 1)
        return LayoutError(
            f"{self.paths.root}: the same classes ({listed(sorted(self.names[-1]), 2)}) are below "
            f"several folders: {listed(shown)}",
            [
                *(
                    option("include", *map(below, places))
                    for places in list(parents.values())[:MOST_PATTERNS]
                ),
                *([option("class-from", rule)] if rule else []),
            ],
        )

    def ambiguous(self) -> LayoutError:
        """Return the error that names each level as a candidate."""
        levels = range(self.depth)
        names = [sorted(self.names[level]) for level in levels]
        rules = [self.rule(level) for level in levels]
        shown = [
            f"{rules[level] or 'a level'} has {len(names[level])} names ({listed(names[level], 3)})"
            for level in levels
        ]
        suggestions = []
        for level in levels:
            if rules[level] and len(names[level]) > 1:
                suggestions.append(option("class-from", rules[level]))
                others = [rules[other] for other in levels if other != level and rules[other]]
                if self.depth == 2 and others:
                    suggestions[-1] += f" {option('writer-from', *others)}"
        inner = tuple(levels)[-2:]
        for joined in dict.fromkeys((inner, tuple(levels))):
            if joint := self.rule(*joined):
                suggestions.append(option("class-from", joint))
        if self.depth == 2 and rules[1]:
            suggestions.append(option("class-from", rules[1]))
        return LayoutError(
            f"{self.paths.root}: the class may be one of {self.depth} levels of folders: "
            f"{'; '.join(shown)}",
            suggestions,
        )

    def is_repeated(self, level: int) -> bool:
        """Return whether a name of a level is below several parents."""
        parents: dict[str, tuple[Part, ...]] = {}
        return any(
            parents.setdefault(own[level].name, own[:level]) != own[:level]
            for own in (self.rest[i] for i in self.labelled)
        )

    def are_own_classes(self) -> bool:
        """Return whether innermost folders can be classes, grouped by others: cat/siamese.

        They cannot if one is below several others, if others are characters, or if most hold one
        image.
        """
        several = sum(self.paths.counts[i] > 1 for i in self.labelled)
        grouped = not self.is_repeated(self.depth - 1) and 2 * several >= len(self.labelled)
        return grouped and not any(map(_are_classes, self.names[:-1]))

    def values(self, level: int) -> list[str | None]:
        """Return each folder's name at a level, None for unlabelled folders."""
        return [own[level].name if own else None for own in self.rest]

    def rule(self, *levels: int) -> str:
        """Return the rule of levels, "" if none describes them."""
        parts = [[own[level] for level in levels] if own else None for own in self.rest]
        innermost = levels == (self.depth - 1,) and self.depth == 1
        rule = folder_rule(self.paths.folders, parts, innermost_first=innermost)
        return str(rule) if rule else ""


def _partitions(names: set[str]) -> str:
    shown = listed(sorted(names))
    return f"the folders {shown} are partitions of writers and give neither split nor writer"


def _are_classes(names: set[str]) -> bool:
    return are_characters(names) or all(sample_number(name) is not None for name in names)


def _varying_levels(parts: Sequence[tuple[Part, ...]]) -> list[int]:
    """Return the levels with several names; the innermost level if there is none."""
    levels = range(len(parts[0]))
    varying = [k for k in levels if len({own[k].name for own in parts}) > 1]
    return varying or [levels[-1]]


def _refuse_mixed_samples(
    paths: Paths, rest: Sequence[tuple[Part, ...]], labelled: Sequence[int]
) -> None:
    """Raise LayoutError if other folders are beside the numbered folders of MIDAS part 1."""
    samples = {i for i in labelled if any(sample_number(part.name) is not None for part in rest[i])}
    others = set(labelled) - samples
    if len(samples) < 2 or not others:
        return
    patterns = _exclusion(paths, others.__contains__)
    raise LayoutError(
        f"{paths.root}: beside the numbered folders of MIDAS part 1 (Sample001 …) are others: "
        f"{listed(sorted('/'.join(paths.folders[i]) or '.' for i in others))}",
        [*patterns, option("class-from", "folder:-1")],
    )


def _refuse_other_depths(paths: Paths, split: SplitLevel, labelled: Sequence[int]) -> None:
    """Raise LayoutError if folders of classes lie at different depths, or in each other."""
    outside = [i for i, own in enumerate(split.rest) if not own and split.splits[i] is None]
    images: dict[int, int] = {}
    for i in labelled:
        depth = len(split.rest[i])
        images[depth] = images.get(depth, 0) + int(paths.counts[i])
    if len(images) == 1 and not outside:
        return
    usual = max(images, key=lambda depth: images[depth])
    odd = {i for i in labelled if len(split.rest[i]) != usual} | set(outside)
    occupied = {paths.folders[i] for i in (*labelled, *outside)}
    nested = (
        (folder[:end], folder)
        for folder in sorted(occupied)
        for end in range(len(folder))
        if folder[:end] in occupied
    )
    if pair := next(nested, None):
        above, inner = ("/".join(folder) or "." for folder in pair)
        reason = f"got images both in {above!r} and in {inner!r} below it"
    else:
        examples = {len(split.rest[i]): "/".join(paths.folders[i]) for i in reversed(labelled)}
        shown = " and ".join(examples[depth] for depth in sorted(examples))
        reason = f"got images at different depths of folders, for example in {shown}"
    raise LayoutError(
        f"{paths.root}: {reason}, expected one folder of images per class",
        [
            *(option("include", "/".join((*paths.folders[i], "*/*"))) for i in outside[:1]),
            *_exclusion(paths, odd.__contains__),
            *_exclusion(paths, lambda i: i not in odd),
            *(option("class-from", f"folder:{level}") for level in (0, -1)),
        ],
    )


def _refuse_unlikely(paths: Paths, found: FolderClasses) -> None:
    """Raise LayoutError for classes whose names are those of copies or of no class at all."""
    names = found.names
    copies = {name for name in names if copied_from(name) in names - {name}}
    unlikely = copies | {name for name in names if is_no_class(name)}
    if not unlikely or len(names) == 1:
        return
    kind = "copies of others" if unlikely == copies else "hardly classes"
    accept = [option("class-from", found.class_from)] if found.class_from.count(":") else []
    raise LayoutError(
        f"{paths.root}: the folders {listed(sorted(unlikely))} are {kind}, "
        f"beside {listed(sorted(names - unlikely)) or 'no other'}",
        [*_exclusion(paths, lambda i: found.classes[i] in unlikely), *accept],
    )


def _exclusion(paths: Paths, chosen: Callable[[int], bool]) -> list[str]:
    """Return the option that excludes folders, none if it would be too long."""
    if any(chosen(i) and not folder for i, folder in enumerate(paths.folders)):
        return []
    folders, _ = topmost(paths.folders, chosen)
    covered = (
        sum(
            any(f[: len(top)] == top for top in folders)
            for f in map(paths.folders.__getitem__, filter(chosen, range(len(paths.folders))))
        )
        if len(folders) <= MOST_PATTERNS
        else 0
    )
    complete = covered == sum(map(chosen, range(len(paths.folders))))
    return [option("exclude", *map(below, folders))] if folders and complete else []

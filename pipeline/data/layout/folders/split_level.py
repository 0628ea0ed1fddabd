"""Finds the level of folders that stands for training, validation and test."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.data import base
from pipeline.data.base import SPLITS, Ints, LayoutError
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
from pipeline.data.layout.folders.vocabulary import (
    may_be_class,
    sets_of_splits,
    splits_of,
)


@dataclass(frozen=True)
class SplitLevel:
    """Each folder's split (None: the paths name none), its remaining parts, and the rule.

    `names` are each folder's own name of its split.
    """

    splits: list[int | None]
    rest: list[tuple[Part, ...]]
    split_from: str
    names: list[str]

    @classmethod
    def none(cls, parts: list[tuple[Part, ...]]) -> "SplitLevel":
        """Return the level of folders that name no splits."""
        return cls([None] * len(parts), parts, "", [""] * len(parts))


def find_splits(paths: Paths, parts: list[tuple[Part, ...]]) -> SplitLevel:
    """Find the split among the parts of each folder. Raises LayoutError if it is ambiguous."""
    meanings: dict[int, dict[str, int]] = {}
    for k in range(max(map(len, parts), default=0)):
        names = {own[k].name for own in parts if len(own) > k}
        found = splits_of(names)
        others = sorted(names - found.keys())
        if not others:
            meanings[k] = found
        elif found and not _are_classes(parts, k, found):
            raise _mixed_level(paths, parts, k, sorted(found), others)
    chosen_level = _choose(paths, parts, meanings)
    if chosen_level is None:
        return SplitLevel.none(parts)
    k = chosen_level
    if outside := [i for i, own in enumerate(parts) if len(own) <= k]:
        inner, _ = topmost(paths.folders, set(outside).__contains__)
        patterns = [option("exclude", *map(below, inner))] if inner else []
        if any(not paths.folders[i] for i in outside):
            patterns.append(option("include", "*/*"))
        raise LayoutError(
            f"{paths.root}: {int(paths.counts[outside].sum()):,} images are in no split folder "
            f"({listed(sorted(meanings[k]))}), for example {paths.example(outside[0])}",
            [" ".join(patterns)],
        )
    if len(sets := sets_of_splits(meanings[k])) > 1:
        raise _several_sets(paths, parts, k, sets)
    chosen = [own[k] for own in parts]
    rule = folder_rule(paths.folders, [(part,) for part in chosen])
    return SplitLevel(
        [meanings[k][part.name] for part in chosen],
        [own[:k] + own[k + 1 :] for own in parts],
        str(rule) if rule else f"the folders {listed(sorted(meanings[k]))}",
        [part.name for part in chosen],
    )


def predefined(splits: Ints) -> Ints:
    """Return splits (n,) with training images free to divide if no validation image is given."""
    if (splits == base.VALIDATION).any():
        return splits
    return np.where(splits == base.TRAIN, base.NO_SPLIT, splits)


def check_split_classes(
    root: Path,
    classes: Sequence[str],
    labels: Ints,
    splits: Ints,
    name: Callable[[int], str] | None = None,
) -> None:
    """Raise LayoutError if a class has validation or test images but no training images.

    `labels` and `splits` (n,) are those of the images that are used, `name` returns an image's
    relative path, if images have one. A dataset without any training images passes: it can only be
    evaluated.
    """
    held_out = (splits == base.VALIDATION) | (splits == base.TEST)
    trained = np.unique(labels[~held_out])
    untrained = held_out & ~np.isin(labels, trained)
    if not len(trained) or not untrained.any():
        return
    names = listed(repr(classes[label]) for label in np.unique(labels[untrained]))
    where = " and ".join(SPLITS[split] for split in np.unique(splits[untrained]))
    if untrained.sum() == held_out.sum():
        reason = (
            f"training and {where} have no class in common: training has "
            f"{listed(repr(classes[label]) for label in trained)}; {where} has {names}"
        )
    else:
        reason = f"no training image of class {names}, which {where} has"
    patterns: list[str] = []
    if name is not None:
        paths = Paths.of(root, [name(i) for i in range(len(labels))])
        untrained_folders = set(paths.folder_of[untrained].tolist())
        if untrained_folders.isdisjoint(paths.folder_of[~untrained].tolist()):
            chosen, _ = topmost(paths.folders, untrained_folders.__contains__)
            patterns = [below(folder) for folder in chosen]
    few = 0 < len(patterns) <= MOST_PATTERNS
    raise LayoutError(f"{root}: {reason}", [option("exclude", *patterns)] if few else [])


def _are_classes(parts: Sequence[tuple[Part, ...]], k: int, found: dict[str, int]) -> bool:
    """Return whether names of splits at a level are classes: bus, car, train."""
    innermost = all(len(own) <= k + 1 for own in parts)
    return innermost and len(found) == 1 and all(map(may_be_class, found))


def _choose(
    paths: Paths, parts: Sequence[tuple[Part, ...]], meanings: dict[int, dict[str, int]]
) -> int | None:
    """Return the level of the splits, None if there is none."""
    several = [k for k, found in meanings.items() if len(set(found.values())) > 1]
    candidates = several or list(meanings)
    if len(candidates) < 2 or (not several and len({*map(_only, meanings.values())}) == 1):
        return candidates[0] if candidates else None
    rules = [folder_rule(paths.folders, [own[k : k + 1] for own in parts]) for k in candidates]
    shown = "; ".join(listed(sorted(meanings[k])) for k in candidates)
    raise LayoutError(
        f"{paths.root}: several levels of folders are named like splits: {shown}",
        [option("split-from", rule) for rule in rules if rule],
    )


def _only(found: dict[str, int]) -> int:
    return next(iter(found.values()))


def _mixed_level(
    paths: Paths, parts: Sequence[tuple[Part, ...]], k: int, splits: list[str], others: list[str]
) -> LayoutError:
    """Return the error for a level with folders that are named like splits, and others."""
    rule = folder_rule(paths.folders, [own[k : k + 1] or None for own in parts])
    innermost = all(len(own) <= k + 1 for own in parts)
    as_class = [option("class-from", rule)] if rule and innermost else []
    return LayoutError(
        f"{paths.root}: the folders {listed(splits)} are named like splits, and {listed(others)} "
        "beside them are not",
        [
            *_exclusion(paths, parts, k, others),
            *_exclusion(paths, parts, k, splits),
            *as_class,
        ],
    )


def _several_sets(
    paths: Paths, parts: Sequence[tuple[Part, ...]], k: int, sets: Sequence[list[str]]
) -> LayoutError:
    """Return the error for several sets of splits at a level, which may repeat images."""
    names = [name for group in sets for name in group]
    others = [[name for name in names if name not in group] for group in sets]
    rule = folder_rule(paths.folders, [own[k : k + 1] for own in parts])
    return LayoutError(
        f"{paths.root}: the folders {' and '.join(listed(group) for group in sets)} are several "
        "sets of splits, which may repeat images",
        [
            *(e for group in others for e in _exclusion(paths, parts, k, group)),
            *([option("split-from", rule)] if rule else []),
        ],
    )


def _exclusion(
    paths: Paths, parts: Sequence[tuple[Part, ...]], k: int, names: Sequence[str]
) -> list[str]:
    """Return the option that excludes folders of a level, none if it would be too long."""
    places = {
        paths.folders[i][: own[k].level + 1]
        for i, own in enumerate(parts)
        if len(own) > k and own[k].name in names
    }
    few = 0 < len(places) <= MOST_PATTERNS
    return [option("exclude", *map(below, sorted(places)))] if few else []

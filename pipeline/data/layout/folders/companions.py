"""Finds images that are companions of others: a mask x_mask.png or a thumbnail beside x.png."""

import glob

from pipeline.data.base import LayoutError
from pipeline.data.layout.folders.classes import FolderClasses
from pipeline.data.layout.folders.paths import Paths, option

_WORDS = (
    *("mask", "masks", "thumb", "thumbs", "thumbnail", "small", "preview", "seg", "segmentation"),
    *("gt", "groundtruth", "edge", "edges", "contour", "skeleton", "overlay", "heatmap", "copy"),
)
_ENDS = tuple(f"{mark}{word}" for word in _WORDS for mark in ("_", "-", ".", " "))
_BEGINNINGS = tuple(f"{word}{mark}" for word in _WORDS for mark in ("_", "-", ".", " "))


def check_companions(paths: Paths, found: FolderClasses) -> None:
    """Raise LayoutError if images of classes are named as companions of others beside them."""
    text = "\n".join(paths.names).casefold()
    if not any(word in text for word in _WORDS):  # most datasets: no name need be read
        return
    stems = [name.rpartition(".")[0] or name for name in paths.names]
    marked = [i for i, stem in enumerate(stems) if _is_marked(stem)]
    if not marked:
        return
    known = set(stems)
    patterns: dict[str, list[int]] = {}
    for i in marked:
        if found.classes[int(paths.folder_of[i])] is not None:
            for original, pattern in _meanings(stems[i]):
                if original in known:
                    patterns.setdefault(pattern, []).append(i)
    if not patterns:
        return
    rows = [i for chosen in patterns.values() for i in chosen]
    accept = [option("class-from", found.class_from)] if found.class_from.count(":") else []
    raise LayoutError(
        f"{paths.root}: {len(rows):,} images are named as companions of others, such as masks, "
        f"for example {paths.names[rows[0]]}",
        [option("exclude", *sorted(patterns)), *accept],
    )


def _is_marked(stem: str) -> bool:
    lower = stem.casefold()
    return lower.endswith(_ENDS) or lower.rpartition("/")[2].startswith(_BEGINNINGS)


def _meanings(stem: str) -> list[tuple[str, str]]:
    """Return the stems whose companion this one may be, each with the pattern of the names."""
    folder, slash, name = stem.rpartition("/")
    lower, found = name.casefold(), []
    for end in _ENDS:
        if lower.endswith(end) and len(lower) > len(end):
            cut = len(name) - len(end)
            found.append((f"{folder}{slash}{name[:cut]}", f"*{glob.escape(name[cut:])}.*"))
    for start in _BEGINNINGS:
        if lower.startswith(start) and len(lower) > len(start):
            cut = len(start)
            pattern = f"{glob.escape(name[:cut])}*"
            found.append((f"{folder}{slash}{name[cut:]}", f"*/{pattern}"))
    return found

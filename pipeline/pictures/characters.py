"""The characters in the ink of an image: connected strokes, grouped by distance and size.

A character may have several strokes: the dot of an i lies above its stem, the bar of a 5 near its
body. Two large strokes are two characters if they lie side by side, with a gap between them.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

INKED = 0.35  # of a pixel's ink: it belongs to a stroke
MOST_STROKES = 40  # the largest ones; more are noise
SPECK = 0.35  # of the area of a dot as wide as the pen, which is the least that counts
THICKEST = 0.2  # of the longest stroke: the width of a pen
SMALL = 0.35  # of the longest stroke: smaller strokes are dots and belong to a larger one
FAR = 0.75  # of the longest stroke: how far a dot may be from its stroke
GAP = 0.1  # of the longest stroke: the least gap between two characters
STACKED = 0.3  # of the narrower stroke: strokes that overlap so much in x are one above the other
LINE_GAP = 0.5  # of the longest stroke: the gap between characters of two lines
SHADED, PART = 0.1, 0.02  # of an object: the ink of its pixels, and the area of its parts
EDGE = 0.5  # of a side of the image: ink along it is no character
BLOCK, BLOCK_SIDE = 0.85, 0.4  # of a box that is filled, and of its longer side
BLOCK_AREA = 0.2  # of the image
MARGIN_LINE = 0.04  # of the shorter side of the image: the width of a line across it


class Box(NamedTuple):
    """A rectangle of pixels; `bottom` and `right` are exclusive."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def longest(self) -> int:
        """The longest side."""
        return max(self.bottom - self.top, self.right - self.left)


class Character(NamedTuple):
    """A character: the mask of its strokes in the image, bool (h, w), and their box."""

    mask: Mask
    box: Box

    @property
    def is_block(self) -> bool:
        """Whether it is large and fills its box, as a sheet of paper does and strokes do not."""
        top, bottom, left, right = self.box
        shorter = min(bottom - top, right - left)
        filled = float(self.mask[top:bottom, left:right].mean())
        large = float(self.mask.mean()) > BLOCK_AREA
        return large and filled > BLOCK and shorter > BLOCK_SIDE * self.box.longest


def find_characters(ink: Floats) -> list[Character]:
    """Return the characters in ink (h, w), from left to right; none without strokes.

    Specks, and what lies along an edge of the image, belong to none of them.
    """
    labels, count = ndimage.label(ink > INKED, np.ones((3, 3), int))
    if not count:
        return []
    boxes = [
        Box(rows.start, rows.stop, columns.start, columns.stop)
        for rows, columns in ndimage.find_objects(labels)
    ]
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    strokes = _strokes(labels, boxes, areas)
    groups = _groups(labels, boxes, strokes)
    found = []
    for group in groups:
        box = Box(
            min(boxes[i].top for i in group),
            max(boxes[i].bottom for i in group),
            min(boxes[i].left for i in group),
            max(boxes[i].right for i in group),
        )
        found.append(Character(np.isin(labels, np.array(group) + 1), box))
    return sorted(found, key=lambda one: one.box.left)


def find_object(ink: Floats) -> list[Character]:
    """Return all ink (h, w) as one object, but for specks; none without ink."""
    labels, count = ndimage.label(ink > SHADED)
    if not count:
        return []
    areas = np.bincount(labels.ravel())[1:]
    mask = np.isin(labels, 1 + np.flatnonzero(areas >= PART * areas.max()))
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = Box(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)
    return [Character(mask, box)]


def _strokes(labels: NDArray[np.int32], boxes: list[Box], areas: NDArray[np.int64]) -> list[int]:
    """Return the numbers of the strokes, the longest first, without specks and edges."""
    inner = [i for i, box in enumerate(boxes) if not _is_edge(labels, i + 1, box)]
    numbers = inner or list(range(len(boxes)))
    numbers = sorted(numbers, key=lambda i: (-boxes[i].longest, -areas[i]))[:MOST_STROKES]
    longest = boxes[numbers[0]]
    body = labels[longest.top : longest.bottom, longest.left : longest.right] == numbers[0] + 1
    inside = ndimage.distance_transform_edt(np.pad(body, 1))
    pen = min(2 * float(np.quantile(inside[inside > 0], 0.9)), THICKEST * longest.longest)
    least = max(SPECK * pen * pen, 2)
    return [i for i in numbers if areas[i] >= least]


def _is_edge(labels: NDArray[np.int32], number: int, box: Box) -> bool:
    """Return whether a stroke is no character: the table around a page, or the line of a margin.

    It lies along an edge or in a corner of the image, or is a thin line from edge to edge.
    """
    edges = labels[0], labels[-1], labels[:, 0], labels[:, -1]
    along = any((edge == number).mean() > EDGE for edge in edges)
    height, width = labels.shape
    thin = min(box.bottom - box.top, box.right - box.left) < MARGIN_LINE * min(height, width)
    crosses = (box.top == 0 and box.bottom == height) or (box.left == 0 and box.right == width)
    corner = number in (labels[0, 0], labels[0, -1], labels[-1, 0], labels[-1, -1])
    return along or corner or (thin and crosses)


def _groups(labels: NDArray[np.int32], boxes: list[Box], strokes: list[int]) -> list[list[int]]:
    """Return the strokes of each character."""
    if len(strokes) <= 1:
        return [strokes] if strokes else []
    scale = boxes[strokes[0]].longest
    large = [i for i in strokes if boxes[i].longest >= SMALL * scale]
    groups: list[list[int]] = []
    gaps = {i: ndimage.distance_transform_edt(labels != i + 1) for i in large}

    def gap(i: int, j: int) -> float:
        return float(gaps[i][labels == j + 1].min())

    for i in large:
        joined = [
            group
            for group in groups
            if any(
                gap(i, j) <= (LINE_GAP if _overlap(boxes[i], boxes[j]) > STACKED else GAP) * scale
                for j in group
            )
        ]
        groups = [group for group in groups if group not in joined]
        groups.append([i, *(j for group in joined for j in group)])
    for dot in strokes:
        if dot in large:
            continue
        # A dot is that of the stroke below it, rather than of the nearest.
        distance, nearest = min(
            (gap(i, dot) * (1 if _overlap(boxes[i], boxes[dot]) > 0 else 2), i) for i in large
        )
        if distance <= FAR * scale:
            next(group for group in groups if nearest in group).append(dot)
    return groups


def _overlap(one: Box, other: Box) -> float:
    """Return how much two boxes overlap in x, as a fraction of the narrower one."""
    shared = min(one.right, other.right) - max(one.left, other.left)
    return shared / min(one.right - one.left, other.right - other.left)

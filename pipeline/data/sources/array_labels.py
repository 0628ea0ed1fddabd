"""Classes from the labels of arrays: known names, numbers or strings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.archives import Archive
from pipeline.data.base import Ints, LayoutError, SourceError
from pipeline.data.layout.folders.vocabulary import natural_sort_key
from pipeline.data.layout.options import LayoutOptions
from pipeline.data.sources.known_sets import EMNIST, Recognized, recognize

_MOST_CLASSES = 100_000
_NAMED_AT_MOST = 20  # empty classes in a warning


@dataclass(frozen=True)
class Labelled:
    """Classes, labels (n,) that index them, and what is known about the dataset."""

    classes: tuple[str, ...]
    labels: Ints
    dataset: str = ""
    transposed: bool = False
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def label_classes(
    archive: Archive,
    name: str,
    prefix: str,
    labels: Sequence[NDArray[Any]],
    options: LayoutOptions,
) -> Labelled:
    """Return the classes of the labels of all parts: whole numbers or strings (n,).

    `name` is the file that holds the images, `prefix` the part of its name that names a dataset.
    Raises SourceError for labels that a known dataset does not have, and LayoutError for large
    gaps between numbers.
    """
    place = archive.place(archive.names.index(name))
    if any(part.dtype.kind not in "iu" for part in labels):
        return _strings(labels, place)
    numbers = np.concatenate([part.astype(np.int64) for part in labels])
    present, positions = np.unique(numbers, return_inverse=True)
    found = recognize(archive, name, prefix, present.tolist())
    if not len(present):
        return Labelled((), numbers)
    if found is None:
        return _unknown(present, positions, numbers, options, place)
    return _known(found, present, positions, numbers, options, place)


def _strings(labels: Sequence[NDArray[Any]], place: str) -> Labelled:
    texts = np.concatenate([part.astype(str) for part in labels])
    present, positions = np.unique(texts, return_inverse=True)
    if "" in present:
        raise SourceError(f"{place}: got an empty label")
    order = sorted(range(len(present)), key=lambda i: natural_sort_key(str(present[i])))
    number = np.argsort(np.array(order, np.int64))
    classes = tuple(str(present[i]) for i in order)
    return Labelled(classes, number[positions].astype(np.int64))


def _known(
    found: Recognized,
    present: Ints,
    positions: Ints,
    numbers: Ints,
    options: LayoutOptions,
    place: str,
) -> Labelled:
    known = found.known
    last = known.first + len(known.classes) - 1
    if not known.first <= present[0] <= present[-1] <= last:
        raise SourceError(
            f"{place}: got labels from {present[0]} to {present[-1]}, expected {known.first} to "
            f"{last}: {known.name}, from the name {found.found!r}"
        )
    notes = [f"the dataset is {known.name}, from the name {found.found!r}"]
    if known.transposed:
        notes.append("its images are stored by columns and are transposed")
    warnings = []
    if found.distant:
        folders = ", ".join(map(repr, found.distant))
        warnings.append(
            f"the name {found.found!r} is not next to the files: {folders} lies between; "
            "rename it if the dataset is another one"
        )
    if not known.named:
        labelled = _unknown(present, positions, numbers, options, place)
        classes, labels = labelled.classes, labelled.labels
        warnings += labelled.warnings
    elif options.allow_gaps:
        classes = tuple(known.classes[label - known.first] for label in present)
        labels = positions.astype(np.int64)
    else:
        classes, labels = known.classes, numbers - known.first
        warnings += _empty(classes, labels)
    return Labelled(classes, labels, known.name, known.transposed, tuple(notes), tuple(warnings))


def _unknown(
    present: Ints, positions: Ints, numbers: Ints, options: LayoutOptions, place: str
) -> Labelled:
    """Return numbered classes: from 0, or from 1 if 0 is absent, up to the largest label."""
    low, high = int(present[0]), int(present[-1])
    if options.allow_gaps:
        return Labelled(tuple(map(str, present.tolist())), positions.astype(np.int64))
    if low < 0:
        raise LayoutError(
            f"{place}: got the negative label {low}, expected numbers from 0", ["--allow-gaps"]
        )
    first = 1 if low > 0 and len(present) > 1 else 0
    absent = high - first + 1 - len(present)
    if len(present) > 1 and (2 * absent > high - first + 1 or high >= _MOST_CLASSES):
        some = ", ".join(map(str, present[:4].tolist()))
        raise LayoutError(
            f"{place}: got {len(present)} labels from {low} to {high} with large gaps: {some}"
            f"{', …' if len(present) > 4 else ''}; expected numbers from 0 without large gaps",
            ["--allow-gaps"],
        )
    if high >= _MOST_CLASSES:
        raise SourceError(f"{place}: got the label {high}, expected at most {_MOST_CLASSES - 1}")
    classes = tuple(map(str, range(first, high + 1)))
    labels = numbers - first
    warnings = _empty(classes, labels)
    if first == 1 and high == len(EMNIST["letters"]):
        warnings.append(
            "labels from 1 to 26 may be the letters of EMNIST, whose images lie on their sides; "
            "if they are, name the folder emnist-letters, so that they are turned and named A to Z"
        )
    if first == 1 and high == 10:
        warnings.append(
            "labels from 1 to 10 may be digits: 10 may stand for 0, or each label for one digit "
            "less; classes are named by the labels"
        )
    return Labelled(classes, labels, warnings=tuple(warnings))


def _empty(classes: Sequence[str], labels: Ints) -> list[str]:
    """Return a warning that names the classes without images, if any."""
    counts = np.bincount(labels, minlength=len(classes)).tolist()
    empty = [name for name, count in zip(classes, counts, strict=True) if not count]
    if not empty:
        return []
    names = ", ".join(empty[:_NAMED_AT_MOST]) + (", …" if len(empty) > _NAMED_AT_MOST else "")
    return [f"{len(empty)} of {len(classes)} classes have no images: {names}"]


def to_labels(values: NDArray[Any], place: str) -> NDArray[Any]:
    """Return labels (n,) as whole numbers or strings, from any array that holds them.

    (n, 1) is flattened, one-hot rows (n, classes) become numbers. Raises SourceError for others.
    """
    if values.ndim == 2 and values.shape[1] == 1:
        values = values.reshape(-1)
    if values.ndim == 2 and values.dtype.kind in "iufb":
        ones = (values == 1).sum(axis=1)
        if not ((ones == 1) & ((values != 0).sum(axis=1) == 1)).all():
            raise SourceError(f"{place}: got labels {values.shape} that are not one class each")
        return np.asarray(values.argmax(axis=1), np.int64)
    if values.ndim != 1:
        raise SourceError(f"{place}: got labels of shape {values.shape}, expected one dimension")
    if values.dtype.kind == "S":
        try:
            return np.array([value.decode() for value in values.tolist()], dtype=str)
        except UnicodeDecodeError as error:
            raise SourceError(f"{place}: got labels that are not UTF-8: {error}") from None
    if values.dtype.kind == "U":
        return values
    if values.dtype.kind in "iub":
        if values.dtype.kind == "u" and len(values) and int(values.max()) >= 1 << 63:
            raise SourceError(f"{place}: got the label {values.max()}, expected smaller numbers")
        return values.astype(np.int64)
    if values.dtype.kind == "f":
        if not (np.isfinite(values).all() and (values == np.rint(values)).all()):
            raise SourceError(f"{place}: got labels that are no whole numbers")
        if len(values) and np.abs(values).max() >= 1 << 53:
            raise SourceError(f"{place}: got labels that are too large")
        return values.astype(np.int64)
    raise SourceError(f"{place}: got labels of type {values.dtype}, expected numbers or strings")

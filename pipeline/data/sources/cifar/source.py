"""The source of CIFAR's files: five training batches and a test batch, or one file for each split.

The names of the files identify them. In a binary batch each image has its label before it.
"""

from collections import Counter
from dataclasses import dataclass
from posixpath import basename, dirname
from typing import Self

import numpy as np

from pipeline.data.archives import Archive
from pipeline.data.base import TEST, TRAIN, Layout, SourceError
from pipeline.data.layout.options import LayoutOptions
from pipeline.data.sources.array_labels import Labelled
from pipeline.data.sources.array_source import (
    ArrayImages,
    ArraySource,
    Part,
    left_out,
    several_datasets,
)
from pipeline.data.sources.cifar.batches import (
    SHAPE,
    Batch,
    binary_batch,
    check_labels,
    listed_names,
    pickled_batch,
    pickled_names,
)
from pipeline.data.sources.stored_bytes import StoredBytes


@dataclass(frozen=True)
class Form:
    """The files of a dataset, in a pickled or a binary form.

    `labels` is the key of the labels in a pickle, `names` that of the classes. `label_bytes` are
    the bytes before an image of a binary file, of which the last is the label.
    """

    dataset: str
    train: tuple[str, ...]
    test: str
    classes: str
    labels: str = ""
    names: str = ""
    label_bytes: int = 0

    @property
    def files(self) -> tuple[str, ...]:
        """The names of all files."""
        return *self.train, self.test, self.classes

    def is_shown_by(self, archive: Archive, files: dict[str, int]) -> bool:
        """Return whether files of a folder, by name, belong to this form.

        The names of CIFAR-100's files are common: its classes and one other are required.
        """
        if len(self.train) > 1:
            return not files.keys().isdisjoint((*self.train, self.test))
        found = [files[name] for name in (*self.train, self.test) if name in files]
        if not found or self.classes not in files:
            return False
        return bool(self.label_bytes) or all(archive.head(i, 1) == b"\x80" for i in found)


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_BINARY = tuple(f"{name}.bin" for name in _BATCHES)
FORMS = (
    Form("CIFAR-10", _BATCHES, "test_batch", "batches.meta", "labels", "label_names"),
    Form("CIFAR-10", _BINARY, "test_batch.bin", "batches.meta.txt", label_bytes=1),
    Form("CIFAR-100", ("train",), "test", "meta", "fine_labels", "fine_label_names"),
    Form("CIFAR-100", ("train.bin",), "test.bin", "fine_label_names.txt", label_bytes=2),
)
_NAMES = {name for form in FORMS for name in form.files}


class Cifar(ArraySource):
    """Images of 32×32 pixels in colour, in the files of CIFAR-10 or CIFAR-100 (fine labels)."""

    kind = "cifar"
    expected_layout = "the batches of CIFAR-10 or CIFAR-100 (data_batch_1 to test_batch)"

    @classmethod
    def find(cls, archive: Archive, options: LayoutOptions) -> Self | None:
        """Return the archive's dataset, None without CIFAR's files.

        Raises LayoutError for several datasets, SourceError for missing and damaged files, labels
        that do not fit, and pickles that hold other than plain data.
        """
        del options
        folders: dict[str, dict[str, int]] = {}
        for index, name in enumerate(archive.names):
            if basename(name) in _NAMES:
                folders.setdefault(dirname(name), {})[basename(name)] = index
        found = [
            (folder, form, files)
            for folder, files in folders.items()
            for form in FORMS
            if form.is_shown_by(archive, files)
        ]
        if not found:
            return None
        if len(found) > 1:
            groups = [
                (folder, "", [archive.names[files[name]] for name in form.files if name in files])
                for folder, form, files in found
            ]
            raise several_datasets(archive, groups)
        [(folder, form, files)] = found
        if missing := [name for name in form.files if name not in files]:
            place = archive.path / folder if folder else archive.path
            raise SourceError(
                f"{place}: {', '.join(missing)} missing, expected all files of {form.dataset}: "
                f"{', '.join(form.files)}"
            )
        return cls._read(archive, form, files)

    @classmethod
    def _read(cls, archive: Archive, form: Form, files: dict[str, int]) -> Self:
        stored = {name: StoredBytes(archive, files[name]) for name in form.files}
        classes, stated = (
            (listed_names(stored[form.classes]), None)
            if form.label_bytes
            else pickled_names(stored[form.classes], form.names)
        )
        batches: dict[str, Batch] = {}
        for name in (*form.train, form.test):
            batches[name] = (
                binary_batch(stored[name], form.label_bytes)
                if form.label_bytes
                else pickled_batch(stored[name], form.labels)
            )
            check_labels(stored[name].path, batches[name].labels, len(classes))
        warnings = _check_counts(stored, form, batches, stated)
        parts = []
        for name, batch in batches.items():
            images = ArrayImages(
                batch.data,
                batch.start,
                np.dtype(np.uint8),
                len(batch.labels),
                SHAPE,
                stride=batch.stride,
                trusted=True,
            )
            split = TEST if name == form.test else TRAIN
            parts.append(Part(name, split, images, batch.labels, (files[name],)))
        labelled = Labelled(classes, np.concatenate([b.labels for b in batches.values()]))
        layout = Layout(
            reader=cls.kind,
            class_from=archive.names[files[form.classes]],
            split_from="names of files",
            dataset=form.dataset,
            left_out=left_out(archive, [files[name] for name in form.files]),
            warnings=warnings,
        )
        return cls(archive, parts, labelled, layout)


def _check_counts(
    stored: dict[str, StoredBytes], form: Form, batches: dict[str, Batch], stated: int | None
) -> tuple[str, ...]:
    """Return warnings of the numbers of images.

    Raises SourceError if batches differ in theirs: one is truncated. A single training batch is
    larger than the test batch.
    """
    compared = form.train if len(form.train) == 1 else (*form.train, form.test)
    counts = {name: len(batches[name].labels) for name in compared}
    usual, _ = Counter(counts.values()).most_common(1)[0]
    if odd := next((name for name in counts if counts[name] != usual), None):
        raise stored[odd].error(
            f"got {counts[odd]:,} images, expected {usual:,}, as in the other batches"
        )
    if stated is None or len(form.train) == 1 or stated == usual:
        return ()
    return (f"{form.classes} states {stated:,} images a batch, and the batches hold {usual:,}",)

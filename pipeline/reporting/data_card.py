"""The data card: one page that shows what a prepared dataset holds, with its warnings first.

The card is drawn from the .beton file alone. A file without a layout or a survey, which an earlier
version wrote, has a card of its classes and images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beton.reader import Reader
from pipeline.data.base import SPLITS, TRAIN, Ints, Layout, Pixels
from pipeline.data.pixels.survey import Survey
from pipeline.loading.dataset import open_dataset
from pipeline.reporting.data_tables import (
    POLARITIES,
    counted,
    layout_facts,
    listed,
    spread,
    survey_facts,
    visible,
)
from pipeline.reporting.html import Block, Facts, Page, Plot, Section, Table, Warnings
from pipeline.reporting.plots import plot_histograms
from pipeline.reporting.sample_grid import SampleGrid, Strip, thumbnail
from pipeline.runtime.files import convert

SAMPLES = 8  # images of a class
MOST_SAMPLES = 800  # images of all classes
MOST_CLASSES = 400  # in the grid and in the tables
LONG_TABLE = 20  # rows from which on a table is divided into several, side by side
TABLES = 3
BINS = 30
FITS = {
    "letterbox": "whole images in their proportions, with paper around them",
    "stretch": "images are stretched to the median proportions",
}


@dataclass(frozen=True)
class SideBySide:
    """Tables beside each other where the page is wide enough, else one below the other."""

    tables: Sequence[Table]

    def html(self, name: str) -> str:
        """Return the tables as HTML."""
        parts = [table.html(f"{name}-{number}") for number, table in enumerate(self.tables)]
        return f'<div class="side-by-side full">{"".join(parts)}</div>'


def write_card(path: Path, dataset: Path, *, name: str) -> None:
    """Write the data card of the file `dataset` to `path`; it appears whole or not at all.

    `name` is the dataset's name. Raises BetonError for a file that prep did not write or that is
    damaged, ValueError for a layout or survey with other fields, and OSError.
    """
    with open_dataset(dataset) as file:
        data_page(file, name).write(path)


def data_page(file: Reader, name: str) -> Page:
    """Return the data card of an open dataset. Raises as `write_card` does."""
    card = _Card(file)
    sections = {
        counted(len(card.warnings), "warning"): [Warnings(card.warnings)] if card.warnings else [],
        "Layout": card.layout_blocks(),
        "Samples": card.sample_blocks(),
        "Classes": card.class_blocks(),
        "Pixels": card.pixel_blocks(),
        "Images to check": card.suspicious_blocks(),
    }
    return Page(
        visible(name),
        f"What does the dataset {visible(name)} hold?",
        card.answer(),
        [file.info["provenance"]],
        [Section(title, blocks) for title, blocks in sections.items() if blocks],
    )


class _Card:
    """The parts of the page about one open file."""

    def __init__(self, file: Reader) -> None:
        info = file.info
        self.file, self.info = file, info
        self.layout = convert(info["layout"], Layout) if "layout" in info else None
        self.survey = convert(info["survey"], Survey) if "survey" in info else None
        self.pixels: Mapping[str, Any] = info.get("pixels", {})
        self.skipped: Sequence[Sequence[str]] = info.get("prepare", {}).get("skipped", [])
        self.classes = [visible(name) for name in info["classes"]]
        self.labels: Ints = file.column("label").metadata.astype(np.int64)
        self.splits: Ints = file.column("split").metadata.astype(np.int64)
        self.images = file.column("image")
        flat = np.bincount(
            len(SPLITS) * self.labels + self.splits, minlength=len(SPLITS) * len(self.classes)
        )
        self.counts: Ints = flat.reshape(len(self.classes), len(SPLITS))
        self.paper: Pixels = self.images.metadata["background"].copy()
        if sparse := self.pixels.get("paper"):
            self.paper[np.array(sparse["samples"], np.int64)] = sparse["greys"]
        self.warnings = self._all_warnings()

    def _all_warnings(self) -> list[str]:
        sentences = list(self.layout.warnings if self.layout else ())
        sentences += self.survey.warnings if self.survey else ()
        if self.skipped:
            names = listed([name for name, _ in self.skipped])
            left_out = counted(len(self.skipped), "image")
            sentences.append(f"{left_out} could not be decoded and were skipped: {names}")
        untrained = [
            name for name, row in zip(self.classes, self.counts, strict=True) if not row[TRAIN]
        ]
        if untrained:
            number = counted(len(untrained), "class has", "classes have")
            sentences.append(f"{number} no training images: {listed(untrained)}")
        return [visible(sentence) for sentence in sentences]

    def answer(self) -> str:
        """Return the dataset's size, classes, splits and writers in a sentence."""
        uses = zip(self.counts.sum(0).tolist(), ("training", "validation", "testing"), strict=True)
        parts = [f"{count:,} for {use}" if count else f"none for {use}" for count, use in uses]
        images, classes = len(self.labels), len(self.classes)
        text = f"{counted(images, 'image')} of {counted(classes, 'class', 'classes')}: "
        text += ", ".join(parts)
        if "writer" in self.file.fields:
            writers = np.unique(self.file.column("writer").metadata)
            if known := int((writers >= 0).sum()):
                text += f"; by {counted(known, 'writer')}"
        return f"{text}."

    def layout_blocks(self) -> list[Block]:
        """Return where classes, splits and writers come from, and what was left out."""
        settings = self.info.get("prepare", {})
        facts: list[tuple[str, str | Sequence[str]]] = []
        if self.layout:
            facts += layout_facts(self.layout)
            if self.layout.notes:
                facts.append(("notes", [visible(note) for note in self.layout.notes]))
        elif reader := self.info["provenance"].get("reader"):
            facts.append(("reader", reader))
        if "split" in settings:
            facts.append(("splits drawn", f"{settings['split']}, seed {settings.get('seed', 0)}"))
        blocks: list[Block] = [Facts(facts)] if facts else []
        if not self.layout:
            blocks.append("The file does not describe its layout: an earlier version wrote it.")
        return blocks

    def sample_blocks(self) -> list[Block]:
        """Return a grid with a strip of images for each class."""
        count = min(SAMPLES, max(2, MOST_SAMPLES // len(self.classes)))
        shown = _spaced(np.arange(len(self.classes)), MOST_CLASSES)
        chosen = self._chosen(shown, count)
        self.file.check(np.concatenate(chosen), {"image"})
        strips = []
        for label, rows in zip(shown.tolist(), chosen, strict=True):
            title, number = self.classes[label], int(self.counts[label].sum())
            remark = counted(number, "image") if number else "no images"
            alt = f"{counted(len(rows), 'image')} of the class {title}"
            strips.append(Strip(title, remark, alt, [self._tile(row) for row in rows.tolist()]))
        text = (
            f"Up to {count} training images of each class, evenly spaced, whole and in their "
            "proportions. Margins have the grey of the image's paper."
        )
        if len(shown) < len(self.classes):
            text += f" {len(shown):,} of {len(self.classes):,} classes are shown, evenly spaced."
        return [text, SampleGrid(strips)]

    def _chosen(self, shown: Ints, count: int) -> list[Ints]:
        """Return up to `count` samples of each class in `shown`: of training, if it has any."""
        of_training = self.splits == TRAIN
        trained = self.counts[:, TRAIN] > 0
        rows = np.flatnonzero(of_training | ~trained[self.labels])
        rows = rows[np.argsort(self.labels[rows], kind="stable")]
        ordered = self.labels[rows]
        starts, ends = np.searchsorted(ordered, shown), np.searchsorted(ordered, shown, "right")
        return [
            _spaced(rows[start:end], count) for start, end in zip(starts, ends, strict=True)
        ]

    def _tile(self, sample: int) -> Pixels:
        return thumbnail(self.images.decode(sample), int(self.paper[sample]))

    def class_blocks(self) -> list[Block]:
        """Return the images of each class by split."""
        rows = [
            [name, *(f"{count:,}" for count in counts), f"{sum(counts):,}"]
            for name, counts in zip(self.classes, self.counts.tolist(), strict=True)
        ][:MOST_CLASSES]
        text = f"{spread(self.labels, self.classes)}.".capitalize()
        if more := len(self.classes) - len(rows):
            text += f" {more:,} further classes are not listed."
        headers = ["class", *SPLITS, "all"]
        parts = 1 if len(rows) < LONG_TABLE else TABLES
        size = -(-len(rows) // parts)
        tables = []
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            empty = frozenset(n for n, row in enumerate(part) if row[1 + TRAIN] == "0")
            caption = f"Images of classes {start + 1} to {start + len(part)}."
            tables.append(Table(caption, headers, part, highlight=empty))
        return [text, SideBySide(tables)]

    def pixel_blocks(self) -> list[Block]:
        """Return how files became pixels, and the distributions of size and ink."""
        facts: list[tuple[str, str | Sequence[str]]] = []
        if "polarity" in self.pixels:
            facts.append(("polarity", POLARITIES[self.pixels["polarity"]]))
        facts.append(("fit", FITS[self.pixels.get("fit", "stretch")]))
        facts += survey_facts(self.survey) if self.survey else ()
        records = self.images.metadata
        panels = {}
        for side in ("height", "width"):
            values = records[side].astype(np.int64)
            if values.min() == values.max():
                facts.append((side, f"{values[0]:,} pixels, all images"))
            else:
                facts.append(
                    (side, f"{values.min():,} to {values.max():,}, median {np.median(values):,.0f}")
                )
                bins = min(BINS, int(np.ptp(values)) + 1)
                counts, edges = np.histogram(values, bins)
                panels[f"{side} (pixels)"] = edges.tolist(), counts.tolist()
        if self.survey:
            panels["ink (% of pixels)"] = (
                [100 * edge for edge in self.survey.ink.edges],
                self.survey.ink.counts,
            )
        blocks: list[Block] = [Facts(facts)]
        if panels:
            names = " and ".join(panels)
            alt = f"Histograms of {names}"
            blocks.append(Plot(plot_histograms(panels, "images"), alt, f"{alt}, all images."))
        return blocks

    def suspicious_blocks(self) -> list[Block]:
        """Return the images that the survey names as blank, inverted or copied."""
        return []


def _spaced(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return up to `count` of the rows, evenly spaced, with the first and the last."""
    if len(rows) <= count:
        return rows
    return rows[np.linspace(0, len(rows) - 1, count).astype(np.int64)]

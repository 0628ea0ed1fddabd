"""The data card: one page that shows what a prepared dataset holds, with its warnings first.

The card is drawn from the .beton file alone. A file without a layout or a survey, which an earlier
version wrote, has a card of its classes and images.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from beton.reader import Reader
from pipeline.data.base import SPLITS, TRAIN, Ints, Layout
from pipeline.data.pixels.survey import POLARITY_IN_WORDS, Survey
from pipeline.loading.dataset import PixelRules, open_dataset, paper_greys
from pipeline.reporting.card_elements import (
    Bins,
    Histograms,
    SampleGrid,
    SideBySide,
    Strip,
    thumbnail,
)
from pipeline.reporting.data_tables import (
    counted,
    layout_facts,
    listed,
    spread,
    survey_facts,
    visible,
)
from pipeline.reporting.html import Block, Facts, Page, Section, Table, Warnings
from pipeline.runtime.files import convert

SAMPLES = 8  # images of a class
MOST_SAMPLES = 800  # images of all classes
MOST_CLASSES = 400  # in the grid and in the tables
LONG_TABLE = 20  # rows from which on a table is divided into several, side by side
TABLES = 3
BINS = 30
BLANK_TILE = 255  # grey level of the margins around thumbnails in colour
SHOWN_SKIPPED = 20
FITS = {
    "letterbox": "whole images in their proportions, with paper around them",
    "stretch": "images are stretched to the median proportions",
    "crop": "the middle of each image, in the median proportions",
}


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
    sections: dict[str, list[Block]] = {
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
        self.in_colour = PixelRules.of(file).colour == "rgb"
        self.paper = np.full(len(file), BLANK_TILE) if self.in_colour else paper_greys(file)
        self.warnings = self._all_warnings()

    def _all_warnings(self) -> list[str]:
        sentences = list(self.layout.warnings if self.layout else ())
        sentences += self.survey.warnings if self.survey else ()
        if self.skipped:
            names = listed([name for name, _ in self.skipped])
            number = counted(len(self.skipped), "image")
            sentences.append(f"skipped {number} that cannot be decoded: {names}")
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
            writers = len(self.info.get("writers", ()))
            facts += layout_facts(self.layout, len(self.classes), writers)
            if self.layout.notes:
                facts.append(("notes", [visible(note) for note in self.layout.notes]))
        elif reader := self.info["provenance"].get("reader"):
            facts.append(("reader", reader))
        if "split" in settings:
            drawn = f"{settings['split']}, seed {settings.get('seed', 0)}"
            if self.layout and self.layout.split_from:
                drawn += ", for images without a given split"
            facts.append(("drawn splits", drawn))
        blocks: list[Block] = [Facts(facts)] if facts else []
        if not self.layout:
            blocks.append("The file does not describe its layout: an earlier version wrote it.")
        return blocks

    def sample_blocks(self) -> list[Block]:
        """Return a grid with a strip of images for each class."""
        count = min(SAMPLES, max(2, MOST_SAMPLES // len(self.classes)))
        shown = _spaced(np.arange(len(self.classes)), MOST_CLASSES)
        chosen = self._chosen(shown, count)
        strips = []
        for label, rows in zip(shown.tolist(), chosen, strict=True):
            title, number = self.classes[label], int(self.counts[label].sum())
            strips.append(self._strip(title, f"×{number:,}", rows))
        margins = "" if self.in_colour else ", with margins of its paper's grey"
        text = (
            f"Up to {count} images of each class, of the training split if it has any, evenly "
            "spaced, and the number of all its images. Each is shown whole, in its proportions"
            f"{margins}."
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
        return [_spaced(rows[start:end], count) for start, end in zip(starts, ends, strict=True)]

    def class_blocks(self) -> list[Block]:
        """Return the images of each class by split."""
        smallest = np.argsort(self.counts.sum(1), kind="stable")[:MOST_CLASSES]
        rows = []
        for label in np.sort(smallest).tolist():
            counts = self.counts[label].tolist()
            rows.append([self.classes[label], *(f"{n:,}" for n in (*counts, sum(counts)))])
        text = f"{spread(self.labels, self.classes)}."
        if len(rows) < len(self.classes):
            text += f" The {len(rows):,} classes with the fewest images are listed."
        headers = ["class", *SPLITS, "all"]
        size = len(rows) if len(rows) <= LONG_TABLE else -(-len(rows) // TABLES)
        tables = []
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            empty = frozenset(n for n, row in enumerate(part) if row[1 + TRAIN] == "0")
            caption = "Images of each class by split."
            tables.append(Table(caption, headers, part, highlight=empty))
        return [text, SideBySide(tables)]

    def pixel_blocks(self) -> list[Block]:
        """Return how files became pixels, and the distributions of size and ink."""
        facts: list[tuple[str, str]] = survey_facts(self.survey) if self.survey else []
        if not self.survey and "polarity" in self.pixels and not self.in_colour:
            facts.append(("polarity", POLARITY_IN_WORDS[self.pixels["polarity"]]))
        panels: dict[str, Bins] = {}
        for side in ("height", "width"):
            values = self.images.metadata[side].astype(np.int64)
            low, high = int(values.min()), int(values.max())
            middle = f"{np.median(values):,.0f}"
            same = low == high
            facts.append((side, f"{low:,}" if same else f"{low:,} to {high:,}, median {middle}"))
            if not same:
                counts, edges = np.histogram(values, min(BINS, high - low + 1))
                panels[f"{side} (pixels)"] = Bins(edges.tolist(), counts.tolist())
        facts.append(("network's input", FITS[self.pixels.get("fit", "stretch")]))
        ink = self.survey.ink if self.survey else None
        if ink and len(ink.counts) > 1:
            panels["ink (% of pixels)"] = Bins([100 * edge for edge in ink.edges], ink.counts)
        blocks: list[Block] = [Facts(facts)]
        if panels:
            by = "size" if self.in_colour else "size and by fraction of ink"
            blocks.append(Histograms(panels, f"Numbers of images by {by}."))
        return blocks

    def suspicious_blocks(self) -> list[Block]:
        """Return skipped, blank and inverted images and copies, as far as the file names them."""
        blocks: list[Block] = []
        if self.skipped:
            shown = [f"{visible(name)}: {reason}" for name, reason in self.skipped[:SHOWN_SKIPPED]]
            if more := len(self.skipped) - len(shown):
                shown.append(f"{more:,} more")
            blocks.append(Facts([("skipped", shown)]))
        strips = []
        constant = np.array([], np.int64)
        if not self.in_colour:
            constant = np.flatnonzero(self.images.metadata["runs"] == 0)
        inverted = np.array(self.pixels.get("paper", {}).get("samples", ()), np.int64)
        for title, found in (
            ("one grey level", constant),
            ("most frequent value is ink", inverted),
        ):
            if len(found):
                strips.append(self._strip(title, counted(len(found), "image"), _spaced(found)))
        pairs = self.survey.copies.examples if self.survey else ()
        rows = self._rows_named([name for pair in pairs for name in pair])
        for pair in pairs:
            found = np.array([rows[name] for name in pair if name in rows], np.int64)
            if len(found):
                strips.append(self._strip(listed(pair), "equal pixels", found))
        return [*blocks, SampleGrid(strips)] if strips else blocks

    def _strip(self, title: str, remark: str, rows: Ints) -> Strip:
        self.file.check(rows, {"image"})
        tiles = [thumbnail(self.images.decode(row), int(self.paper[row])) for row in rows.tolist()]
        return Strip(title, remark, f"{title}: {counted(len(rows), 'image')}", tiles)

    def _rows_named(self, names: Sequence[str]) -> dict[str, int]:
        """Return the samples with these names; a file may lack names."""
        if not names or "name" not in self.file.fields:
            return {}
        wanted = {name.encode(): name for name in names}
        column = self.file.column("name")
        candidates = np.flatnonzero(np.isin(column.take().sizes, [len(name) for name in wanted]))
        self.file.check(candidates, {"name"})
        texts = (data.tobytes() for data in column.take(candidates).payloads())
        found = zip(texts, candidates.tolist(), strict=True)
        return {wanted[name]: row for name, row in found if name in wanted}


def _spaced(rows: Ints, count: int = SAMPLES) -> Ints:
    """Return up to `count` of the rows, evenly spaced, with the first and the last."""
    if len(rows) <= count:
        return rows
    return rows[np.linspace(0, len(rows) - 1, count).astype(np.int64)]

"""Terminal output about datasets: their layout, what their pixels show, and prepared files.

Names of files and classes are data: they are never markup, and control characters are escaped.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from beton.errors import printable
from pipeline.data.base import NO_SPLIT, Annotations, Ints, Layout
from pipeline.data.pixels.colour import Colours
from pipeline.data.pixels.survey import POLARITY_IN_WORDS, Survey
from pipeline.data.prepare import PrepareResult
from pipeline.data.sources import SPLITS
from pipeline.data.synth.shape_stats import Comparison

ORDINALS = {1: "first", 2: "second", 3: "third"}
SHOWN_CLASSES = 10  # in the terminal, with their counts
ACROSS = 66  # characters of class names up to which classes are columns of the terminal's table
SHOWN_SIZES = 3
LONGEST_NAME = 40  # characters of a class in the terminal


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun: "1 image", "2 images"."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def visible(name: str) -> str:
    """Return a name in which spaces at its ends and unprintable characters can be seen."""
    inner = name.strip(" ")
    start = len(name) - len(name.lstrip(" ")) if inner else len(name)
    text = "␣" * start + inner + "␣" * (len(name) - start - len(inner))
    return printable(text) or "(empty name)"


def listed(names: Sequence[str], limit: int = 5) -> str:
    """List names, the first ones and the number of others."""
    shown = [visible(name) for name in names[:limit]]
    if more := len(names) - len(shown):
        shown.append(f"{more:,} more")
    return ", ".join(shown)


def by_count(counts: Mapping[str, int], limit: int = 6) -> str:
    """List what was counted, the most frequent first: "L ×740, RGB ×4"."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    parts = [f"{visible(name)} ×{count:,}" for name, count in ordered[:limit]]
    if rest := ordered[limit:]:
        parts.append(f"{len(rest):,} other kinds ×{sum(count for _, count in rest):,}")
    return ", ".join(parts)


def origin_of(rule: str) -> str:
    """Return what a layout says of a class, split or writer; folder levels also in words."""
    if not re.fullmatch(r"folder:-?[0-9]+(,-?[0-9]+)*", rule):
        return rule
    levels = [int(level) for level in rule.removeprefix("folder:").split(",")]
    if levels in ([0], [-1]):
        return f"{rule} (the {'innermost' if levels[0] else 'outermost'} folder)"
    if min(levels) < 0 <= max(levels):
        return rule
    counted_from = [level + 1 if level >= 0 else -level for level in levels]
    places = " and ".join(ORDINALS.get(place, f"{place}th") for place in counted_from)
    side = "outermost" if levels[0] >= 0 else "innermost"
    noun = "folder" if len(levels) == 1 else "folders"
    return f"{rule} (the {places} {noun}, the {side} first)"


def layout_facts(layout: Layout, classes: int, writers: int) -> list[tuple[str, str]]:
    """Return what a layout says as pairs of a term and its description, without its warnings."""
    split = origin_of(layout.split_from) or "not given"
    facts = [
        ("reader", f"{layout.reader}, {layout.dataset}" if layout.dataset else layout.reader),
        ("class", _joined(origin_of(layout.class_from), counted(classes, "class", "classes"))),
        ("split", split),
        ("writer", _joined(origin_of(layout.writer_from), counted(writers, "writer"))),
        ("left out", by_count(layout.left_out)),
    ]
    if not writers and not layout.writer_from:
        facts = [fact for fact in facts if fact[0] != "writer"]
    return [(term, visible(text)) for term, text in facts if text]


def _joined(*texts: str) -> str:
    return "; ".join(text for text in texts if text)


def layout_lines(layout: Layout, annotations: Annotations) -> RenderableType:
    """Return what a layout means for the terminal: rules, classes, files left out, warnings."""
    classes = annotations.classes
    facts = layout_facts(layout, len(classes), len(annotations.writer_names))
    facts += [("note", visible(note)) for note in layout.notes]
    counts = class_counts(classes, annotations.labels, annotations.splits)
    return Group(_grid(facts), counts, _warnings(layout.warnings))


def class_counts(classes: Sequence[str], labels: Ints, splits: Ints) -> RenderableType:
    """Return the images of each class by split; of many classes, the first and a summary."""
    places = [split for split in (*range(len(SPLITS)), NO_SPLIT) if (splits == split).any()]
    shown = list(range(min(len(classes), SHOWN_CLASSES)))
    counts = {
        split: np.bincount(labels[splits == split], minlength=len(classes)) for split in places
    }
    titles = {split: SPLITS[split] for split in places if split != NO_SPLIT}
    if NO_SPLIT in places:
        titles[NO_SPLIT] = "to divide" if titles else "images"
    names = [visible(classes[label]) for label in shown]
    if sum(map(len, names)) + 2 * len(names) <= ACROSS:
        table = Table(
            "  class", *(Column(Text(n), justify="right") for n in names), box=None, pad_edge=False
        )
        for split in places:
            table.add_row(f"  {titles[split]}", *(f"{counts[split][one]:,}" for one in shown))
    else:
        columns = (Column(title, justify="right") for title in titles.values())
        table = Table("  class", *columns, box=None, pad_edge=False)
        for label, name in zip(shown, names, strict=True):
            table.add_row(
                Text(f"  {_cut(name)}"),
                *(f"{counts[split][label]:,}" for split in places),
            )
    if len(classes) <= SHOWN_CLASSES:
        return table
    return Group(table, Text(f"  … {len(classes) - len(shown):,} more; {spread(labels, classes)}"))


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def spread(labels: Ints, classes: Sequence[str]) -> str:
    """Return the range of the classes' sizes: "9 to 14 images in a class, median 12"."""
    sizes = np.bincount(labels, minlength=len(classes))
    low, high = int(sizes.min()), int(sizes.max())
    if low == high:
        return f"{counted(low, 'image')} in each class"
    return f"{low:,} to {counted(high, 'image')} in a class, median {np.median(sizes):,.0f}"


def survey_facts(survey: Survey) -> list[tuple[str, str]]:
    """Return what the pixels of a dataset show as pairs of a term and its description."""
    blank, copies = survey.blank, survey.copies
    facts = [
        ("size", _sizes(survey)),
        ("stored as", _joined(by_count(survey.modes), by_count(survey.changes))),
        ("polarity", POLARITY_IN_WORDS[survey.polarity] if survey.ink else ""),
        *(colour_facts(survey.colour, survey.images) if survey.colour else ()),
        ("grey scale", survey.scale_in_words),
        ("16 bits", "colours become 8 bits, the value / 257" if _has_deep_colours(survey) else ""),
    ]
    if blank:
        classes = by_count(survey.blank_by_class)
        facts.append(("blank", f"{counted(blank, 'image')}; by class: {classes}"))
    if copies.groups:
        text = f"{copies.images:,} images in {counted(copies.groups, 'group')} of equal pixels"
        text += f"; groups in several splits: {copies.across_splits:,}"
        facts.append(("copies", f"{text}, in several classes: {copies.disagreeing:,}"))
    if clean := [
        term for term, found in (("blank", blank), ("copies", copies.groups)) if not found
    ]:
        facts.append((" or ".join(clean), "none"))
    return [(term, text) for term, text in facts if text]


def _has_deep_colours(survey: Survey) -> bool:
    return any(mode.startswith("RGB") and mode.endswith(";16") for mode in survey.modes)


def colour_facts(colour: Colours, images: int) -> list[tuple[str, str]]:
    """Return what is known of a dataset's colours as pairs of a term and its description."""
    grey = images - colour.in_colour
    part = f"{colour.off_line_fraction:.2%} of their variance"
    spread = f"{colour.off_line:.3g} levels from a line in RGB, {part}"
    if colour.stored == "grey":
        lost = f"stored as grey levels; colours deviate by {spread}; --colour rgb keeps them"
        return [("colour", f"{counted(colour.in_colour, 'image')} in colour, {lost}")]
    some = f"{grey:,} of {images:,} images are grey; all are stored in colour"
    facts = [("colour", _joined(some if grey else "", f"colours deviate by {spread}"))]
    if colour.mean and colour.std:
        mean, std = (", ".join(f"{x:.4f}" for x in three) for three in (colour.mean, colour.std))
        facts.append(("channels", f"mean {mean}; deviation {std} (training images, from 0 to 1)"))
    raw = images - colour.own_jpeg - colour.compressed
    parts = [
        f"{counted(raw, 'image')} without loss" if raw else "",
        f"{counted(colour.own_jpeg, 'JPEG file')} as they are" if colour.own_jpeg else "",
    ]
    if colour.compressed:
        number = counted(colour.compressed, "image is", "images are")
        parts.append(
            f"{number} compressed to JPEG of quality {colour.quality}, with some loss; "
            "--quality sets another"
        )
    return [*facts, ("storage", _joined(*parts))]


def _sizes(survey: Survey) -> str:
    """Return the commonest sizes, as height × width."""
    if survey.distinct_sizes == 1:
        height, width, _ = survey.sizes[0]
        return f"{height} × {width} pixels (height × width), all images"
    shown = survey.sizes[:SHOWN_SIZES]
    parts = [f"{height} × {width} ({count:,})" for height, width, count in shown]
    if more := survey.distinct_sizes - len(shown):
        parts.append(f"{more:,} more")
    return f"height × width (images): {', '.join(parts)}"


def survey_lines(survey: Survey) -> RenderableType:
    """Return what the pixels of a dataset show for the terminal, with its warnings."""
    return Group(_grid(survey_facts(survey)), _warnings(survey.warnings))


def _grid(facts: Iterable[tuple[str, str]]) -> Table:
    table = Table(
        Column(style="dim", no_wrap=True), Column(), show_header=False, box=None, pad_edge=False
    )
    for term, text in facts:
        table.add_row(Text(f"  {term}"), Text(printable(text)))
    return table


def _warnings(sentences: Sequence[str]) -> RenderableType:
    return Group(*(Text(f"  warning: {visible(one)}", style="yellow") for one in sentences))


def prepared_table(results: Mapping[str, PrepareResult]) -> Table:
    """Return a table with a row per prepared dataset."""
    columns = ("images", "classes", *SPLITS, "raw MB", "file MB", "s")
    table = Table("dataset", *(Column(name, justify="right") for name in columns), box=None)
    for name, result in results.items():
        table.add_row(
            name,
            f"{sum(result.images.values()):,}",
            f"{result.classes}",
            *(f"{result.images[split]:,}" for split in SPLITS),
            f"{result.source_bytes / 1e6:,.1f}" if result.source_bytes else "–",
            f"{result.file_bytes / 1e6:,.1f}",
            f"{result.seconds:.1f}" if result.built else "–",
        )
    return table


def comparison_table(rows: Sequence[Comparison], title: str) -> Table:
    """Return a table with a row per statistic; the real values have 95 % intervals."""
    columns = ("real mean", "synthetic", "real std", "synthetic", "agrees")
    right = (Column(name, justify="right") for name in columns)
    table = Table("", *right, title=title, title_justify="left", box=None)
    for row in rows:
        mean, spread = (
            f"{estimate.value:.4g} ({estimate.low:.4g}–{estimate.high:.4g})"
            for estimate in (row.real_mean, row.real_spread)
        )
        agrees = "yes" if row.agrees else "no"
        table.add_row(row.statistic, mean, f"{row.mean:.4g}", spread, f"{row.spread:.4g}", agrees)
    return table

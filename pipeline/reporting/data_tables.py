"""Terminal output about datasets: their layout, what their pixels show, and prepared files.

Names of files and classes are data: they are never markup, and control characters are escaped.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from pipeline.data.base import NO_SPLIT, Annotations, Ints, Layout
from pipeline.data.pixels.survey import Survey
from pipeline.data.prepare import PrepareResult
from pipeline.data.sources import SPLITS
from pipeline.data.synth.shape_stats import Comparison

SHOWN_CLASSES = 10  # in the terminal, with their counts
ACROSS = 66  # characters of class names up to which classes are columns of the terminal's table
LONGEST_NAME = 40  # characters of a class in the terminal
POLARITIES = {
    "dark": "dark ink on light paper",
    "light": "light ink on dark paper",
    "each": "each image's most frequent value is its paper",
}


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun: "1 image", "2 images"."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def visible(name: str) -> str:
    """Return a name in which spaces at its ends and unprintable characters can be seen."""
    inner = name.strip(" ")
    start = len(name) - len(name.lstrip(" ")) if inner else len(name)
    text = "␠" * start + inner + "␠" * (len(name) - start - len(inner))
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return shown or "(empty name)"


def listed(names: Sequence[str], limit: int = 5) -> str:
    """List names, the first ones and the number of others."""
    shown = [visible(name) for name in names[:limit]]
    if more := len(names) - len(shown):
        shown.append(f"{more:,} more")
    return ", ".join(shown)


def by_count(counts: Mapping[str, int], limit: int = 6) -> str:
    """List what was counted, the most frequent first: "L 740, RGB 4"."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    parts = [f"{visible(name)} {count:,}" for name, count in ordered[:limit]]
    if rest := ordered[limit:]:
        parts.append(f"{len(rest):,} other kinds {sum(count for _, count in rest):,}")
    return ", ".join(parts)


def origin_of(rule: str) -> str:
    """Return what a layout says of a class, split or writer, and in words if it is an option."""
    kind, _, value = rule.partition(":")
    match kind:
        case "folder" if value:
            places = " and ".join(_level(level) for level in value.split(","))
            return f"{rule} (names of the {places})"
        case "name" if value:
            return f"{rule} (a pattern of the path)"
        case "table" if value:
            return f"{rule} (a table)"
    return rule


def _level(level: str) -> str:
    number = int(level) if level.removeprefix("-").isdigit() else 0
    if number == 0:
        return "outermost folder"
    if number == -1:
        return "innermost folder"
    return f"folder {abs(number) + (number > 0)} from the {'outside' if number > 0 else 'inside'}"


def layout_facts(layout: Layout) -> list[tuple[str, str]]:
    """Return what a layout says as pairs of a term and its description, without its warnings."""
    facts = [("reader", layout.reader), ("dataset", layout.dataset)]
    for term, rule in (
        ("class", layout.class_from),
        ("split", layout.split_from),
        ("writer", layout.writer_from),
    ):
        facts.append((term, origin_of(rule)))
    facts.append(("left out", by_count(layout.left_out)))
    return [(term, visible(text)) for term, text in facts if text]


def layout_lines(layout: Layout, annotations: Annotations) -> RenderableType:
    """Return what a layout means for the terminal: rules, classes, files left out, warnings."""
    facts = layout_facts(layout)
    if writers := len(annotations.writer_names):
        facts.append(("writers", f"{writers:,}"))
    facts += [("note", visible(note)) for note in layout.notes]
    table = class_counts(annotations.classes, annotations.labels, annotations.splits)
    return Group(_grid(facts), table, _warnings(layout.warnings))


def class_counts(classes: Sequence[str], labels: Ints, splits: Ints) -> RenderableType:
    """Return the images of each class by split; of many classes, the first and a summary."""
    places = [split for split in (*range(len(SPLITS)), NO_SPLIT) if (splits == split).any()]
    shown = list(range(min(len(classes), SHOWN_CLASSES)))
    counts = {split: np.bincount(labels[splits == split], minlength=len(classes)) for split in places}
    titles = {split: SPLITS[split] if split != NO_SPLIT else "no split" for split in places}
    if places == [NO_SPLIT]:
        titles = {NO_SPLIT: "images"}
    names = [visible(classes[label]) for label in shown]
    if sum(map(len, names)) + 2 * len(names) <= ACROSS:
        table = Table("  class", *(Column(Text(n), justify="right") for n in names), box=None)
        for split in places:
            table.add_row(f"  {titles[split]}", *(f"{counts[split][one]:,}" for one in shown))
    else:
        columns = (Column(title, justify="right") for title in titles.values())
        table = Table("  class", *columns, box=None)
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
    height, width, count = survey.sizes[0]
    return [("sizes", f"{height} x {width} {count}")]


def survey_lines(survey: Survey) -> RenderableType:
    """Return what the pixels of a dataset show for the terminal, with its warnings."""
    return Group(_grid(survey_facts(survey)), _warnings(survey.warnings))


def _grid(facts: Iterable[tuple[str, str]]) -> Table:
    table = Table(Column(style="dim", no_wrap=True), Column(), show_header=False, box=None)
    for term, text in facts:
        table.add_row(Text(f"  {term}"), Text(text))
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
            f"{sum(result.images.values()) + len(result.skipped):,}",
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

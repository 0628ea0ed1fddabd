"""What the report of EMNIST adds: the published confusions, and accuracy as images shrink."""

from collections.abc import Sequence
from itertools import permutations

from pipeline.analysis.stats import Bands, bands
from pipeline.evaluation.metrics import Scores
from pipeline.evaluation.shrink import ShrinkCurve, read_shrink_curve
from pipeline.reporting.common import percent
from pipeline.reporting.html import Block, Plot, Section, Table
from pipeline.reporting.plots import plot_curves
from pipeline.reporting.run_groups import RunGroup

# Published as the most frequent: characters that look alike where both cases are one class.
CONFUSED = ("1lj", "0qo", "9qg")


def emnist_sections(groups: Sequence[RunGroup]) -> list[Section]:
    """Return the sections of EMNIST's report; sections without content are left out."""
    sections = [Section("Published confusions", confusion_blocks(groups))]
    return [one for one in (*sections, shrink_section(groups)) if one.blocks]


def confusion_blocks(groups: Sequence[RunGroup]) -> list[Block]:
    """Return the table of the published confusions, empty if a class of them is missing."""
    classes = [name.casefold() for name in groups[0].config.classes]
    return [confusion_table(groups)] if {*"".join(CONFUSED)} <= {*classes} else []


def confusion_table(groups: Sequence[RunGroup], confused: Sequence[str] = CONFUSED) -> Table:
    """Return a table of confusions among characters, a row for each pair in each of `confused`.

    Raises ValueError if the groups' classes lack one of the characters.
    """
    classes = [name.casefold() for name in groups[0].config.classes]
    rows = []
    for characters in confused:
        for true, predicted in permutations(characters, 2):
            cells = [
                _counted(group.scores, classes.index(true), classes.index(predicted))
                for group in groups
            ]
            rows.append([f"{true.upper()} → {predicted.upper()}", *cells])
    rows.append(["all of these", *(_among(group.scores, classes, confused) for group in groups)])
    names = ", ".join("/".join(one.upper()) for one in confused)
    return Table(
        f"The published most frequent confusions, {names}: how many validation images of the true "
        "class were classified as the other, over all seeds. Last: the fraction of all errors.",
        ["true → predicted", *(group.name for group in groups)],
        rows,
        highlight=frozenset({len(rows) - 1}),
    )


def _counted(scores: Scores, true: int, predicted: int) -> str:
    row = scores.matrix[true]
    if not sum(row):
        return "no images"
    return f"{row[predicted]} of {sum(row):,} ({percent(row[predicted] / sum(row), 1)})"


def _among(scores: Scores, classes: Sequence[str], confused: Sequence[str]) -> str:
    """Return the number of confusions among characters, and their fraction of all errors."""
    pairs = {pair for characters in confused for pair in permutations(characters, 2)}
    found = sum(scores.matrix[classes.index(a)][classes.index(b)] for a, b in pairs)
    errors = sum(sum(row) - row[place] for place, row in enumerate(scores.matrix))
    return f"{found} of {errors:,} errors ({percent(found / errors, 1)})" if errors else "no errors"


def shrink_section(groups: Sequence[RunGroup]) -> Section:
    """Return the curves of accuracy as images shrink, of the groups whose runs all have one.

    Without any, the section has no blocks.
    """
    found = {}
    for group in groups:
        curves = [read_shrink_curve(run.path) for run in group.runs.values()]
        known = [curve for curve in curves if curve is not None]
        if known and len(known) == len(curves) and len({curve.sides for curve in known}) == 1:
            found[group.name] = known
    blocks: list[Block] = []
    if found:
        first = next(iter(found.values()))[0]
        side = first.sides[0]
        lines = {name: _bands(curves) for name, curves in found.items()}
        figure = plot_curves(lines, "side of the image (pixels)", "accuracy (%)", 100, (0, 100))
        names = " and ".join(found)
        seeds = (
            " Bands are 95 % intervals of the mean over seeds."
            if any(len(curves) > 1 for curves in found.values())
            else ""
        )
        caption = (
            f"Accuracy on {first.samples:,} {first.split} images, shrunk from {side} × {side} "
            "pixels by averaging over areas and placed in the middle of paper, on the canvas that "
            f"the network was trained for.{seeds}"
        )
        alt = f"Line plot: accuracy of {names} over the side of the image."
        text = "Others reported poor results for characters smaller than those of the training."
        blocks = [text, Plot(figure, alt, caption), _shrink_table(found)]
    return Section("Smaller images", blocks)


def _bands(curves: Sequence[ShrinkCurve]) -> Bands:
    x = [sorted(curve.sides) for curve in curves]
    y = [list(reversed(curve.accuracies)) for curve in curves]
    return bands(x, y)


def _shrink_table(found: dict[str, list[ShrinkCurve]]) -> Table:
    sides = next(iter(found.values()))[0].sides
    rows = [
        [
            name,
            *(
                percent(sum(curve.accuracies[place] for curve in curves) / len(curves), 1)
                for place in range(len(sides))
            ),
        ]
        for name, curves in found.items()
    ]
    headers = ["side in pixels", *map(str, sides)]
    return Table("Accuracy on shrunk images, means over seeds.", headers, rows)

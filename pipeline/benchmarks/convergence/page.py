"""The HTML page of `bench convergence`, and its plots."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline.benchmarks.convergence import tables
from pipeline.benchmarks.convergence.outcome import (
    ArmResult,
    Convergence,
    PartResult,
    Reached,
    State,
)
from pipeline.benchmarks.harness import busy_line
from pipeline.benchmarks.plots import label_plainly
from pipeline.reporting.common import hardware
from pipeline.reporting.html import Block, Page, Plot, Section, SourceRun, Sources, Table, Warnings
from pipeline.reporting.plots import COLOURS, new_figure, styled

# The marker of a training that has no time to a target, whether it is filled, and what it means.
UNREACHED: dict[State, tuple[str, bool, str]] = {
    "not reached": ("X", True, "never reached, trained to its end"),
    "inferred not reached": ("X", False, "≈ never reached, inferred"),
    "unknown": ("D", False, "unknown, cut short"),
}
EDGE, STEP = 1.03, 0.035  # places of these markers right of the axes, as fractions of their width


def page(
    result: Convergence,
    provenance: Sequence[Mapping[str, Any]],
    machine: Mapping[str, Any],
    source: SourceRun,
    notes: Sequence[Block],
) -> Page:
    """Return the page of a benchmark's results."""
    busy = busy_line(result.load[0], int(machine["cores"]))
    return Page(
        "Time to accuracy",
        "How long does a training take to an accuracy, by inkrun's recipes and published ones, on "
        "inkrun's loader and on a DataLoader with Pillow?",
        answer(result),
        provenance,
        [
            *([Section("Read first", [Warnings([busy])])] if busy else []),
            *(part_section(result, part) for part in result.parts),
            *left_out_sections(result),
            Section("How it was measured", [*method_lines(result), hardware(machine)]),
            Section("Sources", [*notes, Sources([source])]),
        ],
    )


def answer(result: Convergence) -> str:
    """Return for each part how many times as long the other arms take to a target."""
    if result.quick:
        return "A quick run: it shows that everything runs, and no accuracy."
    return " ".join(map(_part_answer, result.parts))


def _part_answer(part: PartResult) -> str:
    """Return the answer for the highest target that our recipe reaches on our loader."""
    ours = part.find("inkrun", "inkrun")
    if ours is None or not ours.trainings:
        return f"{part.title}: there was no time for a training of inkrun's recipe."
    found = [one for one in ours.reached if one.known]
    if not found:
        lowest = ours.reached[0]
        return f"{part.title}: {lowest.target}, inkrun's recipe: {tables.state_words(lowest)}."
    target = found[-1]
    mean = target.estimate(start_up=False)
    assert mean is not None
    others = [
        f"{result.arm.name}: {_times(one)}"
        for result in part.arms
        if result is not ours
        for one in result.reached
        if one.target == target.target
    ]
    rest = f" ({'; '.join(others)})" if others else ""
    seconds = f"{mean.mean:,.1f} s of training" + " (extrapolated)" * target.extrapolated
    return f"{part.title}: {target.target} after {seconds}{rest}."


def _times(one: Reached) -> str:
    if one.factor is None:
        return tables.state_words(one)
    ratio = one.factor.ratio.value
    extrapolated = one.factor.state == "extrapolated"
    return f"{ratio:,.{0 if ratio >= 10 else 1}f} times as long" + " (extrapolated)" * extrapolated


def method_lines(result: Convergence) -> list[Block]:
    """Return what a reader must know about the figures."""
    return [
        f"Each training runs in a process of its own. The arms take turns, seed by seed "
        f"({result.seeds}). The whole benchmark is limited to {result.limit:,.0f} s: a training "
        "that would take longer than its part of what is left is cut short; inkrun's recipe on "
        "inkrun's loader has three times the part of the others.",
        "Both loaders feed the same trainer with the same samples in the same order and with the "
        "same augmentations. Pillow's is a DataLoader with a worker for each core, which decodes "
        "PNG files and resizes them with a box filter. Validation, by inkrun's loader in all arms, "
        "is no part of the times.",
        "Start-up is the time from the start of the process, imports included, that is neither "
        "training nor validation. Intervals are 95 % t intervals of the mean over the seeds.",
    ]


def left_out_sections(result: Convergence) -> list[Section]:
    """Return a section with the parts that there was no time for, none if there are none."""
    lines: list[Block] = [f"{title}: the time limit had passed." for title in result.left_out]
    return [Section("Not measured", lines)] if lines else []


def part_section(result: Convergence, part: PartResult) -> Section:
    """Return the tables and the plot of a part."""
    align = "lll" + "r" * (len(tables.TIMES) - 3)
    rows, trainings = [*tables.time_rows(part)], [*tables.training_rows(part)]
    return Section(
        part.title,
        [
            *tables.notes(result, part),
            Plot(
                plot_part(part),
                f"Accuracy over seconds of training and over images: {part.title}",
                "A line is a training, a dot an evaluated epoch. An open triangle is an "
                "extrapolated time. Markers right of the axes are trainings that do not reach a "
                "target, or of which that is unknown.",
            ),
            Table("Time to accuracy.", tables.TIMES, rows, align, wide=True),
            Table("Trainings.", tables.TRAININGS, trainings, wide=True),
        ],
    )


@styled
def plot_part(part: PartResult) -> Figure:
    """Plot the accuracy of all trainings over seconds of training and over images."""
    figure = new_figure(9, 4.6)
    seconds, images = figure.subplots(1, 2, sharey=True)
    results = [one for one in part.arms if one.arm.recipe != "ceiling"]
    for number, result in enumerate(results):
        colour = COLOURS[number]
        _draw(seconds, result, colour, [[p.seconds for p in t.points] for t in result.trainings])
        _draw(images, result, colour, [[p.images for p in t.points] for t in result.trainings])
        for axes, over_seconds in ((seconds, True), (images, False)):
            _draw_extrapolated(axes, result, colour, over_seconds)
            _draw_unreached(axes, result, colour, EDGE + STEP * number)
    for target in {time.target for one in results for r in one.reached for time in r.times}:
        for axes in (seconds, images):
            axes.axhline(100 * target, color="black", linewidth=0.6, linestyle=":")
    if any(training.points for one in results for training in one.trainings):  # else no axis
        images.set(xscale="log")
        seconds.set(xscale="log")
        label_plainly(images.xaxis)
        label_plainly(seconds.xaxis)
    seconds.set(xlabel="seconds of training", ylabel="accuracy (%)")
    images.set(xlabel="images trained on")
    legend(figure, seconds, results)
    return figure


def legend(figure: Figure, axes: Axes, results: Sequence[ArmResult]) -> None:
    """Add a legend of the arms, and of the markers that the plot has."""
    handles, labels = axes.get_legend_handles_labels()
    states = {time.state for one in results for r in one.reached for time in r.times}
    markers: dict[State, tuple[str, bool, str]] = {
        "extrapolated": ("^", False, "≈ extrapolated"),
        **UNREACHED,
    }
    for state, (marker, filled, label) in markers.items():
        if state in states:
            handles.append(_marker(marker, filled))
            labels.append(label)
    figure.legend(handles, labels, loc="outside lower center", ncols=2)


def _marker(marker: str, filled: bool) -> Line2D:
    face = "grey" if filled else "none"
    return Line2D([], [], linestyle="", marker=marker, color="grey", markerfacecolor=face)


def _draw(axes: Axes, result: ArmResult, colour: str, places: Sequence[Sequence[float]]) -> None:
    label: str | None = result.arm.name
    for training, x in zip(result.trainings, places, strict=True):
        y = [100 * point.accuracy for point in training.points]
        axes.plot(x, y, "o-", color=colour, markersize=3, linewidth=1.2, label=label)
        label = None


def _draw_extrapolated(axes: Axes, result: ArmResult, colour: str, over_seconds: bool) -> None:
    for time in (time for one in result.reached for time in one.times):
        if time.state == "extrapolated":
            x = time.seconds if over_seconds else time.images
            assert x is not None
            axes.plot([x], [100 * time.target], "^", color=colour, markerfacecolor="none")


def _draw_unreached(axes: Axes, result: ArmResult, colour: str, place: float) -> None:
    """Draw a marker at `place` for each target that a training of the arm has no time to."""
    for time in (time for one in result.reached for time in one.times):
        if time.state in UNREACHED:
            marker, filled, _ = UNREACHED[time.state]
            axes.plot(
                [place],
                [100 * time.target],
                marker,
                color=colour,
                markerfacecolor=colour if filled else "none",
                transform=axes.get_yaxis_transform(),
                clip_on=False,
            )

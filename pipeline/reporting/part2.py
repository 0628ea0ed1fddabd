"""Part 2's page: whether pretraining on the digits of part 1 helps on MNIST.

Every figure is one of a run's result.json.
"""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table as TerminalTable

from pipeline.analysis.pretraining import NORM, Analysis, PretrainingResult, Quantity
from pipeline.analysis.stats import ACCURACY, LOSS, Estimate, Interval, Measure
from pipeline.recipes.presets import PART2_PUBLISHED
from pipeline.reporting.common import (
    ABSENT,
    computer,
    counted,
    experiment_source,
    latest_run,
    minus,
    origins,
    percent,
    training_source,
)
from pipeline.reporting.html import Block, Page, Plot, Section, Sources, Table
from pipeline.reporting.plots import plot_curves
from pipeline.runtime.files import read_as, read_json

QUESTION = (
    "A network that has learned the digits of part 1 learns MNIST. Is it better for that, or there "
    "sooner, than one that begins from random weights?"
)
DECIMALS = {ACCURACY.unit: 2, LOSS.unit: 4, NORM.unit: 3}  # 1 for other units
UNITS = {"points": "%", "nats": "nats", "% of its first weights' length": "%"}  # of values
HEADERS = ("", "pretrained", "from scratch", "difference", "95 % interval", "shown", "pairs needed")
LEGEND = (
    "The figure that answers the question, and the loss. Means over the seeds; the difference is "
    "pretrained minus from scratch, seed by seed, with its paired 95 % t interval, and shown if "
    "that excludes zero. Pairs needed: how many seeds would show a difference of this size and "
    "spread in four of five tries."
)
AS_ABOVE = "Columns as in the first table."


def page_of(paths: Sequence[Path]) -> Page:
    """Return the page of a run of part 2; of several, the latest is shown and the others named.

    Raises UserError for no folder, and for one that holds no finished run.
    """
    run, earlier = latest_run("part2", paths)
    result = read_as(run / "result.json", PretrainingResult)
    trainings = [training_source(run / name, name) for name in result.trainings]
    return Page(
        "Part 2: does pretraining on our digits help on MNIST?",
        QUESTION,
        result.analysis.answer,
        origins([result.digits.provenance, result.mnist.provenance]),
        [
            Section("What was compared", _compared(run, result)),
            Section("At the end", _end(result)),
            Section("On the way", _way(result)),
            Section("How soon", _times(result)),
            Section("How steadily", _stability(result)),
            Section("How far the weights moved", _movement(result)),
            Section("How many seeds it takes", _power(result)),
            Section(
                "Where each figure came from",
                [*earlier, Sources([experiment_source(run), *trainings])],
            ),
        ],
    )


def closing_table(run: Path) -> TerminalTable:
    """Return all that was compared, for a terminal."""
    analysis = read_as(run / "result.json", PretrainingResult).analysis
    title = f"Part 2: {counted(len(analysis.seeds), 'pair')} of trainings, 95 % intervals"
    table = TerminalTable(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for header in ("pretrained", "scratch", "difference", "shown", "needs"):
        table.add_column(header, justify="right")
    for quantity in _quantities(analysis):
        row = _row(quantity)
        difference = row["difference"]
        if interval := quantity.comparison.interval:  # symmetric, as t intervals are
            difference += f" ± {_value((interval.high - interval.low) / 2, quantity.measure)}"
        shown = row["shown"].partition(",")[0]
        first, second = row["pretrained"], row["from scratch"]
        table.add_row(row[""], first, second, difference, shown, row["pairs needed"])
    return table


def _quantities(analysis: Analysis) -> list[Quantity]:
    """Return all figures that are compared."""
    a = analysis
    return [*a.end, *a.progress, *a.times, *a.stability, *a.movement]


def _row(quantity: Quantity) -> dict[str, str]:
    """Return the cells of a figure by `HEADERS`."""
    comparison, measure = quantity.comparison, quantity.measure
    interval, difference, needed = comparison.interval, comparison.difference, comparison.needed
    unit = UNITS.get(measure.unit)
    shown = ABSENT if interval is None else "no"
    if comparison.shown and difference:
        shown = f"yes, {(measure.more if difference > 0 else measure.less).partition(' ')[0]}"

    def mean(found: Estimate | None, runs: Sequence[float | None]) -> str:
        if found is None:
            return ABSENT
        text = _value(found.mean, measure)
        return text if found.runs == len(runs) else f"{text} ({found.runs}/{len(runs)})"

    cells = (
        f"{quantity.name} ({unit})" if unit else quantity.name,
        mean(quantity.pretrained_mean, quantity.pretrained),
        mean(quantity.scratch_mean, quantity.scratch),
        ABSENT if difference is None else _value(difference, measure, sign=True),
        ABSENT if interval is None else _span(interval, measure),
        shown,
        ABSENT if needed is None else f"{needed:,}",
    )
    return dict(zip(HEADERS, cells, strict=True))


def _value(value: float, measure: Measure, sign: bool = False) -> str:
    decimals = DECIMALS.get(measure.unit, 1)
    return minus(f"{value * measure.scale:{'+' if sign else ''},.{decimals}f}")


def _span(interval: Interval, measure: Measure) -> str:
    low, high = (_value(end, measure, sign=True) for end in (interval.low, interval.high))
    return f"{low} to {high}"


def _table(caption: str, quantities: Sequence[Quantity]) -> Table:
    return Table(caption, HEADERS, [[*_row(one).values()] for one in quantities], wide=True)


def _said(quantities: Sequence[Quantity]) -> list[Block]:
    return [f"{one.name[0].upper()}{one.name[1:]}: {one.words}." for one in quantities]


def _compared(run: Path, result: PretrainingResult) -> list[Block]:
    analysis, digits, mnist = result.analysis, result.digits, result.mnist
    others = len(_quantities(analysis)) - 1
    first = result.trainings["digits"]
    trained = result.trainings[f"pretrained-{analysis.seeds[0]}"]
    accuracy = (
        f", and then reads {percent(first.accuracy)} of {digits.validated:,} others of them"
        if first.accuracy is not None
        else ""
    )
    return [
        f"One network ({first.network}) learned {digits.learned:,} digits of part 1 for "
        f"{first.epochs} epochs, in {first.seconds_training:,.0f} s{accuracy}. From its "
        "weights, all of them, one arm began to learn MNIST; the other began from random weights. "
        f"Both learned {mnist.learned:,} digits ({mnist.learn_from}) for "
        f"{analysis.epochs} epochs, and were validated after each on {mnist.validated:,} "
        f"({mnist.validate_on}). The trainings of a seed saw the same pictures, changed alike, "
        f"in the same order; seeds: {', '.join(map(str, analysis.seeds))}.",
        f"Computed by {computer(read_json(run / 'digits', 'environment.json'))}; "
        f"{trained.images_per_second:,.0f} pictures per second. Seconds are of training alone, "
        "without start-up, validation and saving, and without the seconds of pretraining.",
        "Every interval is over seeds: over the random weights of one arm, and over order and "
        "changes for both. All pretrained networks began from the same weights and all were "
        "validated on the same pictures, so other digits of part 1, or other pictures to validate "
        "on, might say something else.",
        "The first figure, accuracy at the end, was chosen to answer the question before looking. "
        f"The other {others} describe; where nothing differs at all, one in twenty "
        "of them would be shown to differ by chance.",
    ]


def _end(result: PretrainingResult) -> list[Block]:
    analysis = result.analysis
    columns = [(one.measure, arm) for one in analysis.end for arm in (one.pretrained, one.scratch)]
    rows = [
        [str(seed), *(ABSENT if v is None else _value(v, m) for m, v in values)]
        for seed, *values in zip(
            analysis.seeds, *([(m, v) for v in arm] for m, arm in columns), strict=True
        )
    ]
    published = (percent(PART2_PUBLISHED[arm]) for arm in ("pretrained", "scratch"))
    return [
        *_said(analysis.end),
        _table(LEGEND, analysis.end),
        Table(
            "Every seed: accuracy (%) and loss (nats) at the end.",
            ["seed", "pretrained", "from scratch", "pretrained, loss", "from scratch, loss"],
            rows,
            "rrrrr",
        ),
        "Published, by others on the original data: {} against {} after 5 epochs of ResNet-18, "
        "from one training each, which shows nothing yet.".format(*published),
    ]


def _way(result: PretrainingResult) -> list[Block]:
    analysis = result.analysis
    return [
        "The area under accuracy is the mean height of its curve, from the first evaluation to the "
        "last; the mean training loss is that of all steps, so the area under the loss's curve.",
        *_said(analysis.progress),
        _table(f"The learning curves in figures. {AS_ABOVE}", analysis.progress),
        _plot(
            analysis,
            "accuracy over epochs",
            "epochs",
            "validation accuracy (%)",
            "Accuracy on pictures not learned from, after each epoch.",
        ),
        _plot(
            analysis,
            "accuracy over seconds",
            "seconds of training",
            "validation accuracy (%)",
            "The same over the time that training took.",
        ),
        _plot(
            analysis,
            "loss over epochs",
            "epochs",
            "validation loss (nats)",
            "Loss on pictures not learned from, after each epoch.",
        ),
    ]


def _times(result: PretrainingResult) -> list[Block]:
    times = result.analysis.times
    sometimes = [
        one for one in times if len({value is None for value in one.pretrained + one.scratch}) == 2
    ]
    return [
        "When accuracy was first at or above a threshold. It was measured at the ends of epochs "
        "only, and nothing is interpolated; means are over the trainings that got there.",
        _table(f"Epochs and seconds to each threshold. {AS_ABOVE}", times),
        *_said(sometimes),
    ]


def _stability(result: PretrainingResult) -> list[Block]:
    analysis = result.analysis
    rows = [
        [
            str(one.epoch),
            *(
                ABSENT if share is None else f"{100 * share:.3f}"
                for share in (one.pretrained, one.scratch)
            ),
            ABSENT if one.ratio is None else f"{one.ratio:.2f}",
            *(
                (f"{one.interval.low:.2f} to {one.interval.high:.2f}", "yes" if one.shown else "no")
                if one.interval
                else (ABSENT, ABSENT)
            ),
        ]
        for one in analysis.spreads
    ]
    return [
        _table(
            "A spike is a rise from one step to the next that exceeds the median step by five "
            f"robust deviations. {AS_ABOVE}",
            analysis.stability,
        ),
        Table(
            "How much seeds differ: the standard deviation of accuracy over seeds (points) after "
            "each epoch, the ratio of the two with its paired 95 % interval (Pitman and Morgan "
            "1939), and whether that excludes 1.",
            ["epoch", "pretrained", "from scratch", "ratio", "95 % interval", "shown"],
            rows,
            "rrrrrr",
        ),
        _plot(
            analysis,
            "training loss",
            "epochs",
            "training loss (nats)",
            "The loss of the steps, of changed pictures while learning, averaged over pieces of "
            "the course.",
        ),
        _plot(
            analysis,
            "gradient norm",
            "epochs",
            "gradient norm",
            "The length of the gradient, averaged over the steps of each epoch.",
        ),
    ]


def _movement(result: PretrainingResult) -> list[Block]:
    movement = result.analysis.movement
    return [
        "How far the weights at the end are from those at the beginning (L2), in % of the length "
        "of these, by group of layers: stem (near the picture), body, head (near the classes), and "
        "all together. Statistics of normalisation do not count.",
        _table(f"Movement. {AS_ABOVE}", movement),
    ]


def _power(result: PretrainingResult) -> list[Block]:
    analysis = result.analysis
    (accuracy, *_), seeds = analysis.end, len(analysis.seeds)
    comparison, pairs = accuracy.comparison, counted(seeds, "pair")
    if comparison.needed is None or not comparison.deviation or not comparison.difference:
        return [
            f"{pairs} {'give' if seeds > 1 else 'gives'} no spread of the difference in "
            "accuracy to reckon with, so nobody can say how many would show one."
        ]
    deviation = _value(comparison.deviation, accuracy.measure)
    difference = _value(comparison.difference, accuracy.measure, sign=True)
    return [
        f"The difference in accuracy at the end is {difference} points and deviates by {deviation} "
        "from pair to pair. To show one of this size and spread in four of five tries takes "
        f"{comparison.needed:,} pairs; there were {seeds}. Size and spread are themselves "
        "estimates of these few pairs, so this is an order of magnitude. The tables say how many "
        "pairs every other figure takes."
    ]


def _plot(analysis: Analysis, name: str, x_label: str, y_label: str, caption: str) -> Plot:
    arms = analysis.curves[name]
    scale, limits = (100, (None, 100)) if "%" in y_label else (1, (0, None))
    band = " The bands are 95 % intervals of the mean." if len(analysis.seeds) > 1 else ""
    ends = "; ".join(
        f"{arm}, from {scale * line.mean[0]:.3g} to {scale * line.mean[-1]:.3g}"
        for arm, line in arms.items()
    )
    figure = plot_curves(arms, x_label, y_label, scale, limits)
    return Plot(figure, f"{y_label} over {x_label}: {ends}.", caption + band)

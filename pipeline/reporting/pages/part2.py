"""The report of part 2: whether pretraining on the digits of part 1 helps on MNIST.

All numbers come from the result.json of a run.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.table import Table as TerminalTable

from pipeline.analysis.pretraining import (
    NAMES,
    NORM,
    Analysis,
    MetricComparison,
    PretrainingResult,
)
from pipeline.analysis.stats import ACCURACY, LOSS, Estimate, Metric
from pipeline.evaluation.run_dir import read_result
from pipeline.recipes.presets import PART2_PUBLISHED
from pipeline.reporting.common import (
    ABSENT,
    counted,
    experiment_source,
    hardware,
    latest_run,
    minus,
    origins,
    percent,
    titled,
    training_source,
)
from pipeline.reporting.html import Block, Page, Plot, Section, Sources, Table
from pipeline.reporting.plots import plot_curves
from pipeline.runtime.files import read_json

QUESTION = (
    "A network is trained on MNIST from the weights of a network for the digits of part 1. Is it "
    "more accurate, or accurate sooner, than a network trained from random weights?"
)
DECIMALS = {ACCURACY.unit: 2, LOSS.unit: 4, NORM.unit: 3}  # 1 for other units
UNITS = {"points": "%", "nats": "nats", "% of its first weights' length": "%"}  # of values
HEADERS = ("", "pretrained", "from scratch", "difference", "95 % interval", "shown", "pairs needed")
LEGEND = (
    "Accuracy at the end, which answers the question, balanced accuracy (the mean recall of the "
    "classes) and loss. Means over seeds. The difference "
    "is pretrained minus from scratch, paired by seed, with its 95 % t interval; it is shown if "
    "the interval excludes zero. Pairs needed: the number of seeds that would show a difference of "
    "this size and spread with 80 % power."
)
AS_ABOVE = "Columns as in the first table."
DISTANCES = (
    "L2 distance between final and initial weights, in % of the norm of the initial weights, by "
    "group of layers: stem (near the input), body, head (near the output), and all together. "
    "Statistics of batch normalisation are excluded."
)
AXES = {  # of the curves
    "accuracy over epochs": ("epochs", "validation accuracy (%)"),
    "accuracy over seconds": ("training time (s)", "validation accuracy (%)"),
    "loss over epochs": ("epochs", "validation loss (nats)"),
    "training loss": ("epochs", "training loss (nats)"),
    "gradient norm": ("epochs", "gradient norm"),
}


def page_of(paths: Sequence[Path]) -> Page:
    """Return the HTML page of the latest of several runs of part 2; it names the others.

    Raises UserError for no path, and for a folder that is not the run directory of a finished run.
    """
    run, earlier = latest_run("part2", paths)
    result = read_result(run, PretrainingResult)
    analysis = result.analysis
    trainings = [training_source(run / name, name) for name in result.trainings]
    return Page(
        titled("Part 2: does pretraining on the digits of part 1 help on MNIST?", run),
        QUESTION,
        analysis.answer,
        origins([result.digits.provenance, result.mnist.provenance]),
        [
            Section("Experiment", _experiment(run, result)),
            Section("Final accuracy and loss", _final(result)),
            Section("Learning curves", _learning_curves(analysis)),
            Section("Time to accuracy", _times(analysis.times)),
            Section("Stability", _stability(analysis)),
            Section(
                "Distance from the initial weights",
                [DISTANCES, _table(f"Distances. {AS_ABOVE}", analysis.movement)],
            ),
            Section("Statistical power", _power(analysis)),
            Section("Sources", [*earlier, Sources([experiment_source(run), *trainings])]),
        ],
    )


def closing_table(run: Path) -> TerminalTable:
    """Return a table of all comparisons for a terminal."""
    analysis = read_result(run, PretrainingResult).analysis
    title = f"Part 2: {counted(len(analysis.seeds), 'pair')} of trainings, 95 % intervals"
    table = TerminalTable(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for header in ("pretrained", "scratch", "difference", "shown", "needs"):
        table.add_column(header, justify="right")
    for metric in _metrics(analysis):
        name, first, second, difference, _, shown, needed = _row(metric)
        if interval := metric.comparison.interval:  # symmetric, as t intervals are
            difference += f" ± {_value((interval.high - interval.low) / 2, metric.measure)}"
        table.add_row(name, first, second, difference, shown.partition(",")[0], needed)
    return table


def _metrics(analysis: Analysis) -> list[MetricComparison]:
    a = analysis
    return [*a.end, *a.progress, *a.times, *a.stability, *a.movement]


def _row(metric: MetricComparison) -> tuple[str, ...]:
    """Return the table cells of a metric under `HEADERS`."""
    comparison, measure = metric.comparison, metric.measure
    interval, difference, needed = comparison.interval, comparison.difference, comparison.needed
    unit = UNITS.get(measure.unit)
    shown = span = ABSENT
    if interval:
        span = " to ".join(_value(end, measure, sign=True) for end in (interval.low, interval.high))
        shown = "no"
    if comparison.shown and difference:
        shown = f"yes, {(measure.more if difference > 0 else measure.less).partition(' ')[0]}"

    def mean(found: Estimate | None, runs: Sequence[float | None]) -> str:
        if found is None:
            return ABSENT
        text = _value(found.mean, measure)
        return text if found.runs == len(runs) else f"{text} ({found.runs}/{len(runs)})"

    return (
        f"{metric.name} ({unit})" if unit else metric.name,
        mean(metric.pretrained_mean, metric.pretrained),
        mean(metric.scratch_mean, metric.scratch),
        ABSENT if difference is None else _value(difference, measure, sign=True),
        span,
        shown,
        ABSENT if needed is None else f"{needed:,}",
    )


def _value(value: float, measure: Metric, sign: bool = False) -> str:
    decimals = DECIMALS.get(measure.unit, 1)
    return minus(f"{value * measure.scale:{'+' if sign else ''},.{decimals}f}")


def _table(caption: str, metrics: Sequence[MetricComparison]) -> Table:
    return Table(caption, HEADERS, [_row(one) for one in metrics], wide=True)


def _sentences(metrics: Sequence[MetricComparison]) -> list[Block]:
    return [f"{one.name[0].upper()}{one.name[1:]}: {one.words}." for one in metrics]


def _experiment(run: Path, result: PretrainingResult) -> list[Block]:
    analysis, digits, mnist = result.analysis, result.digits, result.mnist
    first = result.trainings["digits"]
    trained = result.trainings[f"pretrained-{analysis.seeds[0]}"]
    accuracy = ""
    if first.accuracy is not None:
        accuracy = f", to an accuracy of {percent(first.accuracy)} on {digits.validated:,} others"
    return [
        f"One network ({first.network}) was trained on {digits.learned:,} digits of part 1 for "
        f"{first.epochs} epochs, in {first.seconds_training:,.0f} s{accuracy}. The pretrained "
        "networks started from all of its weights, the networks from scratch from random weights. "
        f"Each was trained on {mnist.learned:,} MNIST digits ({mnist.learn_from}) for "
        f"{analysis.epochs} epochs and validated after each epoch on {mnist.validated:,} "
        f"({mnist.validate_on}). The two trainings of a seed used the same images, augmentations "
        f"and order; seeds: {', '.join(map(str, analysis.seeds))}.",
        f"Hardware: {hardware(read_json(run / 'digits', 'environment.json'))}; "
        f"{trained.images_per_second:,.0f} training images per second. Times are training time "
        "only; they exclude start-up, validation, saving and pretraining.",
        "Intervals are over seeds: over order and augmentations, and over the random weights of "
        "the networks from scratch. All pretrained networks started from the same weights and all "
        "networks were validated on the same images. Other pretraining digits or other validation "
        "images can give other results.",
        "Accuracy at the end was chosen in advance to answer the question. The other "
        f"{len(_metrics(analysis)) - 1} comparisons are descriptive: without any true difference, "
        "one in twenty would be shown by chance.",
    ]


def _final(result: PretrainingResult) -> list[Block]:
    analysis = result.analysis
    columns = [
        [ABSENT if value is None else _value(value, metric.measure) for value in arm]
        for metric in analysis.end
        for arm in (metric.pretrained, metric.scratch)
    ]
    headers = [
        f"{metric.name.removesuffix(' at the end')}, {arm}"
        for metric in analysis.end
        for arm in NAMES
    ]
    pretrained, scratch = (percent(PART2_PUBLISHED[arm]) for arm in ("pretrained", "scratch"))
    return [
        *_sentences(analysis.end),
        _table(LEGEND, analysis.end),
        Table(
            "Accuracy (%), balanced accuracy (%) and loss (nats) at the end, by seed.",
            ["seed", *headers],
            [*zip(map(str, analysis.seeds), *columns, strict=True)],
            "r" * (1 + len(columns)),
        ),
        f"Published by others, on the original data: {pretrained} (pretrained) and {scratch} (from "
        "scratch) after 5 epochs of ResNet-18, one training each, which cannot show a difference.",
    ]


def _learning_curves(analysis: Analysis) -> list[Block]:
    plot = partial(_plot, analysis)
    return [
        "The area under accuracy is the mean height of its curve from the first to the last "
        "validation. The mean training loss is the mean over all steps.",
        *_sentences(analysis.progress),
        _table(f"Learning curves, summarised. {AS_ABOVE}", analysis.progress),
        plot("accuracy over epochs", "Accuracy on the validation images after each epoch."),
        plot("accuracy over seconds", "The same accuracy over training time."),
        plot("loss over epochs", "Loss on the validation images after each epoch."),
    ]


def _times(times: Sequence[MetricComparison]) -> list[Block]:
    partly_reached = [
        one for one in times if len({value is None for value in one.pretrained + one.scratch}) == 2
    ]
    return [
        "The first epoch after which accuracy was at or above each threshold, and its time. "
        "Accuracy is measured after each epoch and not interpolated. Means are over the trainings "
        "that reached the threshold.",
        _table(f"Epochs and seconds to each accuracy. {AS_ABOVE}", times),
        *_sentences(partly_reached),
    ]


def _stability(analysis: Analysis) -> list[Block]:
    def cell(value: float | None, scale: float = 1, decimals: int = 2) -> str:
        return ABSENT if value is None else f"{scale * value:.{decimals}f}"

    plot = partial(_plot, analysis)
    rows = []
    for one in analysis.spreads:
        deviations = (cell(arm, 100, 3) for arm in (one.pretrained, one.scratch))
        span = shown = ABSENT
        if one.interval:
            span = f"{one.interval.low:.2f} to {one.interval.high:.2f}"
            shown = "yes" if one.shown else "no"
        rows.append([str(one.epoch), *deviations, cell(one.ratio), span, shown])
    return [
        _table(
            "A spike is a rise of the loss from one step to the next that exceeds the median "
            f"step by five robust standard deviations. {AS_ABOVE}",
            analysis.stability,
        ),
        Table(
            "Standard deviation of accuracy over seeds (points) after each epoch, and the ratio of "
            "the two with its paired 95 % interval (Pitman and Morgan 1939); the ratio is shown if "
            "the interval excludes 1.",
            ["epoch", "pretrained", "from scratch", "ratio", "95 % interval", "shown"],
            rows,
            "rrrrrr",
        ),
        plot(
            "training loss", "Training loss on augmented images, averaged over consecutive steps."
        ),
        plot("gradient norm", "L2 norm of the gradient, averaged over the steps of each epoch."),
    ]


def _power(analysis: Analysis) -> list[Block]:
    accuracy = analysis.end[0]
    comparison, pairs = accuracy.comparison, counted(len(analysis.seeds), "pair")
    if comparison.needed is None or not comparison.deviation or not comparison.difference:
        return [
            f"{pairs} of trainings: no spread of the difference in accuracy could be estimated, so "
            "the number of pairs that would show one is unknown."
        ]
    deviation = _value(comparison.deviation, accuracy.measure)
    difference = _value(comparison.difference, accuracy.measure, sign=True)
    return [
        f"The difference in accuracy at the end is {difference} points, with a standard deviation "
        f"of {deviation} over {pairs}. Showing a difference of this size and spread with 80 % "
        f"power takes {comparison.needed:,} pairs. Size and spread are estimates from few pairs, "
        "so this number is an order of magnitude. The tables give it for every other metric.",
    ]


def _plot(analysis: Analysis, name: str, caption: str) -> Plot:
    arms, (x_label, y_label) = analysis.curves[name], AXES[name]
    scale, limits = (100, (None, 100)) if "%" in y_label else (1, (0, None))
    band = " Bands are 95 % intervals of the mean." if len(analysis.seeds) > 1 else ""
    ends = "; ".join(
        f"{arm}, from {scale * line.mean[0]:.3g} to {scale * line.mean[-1]:.3g}"
        for arm, line in arms.items()
    )
    figure = plot_curves(arms, x_label, y_label, scale, limits)
    return Plot(figure, f"Line plot: {y_label} over {x_label}: {ends}.", caption + band)

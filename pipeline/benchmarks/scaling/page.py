"""The content of the page of `bench scaling`."""

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from pipeline.benchmarks.plots import label_plainly
from pipeline.benchmarks.scaling import tables
from pipeline.benchmarks.scaling.model import MANY, WEAK_ROWS, predict
from pipeline.benchmarks.scaling.results import Model, Scaling
from pipeline.reporting.html import Block, Plot, Section, Table
from pipeline.reporting.plots import COLOURS, new_figure, styled

TITLE = "Scaling"
EFFICIENCY, DATA = "scaling-efficiency", "scaling-data"  # names of plots
MARKERS = "osD^"
QUESTION = "What do more processes and more data cost?"


def answer(result: Scaling) -> str:
    """Return the bars, in one line."""
    return "; ".join(tables.bar_lines(result)) or "Nothing was measured."


def sections(result: Scaling) -> list[Section]:
    """Return the tables of the page, and how they were measured."""
    found = []
    drawn = plots(result)
    if result.training:
        caption = f"Training on {result.cores} cores in all; fractions of the time of a step."
        rows = [*tables.training_rows(result)]
        found.append(
            Section("Processes", [Table(caption, tables.TRAINING, rows, "r" * 10, wide=True)])
        )
    if result.model is not None:
        plot = Plot(
            drawn[EFFICIENCY],
            "Efficiency of processes, measured and predicted",
            "Efficiency is the rate over that of as many processes that never wait for each other. "
            "Filled markers are measured, open ones on dashed lines are predicted by the model.",
        )
        found.append(Section("Prediction", [plot, *prediction_blocks(result)]))
    if result.data:
        rows = [*tables.data_rows(result)]
        plot = Plot(
            drawn[DATA],
            "Images per second of files with few and many samples",
            "Whole epochs. A dot is the median of the rounds, a line their range, a number the "
            "rate over that of the smallest file.",
        )
        found.append(
            Section("Data", [plot, Table("Loading whole epochs.", tables.DATA, rows, wide=True)])
        )
    return [*found, Section("How it was measured", method_lines(result))]


def plots(result: Scaling) -> dict[str, Figure]:
    """Return the plots by name: one of processes and one of data, where they were measured."""
    found = {}
    if result.model is not None:
        found[EFFICIENCY] = plot_efficiency(result, result.model)
    if result.data:
        found[DATA] = plot_data(result)
    return found


@styled
def plot_efficiency(result: Scaling, model: Model) -> Figure:
    """Plot the efficiency of two processes, measured, and of more, as the model predicts it."""
    figure = new_figure(6.4, 4.4)
    axes = figure.subplots()
    counts = (2, *MANY)
    y = [100 * predict(model, count, "weak").efficiency for count in counts]
    label = f"predicted: {WEAK_ROWS} rows each"
    axes.plot(counts, y, "o--", color=COLOURS[0], markerfacecolor="white", label=label)
    measured = [one for one in result.training if one.processes > 1]
    for one, colour, marker in zip(measured, COLOURS[1:], MARKERS, strict=False):
        label = f"measured: {one.rows} rows each"
        axes.plot([one.processes], [100 * one.efficiency], marker, color=colour, label=label)
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [f"{count}" for count in counts])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel="processes", ylabel="efficiency (%)", ylim=(0, 103))
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@styled
def plot_data(result: Scaling) -> Figure:
    """Plot the median rate of each file over its number of samples, with its range.

    A number at a dot is the rate in multiples of that of the smallest file of its kind.
    """
    figure = new_figure(6.4, 4)
    axes = figure.subplots()
    for number, kind in enumerate(dict.fromkeys(one.kind for one in result.data)):
        files = [one for one in result.data if one.kind == kind]
        rates = [one.rate for one in files]
        below = [one.rate - min(one.rates) for one in files]
        above = [max(one.rates) - one.rate for one in files]
        axes.errorbar(
            [one.samples for one in files],
            rates,
            (below, above),
            color=COLOURS[number],
            marker=MARKERS[number],
            capsize=3,
            label=kind,
        )
        for one in files[1:]:
            axes.annotate(
                f"{one.factor.value:.2f} ×",
                (one.samples, one.rate),
                (0, 7),
                textcoords="offset points",
                ha="center",
                fontsize=9,
            )
    axes.margins(x=0.08, y=0.1)
    axes.set(xscale="log", yscale="log", xlabel="samples", ylabel="images/s")
    label_plainly(axes.xaxis)
    label_plainly(axes.yaxis)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def prediction_blocks(result: Scaling) -> list[Block]:
    """Return the model's check and its predictions."""
    rows = [*tables.check_rows(result)], [*tables.prediction_rows(result)]
    return [
        "Nothing here was measured on more than two processes. The model has a time that each step "
        "takes, a time for each row, a ring's all-reduce with latency and bandwidth, and the wait "
        "for the slowest process. It holds for processes that have as many cores as each of the "
        "two, and are linked as they are.",
        Table("The model at rows that it was not fitted to.", tables.CHECKS, rows[0], "rrrr"),
        Table("Predicted, not measured.", tables.PREDICTIONS, rows[1], "rlrrr"),
    ]


def method_lines(result: Scaling) -> list[Block]:
    """Return what a reader must know about the figures."""
    return [
        f"One and two processes take turns for {result.rounds} rounds, each started by "
        f"accelerate's launcher on the same {result.cores} cores, and train part 1's network for "
        f"{result.steps} steps at each number of rows, over gloo. Ratios are geometric means over "
        "the rounds. Stalls are the wait for the process that is ready last, all-reduce is the "
        "time from then until the gradients are exchanged.",
        "Files repeat the encoded bytes of synthetic images, each at a place of its own. Each file "
        "is loaded by a process of its own, in turns; RssAnon is memory without mapped files.",
    ]

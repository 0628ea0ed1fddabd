"""Part 2's page: whether pretraining on the digits of part 1 helps on MNIST.

Every figure is one of a run's result.json.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table as TerminalTable

from pipeline.analysis.stats import Bands
from pipeline.errors import UserError
from pipeline.recipes.presets import PART2_PUBLISHED
from pipeline.reporting.html import Block, Page, Plot, Section, SourceRun, Sources, Table
from pipeline.reporting.plots import plot_curves
from pipeline.runtime.files import read_json

QUESTION = (
    "A network that has learned the digits of part 1 learns MNIST. Is it better for that, or there "
    "sooner, than one that begins from random weights?"
)
ABSENT = "–"
DIGITS = {"points": 2, "nats": 4, "in norm": 3}  # decimals by unit; 1 for others
UNITS = {"points": "%", "nats": "nats", "% of its first weights' length": "%"}  # of values
KINDS = ("end", "progress", "times", "stability", "movement")  # of figures that are compared
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
    runs = sorted({path.resolve(): path for path in paths}.items(), key=lambda one: one[0].name)
    if not runs:
        raise UserError("part 2: got no runs, expected at least one")
    *others, (_, run) = runs
    result, config = read_json(run, "result.json"), read_json(run, "config.json")
    if "analysis" not in result:
        raise UserError(f"{run}: got one training of a run of part 2, expected the run's folder")
    origins = {
        (origin["kind"], origin["source"]): origin
        for origin in (result[name]["provenance"] for name in ("digits", "mnist"))
    }
    not_shown = [f"Not shown: {path}, an earlier run." for _, path in others]
    return Page(
        "Part 2: does pretraining on our digits help on MNIST?",
        QUESTION,
        result["analysis"]["answer"],
        [*origins.values()],
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
                [*not_shown, Sources([*_sources(run, result, config)])],
            ),
        ],
    )


def closing_table(run: Path) -> TerminalTable:
    """Return all that was compared, for a terminal."""
    analysis = read_json(run, "result.json")["analysis"]
    seeds = len(analysis["seeds"])
    title = f"Part 2: {seeds} {'pairs' if seeds > 1 else 'pair'} of trainings, 95 % intervals"
    table = TerminalTable(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for header in ("pretrained", "scratch", "difference", "shown", "needs"):
        table.add_column(header, justify="right")
    for name in KINDS:
        for quantity in analysis[name]:
            what, first, second, difference, _, shown, needed = _row(quantity)
            if interval := quantity["comparison"]["interval"]:  # symmetric, as t intervals are
                half = (interval["high"] - interval["low"]) / 2
                difference += f" ± {_value(half, quantity['measure'])}"
            table.add_row(what, first, second, difference, shown.partition(",")[0], needed)
    return table


def _row(quantity: Mapping[str, Any]) -> list[str]:
    comparison, measure = quantity["comparison"], quantity["measure"]
    interval, difference = comparison["interval"], comparison["difference"]
    unit = UNITS.get(measure["unit"])
    shown = "no"
    if interval is None:
        shown = ABSENT
    elif comparison["shown"]:
        shown = f"yes, {measure['more' if difference > 0 else 'less'].partition(' ')[0]}"

    def mean(arm: str) -> str:
        found, runs = quantity[f"{arm}_mean"], quantity[arm]
        if found is None:
            return ABSENT
        text = _value(found["mean"], measure)
        return text if found["runs"] == len(runs) else f"{text} ({found['runs']}/{len(runs)})"

    return [
        f"{quantity['name']} ({unit})" if unit else quantity["name"],
        mean("pretrained"),
        mean("scratch"),
        ABSENT if difference is None else _value(difference, measure, sign=True),
        ABSENT if interval is None else _span(interval, measure),
        shown,
        ABSENT if comparison["needed"] is None else f"{comparison['needed']:,}",
    ]


def _value(value: float, measure: Mapping[str, Any], sign: bool = False) -> str:
    text = f"{value * measure['scale']:{'+' if sign else ''},.{DIGITS.get(measure['unit'], 1)}f}"
    return text.replace("-", "−")


def _span(interval: Mapping[str, float], measure: Mapping[str, Any]) -> str:
    low, high = (_value(interval[end], measure, sign=True) for end in ("low", "high"))
    return f"{low} to {high}"


def _table(caption: str, quantities: Sequence[Mapping[str, Any]]) -> Table:
    return Table(caption, HEADERS, [_row(one) for one in quantities], wide=True)


def _said(quantities: Sequence[Mapping[str, Any]]) -> list[Block]:
    return [f"{one['name'][0].upper()}{one['name'][1:]}: {one['words']}." for one in quantities]


def _compared(run: Path, result: Mapping[str, Any]) -> list[Block]:
    analysis, digits, mnist = result["analysis"], result["digits"], result["mnist"]
    first, trained = result["trainings"]["digits"], [*result["trainings"].values()][1]
    machine = read_json(run / "digits", "environment.json")
    precision = "float32" if machine["precision"] == "no" else machine["precision"]
    accuracy = (
        f", and then reads {_percent(first['accuracy'])} of {digits['validated']:,} others of them"
        if "accuracy" in first
        else ""
    )
    return [
        f"One network ({first['network']}) learned {digits['learned']:,} digits of part 1 for "
        f"{first['epochs']} epochs, in {first['seconds_training']:,.0f} s{accuracy}. From its "
        "weights, all of them, one arm began to learn MNIST; the other began from random weights. "
        f"Both learned {mnist['learned']:,} digits ({mnist['learn_from']}) for "
        f"{analysis['epochs']} epochs, and were validated after each on {mnist['validated']:,} "
        f"({mnist['validate_on']}). The trainings of a seed saw the same pictures, changed alike, "
        f"in the same order; seeds: {', '.join(map(str, analysis['seeds']))}.",
        f"Computed by {machine['processor']}, {machine['device']}, {machine['cores']} cores, "
        f"processes: {machine['processes']}, threads of each: {machine['threads']}, {precision}; "
        f"{trained['images_per_second']:,.0f} pictures per second. Seconds are of training alone, "
        "without start-up, validation and saving, and without the seconds of pretraining.",
        "Every interval is over seeds: over the random weights of one arm, and over order and "
        "changes for both. All pretrained networks began from the same weights and all were "
        "validated on the same pictures, so other digits of part 1, or other pictures to validate "
        "on, might say something else.",
        "The first figure, accuracy at the end, was chosen to answer the question before looking. "
        f"The other {_count(analysis) - 1} describe; where nothing differs at all, one in twenty "
        "of them would be shown to differ by chance.",
    ]


def _count(analysis: Mapping[str, Any]) -> int:
    return sum(len(analysis[kind]) for kind in KINDS)


def _end(result: Mapping[str, Any]) -> list[Block]:
    analysis = result["analysis"]
    columns = [(one, arm) for one in analysis["end"] for arm in ("pretrained", "scratch")]
    rows = [
        [str(seed), *(_value(one[arm][place], one["measure"]) for one, arm in columns)]
        for place, seed in enumerate(analysis["seeds"])
    ]
    published = (_percent(PART2_PUBLISHED[arm]) for arm in ("pretrained", "scratch"))
    return [
        *_said(analysis["end"]),
        _table(LEGEND, analysis["end"]),
        Table(
            "Every seed: accuracy (%) and loss (nats) at the end.",
            ["seed", "pretrained", "from scratch", "pretrained, loss", "from scratch, loss"],
            rows,
            "rrrrr",
        ),
        "Published, by others on the original data: {} against {} after 5 epochs of ResNet-18, "
        "from one training each, which shows nothing yet.".format(*published),
    ]


def _way(result: Mapping[str, Any]) -> list[Block]:
    analysis = result["analysis"]
    return [
        "The area under accuracy is the mean height of its curve, from the first evaluation to the "
        "last; the mean training loss is that of all steps, so the area under the loss's curve.",
        *_said(analysis["progress"]),
        _table(f"The learning curves in figures. {AS_ABOVE}", analysis["progress"]),
        _drawing(
            analysis,
            "accuracy over epochs",
            "epochs",
            "validation accuracy (%)",
            "Accuracy on pictures not learned from, after each epoch.",
            scale=100,
            limits=(None, 100),
        ),
        _drawing(
            analysis,
            "accuracy over seconds",
            "seconds of training",
            "validation accuracy (%)",
            "The same over the time that training took.",
            scale=100,
            limits=(None, 100),
        ),
        _drawing(
            analysis,
            "loss over epochs",
            "epochs",
            "validation loss (nats)",
            "Loss on pictures not learned from, after each epoch.",
            limits=(0, None),
        ),
    ]


def _times(result: Mapping[str, Any]) -> list[Block]:
    times = result["analysis"]["times"]
    sometimes = [
        one
        for one in times
        if len({value is None for value in one["pretrained"] + one["scratch"]}) == 2
    ]
    return [
        "When accuracy was first at or above a threshold. It was measured at the ends of epochs "
        "only, and nothing is interpolated; means are over the trainings that got there.",
        _table(f"Epochs and seconds to each threshold. {AS_ABOVE}", times),
        *_said(sometimes),
    ]


def _stability(result: Mapping[str, Any]) -> list[Block]:
    analysis = result["analysis"]
    rows = [
        [
            str(one["epoch"]),
            *(_points(one[arm]) for arm in ("pretrained", "scratch")),
            ABSENT if one["ratio"] is None else f"{one['ratio']:.2f}",
            ABSENT
            if one["interval"] is None
            else "{low:.2f} to {high:.2f}".format(**one["interval"]),
            ABSENT if one["interval"] is None else "yes" if one["shown"] else "no",
        ]
        for one in analysis["spreads"]
    ]
    return [
        _table(
            "A spike is a rise from one step to the next that exceeds the median step by five "
            f"robust deviations. {AS_ABOVE}",
            analysis["stability"],
        ),
        Table(
            "How much seeds differ: the standard deviation of accuracy over seeds (points) after "
            "each epoch, the ratio of the two with its paired 95 % interval (Pitman and Morgan "
            "1939), and whether that excludes 1.",
            ["epoch", "pretrained", "from scratch", "ratio", "95 % interval", "shown"],
            rows,
            "rrrrrr",
        ),
        _drawing(
            analysis,
            "training loss",
            "epochs",
            "training loss (nats)",
            "The loss of the steps, of changed pictures while learning, averaged over pieces of "
            "the course.",
            limits=(0, None),
        ),
        _drawing(
            analysis,
            "gradient norm",
            "epochs",
            "gradient norm",
            "The length of the gradient, averaged over the steps of each epoch.",
            limits=(0, None),
        ),
    ]


def _points(share: float | None) -> str:
    return ABSENT if share is None else f"{100 * share:.3f}"


def _movement(result: Mapping[str, Any]) -> list[Block]:
    movement = result["analysis"]["movement"]
    return [
        "How far the weights at the end are from those at the beginning (L2), in % of the length "
        "of these, by group of layers: stem (near the picture), body, head (near the classes), and "
        "all together. Statistics of normalisation do not count.",
        _table(f"Movement. {AS_ABOVE}", movement),
    ]


def _power(result: Mapping[str, Any]) -> list[Block]:
    analysis = result["analysis"]
    (accuracy, *_), seeds = analysis["end"], len(analysis["seeds"])
    comparison = accuracy["comparison"]
    if comparison["needed"] is None:
        return [
            f"{seeds} {'pairs give' if seeds > 1 else 'pair gives'} no spread of the difference in "
            "accuracy to reckon with, so nobody can say how many would show one."
        ]
    deviation = _value(comparison["deviation"], accuracy["measure"])
    difference = _value(comparison["difference"], accuracy["measure"], sign=True)
    return [
        f"The difference in accuracy at the end is {difference} points and deviates by {deviation} "
        "from pair to pair. To show one of this size and spread in four of five tries takes "
        f"{comparison['needed']:,} pairs; there were {seeds}. Size and spread are themselves "
        "estimates of these few pairs, so this is an order of magnitude. The tables say how many "
        "pairs every other figure takes."
    ]


def _drawing(
    analysis: Mapping[str, Any],
    name: str,
    x_label: str,
    y_label: str,
    caption: str,
    scale: float = 1,
    limits: tuple[float | None, float | None] = (None, None),
) -> Plot:
    arms = {arm: Bands(**drawn) for arm, drawn in analysis["curves"][name].items()}
    band = " The bands are 95 % intervals of the mean." if len(analysis["seeds"]) > 1 else ""
    ends = "; ".join(
        f"{arm}, from {scale * line.mean[0]:.3g} to {scale * line.mean[-1]:.3g}"
        for arm, line in arms.items()
    )
    figure = plot_curves(arms, x_label, y_label, scale, limits)
    return Plot(figure, f"{y_label} over {x_label}: {ends}.", caption + band)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _sources(
    run: Path, result: Mapping[str, Any], config: Mapping[str, Any]
) -> Iterator[SourceRun]:
    told = {n: v for n, v in config["options"].items() if v is not None and n != "resume"}
    options = " ".join(f"--{n.replace('_', '-')} {shlex.quote(str(v))}" for n, v in told.items())
    command = f"./launch.sh train part2 {options}"
    yield SourceRun(
        str(run), command, config["options"], "everything; in its folders, every training"
    )
    for name in result["trainings"]:
        own = read_json(run / name, "config.json")
        kept = {key: value for key, value in own.items() if key not in ("options", "classes")}
        environment = read_json(run / name, "environment.json")
        yield SourceRun(str(run / name), command, {**kept, "environment": environment}, name)

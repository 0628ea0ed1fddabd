"""The report of part 3: which label noise a dataset has, and the accuracy that it still allows.

All numbers come from the result.json of a run.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from rich.table import Table as TerminalTable

from pipeline.analysis.diagnosis import MatrixEntry
from pipeline.analysis.noise_robust import METHODS, LabelNoiseResult
from pipeline.evaluation.run_dir import read_result
from pipeline.recipes.arms import PART3_ARMS
from pipeline.reporting.common import (
    ABSENT,
    arm_and_seed,
    counted,
    experiment_source,
    latest_run,
    minus,
    origins,
    percent,
    titled,
    training_source,
    with_interval,
)
from pipeline.reporting.console import terminal_table
from pipeline.reporting.html import Block, Page, Plot, PngImage, Section, Sources, Table
from pipeline.reporting.plots import plot_bars, plot_heat_map

MAX_CLASSES = 20  # of a table with a column for each class
QUESTION = (
    "Networks trained on this dataset fail on images with correct labels. What is wrong with its "
    "labels, and can a network be trained on it nevertheless?"
)
LOSSES = {
    "naive": "cross-entropy",
    "backwards": "the same networks; the prediction is the least likely class",
    "forward": "cross-entropy through the diagnosed transition matrix",
    "complementary": "exp of the given label's probability (SCL-EXP)",
    "ceiling": "cross-entropy, on correct labels",
}
METHOD = (
    "The diagnosis uses no correct label. A network trained on the dataset predicts held-out "
    "images of it, which are grouped by predicted label. The given labels of the most confident "
    "part of each group are counted, as in confident learning (Northcutt et al. 2021) with anchor "
    "points (Patrini et al. 2017). Models of label noise are compared by how well they explain the "
    "counts, with a penalty for free parameters. Complementary labels, which name a class that the "
    "image does not show, are those of Ishida et al. (2017, 2019) and Yu et al. (2018)."
)
CLASS_DEPENDENCE = (
    "No kind with one rate for all classes explains some entries of the matrix. Hard images do not "
    "explain them either, for two reasons. The labels are as frequent among the images that the "
    "network finds least similar to the other class. And few predictions lie between the two "
    "classes, so the network distinguishes them. Both are tested at odds of 20 to 1."
)
LIMITS = (
    "Labels that are a fixed permutation of the class names look like clean labels, because images "
    "do not contain names. Only a reference model trained elsewhere, or a few correct labels, can "
    "tell the two apart."
)


def page_of(paths: Sequence[Path]) -> Page:
    """Return the HTML page of the latest of several runs of part 3; it names the others.

    Raises UserError for no path, and for a folder that is not the run directory of a finished run.
    """
    run, earlier = latest_run("part3", paths)
    result = read_result(run, LabelNoiseResult)
    test = f"--source {result.test.file} --split {result.test.split}"
    sources = [
        training_source(run / name, _label(name), f"./launch.sh evaluate {run / name} {test}")
        for name in result.trainings
    ]
    return Page(
        titled("Part 3: what is wrong with this dataset?", run),
        QUESTION,
        _answer(result),
        origins([result.provenance, result.test.provenance, result.clean.provenance]),
        [
            Section("Published trainings", _published(result)),
            Section("Inspection", _inspection(run, result)),
            Section("Diagnosis", _diagnosis(result)),
            Section("Training despite the noise", _recovery(result)),
            Section("Sources", [*earlier, Sources([experiment_source(run), *sources])]),
        ],
    )


def closing_tables(run: Path) -> list[TerminalTable]:
    """Return the page's tables for a terminal, without the columns that do not fit."""
    result = read_result(run, LabelNoiseResult)
    images = f"{result.test.pictures:,} images with correct labels"
    held_out = f"{result.diagnosis.labels:,} held-out labels"
    entries = [
        terminal_table(table, table.caption, tuple(table.headers))
        for table in _entries_table(result)
    ]
    return [
        terminal_table(
            _arms_table(result),
            f"Published trainings: {images}",
            ("training", "epochs", "accuracy", "balanced", "published"),
        ),
        terminal_table(
            _evidence_table(result),
            f"Log-likelihood of {held_out}, nats per label",
            ("kind", "rate", "log-likelihood", "below best"),
        ),
        *entries,
        terminal_table(
            _methods_table(result),
            f"Methods: {images}",
            ("method", "accuracy", "balanced"),
        ),
    ]


def _answer(result: LabelNoiseResult) -> str:
    estimates = result.recovery.estimates
    images = f"{result.test.pictures:,} images with correct labels"
    naive, ceiling = (percent(estimates[method].mean) for method in ("naive", "ceiling"))
    corrected = ""
    if forward := estimates.get("forward"):
        corrected = f"{with_interval(forward)} when trained on its labels with a corrected loss, "
    return (
        f"{result.diagnosis.verdict} Accuracy on {images}: {corrected}{naive} with the ordinary "
        f"loss, {ceiling} when trained on correct labels."
    )


def _published(result: LabelNoiseResult) -> list[Block]:
    chance = 1 / len(result.classes)
    below: list[Block] = []
    if any(arm.accuracy < chance / 2 for arm in result.arms.values()):
        below = [
            f"Chance level is {percent(chance)}. An accuracy far below chance is information: a "
            "network must recognise the classes to avoid them so reliably."
        ]
    return [
        "These trainings follow published ones, at learning rates of their own, on the dataset's "
        "training images. They are tested "
        f"on {result.test.pictures:,} images with correct labels. The published conclusion was "
        "that “labels seem noisy”.",
        _arms_table(result),
        *below,
        *(f"Skipped: {line}." for line in result.left_out),
    ]


def _arms_table(result: LabelNoiseResult) -> Table:
    rows = []
    for name, arm in result.arms.items():
        training, spec = result.trainings[name], PART3_ARMS[name]
        assert training.accuracy is not None
        rows.append(
            [
                spec.label,
                percent(arm.accuracy),
                _percent(arm.balanced_accuracy),
                percent(spec.published),
                f"{max(spec.preset.recipe.stages[0].rates):g}",
                f"{spec.published_rate:g}",
                percent(training.accuracy),
                _percent(training.balanced_accuracy),
                f"{training.loss:.3f}",
                training.network,
                f"{training.epochs}",
                f"{training.seconds_training:,.0f}",
                f"{training.images_per_second:,.0f}",
            ]
        )
    return Table(
        f"Accuracy on {result.test.pictures:,} images with correct labels, balanced accuracy (the "
        "mean over the classes), and the published accuracy (by others, on the original data); "
        "peak learning rates, ours and the published "
        "one; accuracy, balanced accuracy and loss (nats) on "
        f"{result.held_out:,} held-out images with their given labels; training time (s).",
        [
            *("training", "accuracy", "balanced", "published", "rate", "published rate"),
            *("on given labels", "balanced, given", "loss", "network", "epochs", "time (s)"),
            "images/s",
        ],
        rows,
        "lrrrrrrrrlrrr",
        wide=True,
    )


def _inspection(run: Path, result: LabelNoiseResult) -> list[Block]:
    classes, ranks = result.classes, result.look.ranks
    first, last = percent(ranks[0]), percent(ranks[-1])
    first_arm = PART3_ARMS[next(iter(result.arms))].label
    histogram = dict(zip(classes, result.look.histogram, strict=True))
    return [
        PngImage(
            run / "folders.png",
            "A grid of images, a row for each given label.",
            "Training images of the dataset, by given label.",
            wide=True,
        ),
        f"Predictions of the first training ({first_arm}) for {result.held_out:,} held-out images. "
        f"The given label is the most likely class for {first} of the images and the least likely "
        f"for {last}; chance level is {percent(1 / len(classes))} for both.",
        Plot(
            plot_bars(
                {"": ranks},
                [f"{place + 1}" for place in range(len(ranks))],
                "rank of the given label",
                "images (%)",
                scale=100,
            ),
            f"Bar chart: the label has the first rank for {first} and the last rank for {last}.",
            "Rank of the given label among the classes by predicted probability. Rank 1 is the "
            f"accuracy on given labels, rank {len(ranks)} the fraction whose label is the least "
            "likely class.",
        ),
        Plot(
            plot_bars(histogram, _short(classes), "predicted class", "images (%)", scale=100),
            "Bar charts: how often each class is predicted, for each given label.",
            f"Predicted classes of the images with each given label.{_numbers(classes)}",
            wide=True,
        ),
    ]


def _diagnosis(result: LabelNoiseResult) -> list[Block]:
    found = result.diagnosis
    return [
        f"{found.verdict} {found.assumption}",
        METHOD,
        _evidence_table(result),
        *([CLASS_DEPENDENCE] if found.entries else []),
        *_entries_table(result),
        Plot(
            _matrix(found.matrix, result.classes, found.entries),
            "Heat map: estimated probability of each given label for each true class.",
            "The estimated transition matrix: probability of each given label (columns) for each "
            "true class (rows, named by the assumption above)."
            f"{' Frames mark the entries that stand out.' if found.entries else ''}"
            f"{_numbers(result.classes)}",
        ),
        *_intervals_table(result),
        f"The mean entropy of its rows is {found.entropy:.2f} bits (maximum "
        f"{math.log2(len(result.classes)):.2f}). The mutual information of given label and true "
        f"class is {found.information:.2f} bits. Of the counted images, {percent(found.strays)} "
        "are estimated to be outliers (hard, or in another class's group). The diagnosis does not "
        f"explain {percent(found.misfit)} of the labels (total variation beyond chance).",
        *_reference_model(result),
        *_limits(result),
        LIMITS,
    ]


def _entries_table(result: LabelNoiseResult) -> list[Table]:
    """Return a table of the entries that stand out, if there are any."""
    rows = [
        [
            result.classes[entry.true],
            result.classes[entry.label],
            percent(entry.rate, 1),
            "{:.1f} to {:.1f} %".format(*(100 * limit for limit in entry.between)),
        ]
        for entry in result.diagnosis.entries
    ]
    caption = "Entries of the transition matrix that stand out, with 95 % intervals"
    headings = ["true class", "given label", "probability", "interval"]
    return [Table(caption, headings, rows, "llrr")] if rows else []


def _intervals_table(result: LabelNoiseResult) -> list[Block]:
    """Return the matrix with intervals; no table for results without them or many classes."""
    found, classes = result.diagnosis, result.classes
    if found.intervals is None or len(classes) > MAX_CLASSES:
        return []
    marked = {(entry.true, entry.label) for entry in found.entries}
    rows = [
        [name]
        + [
            f"{100 * value:.0f} ({100 * low:.0f} to {100 * high:.0f})"
            + " *" * ((true, label) in marked)
            for label, (value, (low, high)) in enumerate(zip(values, limits, strict=True))
        ]
        for true, (name, values, limits) in enumerate(
            zip(classes, found.matrix, found.intervals, strict=True)
        )
    ]
    stars = " Stars mark the entries that stand out." if marked else ""
    return [
        Table(
            "The estimated transition matrix in %, with 95 % intervals: given labels (columns) for "
            f"each true class (rows).{stars}",
            ["true class", *classes],
            rows,
            wide=True,
        )
    ]


def _limits(result: LabelNoiseResult) -> list[Block]:
    """Return the limits of detection by kind; nothing for results without them."""
    limits = result.diagnosis.limits
    if not limits:
        return []
    return [
        Table(
            "Limits of detection: noise at lower rates may be undetected. From these rates on, it "
            "is detected in 19 of 20 datasets like this one.",
            ["noise", "limit", "in the worst class", "fraction of"],
            [[one.noise, percent(one.rate, 1), percent(one.highest, 1), one.of] for one in limits],
            "lrrl",
        )
    ]


def _reference_model(result: LabelNoiseResult) -> list[Block]:
    reference = result.diagnosis.witness
    if reference is None:
        return ["There was no reference model. Class names follow from the assumption."]
    use = "The diagnosis uses its predictions."
    if not reference.heard:
        use = "It cannot name half of each group, so the diagnosis does not use its predictions."
    return [
        f"The reference model, {result.witness}, was trained on other labels and predicts the same "
        f"images. {use} It agrees with the diagnosis on {percent(reference.agreement)} of the "
        f"counted images. By its predictions alone, the labels are of the kind “{reference.kind}”, "
        f"{percent(reference.rate)} of them incorrect. The two matrices differ by "
        f"{reference.distance:.3f} (mean total variation of the rows, from 0 to 1).",
        Plot(
            _matrix(reference.matrix, result.classes),
            "Heat map: probability of each given label for each predicted class.",
            "The transition matrix by the reference model: probability of each given label "
            "(columns) for each class that it predicts (rows).",
        ),
    ]


def _evidence_table(result: LabelNoiseResult) -> Table:
    found = result.diagnosis
    return Table(
        f"Kinds of label noise as explanations of {found.labels:,} labels, the best first: "
        "marginal log-likelihood, and its distance to the best ± standard error, in nats per "
        "label. The rate is the most likely fraction of incorrect labels.",
        ["kind", "rate", "log-likelihood", "below best"],
        [
            [
                one.kind,
                ABSENT if one.rate is None else percent(one.rate),
                minus(f"{one.log_likelihood:.4f}"),
                f"{one.behind:.4f} ± {one.error:.4f}" if place else ABSENT,
            ]
            for place, one in enumerate(found.evidence)
        ],
        "lrrr",
        frozenset({0}),
    )


def _recovery(result: LabelNoiseResult) -> list[Block]:
    outcome = result.recovery
    seeds = len(outcome.accuracies["naive"])
    fewer = " Clean or random labels leave nothing to correct, so only two methods are compared."
    return [
        f"Each method is trained with {counted(seeds, 'seed')}. Equal seeds have equal initial "
        f"weights and order. The ceiling is trained on correct labels: "
        f"{result.clean.pictures:,} images of {result.clean.file}."
        + ("" if "forward" in outcome.estimates else fewer),
        _methods_table(result),
        *(f"Compared with {METHODS[pair.second]}: {pair.words}." for pair in outcome.pairs),
        "Intervals are over seeds, on one test set.",
    ]


def _methods_table(result: LabelNoiseResult) -> Table:
    outcome = result.recovery
    seeds = len(outcome.accuracies["naive"])
    rows = []
    for method, accuracies in outcome.accuracies.items():
        seconds = [
            training.seconds_training
            for name, training in result.trainings.items()
            if arm_and_seed(name)[0] == method
        ]
        rows.append(
            [
                METHODS[method],
                with_interval(outcome.estimates[method]),
                with_interval(balanced) if (balanced := outcome.balanced.get(method)) else ABSENT,
                ", ".join(f"{100 * accuracy:.2f}" for accuracy in accuracies),
                f"{sum(seconds) / len(seconds):,.0f}" if seconds else ABSENT,
                LOSSES[method],
            ]
        )
    return Table(
        f"Accuracy on {result.test.pictures:,} images with correct labels and balanced accuracy: "
        f"the means over {counted(seeds, 'seed')}, with 95 % intervals if there are several; "
        "accuracy (%) by seed; and mean training time (s).",
        ["method", "accuracy", "balanced", "by seed", "time (s)", "loss"],
        rows,
        "lrrrrl",
        frozenset(place for place, method in enumerate(outcome.accuracies) if method == "forward"),
        wide=True,
    )


def _percent(value: float | None) -> str:
    return ABSENT if value is None else percent(value)


def _label(training: str) -> str:
    """Return the label of a training, given the name of its folder."""
    arm, seed = arm_and_seed(training)
    return PART3_ARMS[arm].label if seed is None else f"{METHODS[arm]}, seed {seed}"


def _matrix(
    matrix: Sequence[Sequence[float]], classes: Sequence[str], marked: Iterable[MatrixEntry] = ()
) -> Figure:
    figure = plot_heat_map(matrix, classes, _short(classes), "true class", "given label")
    for entry in marked:
        corner = (entry.label - 0.5, entry.true - 0.5)
        figure.axes[0].add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="C3", linewidth=2))
    return figure


def _numbers(classes: Sequence[str]) -> str:
    """Return a sentence that explains the numbers in a figure, if they replace class names."""
    if _short(classes) is classes:
        return ""
    return f" Numbers stand for the classes in this order; {classes[0]} is 0."


def _short(classes: Sequence[str]) -> Sequence[str]:
    """Return names that fit under narrow columns: numbers instead of long class names."""
    if max(map(len, classes)) <= 2:
        return classes
    return [f"{number}" for number in range(len(classes))]

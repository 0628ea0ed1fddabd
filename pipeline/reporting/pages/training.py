"""The report of part 1: how accurately networks classify 62 classes of handwritten characters.

It covers one run directory or several. Runs that differ only in their seed form a group, whose
results are means over seeds. Groups are shown side by side and compared seed by seed.
"""

from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path

from pipeline.analysis.stats import (
    ACCURACY,
    compare,
    describe_difference,
    estimate,
    first_reached,
)
from pipeline.evaluation.metrics import EpochMetrics, accuracy_interval, reliability
from pipeline.evaluation.run_dir import FinishedRun
from pipeline.recipes.presets import PART1_PUBLISHED
from pipeline.reporting.common import (
    ABSENT,
    class_table,
    hardware,
    number,
    origins,
    percent,
    training_source,
    with_interval,
)
from pipeline.reporting.html import Block, Page, Plot, PngImage, Section, Sources, Table
from pipeline.reporting.plots import line, plot_curves
from pipeline.reporting.run_groups import RunGroup, group_runs
from pipeline.runtime.files import read_json

QUESTION = (
    "How accurately does a network classify single handwritten characters when it is trained from "
    "random weights, and how much training does it need?"
)
THRESHOLDS = (0.5, 0.8, 0.85, 0.88, 0.9)  # accuracies whose first epoch and time are reported
PAIRS = 15  # confused pairs of classes in the table
final_accuracy = attrgetter("scores.accuracy")


def page_of(paths: Sequence[Path]) -> Page:
    """Return the HTML page of runs of part 1. Raises UserError as `group_runs` does."""
    groups, repeated = group_runs(paths)
    best = groups[0]
    auxiliary = [
        {**origin, "source": f"{origin['source']} (auxiliary)"}
        for group in groups
        for run in group.runs.values()
        if (origin := run.result.auxiliary)
    ]
    repeats = "".join(
        f" Not included: {path}, because a later run has the same recipe and seed."
        for path in repeated
    )
    sources = [
        training_source(run.path, f"{group.name}, seed {seed}")
        for group in groups
        for seed, run in group.runs.items()
    ]
    sections = [
        Section("Training curves", [*_curves(groups), *_stages(groups)]),
        Section("Results", [_figures(groups), *(_comparison(best, other) for other in groups[1:])]),
        Section("Confusions", [_pairs(groups), *_image_files(groups, "confusion.png")]),
        Section("Largest losses", _image_files(groups, "worst.png")),
        Section("Results by class", [_classes(groups)]),
        Section("Calibration", _calibration(groups)),
        Section(
            "Sources",
            [
                "All results come from these runs; each command repeats its run. Curves and "
                f"tables use all runs of a group, image files the first run.{repeats}",
                Sources(sources),
            ],
        ),
    ]
    return Page(
        f"Part 1: {len(best.config.classes)} classes of handwritten characters",
        QUESTION,
        _answer(groups),
        origins([*(group.config.provenance for group in groups), *auxiliary]),
        [section for section in sections if section.blocks],
    )


def _answer(groups: Sequence[RunGroup]) -> str:
    best = groups[0]
    samples = best.samples
    if len(best.runs) > 1:
        accuracy = _mean(best.values(final_accuracy), percent, "95 % interval over seeds: ")
        seeds = f"over {len(best.runs)} seeds"
    else:
        low, high = accuracy_interval(best.scores.accuracy, samples)
        accuracy = (
            f"{percent(best.scores.accuracy)} (95 % interval, given the number of images: "
            f"{100 * low:.1f} to {100 * high:.1f} %)"
        )
        seeds = "in one run"
    others = f", the most accurate of {len(groups)} in this report," if len(groups) > 1 else ""
    case = best.scores.accuracy_ignoring_case
    ignoring = "" if case is None else f", {percent(case)} with case ignored"
    seconds = estimate([run.result.seconds_training for run in best.runs.values()]).mean
    return (
        f"Recipe {best.name}{others} classifies {accuracy} of {samples:,} validation images "
        f"correctly{ignoring}, after {number(seconds)} s of training, {seeds}. "
        f"{_second_sentence(groups)}"
    )


def _second_sentence(groups: Sequence[RunGroup]) -> str:
    if len(groups) > 1:
        return _comparison(groups[0], groups[1])
    scores = groups[0].scores
    pairs = ", ".join(f"{c.true} as {c.predicted} (×{c.count})" for c in scores.confusions[:3])
    confused = f"The most frequent errors are {pairs}" if pairs else "There are no errors"
    error = 100 * _calibration_error(groups[0])
    return f"{confused}. Confidence differs from accuracy by {error:.1f} points on average."


def _comparison(first: RunGroup, second: RunGroup) -> str:
    """Compare the accuracies of two groups on the seeds that both have, in a sentence."""
    both = f"{first.name} and {second.name}"
    if first.config.fingerprint != second.config.fingerprint:
        return f"{both} were not validated on the same images, so their results are not compared."
    shared = sorted(first.runs.keys() & second.runs.keys())
    if not shared:
        return f"{both} have no seed in common, so their difference is unknown."
    accuracies = ([final_accuracy(g.runs[seed]) for seed in shared] for g in (first, second))
    difference = describe_difference(compare(*accuracies), first.name, second.name, ACCURACY)
    return f"Compared with {second.name}, on the same images: {difference}."


def _curves(groups: Sequence[RunGroup]) -> list[Block]:
    seeds = max(len(group.runs) for group in groups)
    band = " Bands are 95 % intervals of the mean over seeds." if seeds > 1 else ""
    names = [group.name for group in groups]
    what = " and ".join(names) if len(names) < 4 else f"{len(names)} recipes"

    def epoch(one: EpochMetrics) -> float:
        return float(one.epoch + 1)

    def accuracy(x: Callable[[EpochMetrics], float], unit: str, caption: str) -> Plot:
        lines = {group.name: group.bands(x, "accuracy") for group in groups}
        figure = plot_curves(lines, unit, "validation accuracy (%)", 100, (0, 100))
        alt = f"Line plot: validation accuracy of {what} over {unit}."
        return Plot(figure, alt, f"Accuracy on the validation images, {caption}.{band}")

    time = "over training time, which excludes start-up, validation and saving"
    lines = {group.name: group.bands(epoch, "loss") for group in groups}
    caption = f"Validation loss.{band}"
    if len(groups) == 1:
        lines = {
            "training": groups[0].bands(epoch, "train_loss"),
            "validation": groups[0].bands(epoch, "loss"),
        }
        caption = (
            "Loss. The training loss is the recipe's own (with label smoothing, for example), on "
            f"augmented images, so the two curves can differ.{band}"
        )
    figure = plot_curves(lines, "epochs", "loss (nats)", limits=(0, None))
    return [
        accuracy(epoch, "epochs", "after each epoch"),
        accuracy(attrgetter("seconds"), "training time (s)", time),
        Plot(figure, f"Line plot: loss of {what} over epochs.", caption),
    ]


def _stages(groups: Sequence[RunGroup]) -> list[Block]:
    """Return a table of accuracy by stage for each recipe of several stages."""
    tables: list[Block] = []
    for group in groups:
        stages = group.config.recipe.stages
        if len(stages) == 1:
            continue
        # By run, then by stage; a stage's last epoch replaces those before it.
        at_end = [{e.stage: e.accuracy for e in run.history} for run in group.runs.values()]
        places = range(len(stages))
        columns = {
            "stage": [f"{place + 1}" for place in places],
            "size (pixels)": [f"{stage.size}" for stage in stages],
            "epochs": [f"{stage.epochs}" for stage in stages],
            "accuracy after the stage": [_mean([a[i] for a in at_end], percent) for i in places],
        }
        caption = f"{group.name}: accuracy after each stage"
        if group.config.options["recipe"] == "progressive":
            columns["published"] = [percent(one) for one in PART1_PUBLISHED[: len(stages)]]
            caption += "; published: reported by others, on the original data"
        rows = [*zip(*columns.values(), strict=True)]
        tables.append(Table(f"{caption}.", [*columns], rows, "r" * len(columns)))
    return tables


def _figures(groups: Sequence[RunGroup]) -> Table:
    def reached(threshold: float, x: str) -> Callable[[FinishedRun], float | None]:
        return lambda run: first_reached(
            [e.epoch + 1 if x == "epoch" else e.seconds for e in run.history],
            [e.accuracy or 0.0 for e in run.history],
            threshold,
        )

    rows: list[tuple[str, Callable[[FinishedRun], float | None], Callable[[float], str]]] = [
        ("accuracy", final_accuracy, percent),
        ("accuracy, case ignored", attrgetter("scores.accuracy_ignoring_case"), percent),
        ("loss (nats)", attrgetter("scores.loss"), lambda value: f"{value:.3f}"),
        ("calibration error (ECE)", attrgetter("scores.calibration_error"), percent),
        ("epochs", attrgetter("result.epochs"), number),
        ("training images, all epochs", attrgetter("result.images"), number),
        ("training time (s)", attrgetter("result.seconds_training"), number),
        ("training images per second", attrgetter("result.images_per_second"), number),
        ("training time spent waiting for data", attrgetter("result.loader_share"), percent),
    ]
    for threshold in THRESHOLDS:
        mark = f"{100 * threshold:.0f} %"
        rows.append((f"epochs to {mark} accuracy", reached(threshold, "epoch"), number))
        rows.append((f"time to {mark} accuracy (s)", reached(threshold, "seconds"), number))
    table = [[name, *(_mean(g.values(of), form) for g in groups)] for name, of, form in rows]
    table = [row for row in table if set(row[1:]) != {ABSENT}]
    table.append(
        ["hardware", *(hardware(read_json(g.first.path, "environment.json")) for g in groups)]
    )
    samples = groups[0].samples
    seeds = " and ".join(f"{len(group.runs)}" for group in groups)
    return Table(
        f"Results on {samples:,} validation images; runs: {seeds}. Several runs: the mean, with "
        "its 95 % interval over seeds in brackets. Times are training time only. A dash: never "
        "reached, or undefined.",
        ["", *(group.name for group in groups)],
        table,
        "l" * (len(groups) + 1),
        wide=len(groups) > 2,
    )


def _pairs(groups: Sequence[RunGroup]) -> Block:
    classes = list(groups[0].config.classes)
    rows = []
    for pair in groups[0].scores.confusions[:PAIRS]:
        true, predicted = classes.index(pair.true), classes.index(pair.predicted)
        counts = (group.scores.matrix[true] for group in groups)
        cells = [f"{row[predicted]} of {sum(row)}" for row in counts]
        rows.append([f"{pair.true} → {pair.predicted}", *cells])
    if not rows:
        return "No image was classified incorrectly."
    return Table(
        f"The most frequent confusions of {groups[0].name}: how many images of the true class were "
        "classified as the other, over all seeds.",
        ["true → predicted", *(group.name for group in groups)],
        rows,
    )


IMAGE_FILES = {
    "confusion.png": (
        "Confusion matrix: true classes as rows, predicted classes as columns.",
        "Confusion matrix: correct predictions in blue, incorrect ones in red.",
    ),
    "worst.png": (
        "A grid of images, each with its true and its predicted class.",
        "The validation images with the largest losses: true class, predicted class, and the "
        "probability of the predicted class.",
    ),
}


def _image_files(groups: Sequence[RunGroup], name: str) -> list[Block]:
    alt, caption = IMAGE_FILES[name]
    return [
        PngImage(
            group.first.path / name,
            f"{alt} {group.name}.",
            f"{group.name}, seed {min(group.runs)}. {caption}",
            wide=True,
        )
        for group in groups
        if (group.first.path / name).exists()
    ]


def _classes(groups: Sequence[RunGroup]) -> Table:
    if len(groups) == 1:
        return class_table(groups[0].scores)
    return Table(
        "F1 of each class, over all seeds.",
        ["class", "images", *(group.name for group in groups)],
        [
            [ones[0].name, str(ones[0].samples), *(percent(one.f1, 1) for one in ones)]
            for ones in zip(*(group.scores.per_class for group in groups), strict=True)
            if ones[0].samples
        ],
    )


def _calibration(groups: Sequence[RunGroup]) -> list[Block]:
    lines, sentences = {}, []
    for group in groups:
        bins = reliability(group.logits, group.labels)
        lines[group.name] = line(
            [100 * one.confidence for one in bins], [100 * one.accuracy for one in bins]
        )
        confidence = sum(one.samples * one.confidence for one in bins) / group.scores.samples
        sentences.append(
            f"{group.name}: mean confidence {percent(confidence)}, accuracy "
            f"{percent(group.scores.accuracy)}, expected calibration error "
            f"{100 * _calibration_error(group):.1f} points."
        )
    diagonal = (0, 25, 50, 75, 100)
    lines["perfect calibration"] = line(diagonal, diagonal)
    figure = plot_curves(lines, "confidence (%)", "accuracy (%)", limits=(0, 100))
    names = " and ".join(group.name for group in groups)
    caption = (
        "Accuracy over confidence (the probability of the predicted class), in bins of equal "
        "width. Below the diagonal, the network is overconfident."
    )
    return [
        " ".join(sentences),
        Plot(figure, f"Line plot: accuracy over confidence of {names}.", caption),
    ]


def _calibration_error(group: RunGroup) -> float:
    """Return the mean over a group's runs; pooled predictions would hide part of the error."""
    errors = [run.scores.calibration_error for run in group.runs.values() if run.scores]
    return estimate(errors).mean


def _mean(values: Sequence[float | None], form: Callable[[float], str], name: str = "") -> str:
    """Format a mean over seeds with its interval, and the number of seeds that have a value."""
    known = [value for value in values if value is not None]
    if not known:
        return ABSENT
    text = with_interval(estimate(known), form, name)
    return text if len(known) == len(values) else f"{text}, in {len(known)} of {len(values)}"

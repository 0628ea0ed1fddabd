"""Part 1's page: how well networks read 62 classes, from the folders of one run or of several.

Runs that differ in their seed alone make an arm, whose figures are means over seeds; arms stand
side by side, and are compared seed by seed.
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
from pipeline.reporting.common import (
    ABSENT,
    computer,
    number,
    origins,
    percent,
    training_source,
    with_interval,
)
from pipeline.reporting.html import Block, Page, Plot, PngImage, Section, Sources, Table
from pipeline.reporting.plots import line, plot_curves
from pipeline.reporting.run_groups import RunGroup, group_runs

QUESTION = (
    "How well does a network that starts from random weights read single hand-written characters, "
    "and after how much training?"
)
THRESHOLDS = (0.5, 0.8, 0.85, 0.88, 0.9)  # of accuracy, to see when each is reached
PAIRS = 15  # of classes that are taken for one another
# Accuracies after each stage of the published solution by progressive resizing.
PUBLISHED = (0.8871, 0.8992, 0.9073, 0.9032, 0.9194, 0.9194, 0.9153, 0.9274)


def page_of(paths: Sequence[Path]) -> Page:
    """Return the page of runs of part 1, from what their folders hold.

    Raises UserError as `gather` does.
    """
    arms, repeated = group_runs(paths)
    best = arms[0]
    besides = [
        {**origin, "source": f"{origin['source']}, learned from besides"}
        for arm in arms
        for run in arm.runs.values()
        if (origin := run.result.auxiliary)
    ]
    repeats = "".join(
        f" Not counted: {path}, which repeats a run with the same recipe and seed."
        for path in repeated
    )
    sections = [
        Section("How it learned", [*_curves(arms), *_stages(arms)]),
        Section("Figures", [_figures(arms), *_comparisons(arms)]),
        Section("What was taken for what", [_pairs(arms), *_pictures(arms, "confusion.png")]),
        Section("The largest losses", _pictures(arms, "worst.png")),
        Section("Class by class", [_classes(arms)]),
        Section("Calibration", _calibration(arms)),
        Section(
            "Where each figure came from",
            [
                "Every figure is of the runs below; each can be repeated by its command. Curves "
                f"and tables are of all of an arm's runs, pictures of the first.{repeats}",
                Sources(
                    [
                        training_source(run.path, f"{arm.name}, seed {seed}")
                        for arm in arms
                        for seed, run in arm.runs.items()
                    ]
                ),
            ],
        ),
    ]
    return Page(
        f"Part 1: {len(best.config.classes)} classes of hand-written characters",
        QUESTION,
        _answer(arms),
        origins([*(arm.config.provenance for arm in arms), *besides]),
        [section for section in sections if section.blocks],
    )


def _answer(arms: Sequence[RunGroup]) -> str:
    best = arms[0]
    accuracies = best.values(_accuracy)
    samples = best.samples
    seeds = f"over {len(best.runs)} seeds" if len(best.runs) > 1 else "in one run"
    others = f", the most accurate of {len(arms)} here," if len(arms) > 1 else ""
    case = best.scores.accuracy_ignoring_case
    ignoring = "" if case is None else f", {percent(case)} with case ignored"
    seconds = estimate([run.result.seconds_training for run in best.runs.values()]).mean
    return (
        f"Recipe {best.name}{others} reads {_accuracy_in_words(accuracies, samples)} of "
        f"{samples:,} pictures that it has not seen{ignoring}, after {number(seconds)} s of "
        f"training, {seeds}. {_second_sentence(arms)}"
    )


def _second_sentence(arms: Sequence[RunGroup]) -> str:
    if len(arms) > 1:
        return _comparison(arms[0], arms[1])
    scores = arms[0].scores
    mistakes = [f"{c.true} for {c.predicted} (×{c.count})" for c in scores.confusions[:3]]
    habit = f"It most often takes {', '.join(mistakes)}" if mistakes else "It makes no mistake"
    return (
        f"{habit}, and how sure it is differs from how often it is right by "
        f"{100 * _calibration_error(arms[0]):.1f} points on average."
    )


def _accuracy_in_words(values: Sequence[float | None], samples: int) -> str:
    if len(values) > 1:
        return _mean(values, percent, "95 % interval over seeds ")
    (accuracy,) = values
    assert accuracy is not None
    low, high = accuracy_interval(accuracy, samples)
    span = f"{100 * low:.1f} to {100 * high:.1f} %"
    return f"{percent(accuracy)} (95 % interval, by the number of pictures, {span})"


def _comparison(first: RunGroup, second: RunGroup) -> str:
    """Say what the seeds that two arms share show of their accuracies."""
    if first.config.fingerprint != second.config.fingerprint:
        return (
            f"{first.name} and {second.name} were not validated on the same pictures, so their "
            "figures say nothing of each other."
        )
    shared = sorted(first.runs.keys() & second.runs.keys())
    if not shared:
        return (
            f"{first.name} and {second.name} have no seed in common, so nothing is shown of their "
            "difference."
        )
    c = compare(*([_accuracy(arm.runs[seed]) for seed in shared] for arm in (first, second)))
    said = describe_difference(c, first.name, second.name, ACCURACY)
    return f"Against {second.name}, on the same pictures: {said}."


def _comparisons(arms: Sequence[RunGroup]) -> list[Block]:
    return [_comparison(arms[0], other) for other in arms[1:]]


def _curves(arms: Sequence[RunGroup]) -> list[Block]:
    seeds = max(len(arm.runs) for arm in arms)
    band = " The bands are 95 % intervals of the mean over seeds." if seeds > 1 else ""
    what = " and ".join(arm.name for arm in arms) if len(arms) < 4 else f"{len(arms)} recipes"

    def epoch(one: EpochMetrics) -> float:
        return float(one.epoch + 1)

    def seconds(one: EpochMetrics) -> float:
        return float(one.seconds)

    drawings: list[Block] = [
        Plot(
            plot_curves(
                {arm.name: arm.bands(x, "accuracy") for arm in arms},
                unit,
                "validation accuracy (%)",
                100,
                (0, 100),
            ),
            f"Validation accuracy of {what} over {unit}.",
            f"Accuracy on pictures not seen in training, {of}.{band}",
        )
        for x, unit, of in (
            (epoch, "epochs", "epoch by epoch"),
            (
                seconds,
                "seconds of training",
                "over the time that training took, without starting, validating and saving",
            ),
        )
    ]
    lines = {arm.name: arm.bands(epoch, "loss") for arm in arms}
    caption = f"Validation loss.{band}"
    if len(arms) == 1:
        lines = {
            "training": arms[0].bands(epoch, "train_loss"),
            "validation": arms[0].bands(epoch, "loss"),
        }
        caption = (
            "Loss. That of training is of changed pictures, by the recipe's own loss (with "
            f"smoothed labels, for example), so the two need not meet.{band}"
        )
    figure = plot_curves(lines, "epochs", "loss (nats)", limits=(0, None))
    return [*drawings, Plot(figure, f"Loss of {what} over epochs.", caption)]


def _stages(arms: Sequence[RunGroup]) -> list[Block]:
    """Return a table of what recipes of several stages came to, stage by stage."""
    tables: list[Block] = []
    for arm in arms:
        stages = arm.config.recipe.stages
        if len(stages) == 1:
            continue
        published = arm.config.options["recipe"] == "progressive"
        rows = []
        for place, stage in enumerate(stages):
            at_end = [
                [e.accuracy for e in run.history if e.stage == place][-1]
                for run in arm.runs.values()
            ]
            row = [f"{place + 1}", f"{stage.size}", f"{stage.epochs}"]
            row.append(_mean(at_end, percent))
            rows.append([*row, percent(PUBLISHED[place])] if published else row)
        headers = ["stage", "size (pixels)", "epochs", "accuracy after it"]
        tables.append(
            Table(
                f"{arm.name}, stage by stage"
                + ("; published: by others, on the original data." if published else "."),
                [*headers, "published"] if published else headers,
                rows,
                "r" * (len(headers) + published),
            )
        )
    return tables


def _figures(arms: Sequence[RunGroup]) -> Table:
    def reached(threshold: float, x: str) -> Callable[[FinishedRun], float | None]:
        return lambda run: first_reached(
            [e.epoch + 1 if x == "epoch" else e.seconds for e in run.history],
            [e.accuracy or 0.0 for e in run.history],
            threshold,
        )

    rows: list[tuple[str, Callable[[FinishedRun], float | None], Callable[[float], str]]] = [
        ("accuracy", attrgetter("scores.accuracy"), percent),
        ("accuracy, case ignored", attrgetter("scores.accuracy_ignoring_case"), percent),
        ("loss (nats)", attrgetter("scores.loss"), lambda value: f"{value:.3f}"),
        ("calibration error (ECE)", attrgetter("scores.calibration_error"), percent),
        ("epochs", attrgetter("result.epochs"), number),
        ("pictures learned from", attrgetter("result.images"), number),
        ("seconds of training", attrgetter("result.seconds_training"), number),
        ("pictures per second", attrgetter("result.images_per_second"), number),
        ("of training, waiting for the loader", attrgetter("result.loader_share"), percent),
    ]
    for threshold in THRESHOLDS:
        mark = f"{100 * threshold:.0f} %"
        rows.append((f"epochs to {mark}", reached(threshold, "epoch"), number))
        rows.append((f"seconds to {mark}", reached(threshold, "seconds"), number))
    table = [[name, *(_mean(arm.values(of), form) for arm in arms)] for name, of, form in rows]
    table = [row for row in table if set(row[1:]) != {ABSENT}]
    table.append(["computed by", *(computer(arm.environment) for arm in arms)])
    samples = arms[0].samples
    seeds = " and ".join(f"{len(arm.runs)}" for arm in arms)
    return Table(
        f"All figures, on {samples:,} validation pictures; runs: {seeds}. Of several, the mean "
        "and in brackets its 95 % interval over seeds. Times are of training alone; a dash: never "
        "reached, or nothing to say.",
        ["", *(arm.name for arm in arms)],
        table,
        "l" * (len(arms) + 1),
        wide=len(arms) > 2,
    )


def _pairs(arms: Sequence[RunGroup]) -> Block:
    classes = list(arms[0].config.classes)
    rows = []
    for pair in arms[0].scores.confusions[:PAIRS]:
        true, predicted = classes.index(pair.true), classes.index(pair.predicted)
        counts = (arm.scores.matrix[true] for arm in arms)
        cells = [f"{row[predicted]} of {sum(row)}" for row in counts]
        rows.append([f"{pair.true} → {pair.predicted}", *cells])
    if not rows:
        return "Nothing was taken for anything else."
    return Table(
        f"The pairs that {arms[0].name} confuses most: how many pictures of a class were taken for "
        "the other, all seeds together.",
        ["true → predicted", *(arm.name for arm in arms)],
        rows,
    )


PICTURES = {
    "confusion.png": (
        "A matrix of counts, a row for each true class and a column for each predicted one.",
        "Every class against every other: right answers in blue, wrong ones in red.",
    ),
    "worst.png": (
        "A grid of pictures, each with its true and its predicted class.",
        "The validation pictures with the largest losses: the true class, what it was taken for, "
        "and the probability given to that.",
    ),
}


def _pictures(arms: Sequence[RunGroup], name: str) -> list[Block]:
    alt, caption = PICTURES[name]
    return [
        PngImage(
            arm.first.path / name,
            f"{alt} {arm.name}.",
            f"{arm.name}, seed {min(arm.runs)}. {caption}",
            wide=True,
        )
        for arm in arms
        if (arm.first.path / name).exists()
    ]


def _classes(arms: Sequence[RunGroup]) -> Table:
    columns = [arm.scores.per_class for arm in arms]
    if len(arms) > 1:
        return Table(
            "F1 of every class, all seeds together.",
            ["class", "pictures", *(arm.name for arm in arms)],
            [
                [ones[0].name, str(ones[0].samples), *(percent(one.f1, 1) for one in ones)]
                for ones in zip(*columns, strict=True)
                if ones[0].samples
            ],
        )
    scores = arms[0].scores
    return Table(
        "Every class, all seeds together.",
        ["class", "pictures", "precision", "recall", "F1", "taken for"],
        [
            [
                one.name,
                str(one.samples),
                *(percent(share, 1) for share in (one.precision, one.recall, one.f1)),
                ", ".join(
                    f"{c.predicted} ×{c.count}" for c in scores.confusions if c.true == one.name
                ),
            ]
            for one in scores.per_class
            if one.samples
        ],
        "lrrrrl",
    )


def _calibration(arms: Sequence[RunGroup]) -> list[Block]:
    lines, sentences = {}, []
    for arm in arms:
        bins = reliability(arm.logits, arm.labels)
        lines[arm.name] = line(
            [100 * one.confidence for one in bins], [100 * one.accuracy for one in bins]
        )
        sure = sum(one.samples * one.confidence for one in bins) / arm.scores.samples
        sentences.append(
            f"{arm.name} is {percent(sure)} sure on average and right in "
            f"{percent(arm.scores.accuracy)} of the cases; the expected calibration error is "
            f"{100 * _calibration_error(arm):.1f} points."
        )
    diagonal = (0, 25, 50, 75, 100)
    lines["as it should be"] = line(diagonal, diagonal)
    figure = plot_curves(
        lines, "probability of the answer (%)", "right answers (%)", limits=(0, 100)
    )
    names = " and ".join(arm.name for arm in arms)
    caption = (
        "How often answers are right that are so sure, in bins of equal width. Below the diagonal "
        "it is surer than it should be."
    )
    return [" ".join(sentences), Plot(figure, f"Accuracy over confidence of {names}.", caption)]


def _accuracy(run: FinishedRun) -> float | None:
    return None if run.scores is None else run.scores.accuracy


def _calibration_error(arm: RunGroup) -> float:
    """Return the mean over an arm's runs: all their answers together would hide some of it."""
    return estimate([run.scores.calibration_error for run in arm.runs.values() if run.scores]).mean


def _mean(values: Sequence[float | None], form: Callable[[float], str], name: str = "") -> str:
    """Write a mean over seeds, with its interval if it has one, and how many seeds lack it."""
    there = [value for value in values if value is not None]
    if not there:
        return ABSENT
    text = with_interval(estimate(there), form, name)
    return text if len(there) == len(values) else f"{text}, in {len(there)} of {len(values)}"

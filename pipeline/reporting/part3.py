"""Part 3's page: what is wrong with a set's labels, and what can be learned from it all the same.

Every figure is one of a run's result.json.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from rich.table import Table as TerminalTable

from pipeline.analysis.noise_robust import METHODS, LabelNoiseResult
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
    training_source,
    with_interval,
)
from pipeline.reporting.console import terminal_table
from pipeline.reporting.html import Block, Page, Plot, PngImage, Section, SourceRun, Sources, Table
from pipeline.reporting.plots import plot_bars, plot_heat_map
from pipeline.runtime.files import read_as

QUESTION = (
    "Networks that learn from this set fail on pictures with right labels. What is wrong with it, "
    "and can it be learned from all the same?"
)
LOSSES = {
    "naive": "cross-entropy",
    "backwards": "the same networks; the answer is the least likely class",
    "forward": "cross-entropy through the verdict's transition matrix",
    "complementary": "probability of the given label, which the picture is not (SCL-EXP)",
    "ceiling": "cross-entropy, on right labels",
}
METHOD = (
    "No right label was used: a network learned from the set, answered pictures of the set that it "
    "had not seen, and these were grouped by its answers. The given labels of the most informative "
    "answers of each group were counted, as in confident learning (Northcutt et al. 2021) with "
    "anchor points (Patrini et al. 2017), and kinds of mislabelling compete to explain the counts; "
    "each pays for its free parameters. Complementary labels, which say what a picture is not, are "
    "those of Ishida et al. (2017, 2019) and Yu et al. (2018)."
)
UNKNOWABLE = (
    "What such labels cannot tell: a set whose names are exchanged throughout, by a fixed "
    "permutation, looks the same as a clean one, because nothing in pictures says what they are "
    "called. A witness that learned the names elsewhere can tell them apart, or a few right labels."
)


def page_of(paths: Sequence[Path]) -> Page:
    """Return the page of a run of part 3; of several, the latest is shown and the others named.

    Raises UserError for no folder, and for one that holds no finished run.
    """
    run, earlier = latest_run("part3", paths)
    result = read_as(run / "result.json", LabelNoiseResult)
    return Page(
        "Part 3: what is wrong with this set?",
        QUESTION,
        _answer(result),
        origins([result.provenance, result.test.provenance, result.clean.provenance]),
        [
            Section("As published", _published(result)),
            Section("See", _seen(run, result)),
            Section("Diagnose", _diagnosed(result)),
            Section("Recover", _recovered(result)),
            Section("Where each figure came from", [*earlier, Sources(_sources(run, result))]),
        ],
    )


def closing_tables(run: Path) -> list[TerminalTable]:
    """Return the page's tables for a terminal, without what is too wide for one."""
    result = read_as(run / "result.json", LabelNoiseResult)
    images = f"{result.test.pictures:,} pictures with right labels"
    held_out = f"{result.diagnosis.labels:,} held-out labels"
    return [
        terminal_table(
            _arms_table(result),
            f"As published: {images}",
            ("training", "epochs", "right", "published"),
        ),
        terminal_table(
            _evidence_table(result),
            f"Evidence of {held_out}, nats each",
            ("kind", "rate", "log-likelihood", "behind"),
        ),
        terminal_table(_ways_table(result), f"Recovered: {images}", ("way", "accuracy", "by seed")),
    ]


def _answer(result: LabelNoiseResult) -> str:
    estimates = result.recovery.estimates
    images = f"{result.test.pictures:,} pictures with right labels"
    naive, ceiling = (percent(estimates[way].mean) for way in ("naive", "ceiling"))
    others = f"Trained as if all were well, it is right on {naive}; on right labels, {ceiling}."
    verdict = result.diagnosis.verdict
    if "forward" not in estimates:
        return (
            f"{verdict} Of {images}, a network that is trained as if all were well is right on "
            f"{naive}, one that is trained on right labels on {ceiling}."
        )
    return (
        f"{verdict} From these labels alone, with the loss corrected for that, a network comes to "
        f"be right on {with_interval(estimates['forward'])} of {images}. {others}"
    )


def _published(result: LabelNoiseResult) -> list[Block]:
    chance = 1 / len(result.classes)
    low = any(arm.accuracy < chance / 2 for arm in result.arms.values())
    below = (
        [
            f"Who guesses is right in {percent(chance)} of the cases. Accuracy far below that is "
            "information, not noise: to be wrong so reliably, a network must know what it sees."
        ]
        if low
        else []
    )
    return [
        "The trainings that were published for this question, on the set's training pictures, "
        f"tested on {result.test.pictures:,} pictures with right labels. The published "
        "conclusion was that “labels seem noisy”.",
        _arms_table(result),
        *below,
        *(f"Left out: {line}." for line in result.left_out),
    ]


def _arms_table(result: LabelNoiseResult) -> Table:
    rows = []
    for name, arm in result.arms.items():
        training = result.trainings[name]
        assert training.accuracy is not None
        rows.append(
            [
                PART3_ARMS[name].label,
                percent(arm.accuracy),
                percent(PART3_ARMS[name].published),
                percent(training.accuracy),
                f"{training.loss:.3f}",
                training.network,
                f"{training.epochs}",
                f"{training.seconds_training:,.0f}",
                f"{training.images_per_second:,.0f}",
            ]
        )
    return Table(
        f"Accuracy on {result.test.pictures:,} pictures with right labels, beside the "
        "published one (by others, on the original data); accuracy and loss (nats) on "
        f"{result.held_out:,} held-out pictures by their given labels; seconds of training.",
        [
            *("training", "right", "published", "as given", "loss"),
            *("network", "epochs", "seconds", "pictures/s"),
        ],
        rows,
        "lrrrrlrrr",
        wide=True,
    )


def _seen(run: Path, result: LabelNoiseResult) -> list[Block]:
    look, classes = result.look, result.classes
    ranks = look.ranks
    first, last = percent(ranks[0]), percent(ranks[-1])
    first_arm, numbers = PART3_ARMS[next(iter(result.arms))].label, _numbers(result)
    return [
        PngImage(
            run / "folders.png",
            "A row of pictures for each label that they were given.",
            "The set's own training pictures, by the label that they were given.",
            wide=True,
        ),
        f"What {first_arm} answers to {result.held_out:,} held-out pictures of the set. The "
        f"given label is its first choice in {first} of the cases, its last in {last}; by chance "
        f"either would be {percent(1 / len(classes))}.",
        Plot(
            plot_bars(
                {"": [100 * share for share in ranks]},
                [f"{place + 1}" for place in range(len(ranks))],
                "the given label is which choice",
                "pictures (%)",
            ),
            f"Bars: the label is the first choice in {first} and the last in {last}.",
            "Where the given label stands among the network's choices: 1 is accuracy by the given "
            f"labels, {len(ranks)} is that of reading the answers backwards.",
        ),
        Plot(
            plot_bars(
                {
                    name: [100 * share for share in row]
                    for name, row in zip(classes, look.histogram, strict=True)
                },
                _short(classes),
                "predicted class",
                "pictures (%)",
            ),
            "Bars for each folder: how often each class is predicted in it.",
            f"What is predicted in each folder: a panel for each given label.{numbers}",
            wide=True,
        ),
    ]


def _diagnosed(result: LabelNoiseResult) -> list[Block]:
    found = result.diagnosis
    most = math.log2(len(result.classes))
    strays, misfit = percent(found.strays), percent(found.misfit)
    return [
        f"{found.verdict} {found.assumption}",
        METHOD,
        _evidence_table(result),
        Plot(
            _matrix(found.matrix, result.classes),
            "A heat map of the estimated chances of each given label for each class.",
            "The estimated transition matrix: how likely each given label is (columns), by what "
            f"the picture is (rows, named by the assumption above).{_numbers(result)}",
        ),
        f"A row of it has an entropy of {found.entropy:.2f} bits on average, of {most:.2f} at "
        f"most; a label tells {found.information:.2f} bits about the class. Of the counted "
        f"pictures {strays} are reckoned hard or in the wrong group, and {misfit} of the labels "
        "are where the verdict does not expect them, beyond chance.",
        *_testimony(result),
        UNKNOWABLE,
    ]


def _testimony(result: LabelNoiseResult) -> list[Block]:
    witness = result.diagnosis.witness
    if witness is None:
        return ["No witness was heard: there was none. The names are the assumption's."]
    heard = (
        "has a part in the verdict"
        if witness.heard
        else "cannot name half of each group, so that it has no part in the verdict"
    )
    return [
        f"The witness, {result.witness}, learned the classes elsewhere and was asked about the "
        f"same pictures; it {heard}. It gives {percent(witness.agreement)} of the counted "
        "pictures the name that the diagnosis gives them. By its names alone the labels are "
        f"{witness.kind}, {percent(witness.rate)} of them wrong; the two matrices are "
        f"{witness.distance:.3f} apart (mean total variation of the rows, from 0 to 1).",
        Plot(
            _matrix(witness.matrix, result.classes),
            "A heat map of the chances of each given label for each class that the witness names.",
            "The second estimate: how likely each given label is (columns), by what the witness "
            "calls the picture (rows).",
        ),
    ]


def _evidence_table(result: LabelNoiseResult) -> Table:
    found = result.diagnosis
    return Table(
        f"The evidence of {found.labels:,} labels for each kind, the best first: the marginal "
        "log-likelihood and how far it is behind the best, ± the difference's standard error, in "
        "nats per label; the rate is the likeliest share of wrong labels.",
        ["kind", "rate", "log-likelihood", "behind"],
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


def _recovered(result: LabelNoiseResult) -> list[Block]:
    outcome = result.recovery
    seeds = len(outcome.accuracies["naive"])
    introduction = (
        f"Each way trained anew, {counted(seeds, 'time')}: equal seeds have equal first weights "
        f"and order. Right labels are those of {result.clean.file}, "
        f"{result.clean.pictures:,} pictures, to show how much is lost."
    )
    if "forward" not in outcome.estimates:
        introduction += (
            " There is nothing to correct for: labels that are clean, or say nothing, leave only "
            "these two."
        )
    return [
        introduction,
        _ways_table(result),
        *(f"Against {METHODS[pair.second]}: {pair.words}." for pair in outcome.pairs),
        "Intervals are over seeds, on one test set: another one would differ a little for all.",
    ]


def _ways_table(result: LabelNoiseResult) -> Table:
    outcome = result.recovery
    seeds = len(outcome.accuracies["naive"])
    rows = []
    for way, accuracies in outcome.accuracies.items():
        seconds = [
            training.seconds_training
            for name, training in result.trainings.items()
            if arm_and_seed(name)[0] == way
        ]
        rows.append(
            [
                METHODS[way],
                with_interval(outcome.estimates[way]),
                ", ".join(f"{100 * share:.2f}" for share in accuracies),
                f"{sum(seconds) / len(seconds):,.0f}" if seconds else ABSENT,
                LOSSES[way],
            ]
        )
    return Table(
        f"Accuracy on {result.test.pictures:,} pictures with right labels: the mean over "
        f"{counted(seeds, 'seed')}, with its 95 % interval where there are several; every seed's "
        "(%); and seconds of a training.",
        ["way", "accuracy", "by seed", "seconds", "learned by"],
        rows,
        "lrrrl",
        frozenset(place for place, way in enumerate(outcome.accuracies) if way == "forward"),
        wide=True,
    )


def _sources(run: Path, result: LabelNoiseResult) -> list[SourceRun]:
    test = f"--source {result.test.file} --split {result.test.split}"
    return [
        experiment_source(run),
        *(
            training_source(run / name, _label(name), f"./launch.sh evaluate {run / name} {test}")
            for name in result.trainings
        ),
    ]


def _label(training: str) -> str:
    """Return the words for a training, given the name of its folder."""
    arm, seed = arm_and_seed(training)
    return PART3_ARMS[arm].label if seed is None else f"{METHODS[arm]}, seed {seed}"


def _matrix(matrix: Sequence[Sequence[float]], classes: Sequence[str]) -> Figure:
    return plot_heat_map(matrix, classes, _short(classes), "true class", "given label")


def _numbers(result: LabelNoiseResult) -> str:
    """Say what numbers in a figure are, where they stand for names."""
    classes = result.classes
    if _short(classes) is classes:
        return ""
    return f" The numbers are those of the classes in this order, {classes[0]} being 0."


def _short(classes: Sequence[str]) -> Sequence[str]:
    """Return names that fit under narrow columns: numbers for words."""
    if max(map(len, classes)) <= 2:
        return classes
    return [f"{number}" for number in range(len(classes))]

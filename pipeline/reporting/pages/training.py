"""The report of trainings of one network on one dataset: part 1, a published system, or your own.

It covers one run directory or several. Runs that differ only in their seed form a group, whose
results are means over seeds. Groups are shown side by side and compared seed by seed.
"""

from collections.abc import Sequence
from pathlib import Path

from pipeline.analysis.stats import ACCURACY, compare, describe_difference, estimate
from pipeline.evaluation.metrics import accuracy_interval
from pipeline.evaluation.run_config import RunConfig
from pipeline.recipes.systems import SYSTEMS
from pipeline.reporting.common import number, origins, percent, training_source
from pipeline.reporting.html import Block, Page, PngImage, Section, Sources
from pipeline.reporting.pages.emnist import emnist_sections
from pipeline.reporting.pages.training_plots import calibration_blocks, curve_blocks
from pipeline.reporting.pages.training_tables import (
    calibration_error,
    class_results,
    figures_table,
    final_accuracy,
    layer_tables,
    mean,
    pairs_table,
    published_tables,
    stage_tables,
)
from pipeline.reporting.run_groups import RunGroup, group_runs

QUESTION = (
    "How accurately does a network classify the images of {name}, and how much training does it "
    "need?"
)


def page_of(paths: Sequence[Path]) -> Page:
    """Return the HTML page of runs of one job. Raises UserError as `group_runs` does."""
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
        Section("Training curves", [*curve_blocks(groups), *stage_tables(groups)]),
        Section(
            "Results", [figures_table(groups), *(_comparison(best, other) for other in groups[1:])]
        ),
        Section("Published figures", published_tables(groups)),
        Section(
            "Confusions",
            [
                pairs_table(groups),
                *_image_files(groups, "confusion.png"),
                *_image_files(groups, "test-confusion.png"),
            ],
        ),
        *(emnist_sections(groups) if best.config.job == "emnist" else []),
        Section("Largest losses", _image_files(groups, "worst.png")),
        Section("A training batch", _image_files(groups, "batch.png")),
        Section("Results by class", [class_results(groups)]),
        Section("Calibration", calibration_blocks(groups)),
        Section("Network", layer_tables(groups)),
        Section(
            "Sources",
            [
                "All results come from these runs; each command repeats its run. Curves and "
                f"tables use all runs of a group, image files the first run.{repeats}",
                Sources(sources),
            ],
        ),
    ]
    title, question = _heading(best.config)
    trial = any(group.config.is_trial for group in groups)
    return Page(
        f"Trial: {title}" if trial else title,
        question,
        " ".join([_answer(groups), *_trials(groups)]),
        origins([*(group.config.provenance for group in groups), *auxiliary]),
        [section for section in sections if section.blocks],
    )


def _heading(config: RunConfig) -> tuple[str, str]:
    """Return the title and the question of the page of a job."""
    classes, name = len(config.classes), Path(config.data).stem
    if config.job not in SYSTEMS:
        return f"{name}: {classes} classes", QUESTION.format(name=name)
    system = SYSTEMS[config.job]
    if config.job == "part1":  # also of other characters than the 62
        return f"Part 1: {classes} classes of handwritten characters", system.question
    return system.title, system.question


def _trials(groups: Sequence[RunGroup]) -> list[str]:
    """Return a sentence about each group that was trained on some of the images."""
    sentences = []
    for group in groups:
        recipe = group.config.recipe
        if group.config.is_trial:
            trained = "all training images"
            if recipe.train_images is not None:
                trained = f"{recipe.train_images:,} of the training images"
            sentences.append(
                f"{group.name} is a trial: {trained}, {number(group.samples)} validation images, "
                f"{group.first.result.epochs} of the recipe's epochs."
            )
        elif recipe.train_images is not None:
            sentences.append(
                f"{group.name} was trained on {recipe.train_images:,} of the training images."
            )
    return sentences


def _answer(groups: Sequence[RunGroup]) -> str:
    best = groups[0]
    samples = best.samples
    if len(best.runs) > 1:
        accuracy = mean(best.values(final_accuracy), percent, "95 % interval over seeds: ")
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
        f"{_tested(best)}{_second_sentence(groups)}"
    )


def _tested(group: RunGroup) -> str:
    tests = [run.result.test for run in group.runs.values() if run.result.test is not None]
    if not tests:
        return ""
    accuracy = mean([test.accuracy for test in tests], percent)
    return f"On {tests[0].samples:,} test images, which decided nothing, it is {accuracy}. "


def _second_sentence(groups: Sequence[RunGroup]) -> str:
    if len(groups) > 1:
        return _comparison(groups[0], groups[1])
    scores = groups[0].scores
    pairs = ", ".join(f"{c.true} as {c.predicted} (×{c.count})" for c in scores.confusions[:3])
    confused = f"The most frequent errors are {pairs}" if pairs else "There are no errors"
    error = 100 * calibration_error(groups[0])
    return f"{confused}. Confidence differs from accuracy by {error:.1f} points on average."


def _comparison(first: RunGroup, second: RunGroup) -> str:
    """Compare the accuracies of two groups on the seeds that both have, in a sentence."""
    both = f"{first.name} and {second.name}"
    if first.validated_on != second.validated_on:
        return f"{both} were not validated on the same images, so their results are not compared."
    shared = sorted(first.runs.keys() & second.runs.keys())
    if not shared:
        return f"{both} have no seed in common, so their difference is unknown."
    accuracies = ([final_accuracy(g.runs[seed]) for seed in shared] for g in (first, second))
    difference = describe_difference(compare(*accuracies), first.name, second.name, ACCURACY)
    return f"Compared with {second.name}, on the same images: {difference}."


IMAGE_FILES = {
    "confusion.png": (
        "Confusion matrix: true classes as rows, predicted classes as columns.",
        "Confusion matrix: correct predictions in blue, incorrect ones in red.",
    ),
    "test-confusion.png": (
        "Confusion matrix of the test images: true classes as rows, predicted classes as columns.",
        "Confusion matrix of the test images: correct predictions in blue, incorrect ones in red.",
    ),
    "worst.png": (
        "A grid of images, each with its true and its predicted class.",
        "The validation images with the largest losses: true class, predicted class, and the "
        "probability of the predicted class.",
    ),
    "batch.png": (
        "A grid of augmented training images, each with its class.",
        "Images of the first training batch as the network saw them: augmented, and with the "
        "colours of the dataset where they were normalised.",
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

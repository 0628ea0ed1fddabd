"""Plots of the report of trainings: curves of accuracy, loss and learning rate; calibration."""

from collections.abc import Callable, Sequence
from operator import attrgetter

import numpy as np

from pipeline.analysis.stats import Bands
from pipeline.evaluation.metrics import EpochMetrics, reliability
from pipeline.evaluation.run_dir import FinishedRun
from pipeline.reporting.common import percent
from pipeline.reporting.html import Block, Plot
from pipeline.reporting.pages.training_tables import calibration_error
from pipeline.reporting.plots import line, plot_curves
from pipeline.reporting.run_groups import RunGroup
from pipeline.training.optim import stage_lr_factor

LR_POINTS = 400  # of a learning rate curve, at most


def curve_blocks(groups: Sequence[RunGroup]) -> list[Block]:
    """Return plots of accuracy over epochs and time, of loss and of learning rate."""
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
        _learning_rates(groups, what),
    ]


def _learning_rates(groups: Sequence[RunGroup], what: str) -> Plot:
    lines = {group.name: learning_rates(group.first) for group in groups}
    figure = plot_curves(lines, "epochs", "learning rate", limits=(0, None))
    caption = "Learning rate of each step, of the layers with the largest one."
    return Plot(figure, f"Line plot: learning rate of {what} over epochs.", caption)


def learning_rates(run: FinishedRun) -> Bands:
    """Return the largest learning rate of the steps of a run, over epochs."""
    recipe, epochs = run.config.recipe, run.result.epochs
    per_epoch = len(run.losses) / max(epochs, 1)
    x, y, first = [], [], 0
    for stage in recipe.stages:
        trained = min(stage.epochs, epochs - first)
        if trained <= 0:
            break
        steps, taken = stage.epochs * per_epoch, round(trained * per_epoch)
        places = np.unique(np.linspace(0, taken - 1, min(taken, LR_POINTS)).round())
        x += [first + step / per_epoch for step in places.tolist()]
        y += [
            max(stage.rates) * stage_lr_factor(stage, int(step), round(steps))
            for step in places.tolist()
        ]
        first += stage.epochs
    return line(x, y)


def calibration_blocks(groups: Sequence[RunGroup]) -> list[Block]:
    """Return a sentence about each group's calibration, and a plot of all."""
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
            f"{100 * calibration_error(group):.1f} points."
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

"""What the reports of sweeps share: the ranking of settings, their differences, all trainings."""

from collections.abc import Callable
from pathlib import Path

from pipeline.analysis.stats import Estimate
from pipeline.analysis.sweep import Ranking, SettingResult
from pipeline.evaluation.sweep_config import SweepConfig
from pipeline.reporting.common import (
    ABSENT,
    counted,
    hardware,
    minus,
    number,
    percent,
    with_interval,
)
from pipeline.reporting.html import Block, Facts, Plot, Section, SourceRun, Sources, Table
from pipeline.reporting.sweep_plots import curve_option, plot_over, plot_settings
from pipeline.runtime.files import read_json


def results_table(ranking: Ranking) -> Table:
    """Return the table of all settings, the most accurate first."""

    def mean(estimate: Estimate | None, form: Callable[[float], str] = percent) -> str:
        return ABSENT if estimate is None else with_interval(estimate, form)

    rows = [
        [
            one.setting.name,
            mean(one.accuracy),
            *_difference(one),
            mean(one.balanced_accuracy),
            mean(one.loss, lambda loss: f"{loss:.3f}"),
            mean(one.seconds, number),
            f"{one.diverged}",
        ]
        for one in ranking.settings
    ]
    headers = [
        "setting",
        "accuracy",
        "behind the best (points)",
        "shown",
        "balanced accuracy",
        "loss (nats)",
        "training time (s)",
        "diverged",
    ]
    samples = next((o.samples for s in ranking.settings for o in s.outcomes if o.samples), 0)
    caption = (
        f"Results on {samples:,} validation images, means over "
        f"{counted(len(ranking.seeds), 'seed')}"
    )
    if len(ranking.seeds) > 1:
        caption += (
            ", with their 95 % intervals over seeds in brackets. Behind the best: the mean "
            "difference, paired by seed, with its own 95 % interval"
        )
    if ranking.pairs > 1:
        caption += (
            "; it is shown if it excludes zero after a correction for the choice of the best, "
            f"which compares {ranking.pairs} pairs of settings (Bonferroni)"
        )
    if any(one.diverged for one in ranking.settings):
        caption += (
            ". A setting with trainings that diverged is not compared, and comes last; its means "
            "are of its other trainings alone"
        )
    best = frozenset({0} if ranking.settings[0].accuracy else ())
    return Table(f"{caption}.", headers, rows, "lrrlrrrr", best, wide=True)


def _difference(one: SettingResult) -> list[str]:
    """Return the cells of a setting's difference to the best, and of whether it is shown."""
    if one.difference is None or (comparison := one.difference.comparison) is None:
        return [ABSENT, ABSENT]
    assert comparison.difference is not None  # nothing diverged
    text = f"{100 * comparison.difference:.2f}"
    if interval := comparison.interval:
        text += f" ({100 * interval.low:.2f} to {100 * interval.high:.2f})"
    return [minus(text), "yes" if one.difference.shown else "no"]


def results_plot(ranking: Ranking) -> Plot:
    """Return the plot of all settings: curves over an option of numbers, or else a row for each."""
    results = ranking.settings
    bars = " with its 95 % interval over seeds" if len(ranking.seeds) > 1 else ""
    if any(one.diverged for one in results):
        bars += ", without diverged trainings"
    if option := curve_option(results):
        name = option.replace("_", " ")
        caption = f"Mean validation accuracy{bars}, over {name}."
        return Plot(plot_over(results, option), f"Line plot: accuracy over {name}.", caption)
    caption = f"Validation accuracy: each training (dot), and the mean of each setting{bars}."
    return Plot(plot_settings(results), "Dot plot: accuracy of each setting.", caption)


def differences(ranking: Ranking) -> list[Section]:
    """Return the section that describes every difference to the best, empty for one setting."""
    rows = [
        (one.setting.name, one.difference.words)
        for one in ranking.settings
        if one.difference is not None
    ]
    if not rows:
        return []
    text = (
        "The best setting was chosen by the trainings that these differences are measured on, so "
        "its accuracy, and its lead, are rather too high than too low: trainings with other seeds "
        "measure them without that bias."
    )
    return [Section("Differences to the best", [text, Facts(rows)])]


def trainings_table(ranking: Ranking) -> Table:
    """Return the table of all trainings, with the reason of one that diverged."""
    rows = []
    for one in ranking.settings:
        for seed, outcome in zip(ranking.seeds, one.outcomes, strict=True):
            result = (
                [ABSENT, ABSENT, outcome.reason]
                if outcome.accuracy is None
                else [percent(outcome.accuracy), number(outcome.seconds or 0), ""]
            )
            rows.append([outcome.training, f"{seed}", *result])
    headers = ["run directory", "seed", "accuracy", "training time (s)", "diverged"]
    return Table("All trainings.", headers, rows, "lrrrl", wide=True)


def sweep_sources(run: Path, config: SweepConfig, ranking: Ranking) -> list[Block]:
    """Return the source of all results, and the hardware of the first training."""
    first = run / ranking.settings[0].outcomes[0].training
    source = SourceRun(
        str(run), config.command, config.options, "all results; its folders hold the trainings"
    )
    return [
        f"Hardware of {first.name}: {hardware(read_json(first, 'environment.json'))}.",
        Sources([source]),
    ]

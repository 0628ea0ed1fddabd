"""The report of the published comparison of optimizers on EMNIST, as published and fairly."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.analysis.optimizers import OptimizerResult, optimizer_of
from pipeline.evaluation.sweep_config import SweepConfig
from pipeline.reporting.common import origins, percent
from pipeline.reporting.html import Block, Page, Plot, Section, Table
from pipeline.reporting.pages.sweep_tables import (
    differences,
    results_table,
    sweep_sources,
    trainings_table,
)
from pipeline.reporting.sweep_plots import plot_over

QUESTION = (
    "Four optimizers were published with one learning rate each. Does their order repeat, and what "
    "is left of it when each optimizer has the best learning rate of a grid?"
)


def optimizers_page(
    run: Path, config: SweepConfig, result: OptimizerResult, earlier: Sequence[Block] = ()
) -> Page:
    """Return the HTML page of the comparison in the run directory `run`."""
    order, published, fair, *others = result.findings
    rates = Plot(
        plot_over(result.grid.settings, "learning_rate"),
        "Line plot: accuracy of each optimizer over its learning rates.",
        "Validation accuracy of each optimizer over its grid of learning rates, one training each.",
    )
    return Page(
        "EMNIST: four optimizers, as published and fairly",
        QUESTION,
        f"{order} {fair}",
        origins([config.provenance]),
        [
            Section("As published", [result.protocol, published, _beside_published(result)]),
            Section("Learning rates", [rates]),
            Section("At the best learning rates", [fair, results_table(result.fair), *others]),
            *differences(result.fair),
            Section(
                "Trainings",
                [trainings_table(one) for one in (result.as_published, result.grid, result.fair)],
            ),
            Section("Sources", [*earlier, *sweep_sources(run, config, result.fair)]),
        ],
    )


def _beside_published(result: OptimizerResult) -> Table:
    """Return the table of the published pairs, with a column of the published accuracies."""
    table = results_table(result.as_published)
    reported = [
        percent(result.published[optimizer_of(one)], 0) for one in result.as_published.settings
    ]
    rows = [[row[0], new, *row[1:]] for row, new in zip(table.rows, reported, strict=True)]
    headers = [table.headers[0], "published", *table.headers[1:]]
    caption = (
        f"{table.caption} Published: reported by others after 5 epochs on the original data, one "
        "training each."
    )
    align = f"{table.align[0]}r{table.align[1:]}"
    return replace(table, caption=caption, headers=headers, rows=rows, align=align)

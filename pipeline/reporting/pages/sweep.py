"""The report of a sweep: which of several settings of a training is the most accurate."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.analysis.optimizers import OptimizerResult
from pipeline.analysis.sweep import SweepResult
from pipeline.evaluation.run_dir import read_result
from pipeline.evaluation.sweep_config import SweepConfig
from pipeline.reporting.common import counted, latest_run, origins
from pipeline.reporting.html import Block, Page, Section
from pipeline.reporting.pages.optimizers import optimizers_page
from pipeline.reporting.pages.sweep_tables import (
    differences,
    results_plot,
    results_table,
    sweep_sources,
    trainings_table,
)
from pipeline.runtime.files import read_as


def page_of(paths: Sequence[Path]) -> Page:
    """Return the HTML page of the latest of several sweeps; it names the others.

    Raises UserError for no path, and for a folder that is not that of a finished sweep.
    """
    run, earlier = latest_run("sweep", paths)
    config = read_as(run / "config.json", SweepConfig)
    if config.published:
        return optimizers_page(run, config, read_result(run, OptimizerResult), earlier)
    return sweep_page(run, config, read_result(run, SweepResult), earlier)


def sweep_page(
    run: Path, config: SweepConfig, result: SweepResult, earlier: Sequence[Block] = ()
) -> Page:
    """Return the HTML page of the sweep in the run directory `run`."""
    ranking = result.ranking
    count = counted(len(ranking.settings), "setting")
    return Page(
        f"Sweep of {config.name}: {count}",
        f"Which of {count} of {config.name} trains the most accurate network?",
        ranking.answer,
        origins([config.provenance]),
        [
            Section("Results", [results_table(ranking), results_plot(ranking)]),
            *differences(ranking),
            Section("Trainings", [trainings_table(ranking)]),
            Section("Sources", [*earlier, *sweep_sources(run, config, ranking)]),
        ],
    )

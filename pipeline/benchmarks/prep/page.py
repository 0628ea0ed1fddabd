"""The content of the page of `bench prep`."""

from matplotlib.figure import Figure

from pipeline.benchmarks.plots import RANGES, RateBar, plot_rates
from pipeline.benchmarks.prep import tables
from pipeline.benchmarks.prep.results import OURS, PrepResult
from pipeline.reporting.html import Block, Plot, Section, Table

TITLE = "Preparation"
QUESTION = "How fast are images prepared, against Pillow's decoder and writers of other formats?"


def plots(result: PrepResult) -> dict[str, Figure]:
    """Return the plot of all rates by name, with a panel for each dataset."""
    panels = {
        one.title: [RateBar(each.name, each.rates, each.name == OURS) for each in one.figures]
        for one in result.datasets
    }
    return {"prep-rates": plot_rates(panels)}


def sections(result: PrepResult) -> list[Section]:
    """Return the plot and the tables of the page, and how they were measured."""
    (plot,) = plots(result).values()
    found = [Section("Rates", [Plot(plot, "Images per second of each task", RANGES)])]
    for one in result.datasets:
        rates, parts = [*tables.rate_rows(one)], [*tables.profile_rows(one)]
        found.append(
            Section(
                one.title,
                [
                    Table(f"{one.images:,} images.", tables.RATES, rates, wide=True),
                    Table("Where the time of one process goes.", tables.PROFILE, parts),
                ],
            )
        )
    found.append(Section("How it was measured", method_lines(result)))
    if result.skipped:
        found.append(Section("Not measured", list(result.skipped)))
    return found


def method_lines(result: PrepResult) -> list[Block]:
    """Return what a reader must know about the figures."""
    return [
        f"After a warm-up, the tasks take turns for {result.rounds} rounds, with a warm page "
        f"cache, all on the same cores, {result.processes} in number, with as many processes. "
        "Rates are medians, ratios are geometric means over the rounds.",
        "Pillow decodes the unpacked files to grey levels and drops them. Preparation reads and "
        "hashes an archive, decodes, measures, encodes and writes; its bytes are the same with "
        "Pillow's decoder.",
        "Other writers write one copy of the same pages. FFCV stores pixels in three channels, "
        "which Pillow decodes for it. LitData's optimize and MosaicML's MDSWriter store the PNG "
        "files as they are: they decode nothing, so that each epoch has to. Imports are no part of "
        "the times; the processes that a writer starts are, such as LitData's.",
    ]

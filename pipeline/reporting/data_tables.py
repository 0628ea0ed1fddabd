"""Terminal tables of prepared datasets, and of synthetic pages compared with real ones."""

from collections.abc import Mapping, Sequence

from rich.table import Column, Table

from pipeline.data.prepare import PrepareResult
from pipeline.data.sources import SPLITS
from pipeline.data.synth.shape_stats import Comparison


def prepared_table(results: Mapping[str, PrepareResult]) -> Table:
    """Return a table with a row per prepared dataset."""
    columns = ("images", "classes", *SPLITS, "raw MB", "file MB", "s")
    table = Table("dataset", *(Column(name, justify="right") for name in columns), box=None)
    for name, result in results.items():
        table.add_row(
            name,
            f"{sum(result.images.values()) + len(result.skipped):,}",
            f"{result.classes}",
            *(f"{result.images[split]:,}" for split in SPLITS),
            f"{result.source_bytes / 1e6:,.1f}" if result.source_bytes else "–",
            f"{result.file_bytes / 1e6:,.1f}",
            f"{result.seconds:.1f}" if result.built else "–",
        )
    return table


def comparison_table(rows: Sequence[Comparison], title: str) -> Table:
    """Return a table with a row per statistic; the real values have 95 % intervals."""
    columns = ("real mean", "synthetic", "real std", "synthetic", "agrees")
    right = (Column(name, justify="right") for name in columns)
    table = Table("", *right, title=title, title_justify="left", box=None)
    for row in rows:
        mean, spread = (
            f"{estimate.value:.4g} ({estimate.low:.4g}–{estimate.high:.4g})"
            for estimate in (row.real_mean, row.real_spread)
        )
        agrees = "yes" if row.agrees else "no"
        table.add_row(row.statistic, mean, f"{row.mean:.4g}", spread, f"{row.spread:.4g}", agrees)
    return table

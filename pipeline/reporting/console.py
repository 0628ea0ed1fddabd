"""Tables for the terminal. Tables of results say whether their data are real or synthetic."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from pipeline.evaluation.evaluate import Evaluation
from pipeline.evaluation.metrics import Scores
from pipeline.loading.dataset import source_line
from pipeline.reporting import html
from pipeline.reporting.common import class_table

MAX_NAMES = 12  # confusions or skipped images in a row


def result_table(result: Mapping[str, Any], title: str) -> Table:
    """Return a table of the values in a result.json."""
    table = Table("", "", title=title, title_justify="left", show_header=False)
    for name, value in result.items():
        if not isinstance(value, dict | list) and value is not None:
            table.add_row(name.replace("_", " "), _format(name, value))
    for name, value in (result.get("test") or {}).items():
        if value is not None:
            table.add_row(f"{name.replace('_', ' ')}, test", _format(name, value))
    table.add_row("data", source_line(result["provenance"]))
    if result.get("auxiliary"):
        table.add_row("auxiliary data", source_line(result["auxiliary"]))
    return table


def evaluation_table(evaluation: Evaluation) -> Table:
    """Return a table of the main results of an evaluation."""
    result = {**evaluation.scores.headline(), "provenance": evaluation.provenance}
    table = result_table(result, "evaluation")
    if evaluation.unadapted is not None:
        table.add_row(
            "accuracy without adapting to writers", f"{evaluation.unadapted.accuracy:.2%}"
        )
    if (counted := evaluation.equal_counts) is not None:
        text = f"{counted.accuracy:.2%}"
        if counted.accuracy_ignoring_case is not None:
            text += f", ignoring case {counted.accuracy_ignoring_case:.2%}"
        table.add_row("accuracy if each writer wrote each class equally often", text)
    sources = [source_line(one) for one in (evaluation.learned_from, evaluation.auxiliary) if one]
    table.add_row("trained on", " and ".join(sources))
    confusions = evaluation.scores.confusions[:MAX_NAMES]
    table.add_row("confusions", ", ".join(f"{c.true}→{c.predicted} ×{c.count}" for c in confusions))
    if evaluation.skipped:
        names = ", ".join(name for name, _ in evaluation.skipped[:MAX_NAMES])
        table.add_row(
            "skipped", f"{len(evaluation.skipped)} images that cannot be decoded: {names}"
        )
    if evaluation.seen:
        table.add_row("warning", "the network was trained on this source, perhaps on these images")
    for warning in evaluation.warnings:
        table.add_row("warning", warning)
    return table


def scores_table(scores: Scores) -> Table:
    """Return a table of the results of each class and its confusions."""
    table = class_table(scores)
    return terminal_table(table, "", table.headers, box.HEAVY_HEAD)


def terminal_table(
    table: html.Table, title: str, columns: Sequence[str], style: box.Box | None = None
) -> Table:
    """Return the columns with these headers of a report's table."""
    shown = Table(title=title or None, title_justify="left", box=style)
    places = [table.headers.index(name) for name in columns]
    for place in places:
        right = table.align[place] == "r"
        shown.add_column(
            table.headers[place], justify="right" if right else "left", overflow="fold"
        )
    for row in table.rows:
        shown.add_row(*(row[place] for place in places))
    return shown


def _format(name: str, value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    if "accuracy" in name or "share" in name:
        return f"{value:.2%}"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"

"""The content of the page of `bench scaling`."""

from pipeline.benchmarks.scaling import tables
from pipeline.benchmarks.scaling.results import Scaling
from pipeline.reporting.html import Block, Section, Table

TITLE = "Scaling"
QUESTION = "What do more processes and more data cost?"


def answer(result: Scaling) -> str:
    """Return the bars, in one line."""
    return "; ".join(tables.bar_lines(result)) or "Nothing was measured."


def sections(result: Scaling) -> list[Section]:
    """Return the tables of the page, and how they were measured."""
    found = []
    if result.training:
        caption = f"Training on {result.cores} cores in all; fractions of the time of a step."
        rows = [*tables.training_rows(result)]
        found.append(
            Section("Processes", [Table(caption, tables.TRAINING, rows, "r" * 10, wide=True)])
        )
    if result.model is not None:
        found.append(Section("Prediction", prediction_blocks(result)))
    if result.data:
        rows = [*tables.data_rows(result)]
        found.append(
            Section("Data", [Table("Loading whole epochs.", tables.DATA, rows, wide=True)])
        )
    return [*found, Section("How it was measured", method_lines(result))]


def prediction_blocks(result: Scaling) -> list[Block]:
    """Return the model's check and its predictions."""
    rows = [*tables.check_rows(result)], [*tables.prediction_rows(result)]
    return [
        "Nothing here was measured on more than two processes. The model has a time that each step "
        "takes, a time for each row, a ring's all-reduce with latency and bandwidth, and the wait "
        "for the slowest process. It holds for processes that have as many cores as each of the "
        "two, and are linked as they are.",
        Table("The model at rows that it was not fitted to.", tables.CHECKS, rows[0], "rrrr"),
        Table("Predicted, not measured.", tables.PREDICTIONS, rows[1], "rlrrr"),
    ]


def method_lines(result: Scaling) -> list[Block]:
    """Return what a reader must know about the figures."""
    return [
        f"One and two processes take turns for {result.rounds} rounds, each started by "
        f"accelerate's launcher on the same {result.cores} cores, and train part 1's network for "
        f"{result.steps} steps at each number of rows, over gloo. Ratios are geometric means over "
        "the rounds. Stalls are the wait for the process that is ready last, all-reduce is the "
        "time from then until the gradients are exchanged.",
        "Files repeat the encoded bytes of synthetic images, each at a place of its own. Each file "
        "is loaded by a process of its own, in turns; RssAnon is memory without mapped files.",
    ]

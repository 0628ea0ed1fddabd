"""Number formats, selection of runs and descriptions of runs, for the reports of all parts."""

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from pipeline.evaluation.metrics import Scores
from pipeline.evaluation.run_config import ExperimentConfig
from pipeline.evaluation.run_dir import RunDir
from pipeline.reporting.html import Block, SourceRun, Table
from pipeline.runtime.files import read_as, read_json

if TYPE_CHECKING:  # importing them takes longer than most commands take to check their options
    from pipeline.analysis.stats import Estimate
    from pipeline.models.layers import LayerRow

ABSENT = "–"  # in place of a missing number


def percent(fraction: float, decimals: int = 2) -> str:
    """Format a fraction in percent."""
    return f"{100 * fraction:.{decimals}f} %"


def number(value: float) -> str:
    """Format a number with one decimal; integers and numbers from 100 have none."""
    return f"{value:,.0f}" if value >= 100 or value == round(value) else f"{value:.1f}"


def minus(text: str) -> str:
    """Replace hyphens by minus signs."""
    return text.replace("-", "−")


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: "1 seed", "2 seeds"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def with_interval(
    estimate: "Estimate", form: Callable[[float], str] = percent, name: str = ""
) -> str:
    """Format a mean with its interval, if it has one: "80.00 % (67.58 to 92.42)"."""
    text = form(estimate.mean)
    if estimate.interval is not None:
        low, high = (form(end) for end in (estimate.interval.low, estimate.interval.high))
        text += f" ({name}{low.removesuffix(' %')} to {high.removesuffix(' %')})"
    return minus(text)


def class_table(scores: Scores) -> Table:
    """Return a table of the results of each class that has samples, and its confusions."""
    rows = []
    for one in scores.per_class:
        if one.samples:
            fractions = (percent(value, 1) for value in (one.precision, one.recall, one.f1))
            confused = [c for c in scores.confusions if c.true == one.name]
            others = ", ".join(f"{c.predicted} ×{c.count}" for c in confused)
            rows.append([one.name, str(one.samples), *fractions, others])
    headers = ["class", "images", "precision", "recall", "F1", "predicted instead"]
    return Table("Results of each class, over all seeds.", headers, rows, "lrrrrl")


def layers_table(layers: Sequence["LayerRow"], caption: str) -> Table:
    """Return a table of the layers of a network, with their sum as its last row."""
    rows = [
        [
            layer.name,
            layer.kind,
            " × ".join(map(str, layer.output)),
            f"{layer.parameters:,}" if layer.parameters else "",
            f"{layer.multiply_adds:,}" if layer.multiply_adds else "",
        ]
        for layer in layers
    ]
    parameters, operations = (
        sum(getattr(layer, name) for layer in layers) for name in ("parameters", "multiply_adds")
    )
    rows.append(["all", "", "", f"{parameters:,}", f"{operations:,}"])
    return Table(
        caption,
        ["layer", "kind", "output", "parameters", "multiply-adds"],
        rows,
        "lllrr",
        highlight=frozenset({len(rows) - 1}),
        wide=True,
    )


def hardware(environment: Mapping[str, Any]) -> str:
    """Describe the hardware of a run, given its environment.json."""
    precision = "float32" if environment["precision"] == "no" else environment["precision"]
    return (
        f"{environment['processor']}, {environment['device']}, cores: {environment['cores']}, "
        f"processes: {environment['processes']}, threads per process: {environment['threads']}, "
        f"{precision}"
    )


def command(job: str, options: Mapping[str, Any], verb: str = "train") -> str:
    """Return the command line of a run, given its job and stored options."""
    words = ["./launch.sh", verb, job]
    for name, value in options.items():
        # "None" stands in runs whose options are strings. A flag has no value.
        if name != "resume" and value not in (None, "None") and value is not False:
            values = value if isinstance(value, list) else [] if value is True else [value]
            words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return shlex.join(words)


def arm_and_seed(training: str) -> tuple[str, int | None]:
    """Split a training's folder name: forward-2 is ("forward", 2), digits is ("digits", None)."""
    arm, _, seed = training.rpartition("-")
    return (arm, int(seed)) if arm else (training, None)


def distinct(paths: Iterable[Path]) -> list[Path]:
    """Return the paths without duplicates, links included, from the oldest run to the latest."""
    folders = {path.resolve(): path for path in paths}
    return [path for _, path in sorted(folders.items(), key=lambda item: item[0].name)]


def titled(title: str, run: Path) -> str:
    """Return the title of the page of a run; that of a trial says so."""
    trial = read_as(run / "config.json", ExperimentConfig).options.get("trial")
    return f"Trial: {title}" if trial else title


def latest_run(job: str, paths: Iterable[Path]) -> tuple[Path, list[Block]]:
    """Return the latest of several run directories, and a sentence about each other one.

    Raises UserError for no path, and for the run directory of a single training.
    """
    runs = distinct(paths)
    if not runs:
        raise UserError(f"{job}: got no run directories, expected at least one")
    run = runs[-1]
    if "recipe" in read_json(run, "config.json"):
        raise UserError(f"{run}: got one training of {job}, expected the whole run directory")
    return run, [f"Not shown: {path}, an earlier run." for path in runs[:-1]]


def origins(provenances: Iterable[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Return the provenances without duplicates of kind and source, in the given order.

    Raises UserError for a run on a dataset without a known origin, which is not opened any more.
    """
    found = {}
    for one in provenances:
        if one.get("kind") not in ("real", "synthetic") or not one.get("source"):
            raise UserError(
                f"provenance: got {dict(one)} of a run's dataset, expected the kind real or "
                "synthetic, and a source; prepare the dataset again and train on it"
            )
        found[one["kind"], one["source"]] = one
    return [*found.values()]


def training_source(path: Path, used_for: str, repeat: str = "") -> SourceRun:
    """Describe a training; `repeat` is the command that repeats it, by default its own."""
    config = RunDir(path).config()
    shown = {**asdict(config), "environment": read_json(path, "environment.json")}
    del shown["options"], shown["classes"]
    return SourceRun(str(path), repeat or command(config.job, config.options), shown, used_for)


def experiment_source(path: Path) -> SourceRun:
    """Describe the run directory of an experiment with several trainings."""
    config = read_as(path / "config.json", ExperimentConfig)
    used_for = "all results; its folders hold the trainings"
    return SourceRun(str(path), command(config.job, config.options), config.options, used_for)

"""The finished runs that the page offers, and a sentence about each."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import UserError
from pipeline.evaluation.run_dir import RunDir, TrainingResult, check_own, read_result
from pipeline.loading.dataset import source_line
from pipeline.reporting.common import percent
from pipeline.runtime.files import read_as


def find_runs(root: Path) -> list[Path]:
    """Return the run directories of finished trainings under `root`, the latest first.

    Those of an experiment with several trainings are in its folder. Links, such as `latest`, do not
    count.
    """
    results = [path for path in root.rglob("result.json") if not path.parent.is_symlink()]
    runs = [path for path in results if (path.parent / "model.safetensors").exists()]
    runs.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    return [path.parent for path in runs]


def choices(runs: Sequence[Path]) -> list[tuple[str, str]]:
    """Return (label, path) of each run. Labels start at the innermost folder common to all runs."""
    folders = [run.resolve() for run in runs]
    common = folders[0].parent
    while not all(folder.is_relative_to(common) for folder in folders):
        common = common.parent
    if len(folders) == 1:
        common = common.parent
    return [
        (f"{folder.relative_to(common)}{_about(folder)}", str(run))
        for folder, run in zip(folders, runs, strict=True)
    ]


def about(run: Path) -> str:
    """Return what network a run trained, on which data. Raises UserError for a damaged run."""
    check_own(run)
    config, result = RunDir(run).config(), read_result(run, TrainingResult)
    return (
        f"Network {config.network} for {len(config.classes)} classes, trained on "
        f"{source_line(result.provenance or config.provenance)}.{_sentence(result)}"
    )


def _about(run: Path) -> str:
    """Return a run's accuracy and kind of data; a trial is called one."""
    try:
        result, config = read_as(run / "result.json", TrainingResult), RunDir(run).config()
    except UserError:
        return " (damaged)"
    trial, kind = " (trial)" * config.is_trial, result.provenance.get("kind", "unknown")
    accuracy = "" if result.accuracy is None else f": {percent(result.accuracy, 1)}, {kind} data"
    return trial + accuracy


def _sentence(result: TrainingResult) -> str:
    if result.accuracy is None:
        return ""
    return f" Accuracy on {result.samples} validation images: {percent(result.accuracy, 1)}."

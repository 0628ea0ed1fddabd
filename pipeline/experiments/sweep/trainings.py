"""The run directory of a sweep: a folder for every training, which runs as a process of its own.

All trainings of a group are checked and configured before the first one starts. Each is an ordinary
run directory, which the job resumes, so a sweep is resumed by running its unfinished trainings.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from beton.reader import Reader
from pipeline.analysis.sweep import Outcome, Ranking, rank
from pipeline.errors import UserError
from pipeline.evaluation.run_config import TrainingConfig
from pipeline.evaluation.run_dir import DIVERGED, Divergence, RunDir, TrainingResult
from pipeline.evaluation.sweep_config import SettingGroup, SweepConfig
from pipeline.reporting.common import counted
from pipeline.runtime.children import Child, run_children
from pipeline.runtime.files import read_as
from pipeline.runtime.hardware import gpu_environment
from pipeline.runtime.lock import run_lock
from pipeline.runtime.progress import make_console
from pipeline.runtime.signals import Stopped
from pipeline.training.runner import write_config


@dataclass(frozen=True)
class PlannedSetting:
    """What a setting trains, and the job's options that ask for it, whatever the seed."""

    training: TrainingConfig
    options: dict[str, Any]


@dataclass(frozen=True)
class Runner:
    """How trainings run: the job's script, options that it gets, how many run side by side."""

    script: Path
    flags: Sequence[str]
    at_once: int


class Sweep:
    """The run directory `path` of a sweep. Raises UserError if it is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = read_as(path / "config.json", SweepConfig)
        self.console = make_console()

    @classmethod
    def new(
        cls,
        runs: Path,
        config: SweepConfig,
        planned: Sequence[Sequence[PlannedSetting]],
        file: Reader,
    ) -> "Sweep":
        """Create a run directory in the folder `runs`; `planned` has a row for each group.

        Its config.json is written after those of the trainings, so that either all of them can be
        resumed or none.
        """
        run = RunDir.new(runs / "sweep")
        for group, row in zip(config.groups, planned, strict=True):
            write_configs(run.path, config.trains, group, row, file)
        run.write_json("config.json", asdict(config))
        return cls(run.path)

    def outcome(self, training: str) -> Outcome | None:
        """Return the outcome of the training in a folder, None if it is not finished."""
        path = self.path / training
        if RunDir(path).finished:
            result = read_as(path / "result.json", TrainingResult)
            return Outcome(
                training,
                result.samples,
                result.accuracy,
                result.balanced_accuracy,
                result.loss,
                result.epochs,
                result.seconds_training,
            )
        if (path / DIVERGED).exists():
            return Outcome(training, reason=read_as(path / DIVERGED, Divergence).reason)
        return None

    def run(self, groups: Sequence[SettingGroup], runner: Runner) -> list[Ranking]:
        """Run the unfinished trainings of groups; return the ranking of each group's settings.

        A training that fails does not stop the others. Raises UserError at the end if any failed,
        UserError if another process runs the sweep, and Stopped after a signal.
        """
        labels = {name: label for group in groups for name, label in group.labels().items()}
        progress = _Progress(self.outcome, labels, self.console)
        children = [
            Child(
                name,
                [str(runner.script), "--resume", str(self.path / name), *runner.flags],
                self.path / name / "output.txt",
            )
            for name in labels
            if name not in progress.outcomes
        ]
        with run_lock(self.path) as held:
            number = run_children(
                children,
                runner.at_once,
                progress.start,
                progress.end,
                keep_open=(held,),
                environment=gpu_environment,
            )
        if number:
            finished = f"{len(progress.outcomes)} of {counted(len(labels), 'training')}"
            raise Stopped(number, finished, self.path)
        if progress.failed:
            raise UserError(
                f"{len(progress.failed)} of {counted(len(labels), 'training')} failed, the last "
                f"one: {progress.failed[-1]}; run them again: "
                f"./launch.sh sweep --resume {self.path}"
                + (f" --jobs {runner.at_once}" if runner.at_once > 1 else "")
            )
        return [
            rank(
                group.settings,
                [
                    [progress.outcomes[group.folder(setting, seed)] for seed in group.seeds]
                    for setting in group.settings
                ],
                group.seeds,
            )
            for group in groups
        ]


class _Progress:
    """Prints a line when a training starts and when it ends; collects outcomes and failures."""

    def __init__(
        self,
        outcome: Callable[[str], Outcome | None],
        labels: dict[str, str],
        console: Console,
    ) -> None:
        self._outcome, self._labels, self._console = outcome, labels, console
        finished = ((name, outcome(name)) for name in labels)
        self.outcomes = {name: one for name, one in finished if one is not None}
        self.failed: list[str] = []
        if self.outcomes:
            console.print(f"{len(self.outcomes)} of {len(labels)} trainings are finished already")

    def start(self, child: Child) -> None:
        self._console.print(f"{self._labels[child.name]}: starts; output: {child.log}")

    def end(self, child: Child, status: int) -> None:
        label, outcome = self._labels[child.name], self._outcome(child.name)
        if outcome is None:
            reason = child.reason(status)
            self.failed.append(f"{label}: {reason}")
            self._console.print(f"{label}: {reason}")
            return
        self.outcomes[child.name] = outcome
        ended = (
            f"diverged: {outcome.reason}"
            if outcome.accuracy is None
            else f"accuracy {outcome.accuracy:.2%}, {outcome.seconds:,.0f} s of training"
        )
        self._console.print(f"{label}: {ended} ({len(self.outcomes)} of {len(self._labels)})")


def write_configs(
    folder: Path, job: str, group: SettingGroup, planned: Sequence[PlannedSetting], file: Reader
) -> None:
    """Create the run directories of a group in `folder`, with their config.json; some may exist."""
    for setting, one in zip(group.settings, planned, strict=True):
        for seed in group.seeds:
            run = RunDir(folder / group.folder(setting, seed))
            if not (run.path / "config.json").exists():
                recipe = replace(one.training.recipe, seed=seed)
                training = replace(one.training, recipe=recipe)
                write_config(run, job, training, file, {**one.options, "seed": seed})

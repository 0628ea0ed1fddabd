"""Several trainings in one run directory, each resumable, and the conclusion drawn from them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from rich.table import Table

from beton.reader import Reader
from pipeline.analysis.noise_robust import LabelNoiseResult
from pipeline.analysis.pretraining import PretrainingResult
from pipeline.errors import UserError
from pipeline.evaluation.run_config import ExperimentConfig, TrainingConfig
from pipeline.evaluation.run_dir import FinishedRun, RunDir
from pipeline.loading.batches import Decode
from pipeline.reporting.html import Page
from pipeline.reporting.live import live_page
from pipeline.runtime.files import read_as
from pipeline.runtime.progress import make_console
from pipeline.training.distributed import Processes
from pipeline.training.runner import run_training, write_config


class Study:
    """The run directory `path` of an experiment; each training has a folder of its name in it.

    All processes must call `train` alike. `decode` is that of all trainings. With `watch`, each has
    a live page of its own.
    """

    def __init__(
        self, path: Path, processes: Processes, decode: Decode, watch: bool = False
    ) -> None:
        self.path, self.processes, self.decode = path, processes, decode
        self._watch = watch and processes.is_main
        self.config = read_as(path / "config.json", ExperimentConfig)
        self.console = make_console(quiet=not processes.is_main)

    @classmethod
    def new(
        cls,
        runs: Path,
        processes: Processes,
        decode: Decode,
        config: ExperimentConfig,
        planned: Mapping[str, tuple[TrainingConfig, Reader]] | None = None,
        watch: bool = False,
    ) -> "Study":
        """Create the run directory of an experiment in the folder `runs`.

        Its config.json is written after those of the `planned` trainings, so that either all of
        them can be resumed or none.
        """

        def create() -> Path:
            run = RunDir.new(runs / config.job)
            for name, (training, file) in (planned or {}).items():
                _configure(run.path, name, training, file, config)
            written = {name: value for name, value in asdict(config).items() if value != ()}
            run.write_json("config.json", written)
            return run.path

        return cls(processes.from_main(create), processes, decode, watch)

    def train(self, name: str, file: Reader, training: TrainingConfig | None = None) -> FinishedRun:
        """Train on a dataset, or resume the training `name`; a finished one is only read.

        `training` matters only where the training has no config.json yet.
        """
        run = RunDir(self.path / name)
        if training and self.processes.is_main and not (run.path / "config.json").exists():
            _configure(self.path, name, training, file, self.config)
        self.processes.wait()
        if not run.finished:
            self.console.print(f"{name}:")
        title = f"{self.config.job}: {name}"
        with live_page(self._watch, run, title, file, self.console) as on_progress:
            return run_training(
                self.processes,
                run,
                self.training(name),
                file,
                self.console,
                name,
                whole=self.path,
                on_progress=on_progress,
            )

    def training(self, name: str) -> TrainingConfig:
        """Return what is trained in the folder `name`."""
        training = replace(RunDir(self.path / name).config().training, decode=self.decode)
        if training.start is None or training.start.name not in self.config.trainings:
            return training
        # The study's own training, also where the run directory was moved or copied.
        return replace(training, start=self.path / training.start.name)

    def conclude(
        self,
        result: PretrainingResult | LabelNoiseResult,
        page_of: Callable[[Sequence[Path]], Page],
        tables_of: Callable[[Path], Sequence[Table]],
        answer: str,
    ) -> None:
        """Write result.json and report.html, point `latest` to the run directory, and print both.

        `page_of` and `tables_of` make the page and the printed tables of run directories.
        """
        run, report = RunDir(self.path), self.path / "report.html"
        trainings = {name: one.as_json() for name, one in result.trainings.items()}
        run.finish({**asdict(result), "trainings": trainings})
        page_of([self.path]).write(report)
        run.link_latest()
        for table in tables_of(self.path):
            self.console.print(table)
        self.console.print(f"{answer}\n{report}")


def whole_run(path: Path) -> Path:
    """Return the run directory that `path` is, or that holds the training `path`, without links."""
    path = path.resolve()  # the link `latest` changes
    return path.parent if (path.parent / "config.json").exists() else path


def seed_range(first: int, count: int) -> range:
    """Return `count` seeds from `first` on. Raises UserError if there is none."""
    if count < 1:
        raise UserError(f"seeds: got {count}, expected at least 1")
    return range(first, first + count)


def _configure(
    study: Path, name: str, training: TrainingConfig, file: Reader, config: ExperimentConfig
) -> None:
    """Write the config.json of a training; a relative `start` is another training of the study."""
    if training.start is not None:
        training = replace(training, start=study / training.start)
    write_config(RunDir(study / name), config.job, training, file, config.options)

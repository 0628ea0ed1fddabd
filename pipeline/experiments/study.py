"""Several trainings in one run directory, each resumable, and the conclusion drawn from them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
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
from pipeline.runtime.children import Child, divide_cores, run_children
from pipeline.runtime.files import read_as
from pipeline.runtime.hardware import gpu_environment
from pipeline.runtime.progress import make_console
from pipeline.runtime.signals import Stopped
from pipeline.training.distributed import Processes
from pipeline.training.runner import exclusive, run_training, write_config


@dataclass(frozen=True)
class Planned:
    """A training of a study: its folder's name, its dataset, and what it trains.

    `training` may be None where the folder has a config.json.
    """

    name: str
    file: Reader
    training: TrainingConfig | None = None


class Study:
    """The run directory `path` of an experiment; each training has a folder of its name in it.

    All processes must call `train` and `train_all` alike. `decode` is that of all trainings. With
    `watch`, each has a live page of its own. `jobs` trainings run side by side where several are
    known.
    """

    def __init__(
        self,
        path: Path,
        processes: Processes,
        decode: Decode,
        jobs: int = 1,
        watch: bool = False,
    ) -> None:
        self.path, self.processes, self.decode, self.jobs = path, processes, decode, jobs
        self._watch = watch and processes.is_main
        self._held: tuple[int, ...] = ()
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
        jobs: int = 1,
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

        return cls(processes.from_main(create), processes, decode, jobs, watch)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the lock of the run directory; raises UserError if other processes use it."""
        with exclusive(self.processes, self.config.job, self.path) as self._held:
            yield

    def train_all(self, planned: Sequence[Planned]) -> Iterator[FinishedRun]:
        """Train all, and yield each in their order; finished ones are only read.

        Those side by side are processes of their own, whose output goes to output.txt in their
        folders, each with an equal part of the cores and, where there are several GPUs, with one of
        these. Raises UserError if some failed, after the others have ended, and Stopped after a
        signal.
        """
        unfinished = [one for one in planned if not RunDir(self.path / one.name).finished]
        if self.jobs > 1 and len(unfinished) > 1:
            self._side_by_side(unfinished)
        for one in planned:
            yield self.train(one.name, one.file, one.training)

    def _side_by_side(self, planned: Sequence[Planned]) -> None:
        for one in planned:
            self._write_config(one.name, one.file, one.training)
        failed: list[str] = []
        done: list[str] = []

        def started(child: Child) -> None:
            self.console.print(f"{child.name}: starts; output: {child.log}")

        def ended(child: Child, status: int) -> None:
            outcome = child.reason(status) if status else "done"
            (failed if status else done).append(f"{child.name}: {outcome}")
            self.console.print(f"{child.name}: {outcome}")

        number = run_children(
            [self._child(one) for one in planned],
            self.jobs,
            started,
            ended,
            keep_open=self._held,
            environment=gpu_environment,
        )
        if number:
            raise Stopped(number, f"{len(done)} of {len(planned)} trainings", self.path)
        if failed:
            raise UserError(
                f"{len(failed)} of {len(planned)} trainings failed, the last one: "
                f"{failed[-1]}; resume: ./launch.sh train {self.config.job} --resume {self.path}"
            )

    def _child(self, one: Planned) -> Child:
        options = {
            "job": self.config.job,
            "study": self.path,
            "training": one.name,
            "data": one.file.path,
            "decode": self.decode,
            "precision": self.processes.precision,
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        script = ["-m", "pipeline.experiments.one_training", *words]
        log = self.path / one.name / "output.txt"
        return Child(one.name, [*script, "--watch"] if self._watch else script, log)

    def train(self, name: str, file: Reader, training: TrainingConfig | None = None) -> FinishedRun:
        """Train on a dataset, or resume the training `name`; a finished one is only read.

        `training` matters only where the training has no config.json yet.
        """
        run = RunDir(self.path / name)
        self._write_config(name, file, training)
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

    def _write_config(self, name: str, file: Reader, training: TrainingConfig | None) -> None:
        written = (self.path / name / "config.json").exists()
        if training and self.processes.is_main and not written:
            _configure(self.path, name, training, file, self.config)

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


def jobs_of(given: int | None, processes: Processes) -> int:
    """Return how many trainings run side by side: as given, by default one for each GPU.

    Raises UserError for several trainings, each of several processes, and for more of them than
    cores.
    """
    if processes.count > 1:
        if given not in (None, 1):
            raise UserError(
                f"jobs: got {given} and {processes.count} processes, expected one of them"
            )
        return 1
    if given is None:
        gpus = torch.cuda.device_count() if processes.device.type == "cuda" else 1
        return min(gpus, len(divide_cores(1)[0]))
    divide_cores(given)
    return given


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

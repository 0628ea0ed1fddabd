"""A sweep from its options to its report: plans all trainings, runs them, compares the settings."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from beton.reader import Reader
from pipeline.analysis.sweep import SweepResult
from pipeline.errors import UserError
from pipeline.evaluation.run_dir import RunDir
from pipeline.evaluation.sweep_config import Setting, SettingGroup, SweepConfig
from pipeline.experiments import classify, command
from pipeline.experiments.options import Options
from pipeline.experiments.sweep.settings import find_settings, with_values
from pipeline.experiments.sweep.trainings import PlannedSetting, Runner, Sweep
from pipeline.loading.dataset import source_line, split_indices
from pipeline.reporting.common import counted
from pipeline.reporting.console import terminal_table
from pipeline.reporting.pages.sweep import results_table, sweep_page
from pipeline.runtime.children import divide_cores
from pipeline.runtime.files import convert, read_as, read_json
from pipeline.training.distributed import join_processes

PASSED_ON = ("decode", "precision", "track")  # options of the job that may differ when it resumes


@dataclass(frozen=True)
class Request:
    """What to sweep: the settings and seeds of trainings of `name`, a job or dataset.

    `over` and `listed` are those of `find_settings`, `words` the options of the command.
    """

    name: str
    over: Sequence[str]
    listed: Path | None
    seeds: Sequence[int]
    words: Sequence[str]


def start(
    request: Request, job: str, options: Options, script: Path, at_once: int, runs: Path
) -> None:
    """Check and plan all trainings, run them, `at_once` side by side, and write the report.

    `options` are those of `job`, whose command is `script`, for all trainings. Raises UserError for
    impossible options before anything is written, except for a missing default dataset, and at the
    end if a training failed; Stopped after a signal.
    """
    divide_cores(at_once)
    settings = find_settings(request.over, request.listed, options)
    for setting in settings:
        data = classify.dataset_path(job, with_values(options, setting.options))
    with classify.open_dataset(job, data) as file:
        group = SettingGroup("", tuple(settings), tuple(request.seeds))
        planned = plan(job, options, settings, file)
        config = SweepConfig(
            "sweep",
            request.name,
            job,
            tuple(request.words),
            command.options_of(options),
            (group,),
            tuple(file.info["classes"]),
            file.info["provenance"],
        )
        sweep = Sweep.new(runs, config, [planned], file)
    _run(sweep, Runner(script, flags_of(options), at_once))


def plan(
    job: str, options: Options, settings: Sequence[Setting], file: Reader
) -> list[PlannedSetting]:
    """Return what each setting trains on a dataset.

    Raises UserError for a setting that cannot be trained or trains what another one does, and for a
    dataset without validation images.
    """
    if not len(split_indices(file, "validation")):
        raise UserError(f"{file.path}: has no validation images, by which settings are compared")
    planned: list[PlannedSetting] = []
    with join_processes(options.precision) as processes:
        for setting in settings:
            own = with_values(options, setting.options)
            try:
                training = classify.plan(job, own, file, processes)
            except UserError as error:
                raise UserError(f"{setting.name}: {error}") from error
            for other, name in zip(planned, (one.name for one in settings), strict=False):
                if other.training == training:
                    raise UserError(
                        f"{setting.name}: is the same training as {name}; leave one of them out"
                    )
            planned.append(PlannedSetting(training, command.options_of(own)))
    return planned


def resume(path: Path, options: Options, script: Path, at_once: int) -> None:
    """Run the unfinished trainings of a sweep, and write the report.

    `options` are the job's, as the command gives them; some of them replace the saved ones. Raises
    UserError for others, and as `start` does.
    """
    divide_cores(at_once)
    sweep = Sweep(path)
    given, defaults = command.options_of(options), command.options_of(type(options)())
    for name, value in given.items():
        if value != defaults[name] and name not in PASSED_ON:
            raise UserError(f"{name}: a resumed sweep has its own options; leave it out")
    changed = {name: given[name] for name in PASSED_ON if given[name] != defaults[name]}
    used = convert({**sweep.config.options, **changed}, type(options))
    _run(sweep, Runner(script, flags_of(used), at_once))


def job_of(path: Path) -> str:
    """Return the job whose trainings a sweep has. Raises UserError for another run directory."""
    if (job := read_json(path, "config.json").get("job")) != "sweep":
        raise UserError(f"{path}: got a run directory of {job}, expected sweep")
    return read_as(path / "config.json", SweepConfig).trains


def flags_of(options: Options) -> list[str]:
    """Return the options that a resumed training does not find in its run directory."""
    values = {name: getattr(options, name) for name in PASSED_ON}
    return [word for n, value in values.items() if value is not None for word in (f"--{n}", value)]


def _run(sweep: Sweep, runner: Runner) -> None:
    config, (group,) = sweep.config, sweep.config.groups
    cores = len(divide_cores(runner.at_once)[0])
    sweep.console.print(
        f"sweep of {config.name}: {counted(len(group.settings), 'setting')}, "
        f"{counted(len(group.seeds), 'seed')}, {runner.at_once} at a time, each on "
        f"{counted(cores, 'core')}; {source_line(config.provenance)}; {sweep.path}"
    )
    (ranking,) = sweep.run([group], runner)
    conclude(sweep, SweepResult(ranking))


def conclude(sweep: Sweep, result: SweepResult) -> None:
    """Write report.html and result.json, point `latest` to the run directory, and print both."""
    report = sweep.path / "report.html"
    sweep_page(sweep.path, sweep.config, result).write(report)
    run = RunDir(sweep.path)
    run.finish(asdict(result))
    run.link_latest()
    table = results_table(result.ranking)
    columns = [*table.headers[:4], table.headers[-2]]
    sweep.console.print(terminal_table(table, source_line(sweep.config.provenance), columns))
    sweep.console.print(f"{result.ranking.answer}\n{report}")

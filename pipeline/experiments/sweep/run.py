"""A sweep from its options to its report: plans all trainings, runs them, compares the settings."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from beton.reader import Reader
from pipeline.analysis.optimizers import OptimizerResult
from pipeline.analysis.sweep import SweepResult
from pipeline.errors import UserError
from pipeline.evaluation.run_dir import RunDir
from pipeline.evaluation.sweep_config import Setting, SettingGroup, SweepConfig
from pipeline.experiments import classify, command
from pipeline.experiments.options import Options
from pipeline.experiments.sweep import published
from pipeline.experiments.sweep.settings import find_settings, with_values
from pipeline.experiments.sweep.trainings import PlannedSetting, Runner, Sweep
from pipeline.loading.dataset import source_line, split_indices
from pipeline.reporting.common import counted
from pipeline.reporting.console import terminal_table
from pipeline.reporting.pages.optimizers import optimizers_page
from pipeline.reporting.pages.sweep import sweep_page
from pipeline.reporting.pages.sweep_tables import results_table
from pipeline.runtime.children import divide_cores
from pipeline.runtime.files import convert, read_as, read_json
from pipeline.runtime.signals import resumable
from pipeline.training.distributed import join_processes

# Options of the job that may differ when it resumes.
PASSED_ON = ("decode", "precision", "track", "watch")
DATASETS = ("data", "auxiliary")  # may have moved
TERMINAL = 4  # columns of a table that are printed, from the first one


@dataclass(frozen=True)
class Request:
    """What to sweep: the settings and seeds of trainings of `name`, a job or dataset.

    `over` and `listed` are those of `find_settings`, `words` the options of the command.
    `published` asks for the published comparison of optimizers instead.
    """

    name: str
    over: Sequence[str]
    listed: Path | None
    seeds: Sequence[int]
    words: Sequence[str]
    published: bool = False


def start(
    request: Request, job: str, options: Options, script: Path, at_once: int, runs: Path
) -> None:
    """Check and plan all trainings, run them, `at_once` side by side, and write the report.

    `options` are those of `job`, whose command is `script`, for all trainings. Raises UserError for
    impossible options before anything is written, except for a missing default dataset, and at the
    end if a training failed; Stopped after a signal.
    """
    divide_cores(at_once)
    seeds = tuple(request.seeds)
    groups: tuple[SettingGroup, ...]
    if request.published:
        if job != published.JOB or request.over or request.listed is not None:
            raise UserError(
                f"published: expected ./launch.sh sweep {published.JOB} --published, without "
                "--over and --list"
            )
        published.check_options(options)
        groups = published.groups_of(seeds)
        data = classify.dataset_path(job, options)
    else:
        settings = find_settings(request.over, request.listed, options)
        groups = (SettingGroup("", tuple(settings), seeds),)
        for setting in settings:
            data = classify.dataset_path(job, with_values(options, setting.options))
    with classify.open_dataset(job, data) as file:
        if not len(split_indices(file, "validation")):
            raise UserError(f"{data}: has no validation images, by which settings are compared")
        if request.published:
            planned = [published.plan(options, group, file) for group in groups]
        else:
            planned = [plan(job, options, groups[0].settings, file)]
        config = SweepConfig(
            "sweep",
            request.name,
            job,
            tuple(request.words),
            command.options_of(options),
            groups,
            tuple(file.info["classes"]),
            file.info["provenance"],
            request.published,
        )
        sweep = Sweep.new(runs, config, planned, file)
    with resumable("sweep", sweep.path):
        _run(sweep, options, Runner(script, _flags(options), at_once))


def plan(
    job: str, options: Options, settings: Sequence[Setting], file: Reader
) -> list[PlannedSetting]:
    """Return what each setting trains on a dataset.

    Raises UserError for a setting that cannot be trained or trains what another one does.
    """
    planned: list[PlannedSetting] = []
    with join_processes(options.precision) as processes:
        for setting in settings:
            own = with_values(options, setting.options)
            if own.learning_rate == "find":
                raise UserError("learning-rate: got find, expected numbers: a sweep compares them")
            if classify.finds_rate(classify.choose(job, own, file), own):
                raise UserError(
                    f"{setting.name}: learning-rate: its recipe finds one by a range test, which "
                    "would differ between settings; expected a number: --learning-rate X"
                )
            try:
                training = classify.plan(job, own, file, processes)
            except UserError as error:
                raise UserError(f"{setting.name}: {error}") from error
            for other, one in zip(settings, planned, strict=False):
                if one.training == training:
                    raise UserError(
                        f"{setting.name}: is the same training as {other.name}; leave one out"
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
    changed = {name: value for name, value in given.items() if value != defaults[name]}
    if others := sorted(changed.keys() - {*PASSED_ON, *DATASETS}):
        raise UserError(f"{others[0]}: a resumed sweep has its own options; leave it out")
    used = convert({**sweep.config.options, **changed}, type(options))
    moved = [f"--{name}={changed[name]}" for name in DATASETS if name in changed]
    with resumable("sweep", sweep.path):
        _run(sweep, used, Runner(script, [*_flags(used), *moved], at_once))


def job_of(path: Path) -> str:
    """Return the job whose trainings a sweep has. Raises UserError for another run directory."""
    if (job := read_json(path, "config.json").get("job")) != "sweep":
        raise UserError(f"{path}: got a run directory of {job}, expected sweep")
    return read_as(path / "config.json", SweepConfig).trains


def _flags(options: Options) -> list[str]:
    """Return the options that a resumed training does not find in its run directory."""
    words: list[str] = []
    for name in PASSED_ON:
        value = getattr(options, name)
        if value is True:
            words.append(f"--{name}")
        elif value not in (None, False):
            words += [f"--{name}", value]
    return words


def _run(sweep: Sweep, options: Options, runner: Runner) -> None:
    config = sweep.config
    cores = counted(len(divide_cores(runner.at_once)[0]), "core")
    count = counted(sum(len(group.labels()) for group in config.groups), "training")
    sweep.console.print(
        f"sweep of {config.name}: {count}, {runner.at_once} at a time, each on {cores}; "
        f"{source_line(config.provenance)}; {sweep.path}"
    )
    result: SweepResult | OptimizerResult
    if config.published:
        result = published.run(sweep, options, runner)
        page = optimizers_page(sweep.path, config, result)
        rankings = [result.as_published, result.fair]
    else:
        result = SweepResult(*sweep.run(config.groups, runner))
        page = sweep_page(sweep.path, config, result)
        rankings = [result.ranking]
    report = sweep.path / "report.html"
    page.write(report)
    run = RunDir(sweep.path)
    run.finish(asdict(result))
    run.link_latest()
    for ranking in rankings:
        table = results_table(ranking)
        shown = table.headers[:TERMINAL]
        sweep.console.print(terminal_table(table, source_line(config.provenance), shown))
    sweep.console.print(f"{page.answer}\n{report}")

"""Train with several settings, their seeds paired, and compare them.

    ./launch.sh sweep part1 --over learning-rate=1e-3,3e-3,1e-2 --seeds 3
    ./launch.sh sweep leaves --over optimizer=AdamW,Muon --over batch-size=32,64 --epochs 5
    ./launch.sh sweep fashion --list settings.json --jobs 2      two trainings side by side
    ./launch.sh sweep emnist --published                 the published comparison of optimizers
    ./launch.sh sweep --resume runs/sweep/TIME           resume an interrupted sweep

NAME is a job that trains one network, or a dataset, as for train. Options that sweep does not have
are those of the job, for all trainings. Writes runs/sweep/<time>, with a run directory for every
training, result.json and report.html; runs/sweep/latest points to it. A training that fails does
not stop the others. Exit status: 0 success, 2 failure, with the reason in one line, 128 + number
stopped by a signal.
"""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from tyro import conf

from pipeline.errors import UserError
from pipeline.experiments import command
from pipeline.experiments.options import OPTIONS, Options, job_of
from pipeline.experiments.study import seed_range
from pipeline.experiments.sweep import run
from pipeline.experiments.sweep.run import Request

PUBLISHED_SEEDS = 3  # the fewest whose intervals mean something


@dataclass(frozen=True)
class Config:
    """Train with several settings, their seeds paired, and compare them.

    The first word is NAME, a job or a dataset, as for train. Other options are those of the job,
    for all trainings: ./launch.sh train NAME --help.
    """

    over: conf.UseAppendAction[tuple[str, ...]] = ()
    """OPTION=V1,V2…: an option of the job and the values to try. Given several times: every
    combination."""
    list: Path | None = None
    """JSON file with a list of objects, each with the options of one setting. They come in addition
    to those of --over."""
    seeds: int | None = None
    """Number of trainings with each setting. All settings have the same seeds.
    None: 1, or 3 with --published."""
    seed: int = 0
    """First seed: of weights, order and augmentation. The others follow it."""
    jobs: int = 1
    """Number of trainings side by side. Each gets an equal part of the cores."""
    published: bool = False
    """The published comparison of optimizers, for emnist: as published, then with each optimizer at
    the best of a grid of learning rates. --epochs and --train-images make it smaller."""
    runs: Path = Path("runs")
    """Folder for results: they go to sweep/<time> in it."""
    resume: Path | None = None
    """Run directory to resume. It goes only with --jobs, --decode, --precision, --watch, --track,
    and with --data (and --auxiliary) where the file has moved."""


def sweep() -> None:
    """Start or resume the sweep of the command line."""
    given = command.arguments()
    name = given.pop(0) if given and not given[0].startswith("-") else ""
    config, words = command.parse_known(Config, given, conf.FlagCreatePairsOff)

    def parse(job: str) -> Options:
        return command.parse(OPTIONS[job], conf.FlagCreatePairsOff, words=words)

    if config.resume is not None:
        path = config.resume.resolve()  # the link `latest` changes
        if name or replace(config, resume=None, jobs=1, runs=Config.runs) != Config():
            raise UserError("resume: got other options too; a resumed sweep has its own")
        job = run.job_of(path)
        run.resume(path, parse(job), script_of(job), config.jobs)
        return
    if not name:
        raise UserError("name: got none, expected a job or a dataset as the first word")
    job, data = job_of(name)
    options = parse(job)
    if data is not None:
        if options.data is not None:
            raise UserError(f"data: got {options.data} for the dataset {name}")
        options = replace(options, data=data)
    seeds = config.seeds
    if seeds is None:
        seeds = PUBLISHED_SEEDS if config.published else 1
    request = Request(
        name,
        config.over,
        config.list,
        seed_range(config.seed, seeds),
        given,
        config.published,
    )
    run.start(request, job, options, script_of(job), config.jobs, config.runs)


def script_of(job: str) -> Path:
    """Return the script of a job."""
    return Path(__file__).resolve().with_name(f"{job}.py")


def main() -> int:
    """Run the job; print a failure as one line. Returns the exit status."""
    return command.call("sweep", sweep)


if __name__ == "__main__":
    sys.exit(main())

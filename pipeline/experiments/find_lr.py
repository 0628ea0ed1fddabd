"""A learning rate range test on its own: from a job's options to a folder with its curve."""

from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import UserError
from pipeline.evaluation.run_config import RunConfig, TrainingConfig
from pipeline.evaluation.run_dir import RunDir, check_finished, latest_in
from pipeline.experiments import classify, command
from pipeline.experiments.options import Options, folder_of
from pipeline.loading.dataset import source_line
from pipeline.reporting.lr_range import RANGE_PLOT, plot_range, range_chart, range_values
from pipeline.runtime.progress import make_console
from pipeline.training.distributed import join_processes
from pipeline.training.lr_range import MIN_STEPS

# Options of a job that change nothing of a range test.
WITHOUT_EFFECT = (
    "average",
    "checkpoint_minutes",
    "checkpoint_steps",
    "epochs",
    "keep",
    "learning_rate",
    "resume",
    "scale",
    "track",
    "until",
    "watch",
)


@dataclass(frozen=True)
class RangeTest:
    """What to test: a stage of the recipe, from 1; the number of steps; the weights to start from.

    `start` is a finished run directory of the same network, None for random weights.
    """

    stage: int
    steps: int
    start: Path | None


def run(job: str, options: Options, test: RangeTest, runs: Path) -> None:
    """Run a range test and write its curve to a new folder in `runs`/find-lr.

    Only a missing default dataset is written elsewhere. Raises UserError for options without
    effect, and for impossible ones, before anything is written.
    """
    given, defaults = command.options_of(options), command.options_of(type(options)())
    for name in WITHOUT_EFFECT:
        if given[name] != defaults[name]:
            raise UserError(f"{name}: has no effect on a learning rate range test; leave it out")
    if test.steps < MIN_STEPS:
        raise UserError(f"steps: got {test.steps}, expected at least {MIN_STEPS}")
    with (
        classify.open_dataset(job, classify.dataset_path(job, options)) as file,
        join_processes(options.precision) as processes,
    ):
        whole = classify.plan(job, options, file, processes)
        training = _stage_of(whole, test)
        (stage,) = training.recipe.stages
        name = folder_of(job, Path(file.path))
        stages = len(whole.recipe.stages)
        console = make_console(quiet=not processes.is_main)
        console.print(
            f"find-lr: {name}, {training.network}"
            + (f", stage {test.stage} of {stages} at size {stage.size}" if stages > 1 else "")
            + f", {source_line(file.info['provenance'])}: up to {test.steps} steps of "
            f"{training.recipe.batch_size} images"
        )
        if test.stage > 1 and test.start is None:
            console.print(
                f"find-lr: stage {test.stage} is tested on random weights, where a training has "
                "those of the stage before; --start RUN takes the weights of a finished run"
            )
        found = classify.find_rate(training, file, processes, test.steps)
        folder = RunDir.new(runs / "find-lr" / name)
        config = RunConfig.of(job, training, file, given).as_json()
        folder.write_json("config.json", {**config, "stage": test.stage, "steps": test.steps})
        title = f"{name}, {training.network}, {source_line(file.info['provenance'])}"
        plot_range(found, title, folder)
        folder.finish({**range_values(found, training, file), "stage": test.stage})
        folder.link_latest()
        console.print(range_chart(found))
        usual = max(stage.rates)
        console.print(
            f"find-lr: steepest {found.steepest:.3g}, valley {found.valley:.3g}; {usual:g} in the "
            f"recipe\n{folder.path / RANGE_PLOT}"
        )
        if stages == 1:
            given_data = "" if job != "classify" else f" --data {file.path}"
            console.print(
                f"train with the steepest: ./launch.sh train {job}{given_data} "
                f"--learning-rate {found.steepest:.3g}"
            )


def _stage_of(training: TrainingConfig, test: RangeTest) -> TrainingConfig:
    """Return a training of one stage of the recipe alone, from the weights to start from."""
    stages = training.recipe.stages
    if not 1 <= test.stage <= len(stages):
        expected = f"1 to {len(stages)}" if len(stages) > 1 else "1: the recipe has one stage"
        raise UserError(f"stage: got {test.stage}, expected {expected}")
    recipe = replace(training.recipe, stages=(stages[test.stage - 1],))
    start = test.start
    if start is not None:
        start = latest_in(start)
        check_finished(start)
        if (network := RunDir(start).config().network) != training.network:
            raise UserError(
                f"start: got a run of the network {network}, expected {training.network}"
            )
    return replace(training, recipe=recipe, start=start)

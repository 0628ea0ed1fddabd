"""The published comparison of optimizers on EMNIST: as published, then fairly.

First come the published pairs of optimizer and learning rate, with all seeds, and a grid of
learning rates for each optimizer, with a seed of its own. Each optimizer is then trained at its
best learning rate, with all seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from beton.reader import Reader
from pipeline.analysis.optimizers import (
    OPTIMIZER,
    RATE,
    OptimizerResult,
    best_rates,
    conclude,
)
from pipeline.analysis.sweep import Ranking
from pipeline.errors import UserError
from pipeline.evaluation.run_config import CheckpointSchedule, TrainingConfig
from pipeline.evaluation.sweep_config import Setting, SettingGroup
from pipeline.experiments import classify, command
from pipeline.experiments.options import Options
from pipeline.experiments.sweep.trainings import PlannedSetting, Runner, Sweep, write_configs
from pipeline.loading.dataset import split_indices
from pipeline.recipes.emnist_presets import EMNIST_LEARNING_RATES, EMNIST_OPTIMIZERS
from pipeline.recipes.presets import override
from pipeline.recipes.recipe import Recipe
from pipeline.reporting.common import counted

JOB = "emnist"
ALLOWED = ("data", "epochs", "train_images", "decode", "precision", "track")
# Of the published comparison: 5 epochs of 364,800 images in batches of 128.
PUBLISHED_STEPS = 14_250


def settings_of(rates: Mapping[str, Sequence[float]]) -> tuple[Setting, ...]:
    """Return a setting for each optimizer and learning rate."""
    return tuple(
        Setting(f"{optimizer} at {rate:g}", {OPTIMIZER: optimizer, RATE: rate})
        for optimizer, own in rates.items()
        for rate in own
    )


def check_options(options: Options) -> None:
    """Raise UserError for options that would change the published trainings."""
    given, defaults = command.options_of(options), command.options_of(type(options)())
    for name, value in given.items():
        if value != defaults[name] and name not in ALLOWED:
            allowed = ", ".join(sorted(ALLOWED)).replace("_", "-")
            raise UserError(
                f"{name.replace('_', '-')}: the published trainings have their own; with "
                f"--published go only {allowed}"
            )


def groups_of(seeds: Sequence[int]) -> tuple[SettingGroup, SettingGroup]:
    """Return the published pairs, with all seeds, and the grids, with the seed after them."""
    pairs = {name: [_rate(preset.recipe)] for name, (preset, _) in EMNIST_OPTIMIZERS.items()}
    return (
        SettingGroup("published-", settings_of(pairs), tuple(seeds)),
        SettingGroup("grid-", settings_of(EMNIST_LEARNING_RATES), (seeds[-1] + 1,)),
    )


def fair_group(grid: Ranking, seeds: Sequence[int]) -> SettingGroup:
    """Return each optimizer at its best learning rate, with all seeds.

    Raises UserError if all learning rates of all optimizers diverged.
    """
    found = best_rates(grid)
    if not found:
        raise UserError("all trainings of the grids diverged, so no learning rate is the best")
    settings = tuple(found[name].setting for name in EMNIST_LEARNING_RATES if name in found)
    return SettingGroup("fair-", settings, tuple(seeds))


def plan(options: Options, group: SettingGroup, file: Reader) -> list[PlannedSetting]:
    """Return what the settings of a group train on a dataset, by their published recipes."""
    return [_plan(options, setting, file) for setting in group.settings]


def run(sweep: Sweep, options: Options, runner: Runner) -> OptimizerResult:
    """Run all trainings; those at the best learning rates are planned once the grids are known.

    Raises UserError and Stopped as `Sweep.run` does.
    """
    published, grid = sweep.config.groups
    as_published, rates = sweep.run((published, grid), runner)
    fair = fair_group(rates, published.seeds)
    with classify.open_dataset(JOB, classify.dataset_path(JOB, options)) as file:
        planned = plan(options, fair, file)
        write_configs(sweep.path, sweep.config.trains, fair, planned, file)
        protocol = _protocol(planned[0].training.recipe, len(split_indices(file, "train")))
    (compared,) = sweep.run((fair,), runner)
    accuracies = {name: accuracy for name, (_, accuracy) in EMNIST_OPTIMIZERS.items()}
    return conclude(accuracies, as_published, rates, compared, protocol)


def _plan(options: Options, setting: Setting, file: Reader) -> PlannedSetting:
    optimizer, rate = setting.options[OPTIMIZER], setting.options[RATE]
    preset, _ = EMNIST_OPTIMIZERS[optimizer]
    recipe = override(preset.recipe, epochs=options.epochs, learning_rate=rate)
    recipe = replace(recipe, train_images=options.train_images)
    steps = _steps(recipe, len(split_indices(file, "train")))
    (stage,) = recipe.stages
    stage = replace(
        stage,
        warm_up_steps=warm_up_steps(stage.warm_up_steps, steps),
        warm_up_factor=stage.warm_up_factor * _rate(preset.recipe) / rate,
    )
    training = TrainingConfig(
        preset.network,
        replace(recipe, stages=(stage,)),
        decode=options.decode,
        checkpoints=CheckpointSchedule(keep=1),
    )
    given = replace(options, optimizer=optimizer, learning_rate=rate, epochs=recipe.epochs)
    return PlannedSetting(training, command.options_of(given))


def warm_up_steps(published: int, steps: int) -> int:
    """Return the warm-up steps of a training: its published ones, or their fraction if it is short.

    A training is short if it has less than half of the published steps.
    """
    if 2 * steps >= PUBLISHED_STEPS:
        return published
    return max(1, round(published * steps / PUBLISHED_STEPS))


def _steps(recipe: Recipe, images: int) -> int:
    """Return the number of steps of a training on a dataset with `images` training images."""
    return recipe.epochs * (min(images, recipe.train_images or images) // recipe.batch_size)


def _protocol(recipe: Recipe, images: int) -> str:
    """Describe what all trainings share, and what differs from the published ones."""
    (stage,) = recipe.stages
    used = min(images, recipe.train_images or images)
    return (
        f"Each training: {counted(recipe.epochs, 'epoch')} of {used:,} images, "
        f"{_steps(recipe, images):,} steps with batches of {recipe.batch_size}, the first "
        f"{stage.warm_up_steps} of them at {stage.warm_up_factor * _rate(recipe):g}, weight decay "
        f"{stage.weight_decay:g}; published were 5 epochs of 364,800 images, {PUBLISHED_STEPS:,} "
        "steps, of which 500 at 1e-05. Seeds vary weights, order and dropout, not the images."
    )


def _rate(recipe: Recipe) -> float:
    (stage,) = recipe.stages
    return stage.rates[0]

"""The table of systems: every recipe as published, and fit for its network."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pytest
import torch

from pipeline.loading.augment import Augmentation
from pipeline.loading.image_augment import ImageAugmentation
from pipeline.models import networks
from pipeline.recipes.cifar10_presets import CIFAR10
from pipeline.recipes.emnist_presets import EMNIST, EMNIST_LEARNING_RATES, EMNIST_OPTIMIZERS
from pipeline.recipes.fashion_presets import FASHION
from pipeline.recipes.presets import PART1_PUBLISHED, Preset
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.recipes.systems import SYSTEMS
from pipeline.runtime.files import convert
from pipeline.training import optim

SHAPES = {"emnist": (1, 28, 28), "fashion": (1, 28, 28), "cifar10": (3, 32, 32)}
CLASSES = {"emnist": 36, "fashion": 10, "cifar10": 10}
PRESETS = {
    f"{system}-{name}": (system, preset)
    for system in SHAPES
    for name, preset in SYSTEMS[system].recipes.items()
}
every = pytest.mark.parametrize(("system", "preset"), PRESETS.values(), ids=PRESETS)
every_preset = pytest.mark.parametrize("preset", [p for _, p in PRESETS.values()], ids=PRESETS)


def only_stage(recipes: Mapping[str, Preset], name: str) -> Stage:
    (stage,) = recipes[name].recipe.stages
    return stage


@every_preset
def test_a_recipe_is_the_same_after_json(preset: Preset) -> None:
    assert convert(json.loads(json.dumps(asdict(preset.recipe))), Recipe) == preset.recipe


@every
def test_a_recipe_trains_its_network(system: str, preset: Preset) -> None:
    shape, classes = SHAPES[system], CLASSES[system]
    (stage,) = preset.recipe.stages
    assert stage.size == shape[1]
    if preset.recipe.normalize is not None:
        assert len(preset.recipe.normalize.mean) == shape[0]
    network = networks.build(preset.network, classes, 0, shape)
    first = [parameter.clone() for parameter in network.parameters()]
    optimizer = optim.build(network, stage)
    optim.set_lr(optimizer, optim.stage_lr_factor(stage, 0, 10))
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(16, *shape, generator=generator)
    labels = torch.arange(16) % classes
    losses = []
    for _ in range(6):
        loss = stage.loss.per_sample(network(images), labels).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert all(map(math.isfinite, losses))
    changed = [not torch.equal(a, b) for a, b in zip(first, network.parameters(), strict=True)]
    assert any(changed)


@every_preset
def test_a_trial_is_smaller_than_the_recipe(preset: Preset) -> None:
    trial, recipe = preset.trial, preset.recipe
    assert trial.epochs <= recipe.epochs
    assert trial.train_images is not None
    assert trial.train_images >= (trial.batch_size or recipe.batch_size)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_system_has_its_default_and_publishes_figures_of_its_recipes(name: str) -> None:
    system = SYSTEMS[name]
    assert system.default in system.recipes
    assert {*system.published} <= {*system.recipes}
    for figures in system.published.values():
        assert all(0 < figure.value < 1 and figure.what for figure in figures)


@pytest.mark.parametrize(
    ("name", "batch_size", "steps"),
    [("first", 64, 0), ("first-xavier", 64, 200), ("middle", 128, 0), ("deeper", 64, 0)],
)
def test_the_published_trainings_on_emnist(name: str, batch_size: int, steps: int) -> None:
    preset, stage = EMNIST[name], only_stage(EMNIST, name)
    recipe = preset.recipe
    assert preset.network == f"emnist-{name}"
    assert (stage.optimizer, stage.learning_rate, stage.weight_decay) == ("AdamW", 1e-4, 0.1)
    assert (recipe.batch_size, recipe.epochs, recipe.window) == (batch_size, 5, None)
    assert (stage.schedule, stage.warm_up_steps) == ("constant", steps)
    assert stage.loss.label_smoothing == 0
    assert asdict(recipe.normalize) == {"mean": (0.1307,), "std": (0.3081,)}  # type: ignore[arg-type]
    rates = [1e-4 * optim.stage_lr_factor(stage, step, 1000) for step in (0, 199, 200, 999)]
    first = 1e-5 if steps else 1e-4
    assert rates == pytest.approx([first, first, 1e-4, 1e-4])


def test_the_published_comparison_of_optimizers() -> None:
    assert {name: accuracy for name, (_, accuracy) in EMNIST_OPTIMIZERS.items()} == {
        "SGD": 0.87,
        "Adagrad": 0.71,
        "Adam": 0.90,
        "AdamW": 0.91,
    }
    rates: dict[str, Any] = {}
    for name, (preset, _) in EMNIST_OPTIMIZERS.items():
        (stage,) = preset.recipe.stages
        assert (stage.optimizer, stage.weight_decay) == (name, 1e-4)
        assert (preset.recipe.batch_size, preset.recipe.epochs) == (128, 5)
        assert preset.network == "emnist-first"
        peak = stage.rates[0]
        rates[name] = [peak * optim.stage_lr_factor(stage, step, 1000) for step in (499, 500)]
    assert rates["SGD"] == rates["Adagrad"] == pytest.approx([1e-5, 1e-4])
    assert rates["Adam"] == rates["AdamW"] == pytest.approx([1e-5, 1e-5])
    assert {*EMNIST_LEARNING_RATES} == {*EMNIST_OPTIMIZERS}
    assert all(len(grid) >= 3 for grid in EMNIST_LEARNING_RATES.values())


def test_the_recipe_for_smaller_characters_differs_in_what_the_network_sees() -> None:
    first, sizes = EMNIST["first"].recipe, EMNIST["first-sizes"].recipe
    (stage,) = sizes.stages
    assert (sizes.window, stage.augmentation == Augmentation()) == (1.0, False)
    ids = torch.arange(2000).numpy()
    affine = stage.augmentation.sample(0, 0, ids).affine
    shrinkage = affine[:, 0, 0]
    assert float(shrinkage.min()) >= 1
    assert 2 < float(shrinkage.max()) <= 4
    assert first.stages[0].optimizer == stage.optimizer


def test_the_published_lenet() -> None:
    preset, stage = FASHION["lenet"], only_stage(FASHION, "lenet")
    assert (stage.optimizer, stage.learning_rate, stage.weight_decay) == ("Adam", 0.1, 0)
    assert (stage.schedule, preset.recipe.batch_size, preset.recipe.epochs) == ("constant", 100, 5)
    assert preset.recipe.train_mode_accuracy


def test_the_published_resnet() -> None:
    preset, stage = CIFAR10["resnet"], only_stage(CIFAR10, "resnet")
    assert (stage.optimizer, stage.schedule, preset.find_rate) == ("Adam", "one-cycle", True)
    assert stage.image_augmentation == ImageAugmentation(
        *(None, (3 / 4, 4 / 3), 4, "reflect", 0.5),
        contrast=0.1,
        saturation=0.2,
        hue=0.1,
        jitter_probability=0.5,
        grey=0.2,
        cutout=8,
    )


def test_the_published_stages_of_part_1() -> None:
    figures = SYSTEMS["part1"].published["progressive"]
    assert tuple(figure.value for figure in figures) == PART1_PUBLISHED
    assert figures[7].what == "accuracy after stage 8"

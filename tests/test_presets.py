"""Named recipes and overrides."""

import json
from dataclasses import asdict, replace

import pytest

from pipeline.errors import UserError
from pipeline.models import networks
from pipeline.recipes import presets
from pipeline.recipes.presets import PART1, override
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.runtime.files import convert
from pipeline.training import optim

NAMED = {name: preset.recipe for name, preset in PART1.items()}
each = pytest.mark.parametrize("recipe", NAMED.values(), ids=NAMED)
single = NAMED["fast"]


@each
def test_it_is_the_same_after_json(recipe: Recipe) -> None:
    assert convert(json.loads(json.dumps(asdict(recipe))), Recipe) == recipe


@each
def test_its_stages_suit_sixty_two_classes_and_its_batches(recipe: Recipe) -> None:
    for stage in recipe.stages:
        stage.loss.check(62)
        stage.mixing.check(recipe.micro_batch or recipe.batch_size)


@pytest.mark.parametrize("preset", PART1.values(), ids=PART1)
def test_its_network_has_an_optimizer_for_every_stage(preset: presets.Preset) -> None:
    assert preset.network in networks.NETWORKS
    network = networks.build("small", 62, seed=0)
    for stage in preset.recipe.stages:
        assert optim.build(network, stage).param_groups


@pytest.mark.parametrize(("pages", "epochs"), [(2232, 8), (558, 32), (9000, 8), (0, 17856)])
def test_a_small_dataset_gets_more_epochs(pages: int, epochs: int) -> None:
    preset = PART1["fast"]
    assert preset.recipe.scaled(preset.scale(pages)).epochs == epochs
    assert PART1["progressive"].scale(pages) == 1


def test_the_published_solution_stage_by_stage() -> None:
    table = [
        (224, 30, (3e-2, 3e-2, 3e-2), False, "cross-entropy", 0),
        (224, 30, (6e-3 / 100, 6e-3 / 10, 6e-3), True, "cross-entropy", 0),
        (299, 18, (1e-2, 1e-2, 1e-2), True, "focal", 2),
        (299, 18, (6e-7, 6e-7 * (1e-3 / 6e-7) ** 0.5, 1e-3), True, "focal", 0),
        (512, 12, (5e-3, 5e-3, 5e-3), True, "cross-entropy", 2),
        (512, 20, (1e-5, 1e-4, 1e-3), True, "cross-entropy", 0),
        (600, 18, (2e-3, 2e-3, 2e-3), True, "cross-entropy", 2),
        (600, 20, (1e-6, 1e-4, 7e-4), True, "cross-entropy", 0),
    ]
    stages = NAMED["progressive"].stages
    for stage, (size, epochs, rates, mixed, loss, frozen) in zip(stages, table, strict=True):
        assert (stage.size, stage.epochs, stage.frozen) == (size, epochs, frozen)
        assert (bool(stage.mixing.mixup), stage.loss.kind) == (mixed, loss)
        assert stage.rates == pytest.approx(rates)
        assert stage.clip == 0.1
    assert {(s.loss.alpha, s.loss.gamma) for s in stages if s.loss.kind == "focal"} == {(1, 2)}
    assert PART1["progressive"].network == "resnet18"


def test_the_published_solution_scaled_to_a_tenth() -> None:
    trial = override(NAMED["progressive"], scale=0.1)
    assert [stage.epochs for stage in trial.stages] == [3, 3, 2, 2, 1, 2, 2, 2]


def test_the_published_baseline() -> None:
    preset = PART1["baseline"]
    (stage,) = preset.recipe.stages
    assert preset.network == "baseline"
    assert (preset.recipe.batch_size, preset.recipe.window) == (64, None)
    assert (stage.size, stage.optimizer, stage.learning_rate) == (900, "Adam", 1e-3)


@each
def test_no_override_changes_only_the_seed(recipe: Recipe) -> None:
    assert override(recipe) == recipe
    assert override(recipe, seed=3) == replace(recipe, seed=3)


def test_overrides_replace_the_recipes_values() -> None:
    new = override(single, size=32, epochs=5, learning_rate=0.1, batch_size=16, scale=2, seed=1)
    stage = replace(single.stages[0], size=32, epochs=10, learning_rate=0.1)
    assert new == replace(single, stages=(stage,), batch_size=16, seed=1)


def test_micro_batches_are_never_larger_than_the_batch() -> None:
    recipe = Recipe((Stage(16, 1, 0.1),), batch_size=64, micro_batch=16)
    assert override(recipe, batch_size=8).micro_batch == 8
    assert override(recipe, batch_size=128).micro_batch == 16
    assert override(replace(recipe, micro_batch=None), batch_size=8).micro_batch is None


@pytest.mark.parametrize("name", ["size", "epochs", "learning_rate"])
def test_overrides_of_a_stage_need_a_single_stage(name: str) -> None:
    values = {"size": 64, "epochs": 2, "learning_rate": 0.1}
    with pytest.raises(UserError, match=f"{name}: the recipe has 8 stages.*--scale") as caught:
        override(NAMED["progressive"], **{name: values[name]})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_invalid_overrides() -> None:
    with pytest.raises(UserError, match="size: got 8"):
        override(single, size=8)
    with pytest.raises(UserError, match="batch_size: got 0"):
        override(single, batch_size=0)
    with pytest.raises(UserError, match="scale: got 0"):
        override(single, scale=0)
    with pytest.raises(UserError, match="seed: got -1"):
        override(single, seed=-1)

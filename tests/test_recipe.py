"""Recipes: validation and JSON."""

import json
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.loading.augment import Augmentation
from pipeline.recipes.losses import Loss
from pipeline.recipes.mixup import Mixing
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.runtime.files import convert

rates = st.floats(1e-12, 1, allow_subnormal=False)
losses = st.one_of(
    st.builds(Loss, label_smoothing=st.floats(0, 1)),
    st.builds(Loss, st.just("focal"), alpha=st.floats(0, 9), gamma=st.floats(0, 9)),
    st.just(Loss("forward", transition=((0.9, 0.1), (0.25, 0.75)))),
    st.just(Loss("complementary")),
)
stages = st.builds(
    Stage,
    size=st.integers(16, 4096),
    epochs=st.integers(1, 1000),
    learning_rate=rates | st.tuples(rates, rates) | st.tuples(rates, rates, rates),
    schedule=st.sampled_from(["one-cycle", "cosine", "constant"]),
    warm_up=st.floats(0, 0.99),
    frozen=st.integers(0, 2),
    loss=losses,
    mixing=st.builds(Mixing, mixup=st.floats(0, 2), cutmix=st.floats(0, 2)),
    augmentation=st.builds(Augmentation, rotation=st.floats(0, 90), pen=st.floats(0, 1)),
    optimizer=st.sampled_from(["SGD", "AdamW"]),
    options=st.sampled_from([{}, {"momentum": 0.9}, {"betas": [0.9, 0.99], "eps": 1e-8}]),
    clip=st.none() | st.floats(0.1, 10),
    mixed_precision=st.booleans(),
)
recipes = st.builds(
    Recipe,
    stages=st.lists(stages, min_size=1, max_size=4).map(tuple),
    batch_size=st.integers(8, 512),
    micro_batch=st.none() | st.integers(1, 8),
    window=st.floats(0.05, 1),
    average=st.floats(0, 0.999999),
    views=st.integers(1, 25),
    seed=st.integers(0, 2**63 - 1),
)


@given(recipes)
def test_a_recipe_is_the_same_after_json(recipe: Recipe) -> None:
    assert convert(json.loads(json.dumps(asdict(recipe))), Recipe) == recipe
    assert convert(asdict(recipe), Recipe) == recipe


@given(recipes, st.floats(0.001, 100))
def test_scaling_changes_epochs_alone(recipe: Recipe, scale: float) -> None:
    scaled = recipe.scaled(scale)
    for before, after in zip(recipe.stages, scaled.stages, strict=True):
        assert after.epochs >= 1
        assert abs(after.epochs - scale * before.epochs) <= 0.5 or after.epochs == 1
        assert asdict(after) == {**asdict(before), "epochs": after.epochs}
    others = {"stages", "epochs"}
    assert {k: v for k, v in asdict(recipe).items() if k not in others} == {
        k: v for k, v in asdict(scaled).items() if k not in others
    }
    assert scaled.epochs == sum(stage.epochs for stage in scaled.stages)


@pytest.mark.parametrize("scale", [0, -1, float("inf"), float("nan")])
def test_an_invalid_scale(scale: float) -> None:
    with pytest.raises(UserError, match=r"scale: got .*, expected more than 0"):
        Recipe((Stage(16, 1, 0.1),)).scaled(scale)


@given(rates, rates)
def test_two_rates_are_a_geometric_series(low: float, high: float) -> None:
    stem, body, head = Stage(16, 1, (low, high)).rates
    assert (stem, head) == (low, high)
    assert body / stem == pytest.approx(head / body)


def test_one_rate_is_for_all_groups_and_three_are_as_given() -> None:
    assert Stage(16, 1, 1).rates == (1.0, 1.0, 1.0)
    assert Stage(16, 1, (1e-6, 1e-4, 7e-4)).rates == (1e-6, 1e-4, 7e-4)


nan, inf = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 15}, "size: got 15, expected 16 to 4096"),
        ({"epochs": 0}, "epochs: got 0"),
        ({"learning_rate": 0.0}, "learning_rate: got 0.0"),
        ({"learning_rate": nan}, "learning_rate: got nan"),
        ({"learning_rate": (0.0, 0.1)}, "learning_rate: got 0.0"),
        ({"learning_rate": (0.1, -0.2)}, "learning_rate: got -0.2"),
        ({"learning_rate": (0.1, 0.1, 0.1, 0.1)}, "learning_rate: .*expected one, two or three"),
        ({"schedule": "step"}, "schedule: got 'step', expected one of one-cycle, cosine, linear"),
        ({"warm_up": 1.0}, "warm_up: got 1.0"),
        ({"warm_up_steps": -1}, "warm_up_steps: got -1"),
        ({"warm_up_steps": 5}, "warm_up_steps: got 5 with a warm_up of 0.25, expected one of"),
        ({"warm_up_factor": 1.5}, "warm_up_factor: got 1.5, expected 0 to 1"),
        ({"frozen": 3}, "frozen: got 3, expected 0 to 2"),
        ({"weight_decay": -0.1}, "weight_decay: got -0.1"),
        ({"clip": 0.0}, "clip: got 0.0"),
    ],
)
def test_an_invalid_stage(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Stage(**{"size": 16, "epochs": 1, "learning_rate": 0.1, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": ()}, "recipe: got no stages"),
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"batch_size": 8, "micro_batch": 9}, "micro_batch: got 9, expected 1 to 8"),
        ({"micro_batch": 0}, "micro_batch: got 0"),
        ({"window": 1.5}, "window: got 1.5"),
        ({"window": None, "views": 3}, "whole pages are shown unchanged"),
        (
            {"window": None, "stages": (Stage(16, 1, 0.1, augmentation=Augmentation(pen=0.1)),)},
            "whole pages are shown unchanged",
        ),
        ({"window": None, "auxiliary": 0.5}, "auxiliary: got 0.5, expected 0: whole pages"),
        ({"average": 1.0}, "average: got 1.0"),
        ({"views": 0}, "views: got 0"),
        ({"seed": -1}, "seed: got -1"),
    ],
)
def test_an_invalid_recipe(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Recipe(**{"stages": (Stage(16, 1, 0.1),), **changes})

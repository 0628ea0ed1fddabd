"""The learning rate range test."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from tiny import write_set

from beton.reader import Reader
from pipeline.errors import UserError
from pipeline.evaluation.run_config import TrainingConfig
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.training.distributed import Processes, join_processes
from pipeline.training.lr_range import HIGHEST, LOWEST, LrRange, find_learning_rate, suggest

TRAINING = TrainingConfig("small", Recipe((Stage(16, 2, 1e-2),), batch_size=8))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    with Reader(write_set(tmp_path_factory.mktemp("range") / "tiny.beton")) as opened:
        yield opened


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    with join_processes("no") as joined:
        yield joined


@pytest.fixture(scope="module")
def found(processes: Processes, file: Reader) -> LrRange:
    return find_learning_rate(processes, TRAINING, file, steps=60)


def test_it_ends_where_the_loss_rises_and_suggests_a_usual_rate(found: LrRange) -> None:
    assert len(found.rates) == len(found.losses) <= 60
    assert found.rates[0] == pytest.approx(LOWEST)
    assert found.rates[-1] <= HIGHEST * (1 + 1e-9)
    assert 1e-5 < found.steepest < 1
    assert 1e-5 < found.valley < 1
    assert min(found.losses) < 0.8 * found.losses[0]


def test_it_repeats_and_leaves_the_random_state_alone(
    processes: Processes, file: Reader, found: LrRange
) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    assert find_learning_rate(processes, TRAINING, file, steps=60) == found
    assert torch.equal(torch.random.get_rng_state(), before)


def test_other_rates_of_the_recipe_change_nothing(
    processes: Processes, file: Reader, found: LrRange
) -> None:
    stage = replace(TRAINING.recipe.stages[0], learning_rate=0.5, epochs=7)
    other = replace(TRAINING, recipe=replace(TRAINING.recipe, stages=(stage,)))
    again = find_learning_rate(processes, other, file, steps=60)
    assert again.losses == pytest.approx(found.losses, rel=1e-3)


def test_a_recipe_of_several_stages(processes: Processes, file: Reader) -> None:
    stages = TRAINING.recipe.stages * 2
    training = replace(TRAINING, recipe=replace(TRAINING.recipe, stages=stages))
    with pytest.raises(UserError, match="learning_rate: got find, but the recipe has 2 stages"):
        find_learning_rate(processes, training, file)


def test_suggestions_of_known_losses() -> None:
    rates = [10.0**power for power in range(-6, 2)]
    found = suggest(rates, [2.3, 2.31, 2.2, 2.0, 1.2, 1.0, 1.1, 4.0])
    assert found.steepest == pytest.approx(1e-3)  # falls by 2.0 - 1.2 before and 1.2 - 1.0 after
    assert found.valley == pytest.approx(1e-3)  # of 2.31 (or 2.3), 2.2, 2.0, 1.2, 1.0
    assert (found.rates, found.losses[0]) == (tuple(rates), 2.3)


def test_a_chance_fall_of_the_first_losses_is_not_the_steepest() -> None:
    rates = [1e-6 * 2**step for step in range(20)]
    losses = [4.0, 3.0, *(3.0 - 0.05 * step for step in range(18))]
    losses[15:] = [1.8, 1.3, 1.2, 1.1, 1.0]
    assert suggest(rates, losses).steepest == pytest.approx(rates[15])
    early = suggest([1e-6 * 1.1**step for step in range(90)], [3.0, 2.0, 1.0, *[2.0] * 87])
    assert early.steepest == pytest.approx(1e-6 * 1.1**2)


@pytest.mark.parametrize("losses", [[], [1.0], [1.0, 1.1, 1.2, 1.3], [1.0, 0.9]])
def test_losses_that_do_not_fall(losses: list[float]) -> None:
    with pytest.raises(UserError, match="no rate from 1e-06 to 10 lowers the loss"):
        suggest([1e-6 * 10**step for step in range(len(losses))], losses)

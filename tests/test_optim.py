"""Optimizers by name, their groups of layers, and learning rate schedules."""

import math
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pipeline.errors import UserError
from pipeline.models import networks
from pipeline.models.blocks import Network
from pipeline.recipes.recipe import Schedule, Stage
from pipeline.training import optim

NAMES = [
    name
    for name, kind in vars(torch.optim).items()
    if isinstance(kind, type)
    and issubclass(kind, torch.optim.Optimizer)
    and kind is not torch.optim.Optimizer
    and name not in optim.UNSUITABLE
]
SCHEDULES = get_args(Schedule)


def network() -> Network:
    return networks.build("small", 4, seed=0)


def stage(**changes: Any) -> Stage:
    return Stage(**{"size": 16, "epochs": 1, "learning_rate": 1e-2, **changes})


def step(net: nn.Module, optimizer: torch.optim.Optimizer) -> set[str]:
    """Take a step downhill; return the names of the weights that moved."""
    before = {name: weight.detach().clone() for name, weight in net.named_parameters()}
    net(torch.rand(8, 1, 16, 16)).logsumexp(dim=1).sum().backward()
    optimizer.step()
    return {
        name for name, weight in net.named_parameters() if not torch.equal(weight, before[name])
    }


def test_the_usual_optimizers_are_suitable() -> None:
    assert {"SGD", "Adam", "AdamW", "RMSprop", "NAdam"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_of_any_optimizer_moves_every_weight(name: str) -> None:
    net = network()
    moved = step(net, optim.build(net, stage(optimizer=name)))
    assert moved == {name for name, _ in net.named_parameters()}
    assert all(weight.isfinite().all() for weight in net.parameters())


@pytest.mark.parametrize(
    "name", [*optim.UNSUITABLE, "Optimizer", "adamw", "lr_scheduler", "Tensor"]
)
def test_names_of_no_suitable_optimizer_are_rejected(name: str) -> None:
    with pytest.raises(UserError, match=f"optimizer: got '{name}', expected Muon or one of"):
        optim.build(network(), stage(optimizer=name))


@pytest.mark.parametrize(
    ("options", "says"),
    [({"speed": 3}, "speed"), ({"betas": (2.0, 0.9)}, "beta"), ({"foreach": True}, "foreach")],
)
def test_options_that_the_optimizer_refuses(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=f"optimizer AdamW: .*{says}") as caught:
        optim.build(network(), stage(options=options))
    assert "\n" not in str(caught.value)


def test_optimizers_without_weight_decay_are_known() -> None:
    assert optim.takes_weight_decay("Muon")
    assert optim.takes_weight_decay("AdamW")
    assert not optim.takes_weight_decay("Rprop")
    with pytest.raises(UserError, match="optimizer: got 'Adamm'"):
        optim.takes_weight_decay("Adamm")


def test_options_reach_the_optimizer() -> None:
    built = optim.build(network(), stage(optimizer="SGD", options={"momentum": 0.9}))
    assert {group["momentum"] for group in built.param_groups} == {0.9}


@pytest.mark.parametrize(
    ("learning_rate", "expected"),
    [
        (0.1, (0.1, 0.1, 0.1)),
        ((1e-4, 1e-2), (1e-4, 1e-3, 1e-2)),
        ((6e-7, 1e-3), (6e-7, math.sqrt(6e-7 * 1e-3), 1e-3)),
        ((1e-6, 1e-4, 7e-4), (1e-6, 1e-4, 7e-4)),
    ],
)
def test_every_group_of_layers_has_its_learning_rate(
    learning_rate: float | tuple[float, ...], expected: tuple[float, ...]
) -> None:
    net = network()
    built = optim.build(net, stage(learning_rate=learning_rate))
    rates = {id(p): group["top"] for group in built.param_groups for p in group["params"]}
    assert all(group["lr"] == group["top"] for group in built.param_groups)
    for layers, rate in zip((net.stem, net.body, net.head), expected, strict=True):
        assert [rates[id(p)] for p in layers.parameters()] == pytest.approx(
            [rate] * len(list(layers.parameters()))
        )


def test_only_weights_decay() -> None:
    net = network()
    built = optim.build(net, stage(weight_decay=0.3))
    decays = {id(p): group["weight_decay"] for group in built.param_groups for p in group["params"]}
    assert {p.ndim > 1: decays[id(p)] for p in net.parameters()} == {True: 0.3, False: 0.0}
    assert len(decays) == len(list(net.parameters()))


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_frozen_groups_only_update_their_statistics(frozen: int) -> None:
    net = network()
    mean = "stem.0.1.running_mean"
    before = net.state_dict()[mean].clone()
    moved = step(net, optim.build(net, stage(frozen=frozen, weight_decay=0.5)))
    assert {name.split(".")[0] for name in moved} == set(("stem", "body", "head")[frozen:])
    assert not torch.equal(net.state_dict()[mean], before)
    learning = {name for name, weight in net.named_parameters() if weight.grad is not None}
    assert learning == moved  # no gradient is computed in vain


def test_frozen_layers_train_again_in_the_next_stage() -> None:
    net = network()
    optim.build(net, stage(frozen=2))
    moved = step(net, optim.build(net, stage()))
    assert moved == {name for name, _ in net.named_parameters()}


def test_a_network_without_the_three_groups_is_rejected() -> None:
    with pytest.raises(UserError, match="a stem, a body and a head"):
        optim.build(nn.Sequential(nn.Linear(2, 2)), stage())


steps = st.integers(1, 10_000)
warm_ups = st.floats(0, 0.99)


@given(steps, warm_ups, st.sampled_from(SCHEDULES))
def test_a_schedule_rises_over_its_warm_up_and_never_after(
    steps: int, warm_up: float, schedule: Schedule
) -> None:
    factors = [optim.lr_factor(schedule, step, steps, warm_up) for step in range(min(steps, 300))]
    assert all(0 < factor <= 1 for factor in factors)
    peak = sum(step < warm_up * steps for step in range(len(factors)))
    rise, fall = factors[:peak], factors[peak:]
    assert rise == sorted(rise)
    assert fall == sorted(fall, reverse=True)


@given(st.integers(0, 99), st.integers(1, 50), st.sampled_from(SCHEDULES))
def test_the_peak_comes_when_the_warm_up_is_over(
    percent: int, hundreds: int, schedule: Schedule
) -> None:
    at = percent * hundreds
    factor = optim.lr_factor(schedule, at, 100 * hundreds, at / (100 * hundreds))
    assert factor == pytest.approx(1, abs=1e-9)


@given(steps, warm_ups)
def test_a_constant_schedule_is_constant(steps: int, warm_up: float) -> None:
    first = math.ceil(warm_up * steps)
    factors = {optim.lr_factor("constant", s, steps, warm_up) for s in range(first, steps, 97)}
    assert factors <= {1.0}


@given(steps)
def test_without_warm_up_the_cosine_is_that_of_torch(steps: int) -> None:
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(min(steps, 50)):
        ours = optim.lr_factor("cosine", step, steps, warm_up=0)
        assert ours == pytest.approx(theirs.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        theirs.step()


def test_the_cycle_starts_at_a_twenty_fifth_and_ends_at_a_ten_thousandth() -> None:
    cycle = [optim.lr_factor("one-cycle", step, 1000, 0.25) for step in range(1000)]
    assert cycle[0] == 1 / 25
    assert cycle[125] == pytest.approx((1 / 25 + 1) / 2)
    assert cycle[250] == 1
    assert cycle[625] == pytest.approx((1 + 1e-4) / 2)
    assert cycle[-1] == pytest.approx(1e-4, abs=1e-5)


def test_the_linear_schedule_ends_one_step_above_zero() -> None:
    line = [optim.lr_factor("linear", step, 8, 0) for step in range(8)]
    assert line == pytest.approx([1 - step / 8 for step in range(8)])
    warmed = [optim.lr_factor("linear", step, 8, 0.5) for step in range(8)]
    assert warmed[4:] == pytest.approx([1, 0.75, 0.5, 0.25])


def test_the_first_steps_of_a_stage_are_at_a_fraction_of_its_rate() -> None:
    warm = stage(schedule="constant", warm_up=0, warm_up_steps=3, warm_up_factor=0.01)
    assert [optim.stage_lr_factor(warm, step, 6) for step in range(6)] == [0.01] * 3 + [1] * 3
    falling = stage(schedule="linear", warm_up=0, warm_up_steps=2, warm_up_factor=0.5)
    factors = [optim.stage_lr_factor(falling, step, 4) for step in range(4)]
    assert factors == pytest.approx([0.5, 0.5, 0.5, 0.25])


@given(steps, warm_ups, st.sampled_from(SCHEDULES))
def test_a_stage_without_such_steps_has_its_schedule(
    steps: int, warm_up: float, schedule: Schedule
) -> None:
    plain = stage(schedule=schedule, warm_up=warm_up)
    for step in range(0, steps, 97):
        factor = optim.lr_factor(schedule, step, steps, warm_up)
        assert optim.stage_lr_factor(plain, step, steps) == factor

"""Optimizers by name, with a learning rate per group of layers, and learning rate schedules.

A learning rate is a function of stage and step alone, so a checkpoint holds no schedule.
"""

import inspect
import math
from collections.abc import Sequence

import torch
from torch import nn

from pipeline.errors import UserError
from pipeline.recipes.recipe import Schedule, Stage
from pipeline.training.optim.muon import Muon

# They need a closure, or sparse gradients.
UNSUITABLE = ("LBFGS", "SparseAdam")


def build(network: nn.Module, stage: Stage) -> torch.optim.Optimizer:
    """Return a stage's optimizer of a network; freeze the groups of layers that it leaves out.

    Each parameter group stores its peak learning rate as "top". "Muon" is
    `pipeline.training.optim.muon`, because torch's only takes matrices. Raises UserError for other
    names that torch.optim does not have, and for options that the optimizer refuses.
    """
    kind = _kind(stage.optimizer)
    accepted = inspect.signature(kind).parameters
    options = dict(stage.options)
    if "fused" in accepted:  # one pass over the weights
        options = {"fused": True, **options}
    try:
        return kind(_parameter_groups(network, stage, "weight_decay" in accepted), **options)
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"optimizer {stage.optimizer}: {error}") from error


def takes_weight_decay(name: str) -> bool:
    """Return whether an optimizer has a weight decay. Raises UserError as `build` does."""
    return "weight_decay" in inspect.signature(_kind(name)).parameters


def _kind(name: str) -> type[torch.optim.Optimizer]:
    kind = Muon if name == "Muon" else getattr(torch.optim, name, None)
    if (
        not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer))
        or kind is torch.optim.Optimizer
        or name in UNSUITABLE
    ):
        raise UserError(f"optimizer: got {name!r}, expected Muon or one of torch.optim by name")
    return kind


def _parameter_groups(
    network: nn.Module, stage: Stage, takes_decay: bool
) -> list[dict[str, list[nn.Parameter] | float]]:
    groups: list[dict[str, list[nn.Parameter] | float]] = []
    for number, (layers, lr) in enumerate(zip(layer_groups(network), stage.rates, strict=True)):
        parameters = list(layers.parameters())
        for parameter in parameters:
            parameter.requires_grad_(number >= stage.frozen)
        if number < stage.frozen:
            continue
        for decays in (True, False):  # weights decay, biases and normalisation do not
            chosen = [p for p in parameters if (p.ndim > 1) == decays]
            if not chosen:
                continue
            group: dict[str, list[nn.Parameter] | float] = {"params": chosen, "lr": lr, "top": lr}
            if takes_decay:
                group["weight_decay"] = stage.weight_decay if decays else 0.0
            groups.append(group)
    return groups


def layer_groups(network: nn.Module) -> Sequence[nn.Module]:
    """Return stem, body and head. Raises UserError for a network that lacks one."""
    groups = [getattr(network, name, None) for name in ("stem", "body", "head")]
    if not all(isinstance(group, nn.Module) for group in groups):
        raise UserError("network: expected one with a stem, a body and a head")
    return [group for group in groups if group is not None]


def lr_factor(schedule: Schedule, step: int, steps: int, warm_up: float) -> float:
    """Return the fraction of the peak learning rate for a step, the first being 0, of `steps`.

    "one-cycle" rises from 1/25 to 1 and falls to 1e-4, both along half a cosine (Smith and Topin
    2018, as fastai shaped it). The others rise linearly; then "cosine" falls to 0 along half a
    cosine (Loshchilov and Hutter 2017), and "linear" along a line.
    """
    peak = warm_up * steps
    if step < peak:
        return (
            1 / 25 + (1 - 1 / 25) * _half_cosine(step / peak)
            if schedule == "one-cycle"
            else (step + 1) / (peak + 1)
        )
    if schedule == "constant":
        return 1.0
    if schedule == "linear":
        return (steps - step) / (steps - peak)
    lowest = 1e-4 if schedule == "one-cycle" else 0.0
    return lowest + (1 - lowest) * (1 - _half_cosine((step - peak) / (steps - peak)))


def stage_lr_factor(stage: Stage, step: int, steps: int) -> float:
    """Return the fraction of a stage's peak learning rate for a step of its `steps`."""
    if step < stage.warm_up_steps:
        return stage.warm_up_factor
    return lr_factor(stage.schedule, step, steps, stage.warm_up)


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every learning rate of an optimizer to a fraction of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["top"] * factor


def _half_cosine(fraction: float) -> float:
    return (1 - math.cos(math.pi * fraction)) / 2

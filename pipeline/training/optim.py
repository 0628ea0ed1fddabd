"""Optimizers by name, over a network's groups of layers, and learning rates as pure functions.

A learning rate is a function of (stage, step) alone, so there is no state of a schedule to keep.
"""

import inspect
import math
from collections.abc import Sequence

import torch
from torch import nn

from pipeline.errors import UserError
from pipeline.recipes.recipe import Schedule, Stage
from pipeline.training.muon import Muon

# Need a closure, or gradients that networks here do not have.
UNSUITABLE = ("LBFGS", "SparseAdam")


def build(network: nn.Module, stage: Stage) -> torch.optim.Optimizer:
    """Return a stage's optimizer of what learns in a network; freeze the rest.

    Its parameter groups carry "top", the highest learning rate. "Muon" is `pipeline.muon`'s, since
    torch's takes no weights but matrices. Raises UserError for another name that torch.optim does
    not have, and for arguments that it refuses.
    """
    kind = Muon if stage.optimizer == "Muon" else getattr(torch.optim, stage.optimizer, None)
    if (
        not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer))
        or kind is torch.optim.Optimizer
        or stage.optimizer in UNSUITABLE
    ):
        raise UserError(f"optimizer: got {stage.optimizer!r}, expected one of torch.optim by name")
    takes = inspect.signature(kind).parameters
    options = dict(stage.options)
    if "fused" in takes:  # one pass over the weights
        options = {"fused": True, **options}
    try:
        return kind(_parameter_groups(network, stage, "weight_decay" in takes), **options)
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"optimizer {stage.optimizer}: {error}") from error


def _parameter_groups(
    network: nn.Module, stage: Stage, decays: bool
) -> list[dict[str, list[nn.Parameter] | float]]:
    groups: list[dict[str, list[nn.Parameter] | float]] = []
    for number, (layers, rate) in enumerate(zip(layer_groups(network), stage.rates, strict=True)):
        parameters = list(layers.parameters())
        for parameter in parameters:
            parameter.requires_grad_(number >= stage.frozen)
        if number < stage.frozen:
            continue
        for wanted in (True, False):  # weights, which decay; biases and normalisation
            some = [p for p in parameters if (p.ndim > 1) == wanted]
            if not some:
                continue
            group: dict[str, list[nn.Parameter] | float] = {"params": some, "lr": rate, "top": rate}
            if decays:
                group["weight_decay"] = stage.weight_decay if wanted else 0.0
            groups.append(group)
    return groups


def layer_groups(network: nn.Module) -> Sequence[nn.Module]:
    """Return stem, body and head. Raises UserError for a network without them."""
    groups = [getattr(network, name, None) for name in ("stem", "body", "head")]
    if not all(isinstance(group, nn.Module) for group in groups):
        raise UserError("network: expected one with a stem, a body and a head")
    return [group for group in groups if group is not None]


def factor(schedule: Schedule, step: int, steps: int, warm_up: float) -> float:
    """Return the share of the highest learning rate to use in one of so many steps.

    One cycle goes from 1/25 to 1 and to 1e-4, both ways by half a cosine (Smith and Topin 2018, as
    fastai shaped it). The others rise in a straight line; "cosine" then falls by half a cosine to
    0 (Loshchilov and Hutter 2017).
    """
    top = warm_up * steps
    if step < top:
        return (
            1 / 25 + (1 - 1 / 25) * _ease(step / top)
            if schedule == "one-cycle"
            else (step + 1) / (top + 1)
        )
    if schedule == "constant":
        return 1.0
    lowest = 1e-4 if schedule == "one-cycle" else 0.0
    return lowest + (1 - lowest) * (1 - _ease((step - top) / (steps - top)))


def _ease(part: float) -> float:
    return (1 - math.cos(math.pi * part)) / 2

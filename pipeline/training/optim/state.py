"""Loading the state of an optimizer that may be of a damaged file, or of a stranger's."""

import copy
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pipeline.errors import UserError

Kinds = dict[int, dict[str, Any]]  # by parameter and name: shape and dtype, None for plain numbers


def load_state(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Load an optimizer's `state_dict`; the options of its groups stay those of the optimizer.

    Raises UserError unless it has the tensors that a step of this optimizer makes: fused kernels do
    not check shapes, and would write to memory of others.
    """
    found, own = state.get("state"), optimizer.state_dict()
    if not isinstance(found, dict) or not all(isinstance(one, dict) for one in found.values()):
        raise UserError("checkpoint: got no state of an optimizer")
    expected = _kinds_after_step(optimizer)
    for number, kinds in _kinds(found).items():
        if kinds != expected.get(number):
            raise UserError(
                f"checkpoint: the optimizer's state of parameter {number} does not fit the recipe; "
                "resume the run with its own recipe"
            )
    optimizer.load_state_dict({"state": found, "param_groups": own["param_groups"]})


def _kinds_after_step(optimizer: Optimizer) -> Kinds:
    """Return what a step makes, of tensors without values; some optimizers need values."""
    try:
        return _probe(optimizer, "meta")
    except RuntimeError:
        return _probe(optimizer, "cpu")


def _probe(optimizer: Optimizer, device: str) -> Kinds:
    probe = copy.copy(optimizer)
    probe.state = defaultdict(dict)
    probe.param_groups = []
    for group in optimizer.param_groups:
        parameters = [nn.Parameter(torch.zeros_like(p, device=device)) for p in group["params"]]
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        options: dict[str, Any] = {name: False for name in ("fused", "capturable") if name in group}
        probe.param_groups.append({**group, **options, "params": parameters})
    probe.step()
    return _kinds(probe.state_dict()["state"])


def _kinds(state: Mapping[int, Mapping[str, Any]]) -> Kinds:
    def kind(value: object) -> object:
        if isinstance(value, Tensor):
            return tuple(value.shape), value.dtype
        return None if value is None or isinstance(value, int | float) else type(value)

    return {
        number: {name: kind(value) for name, value in one.items()} for number, one in state.items()
    }

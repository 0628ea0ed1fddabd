"""An exponential moving average of a network's weights, to be validated and saved."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Weights = tuple[Tensor, ...] | list[Tensor]


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """Return a moving average of a network's weights, whose decay is smaller in the first steps."""

    def update(averages: Weights, weights: Weights, count: Tensor | int) -> None:
        if averages[0].is_floating_point():
            step_decay = min(decay, (1 + int(count)) / (10 + int(count)))
            torch._foreach_lerp_(averages, weights, 1 - step_decay)
        else:  # batch normalisation's number of batches
            torch._foreach_copy_(averages, weights)

    return AveragedModel(network, multi_avg_fn=update, use_buffers=True)
